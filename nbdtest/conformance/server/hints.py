"""CMD_FLUSH and CMD_CACHE, which change nothing that can be read."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_error, expect_in_step, expect_success
from nbdtest.conformance.pattern import expect_contents, write_pattern
from nbdtest.conformance.target import ServerTarget
from nbdtest.wire import Cmd, CmdFlag, Errno

FLUSH = [Capability.FLUSH]
CACHE = [Capability.CACHE]


@check("flush.works", proves=["FLAG-013", "CMD-077", "FLAG-003"], needs=FLUSH, legal=True)
def flush_works(t: ServerTarget) -> None:
    """FLUSH succeeds where it is offered."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            expect_success(session.flush())


@check("flush.keeps-data", proves=["FLAG-013"], needs=FLUSH, legal=True, writes=True)
def flush_keeps_data(t: ServerTarget) -> None:
    """FLUSH changes no data."""
    start = t.place(t.unit)
    with t.peer.transmitting() as session:
        data = write_pattern(t, session, start, t.unit)
        expect_success(session.flush())
        expect_contents(session, start, data, "READ after FLUSH")


@check("cache.is-answered", proves=["FLAG-026", "CMD-090"], needs=CACHE, legal=True)
def cache_is_answered(t: ServerTarget) -> None:
    """CACHE, where it is offered, is answered, without a payload; whether it succeeds is the server's choice."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.command(Cmd.CACHE, 0, t.unit)
            expect_in_step(session)


@check("cache.keeps-data-current", proves=["CMD-093"], needs=CACHE, legal=True, writes=True)
def cache_keeps_data_current(t: ServerTarget) -> None:
    """CACHE changes nothing: what is written before or after it is what is read."""
    start = t.place(t.unit)
    with t.peer.transmitting() as session:
        for _ in range(2):
            data = write_pattern(t, session, start, t.unit)
            session.command(Cmd.CACHE, start, t.unit)
            expect_contents(session, start, data, "READ after CACHE")


@check("cache.past-end-fails", proves=["CMD-092", "SIZE-040"], needs=CACHE, legal=True)
def cache_past_end_fails(t: ServerTarget) -> None:
    """CACHE past the end of the export is an error, EINVAL."""
    with t.peer.transmitting() as session:
        expect_error(session.command(Cmd.CACHE, t.past_end, t.unit), Errno.EINVAL, value="SIZE-040")


@check("cache.flags-are-refused", proves=["CMD-097"], needs=CACHE, legal=True)
def cache_flags_are_refused(t: ServerTarget) -> None:
    """CACHE, where it is offered, is refused with a flag that it does not have."""
    with t.peer.transmitting() as session:
        for flags in (0x8000, int(CmdFlag.NO_HOLE)):
            reply = session.command(Cmd.CACHE, 0, t.unit, flags=flags)
            expect(not reply.succeeded, f"CACHE with flags 0x{flags:04x} succeeds", "EINVAL")
