"""NBD URIs: export names in them, what is no URI, and nbds where there is no TLS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_probe import Deed, Ending, probe_of
from nbdtest.conformance.client_target import ClientTarget, Seen
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.verdict import Complaint
from nbdtest.errors import PeerViolation
from nbdtest.fakeserver import FakeServer, Quirks, Style
from nbdtest.wire import InfoRequest, Opt

_ANY_NAME: dict[str, Any] = {"quirks": Quirks(serves_unknown_exports=True)}
_IN_CLEAR = (Opt.GO, Opt.INFO, Opt.LIST, Opt.EXPORT_NAME, Opt.SET_META_CONTEXT, Opt.LIST_META_CONTEXT)


def _nothing(server: FakeServer) -> None:
    """A server without rules."""


def opened(seen: Seen) -> str | None:
    """The name of the export that the client asked for, None if it asked for none."""
    for talk in seen.talks:
        for option in talk.options:
            if option.option == Opt.EXPORT_NAME:
                return option.data.decode("utf-8", "surrogateescape")
            if option.option in (Opt.GO, Opt.INFO):
                try:
                    return InfoRequest.decode(option.data).name
                except PeerViolation:
                    return None
    return None


def at(path: str, *, scheme: str = "nbd+unix", authority: bool = True) -> Callable[[FakeServer], str]:
    """The URI of the server's socket with this path, written as it is."""
    slashes = "//" if authority else ""
    return lambda server: f"{scheme}:{slashes}{path}?socket={quote(server.path)}"


def means(id: str, doc: str, proves: Sequence[str], *rows: tuple[str, str], scheme: str = "nbd+unix") -> Check:
    """These paths mean these export names."""

    @check(
        f"client-uri.{id}",
        proves=proves,
        legal=True,
        needs=[Ability.SUCCEEDS, Ability.URI, Ability.OPENS],
        role="client",
        doc=doc,
    )
    def run(t: ClientTarget) -> None:
        for path, name in rows:
            seen = t.probe(_nothing, legal=True, uri=at(path, scheme=scheme), **_ANY_NAME)
            asked = opened(seen)
            if asked != name:
                what = f"the export {asked!r}" if asked is not None else f"no export: {seen.ending}"
                raise Complaint(f"for a URI with the path {path!r} the client opens {what}", repr(name))

    return run


NAMES = (
    means(
        "name-without-slash",
        "The path without its leading slash is the export name.",
        ["URI-021"],
        ("/disk", "disk"),
        ("/a.b-c_d~e", "a.b-c_d~e"),
    ),
    means("no-name", "A path of a slash, and no path, mean the default export.", ["URI-022"], ("/", ""), ("", "")),
    means("second-slash", "A second slash belongs to the name.", ["URI-023"], ("//disk", "/disk"), ("/a/b", "a/b")),
    means(
        "percent-decoding",
        "Percent-encoded characters are decoded, in capitals or not.",
        ["URI-002"],
        ("/a%2Fb%20c", "a/b c"),
        ("/a%2fb%3fc", "a/b?c"),
        ("/100%25", "100%"),
    ),
    means(
        "unicode-names",
        "Names are Unicode.",
        ["URI-024"],
        ("/%C3%A9%E4%B8%96", "\N{LATIN SMALL LETTER E WITH ACUTE}\u4e16"),
    ),
    means(
        "no-normalisation",
        "Names are no paths: dots are not resolved.",
        ["URI-024"],
        ("/a/../b", "a/../b"),
        ("/./c", "./c"),
    ),
    means(
        "scheme-in-capitals",
        "The case of the scheme does not matter.",
        ["URI-004"],
        ("/disk", "disk"),
        scheme="NBD+UNIX",
    ),
)


def _never_connected(t: ClientTarget, seen: Seen) -> None:
    if seen.talks:
        raise Complaint("the client connects", "an error before any connection")


def refused(id: str, doc: str, proves: Sequence[str], uri: Callable[[FakeServer], str]) -> Check:
    """This is no URI to go by."""
    return probe_of(
        f"client-uri.{id}",
        doc,
        _nothing,
        proves=proves,
        legal=True,
        ending=Ending.FAILURE,
        needs=[Ability.URI],
        uri=uri,
        judge=_never_connected,
        settings=_ANY_NAME,
    )


REFUSED = (
    refused(
        "unix-without-socket",
        "A URI with a Unix scheme and no socket is refused.",
        ["URI-007", "URI-025"],
        lambda server: "nbd+unix:///disk",
    ),
    refused(
        "malformed",
        "What is no URI is refused.",
        ["URI-001"],
        lambda server: f"nbd+unix:///%zz?socket={quote(server.path)}",
    ),
)


def _no_nul(t: ClientTarget, seen: Seen) -> None:
    name = opened(seen)
    if name is not None:
        raise Complaint(f"for %00 in the name the client opens {name!r}", "a refusal")


NUL = probe_of(
    "client-uri.nul-in-the-name",
    "A name with a NUL is refused: it is neither sent nor cut short.",
    _nothing,
    proves=["URI-024", "CONV-004"],
    legal=True,
    ending=Ending.FAILURE,
    needs=[Ability.URI, Ability.OPENS],
    uri=at("/a%00b"),
    judge=_no_nul,
    settings=_ANY_NAME,
)


def _nothing_in_clear(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks:
        sent = [option.option for option in talk.options if option.option in _IN_CLEAR]
        if sent or talk.requests:
            what = sent[0] if sent else talk.requests[0].type
            raise Complaint(f"the client was told to use TLS, and sends {what} in the clear", "the end")


def insists(id: str, doc: str, *deeds: Deed, **settings: object) -> Check:
    """With nbds the client does nothing in the clear."""
    return probe_of(
        f"client-uri.{id}",
        doc,
        *(deeds or (_nothing,)),
        proves=["URI-008", "URI-006", "URI-011", "TLS-058", "TLS-076"],
        legal=True,
        ending=Ending.FAILURE,
        needs=[Ability.URI],
        uri=at("/", scheme="nbds+unix"),
        judge=_nothing_in_clear,
        settings=settings,
    )


TLS = (
    insists("nbds-without-tls", "A client that was told to use TLS gives up where STARTTLS is refused."),
    insists(
        "nbds-without-fixed-newstyle",
        "A client that was told to use TLS gives up where options are not possible.",
        style=Style.NEWSTYLE,
    ),
    insists(
        "nbds-with-oldstyle",
        "A client that was told to use TLS gives up at an oldstyle greeting.",
        style=Style.OLDSTYLE,
    ),
)
