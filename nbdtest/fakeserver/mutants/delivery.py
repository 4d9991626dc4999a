"""Mutants that mistake segments for messages, and that answer what nobody asked."""

from __future__ import annotations

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, Opt, Rep, SimpleReply

__all__: list[str] = []


@mutant(
    "delivery.headers-in-one-piece",
    breaks=["REQ-012", "OPT-010"],
    checks=[
        "delivery.handshake-by-bytes",
        "delivery.contexts-by-bytes",
        "delivery.requests-by-bytes",
        "delivery.options-by-bytes",
        "delivery.writes-by-bytes",
        "delivery.payload-in-pieces",
    ],
)
def headers_in_one_piece(server: FakeServer) -> None:
    """A header that arrives in several pieces ends the session."""
    server.configure(quirks={"takes_segments_for_headers"})


@mutant(
    "delivery.flags-alone",
    breaks=["OPT-010"],
    checks=["delivery.flags-and-option-at-once"],
    spoils="the network decides which options arrive together with the flags",
)
def flags_alone(server: FakeServer) -> None:
    """What comes in one segment with the client flags is lost."""
    server.configure(quirks={"forgets_what_follows_client_flags"})


@mutant(
    "delivery.twentieth-write-lost",
    breaks=["REQ-012"],
    checks=["delivery.many-writes-at-once", "data.shadow-copy", "data.overlapping-connections"],
)
def twentieth_write_lost(server: FakeServer) -> None:
    """The twentieth WRITE of a connection is not answered."""
    server.on(Cmd.WRITE, nth=20, per_connection=True).reply()


def _answered_twice(name: str, option: Opt, *others: str) -> None:
    @mutant(f"in-step.{name}-answered-twice", breaks=["COMPAT-006", "OPT-018"], checks=[f"in-step.{name}", *others])
    def twice(server: FakeServer) -> None:
        """One option with much surplus data is answered twice."""
        server.on(option, where=lambda asked: len(asked.data) > 100).pass_through().then(
            actions.opt_error(Rep.ERR_INVALID)
        )


_answered_twice("list", Opt.LIST)
_answered_twice("peek-export", Opt.PEEK_EXPORT)
_answered_twice("starttls", Opt.STARTTLS)
_answered_twice("structured-reply", Opt.STRUCTURED_REPLY)
_answered_twice("extended-headers", Opt.EXTENDED_HEADERS)
_answered_twice("info", Opt.INFO, "in-step.info-short-of-its-name", "go.takes-name-of-4096-bytes")
_answered_twice("list-meta-context", Opt.LIST_META_CONTEXT, "abuse.ten-thousand-queries")
_answered_twice(
    "set-meta-context", Opt.SET_META_CONTEXT, "in-step.set-meta-context-short-of-its-query", "meta.long-query"
)


@mutant("in-step.short-info-answered-twice", breaks=["OPT-018"], checks=["in-step.info-short-of-its-name"])
def short_info_answered_twice(server: FakeServer) -> None:
    """INFO whose name is cut off is answered twice."""
    server.on(Opt.INFO, where=lambda asked: asked.data[:4] == b"\0\0\xff\xff").pass_through().then(
        actions.opt_error(Rep.ERR_INVALID)
    )


@mutant(
    "in-step.short-query-answered-twice",
    breaks=["OPT-018"],
    checks=["in-step.set-meta-context-short-of-its-query"],
)
def short_query_answered_twice(server: FakeServer) -> None:
    """SET_META_CONTEXT whose query is cut off is answered twice."""
    server.on(Opt.SET_META_CONTEXT, where=lambda asked: asked.data[8:12] == b"\0\0\xff\xff").pass_through().then(
        actions.opt_error(Rep.ERR_INVALID)
    )


def _write_answered_twice(name: str, offset: int, flags: int, *others: str) -> None:
    @mutant(f"in-step.write-{name}-answered-twice", breaks=["CMD-064"], checks=[f"in-step.write-{name}", *others])
    def twice(server: FakeServer) -> None:
        """A refused WRITE is answered, and then what looks like a request in its payload."""
        server.on(
            Cmd.WRITE, where=lambda asked: asked.offset == offset and int(asked.flags) & 0x800E == flags
        ).pass_through().then(actions.raw(SimpleReply(cookie=0xBAD0_BAD0).encode()))


_write_answered_twice("at-2-to-the-63", 1 << 63, 0, "boundary.write", "command.write-errors-keep-the-session")
_write_answered_twice("at-the-last-offset", (1 << 64) - 512, 0, "boundary.write")
_write_answered_twice("with-unknown-flag", 0, 0x8000, "flag.unknown-on-write")
_write_answered_twice("with-flags-of-others", 0, 0x000E)


@mutant("in-step.meta-surplus-answered-twice", breaks=["META-055"], checks=["meta.surplus-is-invalid"])
def meta_surplus_answered_twice(server: FakeServer) -> None:
    """Surplus bytes after the queries get an answer of their own."""
    for option in (Opt.LIST_META_CONTEXT, Opt.SET_META_CONTEXT):
        server.on(option, where=lambda asked: asked.data.endswith(b"surplus!")).pass_through().then(
            actions.opt_error(Rep.ERR_INVALID)
        )
