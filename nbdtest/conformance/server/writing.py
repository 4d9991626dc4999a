"""CMD_WRITE: stored, nothing else touched, and its payload never mistaken for requests."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_error, expect_in_step, expect_silence, expect_success
from nbdtest.conformance.pattern import expect_contents, read_back, write_pattern
from nbdtest.conformance.target import ServerTarget
from nbdtest.wire import Cmd, CmdFlag, Errno, Request

EXPORT = [Capability.EXPORT]
READ_ONLY = [Capability.READ_ONLY, Capability.EXPORT, Capability.MAY_WRITE]


def disguised(t: ServerTarget, length: int) -> bytes:
    """A payload that looks like requests; a server that does not skip it answers them."""
    fake = Request(type=Cmd.READ, cookie=0xBAD0_BAD0, offset=0, length=t.unit).encode()
    return (fake * (length // len(fake) + 1))[:length]


@check("write.stores", proves=["CMD-060", "CMD-056"], legal=True, writes=True)
def stores(t: ServerTarget) -> None:
    """What WRITE acknowledged can be read, and its neighbours are unchanged."""
    start = t.place(8 * t.unit)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            around = write_pattern(t, session, start, 8 * t.unit)
            data = write_pattern(t, session, start + 3 * t.unit, 2 * t.unit)
            wanted = around[: 3 * t.unit] + data + around[5 * t.unit :]
            expect_contents(session, start, wanted, "READ after WRITE")


@check("write.odd-offsets", proves=["CMD-060", "SIZE-007"], needs=[Capability.BYTE_ACCESS], legal=True, writes=True)
def odd_offsets(t: ServerTarget) -> None:
    """WRITE of one byte, or of a range across sectors, changes just these bytes."""
    start = t.place(4096)
    with t.peer.transmitting() as session:
        for at, count in ((1, 1), (511, 2), (513, 1023), (4095, 1)):
            around = write_pattern(t, session, start, 4096)
            data = write_pattern(t, session, start + at, count)
            expect_contents(session, start, around[:at] + data + around[at + count :], f"WRITE of {count} at {at}")


@check("write.of-every-length", proves=["CMD-060", "RPL-016"], legal=True, writes=True)
def of_every_length(t: ServerTarget) -> None:
    """A WRITE of any length, also around the sizes that buffers have, is stored and answered in step."""
    mib = 1 << 20
    with t.peer.transmitting() as session:
        for length in (t.unit, 65536, mib - t.unit, mib, mib + t.unit, 2 * mib):
            if length % t.unit == 0 and 0 < length <= min(t.size, t.facts.maximum_payload):
                data = write_pattern(t, session, 0, length)
                expect_contents(session, 0, data, f"READ after WRITE of {length} bytes")
                expect_in_step(session)


@check("write.of-odd-length", proves=["CMD-060"], needs=[Capability.BYTE_ACCESS], legal=True, writes=True)
def of_odd_length(t: ServerTarget) -> None:
    """A WRITE that is some bytes longer than a buffer of 1 MiB is stored and answered in step."""
    with t.peer.transmitting() as session:
        for surplus in (1, 16, 28):
            length = (1 << 20) + surplus
            if length <= min(t.size, t.facts.maximum_payload):
                data = write_pattern(t, session, 0, length)
                expect_contents(session, 0, data, f"READ after WRITE of {length} bytes")
                expect_in_step(session)


@check("write.seen-by-next-connection", proves=["CMD-060"], legal=True, writes=True)
def seen_by_next_connection(t: ServerTarget) -> None:
    """What was written and flushed on a connection that then ended is read by the next one."""
    if t.source.per_connection and not t.source.keeps_data:
        return
    start = t.place(t.unit)
    with t.peer.transmitting() as session:
        data = write_pattern(t, session, start, t.unit)
        if t.has(Capability.FLUSH):
            expect_success(session.flush())
        session.disconnect()
    with t.peer.transmitting() as session:
        expect_contents(session, start, data, "READ on the next connection")


@check("write.past-end-fails", proves=["CMD-063", "ERR-020", "ERR-006"], legal=True, writes=True)
def past_end_fails(t: ServerTarget) -> None:
    """WRITE past the end of the export is an error, ENOSPC (or EINVAL)."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            reply = session.write(t.past_end, bytes(t.unit))
            expect_error(reply, Errno.ENOSPC, Errno.EINVAL, value="ERR-020")
            if reply.error == Errno.EINVAL:
                t.remark("EINVAL where ERR-020 wants ENOSPC and SIZE-040 EINVAL")


@check("write.refused-payload-is-skipped", proves=["CMD-064"], legal=True, writes=True)
def refused_payload_is_skipped(t: ServerTarget) -> None:
    """The payload of a WRITE that fails is read and thrown away, even if it looks like requests."""
    length = max(min(65536, t.facts.maximum_payload) // t.unit, 1) * t.unit
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            expect_error(session.write(t.past_end, disguised(t, length)))
            expect_in_step(session)
            expect_silence(session.peer, "the reply to the READ after it")


@check("write.flag-refused-payload-is-skipped", proves=["CMD-064", "ERR-030"], legal=True, writes=True)
def flag_refused_payload_is_skipped(t: ServerTarget) -> None:
    """The payload of a WRITE with an unknown flag is read, whatever becomes of the WRITE."""
    length = min(4096, t.facts.maximum_payload) // t.unit * t.unit or t.unit
    start = t.place(length)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.write(start, disguised(t, length), flags=0x8000)
            expect_in_step(session, requirement="CMD-064")
            expect_silence(session.peer, "the reply to the READ after it", requirement="CMD-064")


@check("write.zero-length-keeps-session", proves=["CMD-059"], legal=True, writes=True)
def zero_length_keeps_session(t: ServerTarget) -> None:
    """WRITE of 0 bytes is answered somehow, changes nothing, and the session goes on."""
    start = t.place(t.unit)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            data = write_pattern(t, session, start, t.unit)
            session.write(start, b"")
            expect_contents(session, start, data, "READ after the WRITE of 0 bytes")


@check("write.fua", proves=["FLAG-003", "FLAG-042"], needs=[Capability.FUA], legal=True, writes=True)
def fua(t: ServerTarget) -> None:
    """WRITE with FUA succeeds and stores."""
    start = t.place(t.unit)
    with t.peer.transmitting() as session:
        data = t.random.randbytes(t.unit)
        expect_success(session.write(start, data, flags=CmdFlag.FUA))
        expect_contents(session, start, data, "READ after WRITE with FUA")


@check("write.baseline", proves=["COMPAT-011"], needs=EXPORT, legal=True)
def baseline(t: ServerTarget) -> None:
    """WRITE is known: a writable export takes it, a read-only one refuses it and skips the payload."""
    if not t.has(Capability.WRITABLE) and not t.has(Capability.READ_ONLY):
        return
    with t.peer.transmitting() as session:
        reply = session.write(0, read_back(session, 0, t.unit))
        expect(reply.succeeded is not t.has(Capability.READ_ONLY), f"WRITE is answered with {reply}")
        expect_in_step(session)


@check("read-only.write-fails", proves=["FLAG-012", "ERR-026", "ERR-002"], needs=READ_ONLY, legal=False)
def read_only_write_fails(t: ServerTarget) -> None:
    """Every command that writes fails on a read-only export, with EPERM, and changes nothing."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            before = read_back(session, 0, t.unit)
            expect_error(session.write(0, bytes(t.unit)), Errno.EPERM, value="ERR-026")
            expect_error(session.command(Cmd.TRIM, 0, t.unit), Errno.EPERM, value="ERR-026")
            expect_error(session.command(Cmd.WRITE_ZEROES, 0, t.unit), Errno.EPERM, value="CMD-135")
            expect_contents(session, 0, before, "READ after the refused commands")


@check("read-only.write-payload-is-skipped", proves=["CMD-064", "COMPAT-011"], needs=READ_ONLY, legal=False)
def read_only_payload_is_skipped(t: ServerTarget) -> None:
    """The payload of a WRITE to a read-only export is read and thrown away."""
    length = max(min(65536, t.facts.maximum_payload, t.size) // t.unit, 1) * t.unit
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.write(0, disguised(t, length))
            expect_in_step(session)
            expect_silence(session.peer, "the reply to the READ after it")


@check("read-only.zeroes-give-eperm", proves=["CMD-135"], needs=READ_ONLY, legal=False)
def read_only_zeroes_give_eperm(t: ServerTarget) -> None:
    """WRITE_ZEROES on a read-only export fails with EPERM."""
    with t.peer.transmitting() as session:
        expect_error(session.command(Cmd.WRITE_ZEROES, 0, t.unit), Errno.EPERM, value="CMD-135")
