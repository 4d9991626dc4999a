"""Data: what a shadow copy says after random work, on one connection and on several, and after an end of any kind."""

from __future__ import annotations

import signal
from collections.abc import Callable

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect_bytes, expect_success
from nbdtest.conformance.pattern import expect_contents, read_back, write_pattern
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.wire import Cmd, CmdFlag

OWN_PROCESS = Capability.OWN_PROCESS
MULTI = [Capability.MULTI_CONN, Capability.SECOND_CONNECTION]
_STEPS = 150
_AREA = 256 << 10


class Shadow:
    """A copy of one stretch of the export, kept in step with what is sent; `known` is 0 where TRIM left anything."""

    def __init__(self, t: ServerTarget, start: int, length: int) -> None:
        self._t = t
        self.start = start
        self.data = bytearray(length)
        self.known = bytearray(length)
        self.step = 1 if t.has(Capability.BYTE_ACCESS) else t.unit

    def stretch(self) -> tuple[int, int]:
        """A random part of the area: mostly small, sometimes large; where it may be, at any byte."""
        random, steps = self._t.random, len(self.data) // self.step
        length = min(steps, 1 + int(random.paretovariate(0.4)) if random.random() < 0.8 else random.randint(1, steps))
        return random.randint(0, steps - length) * self.step, length * self.step

    def write(self, session: Session) -> None:
        """Write random bytes somewhere."""
        at, length = self.stretch()
        data = self._t.random.randbytes(length)
        flags = CmdFlag.FUA if self._t.has(Capability.FUA) and self._t.random.random() < 0.2 else 0
        expect_success(session.write(self.start + at, data, flags=flags))
        self._set(at, data)

    def zero(self, session: Session) -> None:
        """Zero somewhere."""
        at, length = self.stretch()
        fua = (CmdFlag.FUA,) if self._t.has(Capability.FUA) else ()
        flags = self._t.random.choice((0, CmdFlag.NO_HOLE, *fua))
        expect_success(session.command(Cmd.WRITE_ZEROES, self.start + at, length, flags=flags))
        self._set(at, bytes(length))

    def trim(self, session: Session) -> None:
        """Trim somewhere; what is read there from then on is unknown."""
        at, length = self.stretch()
        expect_success(session.command(Cmd.TRIM, self.start + at, length))
        self.known[at : at + length] = bytes(length)

    def flush(self, session: Session) -> None:
        """Flush, which changes nothing."""
        expect_success(session.flush())

    def compare(self, session: Session, *, whole: bool = False) -> None:
        """Read somewhere, or everything, and complain unless it is what was stored."""
        at, length = (0, len(self.data)) if whole else self.stretch()
        wanted = bytes(self.data[at : at + length])
        seen = read_back(session, self.start + at, length)
        if not all(self.known[at : at + length]):
            known = self.known[at : at + len(seen)]
            seen = bytes(byte if told else kept for byte, kept, told in zip(seen, wanted, known, strict=False))
        expect_bytes(seen, wanted, "READ", offset=self.start + at)

    def actions(self) -> list[Callable[[Session], None]]:
        """What may be done at random, by what the export offers."""
        found: list[Callable[[Session], None]] = [self.write, self.write, self.compare]
        if self._t.has(Capability.WRITE_ZEROES):
            found.append(self.zero)
        if self._t.has(Capability.TRIM):
            found.append(self.trim)
        if self._t.has(Capability.FLUSH):
            found.append(self.flush)
        return found

    def _set(self, at: int, data: bytes) -> None:
        self.data[at : at + len(data)] = data
        self.known[at : at + len(data)] = b"\1" * len(data)


def shadow_of(t: ServerTarget) -> Shadow:
    """A shadow of some stretch of the export, at least of one block."""
    length = max(1, min(_AREA, t.size // 2) // t.unit) * t.unit
    return Shadow(t, t.place(length), length)


@check("data.shadow-copy", proves=["CMD-060", "CMD-103", "CMD-005"], legal=True, writes=True)
def shadow_copy(t: ServerTarget) -> None:
    """After any sequence of writes, zeroes and trims, every READ gives what a copy kept aside says."""
    shadow = shadow_of(t)
    with t.peer.transmitting(mode=t.random.choice(t.modes)) as session:
        for _ in range(_STEPS):
            t.random.choice(shadow.actions())(session)
        shadow.compare(session, whole=True)


@check("data.shadow-copy-by-turns", proves=["FLAG-023", "CMD-060"], needs=MULTI, legal=True, writes=True)
def shadow_copy_by_turns(t: ServerTarget) -> None:
    """With CAN_MULTI_CONN two connections see one disk: what one wrote and flushed, the other reads."""
    if not t.has(Capability.FLUSH):
        raise NotApplicable(Capability.FLUSH.value)
    shadow = shadow_of(t)
    with t.peer.transmitting() as one, t.peer.transmitting(mode=t.modes[-1]) as other:
        sessions = [one, other]
        for _ in range(12):
            for _ in range(5):
                t.random.choice(shadow.actions())(sessions[0])
            expect_success(sessions[0].flush())
            sessions.reverse()
            shadow.compare(sessions[0], whole=True)


@check("data.flush-is-seen-by-others", proves=["FLAG-023"], needs=[*MULTI, Capability.FLUSH], legal=True, writes=True)
def flush_is_seen_by_others(t: ServerTarget) -> None:
    """With CAN_MULTI_CONN a FLUSH makes writes visible on every connection, also where it had read before."""
    start = t.place(4 * t.unit)
    with t.peer.transmitting() as one, t.peer.transmitting() as other:
        for _ in range(3):
            read_back(other, start, 4 * t.unit)
            data = write_pattern(t, one, start, 4 * t.unit)
            expect_success(one.flush())
            expect_contents(other, start, data, "READ on the other connection after FLUSH")


@check("data.fua-is-seen-by-others", proves=["FLAG-023"], needs=[*MULTI, Capability.FUA], legal=True, writes=True)
def fua_is_seen_by_others(t: ServerTarget) -> None:
    """With CAN_MULTI_CONN a WRITE with FUA is visible on all connections when it is answered."""
    start = t.place(4 * t.unit)
    with t.peer.transmitting() as one, t.peer.transmitting() as other:
        for _ in range(3):
            read_back(other, start, 4 * t.unit)
            data = t.random.randbytes(4 * t.unit)
            expect_success(one.write(start, data, flags=CmdFlag.FUA))
            expect_contents(other, start, data, "READ on the other connection after WRITE with FUA")


@check(
    "data.zeroes-and-data-side-by-side",
    proves=["CMD-108", "RPL-066", "RPL-026"],
    needs=[Capability.WRITE_ZEROES, Capability.SECOND_CONNECTION],
    legal=True,
    writes=True,
)
def zeroes_and_data_side_by_side(t: ServerTarget) -> None:
    """Data between zeroed ranges are read as they were written, in every mode and however chunks are cut."""
    step = max(t.unit, 4096)
    start = t.place(8 * step)
    with t.peer.transmitting() as session:
        wanted = bytearray(8 * step)
        expect_success(session.command(Cmd.WRITE_ZEROES, start, 8 * step))
        for part in (1, 4, 6):
            wanted[part * step : (part + 1) * step] = write_pattern(t, session, start + part * step, step)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            expect_contents(session, start, bytes(wanted), f"READ over data and zeroes in {mode} mode")


@check(
    "data.survives-a-cut",
    proves=["CMD-060"],
    needs=[Capability.SECOND_CONNECTION],
    legal=True,
    writes=True,
    hostile=True,
)
def survives_a_cut(t: ServerTarget) -> None:
    """What was acknowledged is there for the next connection, however the first one ended."""
    start = t.place(t.unit)
    for rst in (False, True):
        with t.peer.transmitting() as session:
            data = write_pattern(t, session, start, t.unit)
            session.peer.cut(rst=rst)
        with t.peer.transmitting() as session:
            expect_contents(session, start, data, "READ on the next connection")


def survive_kill(t: ServerTarget, store: Callable[[Session, int], bytes], what: str) -> None:
    """Kill the server after `store`, start it again, and look for what was stored."""
    if not t.source.keeps_data:
        raise NotApplicable("the disk does not outlive the server")
    start = t.place(4 * t.unit)
    with t.peer.transmitting() as session:
        data = store(session, start)
        if not t.source.signal(signal.SIGKILL):
            raise NotApplicable(Capability.OWN_PROCESS.value)
    t.source.revive()
    with t.peer.transmitting() as session:
        expect_contents(session, start, data, f"READ after {what} and a kill")


@check(
    "data.flush-survives-a-kill",
    proves=["ORD-003"],
    needs=[OWN_PROCESS, Capability.FLUSH],
    legal=True,
    writes=True,
    hostile=True,
)
def flush_survives_a_kill(t: ServerTarget) -> None:
    """What was flushed is on the disk even if the server is killed at once. (Not proof against loss of power.)"""

    def store(session: Session, start: int) -> bytes:
        data = write_pattern(t, session, start, 4 * t.unit)
        if t.has(Capability.WRITE_ZEROES):
            expect_success(session.command(Cmd.WRITE_ZEROES, start, t.unit))
            data = bytes(t.unit) + data[t.unit :]
        expect_success(session.flush())
        return data

    survive_kill(t, store, "FLUSH")


@check(
    "data.fua-survives-a-kill",
    proves=["ORD-005"],
    needs=[OWN_PROCESS, Capability.FUA],
    legal=True,
    writes=True,
    hostile=True,
)
def fua_survives_a_kill(t: ServerTarget) -> None:
    """What was written with FUA is on the disk even if the server is killed at once."""

    def store(session: Session, start: int) -> bytes:
        data = t.random.randbytes(4 * t.unit)
        expect_success(session.write(start, data, flags=CmdFlag.FUA))
        if t.has(Capability.WRITE_ZEROES):
            expect_success(session.command(Cmd.WRITE_ZEROES, start, t.unit, flags=CmdFlag.FUA))
            data = bytes(t.unit) + data[t.unit :]
        return data

    survive_kill(t, store, "WRITE with FUA")


@check(
    "data.overlapping-connections",
    proves=["CMD-060", "CMD-005"],
    needs=[Capability.SECOND_CONNECTION],
    legal=True,
    writes=True,
)
def overlapping_connections(t: ServerTarget) -> None:
    """Two connections that write to neighbouring ranges at one time do not disturb each other."""
    start = t.place(64 * t.unit)
    one_data, other_data = t.random.randbytes(32 * t.unit), t.random.randbytes(32 * t.unit)
    with t.peer.transmitting() as one, t.peer.transmitting() as other:
        cookies = []
        for at in range(0, 32 * t.unit, t.unit):
            cookies.append((one, one.send(Cmd.WRITE, start + 2 * at, t.unit, payload=one_data[at : at + t.unit])))
            next_to = start + 2 * at + t.unit
            cookies.append((other, other.send(Cmd.WRITE, next_to, t.unit, payload=other_data[at : at + t.unit])))
        for session, cookie in cookies:
            expect_success(session.receive(cookie))
        for session in (one, other):
            if t.has(Capability.FLUSH):
                expect_success(session.flush())
        # Each reads what it wrote itself: without CAN_MULTI_CONN nothing is promised about what the other wrote.
        for session, data, first in ((one, one_data, 0), (other, other_data, t.unit)):
            seen = read_back(session, start, 64 * t.unit)
            for at in range(0, 32 * t.unit, t.unit):
                mine = first + 2 * at
                expect_bytes(seen[mine : mine + t.unit], data[at : at + t.unit], "READ", offset=start + mine)
