"""How a client behaves on a fixed spread of servers, gathered once per target.

Rules about the form of what a client sends hold on every server, so they are judged on these sessions. What the client
can do follows from them too. Every server here is correct; some have to refuse or fail what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbdtest.conformance.ability import Ability
from nbdtest.fakeserver import BlockSizes, FakeServer, Style, TLSMode, close, error, opt_error
from nbdtest.wire import Cmd, Errno, Opt, Rep

if TYPE_CHECKING:
    from nbdtest.conformance.client_target import ClientTarget, Seen
    from nbdtest.conformance.talk import AnyRequest

__all__ = ["MODES", "SHOWN", "ClientGallery"]

MODES: Mapping[str, Mapping[str, bool]] = {
    "simple": {"structured_replies": False, "extended_headers": False},
    "structured": {"extended_headers": False},
    "extended": {},
}
"""The settings of a server under which replies have one form at most."""


def _nothing(server: FakeServer) -> None:
    """A server without rules."""


def _refuses(server: FakeServer) -> None:
    for option in (Opt.GO, Opt.INFO, Opt.SET_META_CONTEXT, Opt.LIST_META_CONTEXT):
        server.on(option).reply(opt_error(Rep.ERR_UNKNOWN, "no such export"))
    server.on(Opt.EXPORT_NAME).reply(close())


def _fails(*commands: Cmd) -> Callable[[FakeServer], None]:
    def change(server: FakeServer) -> None:
        for command in commands:
            server.on(command).reply(error(Errno.EIO, message="this disk is broken"))

    return change


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One server of the spread: what is special about it."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[FakeServer], None] = _nothing


_FEATURES = ("multi_conn", "can_flush", "can_fua", "can_trim", "can_zero", "can_fast_zero", "can_cache", "can_df")
ODD_SIZE = (1 << 20) + 512

SHOWN: Mapping[str, Shown] = {
    "full": Shown(),
    "structured": Shown(settings=MODES["structured"]),
    "simple": Shown(settings=MODES["simple"]),
    "bare": Shown(
        settings={**MODES["simple"], "info_and_go": False, "meta_contexts": False, "no_zeroes": False},
        export=dict.fromkeys(_FEATURES, False),
    ),
    "few flags": Shown(export=dict.fromkeys(_FEATURES, False)),
    "no fast zeroes": Shown(export={"can_fast_zero": False, "can_df": False}),
    "no contexts": Shown(export={"contexts": ()}),
    "newstyle without fixed": Shown(settings={"style": Style.NEWSTYLE}),
    "blocks of 4096": Shown(export={"block_sizes": BlockSizes(minimum=4096, preferred=65536, maximum=131072)}),
    "odd size": Shown(export={"size": ODD_SIZE}),
    "read-only": Shown(export={"read_only": True}),
    "TLS required": Shown(settings={"tls_mode": TLSMode.REQUIRED}),
    "refusal": Shown(change=_refuses),
    "read errors": Shown(change=_fails(Cmd.READ)),
    "write errors": Shown(change=_fails(Cmd.WRITE, Cmd.WRITE_ZEROES, Cmd.TRIM)),
    "status errors": Shown(change=_fails(Cmd.BLOCK_STATUS)),
}
"""The spread, by name."""

HONEST = tuple(name for name, shown in SHOWN.items() if shown.change is _nothing)
"""The servers that answer everything as the correct server does."""


class ClientGallery:
    """What one client did. Runs are made when they are first looked at."""

    def __init__(self, target: ClientTarget) -> None:
        self._target = target
        self._seen: dict[str, Seen] = {}
        self._abilities: frozenset[Ability] | None = None

    def seen(self, name: str) -> Seen:
        """The run on the server of this name."""
        if name not in self._seen:
            shown = SHOWN[name]
            self._seen[name] = self._target.observe(shown.change, export=shown.export, **shown.settings)
        return self._seen[name]

    def __iter__(self) -> Iterator[tuple[str, Seen]]:
        """Every run, by name."""
        for name in SHOWN:
            yield name, self.seen(name)

    def requests(self, *commands: Cmd) -> Iterator[tuple[Seen, AnyRequest]]:
        """Every request, or those for these commands, with its run."""
        for _, seen in self:
            for talk in seen.talks:
                for request in talk.requests:
                    if not commands or request.type in commands:
                        yield seen, request

    def known_violations(self) -> frozenset[str]:
        """The requirements that the client breaks without any provocation."""
        return frozenset(noted.violation.requirement for _, seen in self for noted in seen.violations)

    @property
    def abilities(self) -> frozenset[Ability]:
        """What the client does."""
        if self._abilities is None:
            self._abilities = frozenset(self._found())
        return self._abilities

    def _found(self) -> Iterator[Ability]:
        full, simple = self.seen("full"), self.seen("simple")
        plain = [self.seen(name) for name in ("full", "structured", "simple")]
        if full.succeeded:
            yield Ability.SUCCEEDS
        if simple.succeeded:
            yield Ability.WORKS_SIMPLE
        for ability, sent in _SENDS.items():
            if any(talk.sent(what) for seen in plain for talk in seen.talks for what in sent):
                yield ability
        if any(talk.sent(Opt.ABORT) for seen in (full, self.seen("refusal")) for talk in seen.talks):
            yield Ability.ABORT
        if any(talk.requests for talk in full.talks):
            yield Ability.TRANSMITS
        if full.opened:
            yield Ability.OPENS
        if self.seen("bare").talks and any(talk.sent(Opt.EXPORT_NAME) for talk in self.seen("bare").talks):
            yield Ability.FALLS_BACK
        if full.succeeded and full.file == self._target.disk_contents:
            yield Ability.DOWNLOADS
        elif full.succeeded and full.disk == self._target.file_contents:
            yield Ability.UPLOADS
        for ability, name in _TELLS.items():
            if full.succeeded and not self.seen(name).succeeded:
                yield ability
        if self._target.source.takes_uri:
            yield Ability.URI
        if self._target.source.tls is not None:
            yield Ability.TLS


_SENDS: Mapping[Ability, tuple[Opt | Cmd, ...]] = {
    Ability.NEGOTIATES: tuple(Opt),
    Ability.GO: (Opt.GO,),
    Ability.INFO: (Opt.INFO,),
    Ability.LIST: (Opt.LIST,),
    Ability.STARTTLS: (Opt.STARTTLS,),
    Ability.STRUCTURED: (Opt.STRUCTURED_REPLY,),
    Ability.EXTENDED: (Opt.EXTENDED_HEADERS,),
    Ability.SET_META: (Opt.SET_META_CONTEXT,),
    Ability.LIST_META: (Opt.LIST_META_CONTEXT,),
    Ability.READ: (Cmd.READ,),
    Ability.WRITE: (Cmd.WRITE,),
    Ability.FLUSH: (Cmd.FLUSH,),
    Ability.TRIM: (Cmd.TRIM,),
    Ability.CACHE: (Cmd.CACHE,),
    Ability.WRITE_ZEROES: (Cmd.WRITE_ZEROES,),
    Ability.STATUS: (Cmd.BLOCK_STATUS,),
    Ability.DISC: (Cmd.DISC,),
}
_TELLS: Mapping[Ability, str] = {
    Ability.TELLS_REFUSAL: "refusal",
    Ability.TELLS_READ_ERROR: "read errors",
    Ability.TELLS_WRITE_ERROR: "write errors",
    Ability.TELLS_STATUS_ERROR: "status errors",
}
