"""Boundaries: one table of offsets and lengths, for every command that has a range."""

from __future__ import annotations

from collections.abc import Iterator

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.expect import expect, expect_in_step
from nbdtest.conformance.replies import Reply
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.wire import Cmd

_LARGEST = 1 << 64
_COMMANDS = {
    Cmd.READ: ("CMD-011", Capability.EXPORT),
    Cmd.WRITE: ("CMD-063", Capability.WRITABLE),
    Cmd.TRIM: ("SIZE-040", Capability.TRIM),
    Cmd.CACHE: ("CMD-092", Capability.CACHE),
    Cmd.WRITE_ZEROES: ("CMD-120", Capability.WRITE_ZEROES),
    Cmd.BLOCK_STATUS: ("CMD-154", Capability.BASE_ALLOCATION),
}
_WRITING = {Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES}


def outside(t: ServerTarget) -> Iterator[tuple[str, int, int]]:
    """Ranges that reach past the end, each with a name."""
    end = t.size // t.unit * t.unit
    yield "the end", end, t.unit
    if t.size >= t.unit:
        yield "the last unit and one more", end - t.unit, 2 * t.unit + t.size % t.unit
    yield "one unit after the end", end + t.unit, t.unit
    yield "2^63", 1 << 63, t.unit
    yield "2^63 minus a unit", (1 << 63) - t.unit, t.unit
    yield "the last unit of 2^64", _LARGEST - t.unit, t.unit
    yield "what wraps around 2^64 to the beginning", _LARGEST - t.unit, 2 * t.unit
    if t.size < 1 << 32:
        yield "the beginning plus 2^32", 1 << 32, t.unit


def ask(session: Session, type: Cmd, offset: int, length: int) -> Reply:
    """Send one command for one range."""
    if type == Cmd.WRITE:
        return session.write(offset, bytes(length))
    return session.command(type, offset, length)


def refused_outside(type: Cmd) -> Check:
    """One command on every range outside."""
    requirement, capability = _COMMANDS[type]

    @check(
        f"boundary.{type.name.lower().replace('_', '-')}",
        proves=[requirement],
        needs=[Capability.EXPORT, capability],
        legal=True,
        writes=type in _WRITING,
        doc=f"{type} of any range that reaches past the end fails, and the session goes on; the last unit works.",
    )
    def run(t: ServerTarget) -> None:
        for mode in t.modes:
            if type == Cmd.BLOCK_STATUS and mode == "simple":
                continue
            contexts = ["base:allocation"] if type == Cmd.BLOCK_STATUS else []
            with t.peer.transmitting(mode=mode, contexts=contexts) as session:
                last = ask(session, type, t.size // t.unit * t.unit - t.unit, t.unit)
                expect(last.succeeded or type == Cmd.CACHE, f"{type} of the last unit: {last}", "success")
                for name, offset, length in outside(t):
                    reply = ask(session, type, offset, length)
                    expect(not reply.succeeded, f"{type} of {name} ({length} bytes at {offset}): {reply}", "an error")
                expect_in_step(session)

    return run


BOUNDARIES = tuple(map(refused_outside, _COMMANDS))


@check("boundary.clamped-is-not-served", proves=["SIZE-040"], needs=[Capability.EXPORT], legal=True)
def clamped_is_not_served(t: ServerTarget) -> None:
    """A READ that begins inside and ends outside is refused as a whole, not cut to what there is."""
    first = t.size // t.unit * t.unit - t.unit
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            reply = session.read(first, t.unit + t.size % t.unit + t.unit)
            expect(not reply.succeeded, f"READ across the end: {reply}", "an error")
            expect_in_step(session)
