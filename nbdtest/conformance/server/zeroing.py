"""CMD_WRITE_ZEROES and CMD_TRIM: what they do to their range, and to nothing else."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_error, expect_in_step, expect_success
from nbdtest.conformance.pattern import expect_contents, read_back, write_pattern
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, CmdFlag, Errno, State, TransmissionFlag

ZEROES = [Capability.WRITE_ZEROES]
FAST = [Capability.WRITE_ZEROES, Capability.FAST_ZERO]
SLOW = [Capability.WRITE_ZEROES, Capability.WITHOUT_FAST_ZERO]
TRIM = [Capability.TRIM]


def zero(t: ServerTarget, at: int, count: int, *, flags: int = 0) -> None:
    """Zero a range in the middle of a pattern, and demand zeroes inside and the pattern outside."""
    length = 16 * max(t.unit, 4096)
    start = t.place(length)
    with t.peer.transmitting() as session:
        data = write_pattern(t, session, start, length)
        expect_success(session.command(Cmd.WRITE_ZEROES, start + at, count, flags=flags))
        wanted = data[:at] + bytes(count) + data[at + count :]
        expect_contents(session, start, wanted, f"WRITE_ZEROES of {count} bytes at {at}")


@check("zeroes.zero-the-range", proves=["CMD-103", "CMD-108", "CMD-100"], needs=ZEROES, legal=True, writes=True)
def zero_the_range(t: ServerTarget) -> None:
    """After WRITE_ZEROES the range reads as zero, and what lies around it is unchanged."""
    zero(t, t.unit, 5 * t.unit)
    zero(t, 8 * max(t.unit, 4096), 4 * max(t.unit, 4096))


@check(
    "zeroes.odd-ranges", proves=["CMD-103", "CMD-108"], needs=[*ZEROES, Capability.BYTE_ACCESS], legal=True, writes=True
)
def odd_ranges(t: ServerTarget) -> None:
    """WRITE_ZEROES is exact to the byte."""
    zero(t, 1, 1)
    zero(t, 1000, 9001)
    zero(t, 4095, 4098)


@check("zeroes.no-hole", proves=["FLAG-048", "FLAG-003"], needs=ZEROES, legal=True, writes=True)
def no_hole(t: ServerTarget) -> None:
    """WRITE_ZEROES with NO_HOLE zeroes as well."""
    zero(t, t.unit, 5 * t.unit, flags=CmdFlag.NO_HOLE)


@check(
    "zeroes.no-hole-is-provisioned",
    proves=["CMD-110", "META-033"],
    needs=[*ZEROES, Capability.BASE_ALLOCATION],
    legal=True,
    writes=True,
    level=Level.SHOULD,
)
def no_hole_is_provisioned(t: ServerTarget) -> None:
    """What was zeroed with NO_HOLE is not reported as a hole.

    A warning only: a server that asks its file system says HOLE of space that is reserved but unwritten.
    """
    length = max(65536 // t.unit, 1) * t.unit
    start = t.place(2 * length) // length * length
    with t.peer.transmitting(mode="structured", contexts=["base:allocation"]) as session:
        expect_success(session.command(Cmd.WRITE_ZEROES, start, length, flags=CmdFlag.NO_HOLE))
        reply = expect_success(session.block_status(start, length))
        firsts = [extent for extents in reply.extents().values() for extent in extents[:1]]
        holes = [extent for extent in firsts if extent.status & State.HOLE]
        expect(not holes, f"{holes[:1]} at {start} after WRITE_ZEROES with NO_HOLE", "no HOLE")


@check("zeroes.past-end-fails", proves=["CMD-120", "CMD-134"], needs=ZEROES, legal=True, writes=True)
def past_end_fails(t: ServerTarget) -> None:
    """WRITE_ZEROES past the end of the export is an error, ENOSPC (or EINVAL)."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            reply = session.command(Cmd.WRITE_ZEROES, t.past_end, t.unit)
            expect_error(reply, Errno.ENOSPC, Errno.EINVAL, value="CMD-134")


@check("zeroes.zero-length-keeps-session", proves=["CMD-102"], needs=ZEROES, legal=True, writes=True)
def zero_length_keeps_session(t: ServerTarget) -> None:
    """WRITE_ZEROES of 0 bytes is answered somehow, changes nothing, and the session goes on."""
    start = t.place(t.unit)
    with t.peer.transmitting() as session:
        data = write_pattern(t, session, start, t.unit)
        session.command(Cmd.WRITE_ZEROES, start, 0)
        expect_contents(session, start, data, "READ after WRITE_ZEROES of 0 bytes")


@check("zeroes.whole-export-keeps-session", proves=["SIZE-034"], needs=ZEROES, legal=True, writes=True)
def whole_export_keeps_session(t: ServerTarget) -> None:
    """A command without a payload may be longer than the maximum payload: done or refused, but not hung up on."""
    with t.peer.transmitting() as session:
        length = min(t.size, 1 << 30) // t.unit * t.unit
        reply = session.command(Cmd.WRITE_ZEROES, 0, length)
        if not reply.succeeded:
            expect_error(reply, Errno.EOVERFLOW, Errno.EINVAL, value="ERR-027")
        expect_in_step(session)


@check("fast-zero.needs-zeroes", proves=["FLAG-029"], needs=[Capability.EXPORT], legal=True)
def fast_zero_needs_zeroes(t: ServerTarget) -> None:
    """SEND_FAST_ZERO is set only where SEND_WRITE_ZEROES is, also on a read-only export."""
    fast, zeroes = TransmissionFlag.SEND_FAST_ZERO, TransmissionFlag.SEND_WRITE_ZEROES
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            expect(fast not in session.flags or zeroes in session.flags, f"flags {session.flags}")


@check("fast-zero.done-or-refused", proves=["FLAG-003", "ERR-008"], needs=FAST, legal=True, writes=True)
def fast_zero_done_or_refused(t: ServerTarget) -> None:
    """WRITE_ZEROES with FAST_ZERO succeeds or fails with ENOTSUP."""
    start = t.place(4 * t.unit)
    with t.peer.transmitting() as session:
        reply = session.command(Cmd.WRITE_ZEROES, start, 4 * t.unit, flags=CmdFlag.FAST_ZERO)
        if reply.succeeded:
            expect(not any(read_back(session, start, 4 * t.unit)), "a fast zero succeeded and left data", "zeroes")
        else:
            expect_error(reply, Errno.ENOTSUP)


@check("fast-zero.refusal-changes-nothing", proves=["CMD-114"], needs=FAST, legal=True, writes=True)
def fast_zero_refusal_changes_nothing(t: ServerTarget) -> None:
    """WRITE_ZEROES with FAST_ZERO that fails with ENOTSUP leaves the contents alone."""
    length = 4 * max(4096, t.unit)
    start = t.place(length)
    with t.peer.transmitting() as session:
        data = write_pattern(t, session, start, length)
        reply = session.command(Cmd.WRITE_ZEROES, start, length - t.unit, flags=CmdFlag.FAST_ZERO)
        if reply.succeeded:
            raise NotApplicable("the server zeroes fast")
        expect_contents(session, start, data, "READ after a refused fast zero")


@check("fast-zero.no-eoverflow", proves=["CMD-112"], needs=FAST, legal=True, writes=True)
def fast_zero_no_eoverflow(t: ServerTarget) -> None:
    """FAST_ZERO over a long range is not refused with EOVERFLOW."""
    with t.peer.transmitting() as session:
        length = min(t.size, 1 << 30) // t.unit * t.unit
        reply = session.command(Cmd.WRITE_ZEROES, 0, length, flags=CmdFlag.FAST_ZERO)
        expect(reply.error != Errno.EOVERFLOW, f"FAST_ZERO of {length} bytes: {reply}", "success or ENOTSUP")


@check("fast-zero.enotsup-only-if-asked", proves=["CMD-111", "CMD-116"], needs=ZEROES, legal=True, writes=True)
def fast_zero_enotsup_only_if_asked(t: ServerTarget) -> None:
    """WRITE_ZEROES without FAST_ZERO never fails with ENOTSUP."""
    start = t.place(4 * t.unit)
    with t.peer.transmitting() as session:
        for flags in (CmdFlag(0), CmdFlag.NO_HOLE):
            for length in (t.unit, 3 * t.unit):
                reply = session.command(Cmd.WRITE_ZEROES, start, length, flags=flags)
                expect(reply.error != Errno.ENOTSUP, f"WRITE_ZEROES flags {flags}: {reply}", "no ENOTSUP")


@check(
    "fast-zero.unoffered-is-refused", proves=["CMD-117", "CMD-116", "FLAG-028"], needs=SLOW, legal=False, writes=True
)
def fast_zero_unoffered_is_refused(t: ServerTarget) -> None:
    """FAST_ZERO where SEND_FAST_ZERO is clear fails with EINVAL."""
    start = t.place(t.unit)
    with t.peer.transmitting() as session:
        reply = session.command(Cmd.WRITE_ZEROES, start, t.unit, flags=CmdFlag.FAST_ZERO)
        expect_error(reply, Errno.EINVAL, requirement="FLAG-028", value="CMD-117")


@check("trim.works", proves=["FLAG-017", "FLAG-003", "CMD-080"], needs=TRIM, legal=True, writes=True)
def trim_works(t: ServerTarget) -> None:
    """TRIM succeeds where it is offered."""
    start = t.place(8 * t.unit)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            expect_success(session.command(Cmd.TRIM, start, 8 * t.unit))


@check("trim.spares-the-rest", proves=["CMD-083"], needs=TRIM, legal=True, writes=True)
def trim_spares_the_rest(t: ServerTarget) -> None:
    """TRIM touches nothing outside its range, however it rounds."""
    length = 16 * max(t.unit, 4096)
    step = 1000 if t.has(Capability.BYTE_ACCESS) else t.unit
    start = t.place(length)
    with t.peer.transmitting() as session:
        data = write_pattern(t, session, start, length)
        expect_success(session.command(Cmd.TRIM, start + step, 9 * step))
        expect_contents(session, start, data[:step], "READ before the trimmed range")
        expect_contents(session, start + 10 * step, data[10 * step :], "READ after the trimmed range")


@check("trim.zero-length-keeps-session", proves=["CMD-085"], needs=TRIM, legal=True, writes=True)
def trim_zero_length_keeps_session(t: ServerTarget) -> None:
    """TRIM of 0 bytes is answered somehow, and the session goes on."""
    with t.peer.transmitting() as session:
        session.command(Cmd.TRIM, 0, 0)
        expect_in_step(session)


@check("trim.past-end-fails", proves=["SIZE-040"], needs=TRIM, legal=True, writes=True)
def trim_past_end_fails(t: ServerTarget) -> None:
    """TRIM past the end of the export is an error, EINVAL."""
    with t.peer.transmitting() as session:
        expect_error(session.command(Cmd.TRIM, t.past_end, t.unit), Errno.EINVAL)
        expect_in_step(session)
