"""CMD_READ: the right bytes, all of them, in the right reply."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import (
    expect,
    expect_equal,
    expect_error,
    expect_in_step,
    expect_success,
)
from nbdtest.conformance.pattern import expect_contents, write_pattern
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.wire import Cmd, CmdFlag, Errno, ReplyType, TransmissionFlag

EXPORT = [Capability.EXPORT]
DF = [Capability.DF, Capability.STRUCTURED]
CONTENT = (ReplyType.OFFSET_DATA, ReplyType.OFFSET_HOLE)
_COOKIES = (0, 1, 0x0102_0304_0506_0708, 0x8000_0000_0000_0000, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)


@check("read.returns-what-was-written", proves=["CMD-005", "CMD-001", "RPL-061"], legal=True, writes=True)
def returns_what_was_written(t: ServerTarget) -> None:
    """READ gives the bytes from the requested offset on, wherever it begins and ends."""
    length = 64 * t.unit
    start = t.place(length)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            data = write_pattern(t, session, start, length)
            for at, count in ((0, length), (t.unit, t.unit), (3 * t.unit, 17 * t.unit), (length - t.unit, t.unit)):
                expect_contents(session, start + at, data[at : at + count], f"READ in {mode} mode")


@check("read.odd-offsets", proves=["CMD-005", "SIZE-007"], needs=[Capability.BYTE_ACCESS], legal=True, writes=True)
def odd_offsets(t: ServerTarget) -> None:
    """READ of any offset and length gives exactly these bytes."""
    start = t.place(4096)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            data = write_pattern(t, session, start, 4096)
            for at, count in ((1, 1), (511, 2), (513, 511), (1, 4095), (4095, 1)):
                expect_contents(session, start + at, data[at : at + count], f"READ in {mode} mode")


@check("read.tail", proves=["CMD-005"], legal=True, writes=True)
def tail(t: ServerTarget) -> None:
    """The last bytes of the export can be written and read."""
    first = (t.size - t.unit) // t.unit * t.unit
    with t.peer.transmitting() as session:
        data = write_pattern(t, session, first, t.size - first)
        expect_contents(session, first, data, "the tail of the export")


@check("read.across-4-gib", proves=["CMD-005"], needs=[Capability.SIZE_OVER_4G], legal=True, writes=True)
def across_4_gib(t: ServerTarget) -> None:
    """Offsets have 64 bits: what lies on either side of 4 GiB is not mixed up with the beginning."""
    start = (4 << 30) - t.unit
    with t.peer.transmitting() as session:
        low = write_pattern(t, session, 0, t.unit)
        data = write_pattern(t, session, start, 2 * t.unit)
        expect_contents(session, start, data, "READ across 4 GiB")
        expect_contents(session, 0, low, "READ at 0")


@check("read.of-every-length", proves=["RPL-016", "RPL-039"], needs=EXPORT, legal=True)
def of_every_length(t: ServerTarget) -> None:
    """A successful READ brings exactly the requested number of bytes."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            lengths = (t.unit, 3 * t.unit, 65536, 1 << 20) if t.unit > 512 else (1, 511, 512, 1025, 65536, 1 << 20)
            for length in lengths:
                if length <= min(t.size, t.facts.maximum_payload):
                    reply = expect_success(session.read(0, length))
                    expect_equal(len(reply.bytes_read()), length, "the number of bytes read")
            expect_in_step(session)


@check("read.past-end-fails", proves=["CMD-011", "SIZE-040", "ERR-001"], needs=EXPORT, legal=True)
def past_end_fails(t: ServerTarget) -> None:
    """READ past the end of the export is an error, EINVAL."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            expect_error(session.read(t.past_end, t.unit), Errno.EINVAL, value="SIZE-040")
            expect_in_step(session)


@check("read.error-has-no-payload", proves=["CMD-013", "RPL-016"], needs=EXPORT, legal=True)
def error_has_no_payload(t: ServerTarget) -> None:
    """An error reply to READ carries no data: the next reply follows at once."""
    with t.peer.transmitting() as session:
        for _ in range(3):
            expect_error(session.read(t.past_end, t.unit))
            expect_in_step(session)


@check("read.zero-length-keeps-session", proves=["CMD-004"], needs=EXPORT, legal=True)
def zero_length_keeps_session(t: ServerTarget) -> None:
    """READ of 0 bytes is answered somehow, and the session goes on."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.read(0, 0)
            expect_in_step(session)


@check("reply.echoes-cookie", proves=["RPL-005", "RPL-015", "RPL-038"], needs=EXPORT, legal=True)
def echoes_cookie(t: ServerTarget) -> None:
    """A reply has the cookie of its request, bit for bit, also when it is an error."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            for cookie in _COOKIES:
                session.receive(session.send(Cmd.READ, 0, t.unit, cookie=cookie))
                session.receive(session.send(Cmd.READ, t.past_end, t.unit, cookie=cookie))


@check("request.many-at-once", proves=["REQ-012", "RPL-026"], needs=EXPORT, legal=True)
def many_at_once(t: ServerTarget) -> None:
    """64 requests in one piece get 64 replies, in any order."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.peer.hold()
            cookies = [session.send(Cmd.READ, 0, t.unit) for _ in range(64)]
            session.peer.release()
            for reply in session.receive_all(cookies):
                expect_success(reply)


@check("df.one-chunk", proves=["CMD-050", "SIZE-032"], needs=[*DF, Capability.SIZE_64K], legal=True)
def df_one_chunk(t: ServerTarget) -> None:
    """READ with DF is answered with one content chunk."""
    with t.peer.transmitting(mode="structured") as session:
        reply = session.read(0, 65536, flags=CmdFlag.DF)
        expect(len(reply.of_type(*CONTENT)) <= 1, f"READ with DF: {reply}", "one content chunk")


@check("df.mixed-range-is-data", proves=["CMD-052", "CMD-050"], needs=DF, legal=True, writes=True)
def df_mixed_range_is_data(t: ServerTarget) -> None:
    """READ with DF over data and zeroes is answered with one OFFSET_DATA that has the zeroes in full."""
    length = min(65536, t.size // 2 // t.unit * t.unit)
    if length <= t.unit:
        raise NotApplicable("64 KiB, which is all that READ with DF has to serve, are no two blocks")
    start = t.place(length) // 65536 * 65536
    with t.peer.transmitting(mode="structured") as session:
        if t.has(Capability.TRIM):
            session.command(Cmd.TRIM, start, length)
        if t.has(Capability.WRITE_ZEROES):
            expect_success(session.command(Cmd.WRITE_ZEROES, start, length))
        else:
            expect_success(session.write(start, bytes(length)))
        data = write_pattern(t, session, start, t.unit)
        reply = expect_success(session.read(start, length, flags=CmdFlag.DF))
        expect_equal([chunk.type for chunk in reply.of_type(*CONTENT)], [ReplyType.OFFSET_DATA], "the content")
        expect(reply.bytes_read() == data + bytes(length - t.unit), "other bytes than data and zeroes")


@check("df.64-kib-is-served", proves=["CMD-055"], needs=[*DF, Capability.SIZE_64K], legal=True)
def df_64_kib_is_served(t: ServerTarget) -> None:
    """READ with DF of 65536 bytes succeeds."""
    with t.peer.transmitting(mode="structured") as session:
        expect_success(session.read(0, 65536, flags=CmdFlag.DF))


@check("df.refusal-has-no-content", proves=["CMD-054"], needs=[*DF, Capability.SIZE_1M], legal=True)
def df_refusal_has_no_content(t: ServerTarget) -> None:
    """READ with DF that fails with EOVERFLOW brings no content chunk."""
    length = min(t.size, t.facts.maximum_payload, 32 << 20) // t.unit * t.unit
    with t.peer.transmitting(mode="structured") as session:
        reply = session.read(0, length, flags=CmdFlag.DF)
        refused = reply.error == Errno.EOVERFLOW
        expect(not refused or not reply.of_type(*CONTENT), f"READ with DF of {length} bytes: {reply}")


@check("df.flag-if-served", proves=["FLAG-019"], needs=[Capability.STRUCTURED, Capability.SIZE_64K], legal=False)
def df_flag_if_served(t: ServerTarget) -> None:
    """A server that honours DF says so with SEND_DF."""
    with t.peer.transmitting(mode="structured") as session:
        if TransmissionFlag.SEND_DF not in session.flags:
            expect_error(session.read(0, 65536, flags=CmdFlag.DF))


@check("df.not-offered-without-structured", proves=["FLAG-020", "EXT-017"], needs=[Capability.INFO], legal=True)
def df_not_offered_without_structured(t: ServerTarget) -> None:
    """SEND_DF is clear without structured replies, also in INFO before they are agreed on."""
    with t.peer.negotiating() as nego:
        for ask in (nego.info, nego.go):
            export = ask(t.export).export()
            flags = export.flags if export else TransmissionFlag(0)
            expect(TransmissionFlag.SEND_DF not in flags, f"flags {flags} without structured replies")
