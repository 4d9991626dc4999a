"""Greetings that are unusual, and greetings that are none."""

from __future__ import annotations

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_probe import Deed, Ending, probe_of
from nbdtest.conformance.client_target import ClientTarget, Seen
from nbdtest.conformance.verdict import Complaint
from nbdtest.fakeserver import FakeServer, Moment, Style, greeting, raw
from nbdtest.report.results import Level
from nbdtest.wire import CLISERV_MAGIC, NBD_MAGIC, OPTION_MAGIC, HandshakeFlag, Opt

NEGOTIATES = (Ability.NEGOTIATES,)
_LONG_ENOUGH = 152
"""As long as the longest greeting, so that no client has to wait for more before it can tell."""


def greets(flags: int) -> Deed:
    """Greet with these handshake flags."""

    def change(server: FakeServer) -> None:
        server.on(Moment.GREETING).reply(greeting(flags=HandshakeFlag(flags)))

    return change


def begins(data: bytes) -> Deed:
    """Send these bytes in place of a greeting."""

    def change(server: FakeServer) -> None:
        server.on(Moment.GREETING).reply(raw(data.ljust(_LONG_ENOUGH, b"\0")))

    return change


def nothing(server: FakeServer) -> None:
    """Leave the server as it is."""


def _no_echo(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks:
        if talk.flags is not None and int(talk.flags) & ~3:
            raise Complaint(f"the client flags are {talk.flags}", "no unknown bit", requirement="HS-036")


def _only_export_name(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks:
        if talk.options and {option.option for option in talk.options} != {Opt.EXPORT_NAME}:
            sent = ", ".join(str(option.option) for option in talk.options)
            raise Complaint(f"without fixed newstyle the client sends {sent}", "OPT_EXPORT_NAME", requirement="HS-013")


def _no_option(t: ClientTarget, seen: Seen) -> None:
    for noted in seen.violations:
        if noted.violation.requirement in ("OPT-107", "REQ-001"):
            raise Complaint(noted.violation.text, "a request, or the end of the connection")


UNKNOWN_BITS = probe_of(
    "client-greeting.unknown-bits-are-ignored",
    "Handshake flags that the client does not know are ignored, and not sent back.",
    *map(greets, (0x0007, 0x8003, 0xFFFF)),
    proves=["HS-011", "HS-036", "HS-018"],
    legal=False,
    ending=Ending.SUCCESS,
    needs=NEGOTIATES,
    judge=_no_echo,
)
WITHOUT_NO_ZEROES = probe_of(
    "client-greeting.without-no-zeroes",
    "A client copes with a server that does not offer NO_ZEROES, also where it falls back to EXPORT_NAME.",
    nothing,
    proves=["HS-035"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[*NEGOTIATES, Ability.WORKS_SIMPLE],
    settings={"no_zeroes": False, "info_and_go": False, "extended_headers": False},
)
WITHOUT_FIXED = probe_of(
    "client-greeting.without-fixed-newstyle",
    "Without fixed newstyle EXPORT_NAME is the only option, and the client sends it or gives up.",
    nothing,
    proves=["HS-013", "OPT-030", "OPT-032"],
    legal=True,
    ending=Ending.ANY,
    needs=NEGOTIATES,
    judge=_only_export_name,
    settings={"style": Style.NEWSTYLE},
)
OLDSTYLE = probe_of(
    "client-greeting.oldstyle",
    "To an oldstyle greeting the client sends requests at once, or it disconnects; it sends no flags and no options.",
    nothing,
    proves=["OLD-007"],
    legal=True,
    ending=Ending.ANY,
    needs=NEGOTIATES,
    judge=_no_option,
    settings={"style": Style.OLDSTYLE},
)
WRONG_MAGIC = probe_of(
    "client-greeting.wrong-first-magic",
    "What does not begin with NBDMAGIC is no NBD server.",
    begins(b""),
    begins(b"HTTP/1.0 400 Bad Request\r\n\r\n"),
    begins(NBD_MAGIC.to_bytes(8, "little") + OPTION_MAGIC.to_bytes(8, "little")),
    proves=["HS-007", "CONV-001"],
    legal=False,
    ending=Ending.FAILURE,
    needs=NEGOTIATES,
    level=Level.SHOULD,
)
WRONG_STYLE = probe_of(
    "client-greeting.wrong-second-magic",
    "The second word of a greeting is one of two magics.",
    begins(NBD_MAGIC.to_bytes(8, "big")),
    begins(NBD_MAGIC.to_bytes(8, "big") + (OPTION_MAGIC ^ 1).to_bytes(8, "big") + b"\0\3"),
    begins(NBD_MAGIC.to_bytes(8, "big") + (CLISERV_MAGIC ^ 1).to_bytes(8, "big") + b"\0\0\0\0\0\x20\0\0"),
    proves=["HS-008", "OLD-002"],
    legal=False,
    ending=Ending.FAILURE,
    needs=NEGOTIATES,
    level=Level.SHOULD,
)
