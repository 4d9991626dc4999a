"""Abuse: lengths, counts and numbers of connections that no honest client has; bounded in time and traffic."""

from __future__ import annotations

from contextlib import ExitStack

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.expect import UNKNOWN_OPTION, expect, expect_in_step, expect_success
from nbdtest.conformance.server.malformed import named
from nbdtest.conformance.target import ServerTarget
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, MetaContextRequest, Opt, Rep, Request

FIXED = [Capability.FIXED_NEWSTYLE]
_HUGE = 0xFFFF_FFFF
_QUERIES = 10_000
_REFUSALS = (Rep.ERR_TOO_BIG, Rep.ERR_INVALID)
_CROWD = 1000
_AT_ONCE = 6
"""Fewer than servers with a limit of connections usually allow."""


def huge_option_is_survived(name: str, option: int, data: bytes) -> Check:
    """One option whose length says 4 GiB, and of which little comes."""

    @check(
        f"abuse.huge-{name}",
        proves=["TERM-009"],
        needs=[*FIXED, Capability.SECOND_CONNECTION],
        legal=False,
        level=Level.MUST,
        doc=f"{Opt(option)} that announces 4 GiB of data is refused, hung up on or waited for, and others are served.",
    )
    def run(t: ServerTarget) -> None:
        with t.peer.negotiating() as nego:
            nego.send_option(option, data, length=_HUGE)
            t.wait(t.quiet_s)
            with t.peer.negotiating() as other:
                expect_in_step(other)

    return run


HUGE = tuple(
    huge_option_is_survived(*row)
    for row in (
        ("export-name", Opt.EXPORT_NAME, b"x" * 64),
        ("info", Opt.INFO, b"\xff\xff\xff\xff" + b"x" * 64),
        ("go", Opt.GO, b"\xff\xff\xff\xf0" + b"x" * 64),
        ("set-meta-context", Opt.SET_META_CONTEXT, b"\xff\xff\xff\xff" + b"x" * 64),
        ("unknown-option", UNKNOWN_OPTION, b"x" * 64),
    )
)


@check("abuse.large-unknown-option", proves=["REP-042"], needs=FIXED, legal=False)
def large_unknown_option(t: ServerTarget) -> None:
    """An unknown option with 1 MiB of data is refused, or hung up on."""
    with t.peer.negotiating() as nego:
        answer = nego.option(UNKNOWN_OPTION, bytes(1 << 20))
        expect(answer.final.type in (Rep.ERR_UNSUP, *_REFUSALS), f"it is answered with {answer}")
        expect_in_step(nego)


@check("abuse.ten-thousand-queries", proves=["REP-042"], needs=[Capability.META], legal=False)
def ten_thousand_queries(t: ServerTarget) -> None:
    """Ten thousand queries are answered, or refused as too many."""
    with t.peer.negotiating(structured=True) as nego:
        request = MetaContextRequest(name=t.export, queries=("x-many:a",) * _QUERIES)
        answer = nego.option(Opt.LIST_META_CONTEXT, request)
        expect(answer.final.type in (Rep.ACK, *_REFUSALS), f"it is answered with {answer}", "an ACK or ERR_TOO_BIG")
        expect_in_step(nego)


@check("abuse.query-count-of-4-gib", proves=["META-055"], needs=[Capability.META], legal=False)
def query_count_of_4_gib(t: ServerTarget) -> None:
    """A count of 2^32-1 queries with one behind it is refused, without memory being set aside for them."""
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.option(Opt.SET_META_CONTEXT, named(t, b"\xff\xff\xff\xff" + b"\0\0\0\5base:"))
        expect(answer.final.type.is_error, f"it is answered with {answer}", "an error")
        expect_in_step(nego)


@check(
    "abuse.idle-crowd",
    proves=["TERM-041"],
    needs=[Capability.SECOND_CONNECTION],
    legal=True,
    hostile=True,
)
def idle_crowd(t: ServerTarget) -> None:
    """Many clients that say nothing keep nobody else from being served."""
    with ExitStack() as stack:
        for _ in range(_AT_ONCE):
            stack.enter_context(t.peer.connected())
        with t.peer.transmitting() as session:
            expect_success(session.read(0, t.unit))


@check(
    "abuse.half-handshakes",
    proves=["TERM-041"],
    needs=[*FIXED, Capability.SECOND_CONNECTION],
    legal=True,
    hostile=True,
)
def half_handshakes(t: ServerTarget) -> None:
    """Many clients that stop in the middle of an option keep nobody else from being served."""
    with ExitStack() as stack:
        for _ in range(_AT_ONCE):
            nego = stack.enter_context(t.peer.negotiating())
            nego.send_option(Opt.INFO, b"\0\0", length=64)
        with t.peer.transmitting() as session:
            expect_success(session.read(0, t.unit))


@check(
    "abuse.many-connections", proves=["TERM-041"], needs=[Capability.EXPORT], legal=True, hostile=True, level=Level.MUST
)
def many_connections(t: ServerTarget) -> None:
    """A thousand connections, one after the other and gone at once, leave the server answering in time."""
    for _ in range(20 if t.source.per_connection else _CROWD):
        with t.peer.greeted():
            pass
    with t.peer.transmitting() as session:
        expect_success(session.read(0, t.unit))


@check("abuse.huge-read", proves=["SIZE-034"], needs=[Capability.EXPORT], legal=False)
def huge_read(t: ServerTarget) -> None:
    """A READ of nearly 4 GiB from a smaller export is refused, or hung up on."""
    if t.size >= _HUGE:
        return
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            reply = session.read(0, _HUGE // t.unit * t.unit)
            expect(not reply.succeeded, f"READ of 4 GiB: {reply}", "an error")
            expect_in_step(session)


@check("abuse.huge-write-is-not-waited-for", proves=["TERM-041"], legal=False, writes=True, level=Level.MUST)
def huge_write(t: ServerTarget) -> None:
    """A WRITE that announces 4 GiB keeps nobody else from being served, and sets no such memory aside."""
    with t.peer.transmitting() as session:
        head = Request(type=Cmd.WRITE, cookie=1, offset=0, length=_HUGE // t.unit * t.unit)
        session.peer.send(head)
        t.wait(t.quiet_s)
        vitals = t.source.vitals()
        grown = vitals.resident_bytes if vitals else 0
        expect(grown < 2 << 30, f"the server has {grown >> 20} MiB in memory")
        if t.has(Capability.SECOND_CONNECTION):
            with t.peer.transmitting() as other:
                expect_success(other.read(0, t.unit))
