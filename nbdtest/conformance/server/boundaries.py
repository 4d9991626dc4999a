"""Boundaries: one table of offsets and lengths, for every command that has a range."""

from __future__ import annotations

from collections.abc import Iterator

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.expect import expect, expect_equal, expect_in_step
from nbdtest.conformance.replies import Reply
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
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
_WITH_PAYLOAD = {Cmd.READ, Cmd.WRITE}
_SERVED = {
    Cmd.READ: "CMD-005",
    Cmd.WRITE: "CMD-060",
    Cmd.TRIM: "FLAG-017",
    Cmd.CACHE: "FLAG-026",
    Cmd.WRITE_ZEROES: "CMD-103",
    Cmd.BLOCK_STATUS: "CMD-140",
}


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


def inside(t: ServerTarget, type: Cmd) -> Iterator[tuple[str, int, int]]:
    """Ranges that have to be served, each with a name: short and odd ones, and the longest that there may be."""
    end = t.size // t.unit * t.unit
    most = min(end, t.facts.maximum_payload // t.unit * t.unit, 32 << 20)
    if t.has(Capability.BYTE_ACCESS):
        yield "the first byte", 0, 1
        yield "one odd byte", 511, 1
        yield "two bytes of two units", t.unit - 1, 2
        yield "the last byte", t.size - 1, 1
    yield "the last unit", end - t.unit, t.unit
    yield "all but the first unit", t.unit, most - t.unit
    yield "as much as there may be in a payload", 0, most
    if type not in _WITH_PAYLOAD:
        yield "more than there may be in a payload", 0, min(end, 1 << 30)


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


def session_modes(t: ServerTarget, type: Cmd) -> Iterator[Session]:
    """A session in every mode in which the command can be sent."""
    for mode in t.modes:
        if type != Cmd.BLOCK_STATUS:
            with t.peer.transmitting(mode=mode) as session:
                yield session
        elif mode != "simple":
            with t.peer.transmitting(mode=mode, contexts=["base:allocation"]) as session:
                yield session


def served_inside(type: Cmd) -> Check:
    """One command on every range inside, and on none."""
    _, capability = _COMMANDS[type]
    name = type.name.lower().replace("_", "-")

    @check(
        f"boundary.{name}-inside",
        proves=[_SERVED[type]],
        needs=[Capability.EXPORT, capability],
        legal=True,
        writes=type in _WRITING,
        doc=f"{type} is served for one byte, odd ranges, the last unit and the longest range; for none it is answered.",
    )
    def run(t: ServerTarget) -> None:
        for session in session_modes(t, type):
            for what, offset, length in inside(t, type):
                if length <= 0:
                    continue
                reply = ask(session, type, offset, length)
                good = reply.succeeded or type == Cmd.CACHE  # which may fail wherever it is not worth while
                expect(good, f"{type} of {what} ({length} bytes at {offset}): {reply}", "success")
                if type == Cmd.READ:
                    expect_equal(len(reply.bytes_read()), length, f"the number of bytes in the READ of {what}")
            ask(session, type, 0, 0)
            expect_in_step(session)

    return run


INSIDE = tuple(map(served_inside, _COMMANDS))


def longer_than_maximum(t: ServerTarget) -> int:
    """A length that is one unit more than a payload may be, and fits into the export.

    Raises:
        NotApplicable: nothing that fits is too long.
    """
    length = t.facts.maximum_payload // t.unit * t.unit + t.unit
    if length > min(t.size, 64 << 20):
        raise NotApplicable("the maximum payload is no limit on this export")
    return length


@check("boundary.read-beyond-maximum", proves=["RPL-022"], needs=[Capability.STRUCTURED], legal=False)
def read_beyond_maximum(t: ServerTarget) -> None:
    """A READ of one unit more than the maximum payload is served whole or refused, and in chunks either way."""
    length = longer_than_maximum(t)
    with t.peer.transmitting(mode="structured") as session:
        reply = session.read(0, length)
        expect_equal(reply.kind, "structured", f"the reply to a READ of {length} bytes")
        if reply.succeeded:
            expect_equal(len(reply.bytes_read()), length, "the number of bytes read", requirement="CMD-031")
        expect_in_step(session)


@check("boundary.write-beyond-maximum", proves=["CMD-064"], legal=False, writes=True)
def write_beyond_maximum(t: ServerTarget) -> None:
    """The payload of a WRITE of one unit more than the maximum is read, whatever becomes of the WRITE."""
    length = longer_than_maximum(t)
    with t.peer.transmitting() as session:
        session.write(0, bytes(length))
        expect_in_step(session)
