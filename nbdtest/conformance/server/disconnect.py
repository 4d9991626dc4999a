"""The end of transmission: DISC, and what the server must not take for a request."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.expect import expect, expect_end, expect_equal, expect_success
from nbdtest.conformance.pattern import expect_contents
from nbdtest.conformance.target import ServerTarget
from nbdtest.report.results import Level
from nbdtest.wire import EXTENDED_REQUEST_MAGIC, Cmd, Request

EXPORT = [Capability.EXPORT]


@check("disconnect.closes", proves=["TERM-031", "CMD-070", "CMD-076"], needs=EXPORT, legal=True)
def closes(t: ServerTarget) -> None:
    """DISC is not answered: the server closes the connection, also after some traffic."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            for reply in session.receive_all([session.send(Cmd.READ, 0, t.unit) for _ in range(16)]):
                expect_success(reply)
            session.disconnect()
            expect_end(session.peer, "DISC", requirement="TERM-031")


@check("disconnect.at-once", proves=["TERM-031"], needs=EXPORT, legal=True)
def at_once(t: ServerTarget) -> None:
    """DISC as the first request closes the connection."""
    with t.peer.transmitting() as session:
        session.disconnect()
        expect_end(session.peer, "DISC")


@check("disconnect.finishes-reads", proves=["CMD-071"], needs=[*EXPORT, Capability.SIZE_64K], legal=True)
def finishes_reads(t: ServerTarget) -> None:
    """READs that were sent before DISC are all answered before the connection ends."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.peer.hold()
            cookies = [session.send(Cmd.READ, 0, 65536) for _ in range(16)]
            session.disconnect()
            session.peer.release()
            session.receive_all(cookies)
            expect_end(session.peer, "DISC", requirement="TERM-031")


@check(
    "disconnect.reads-succeed",
    proves=["CMD-071"],
    needs=[*EXPORT, Capability.SIZE_64K],
    legal=True,
    level=Level.SHOULD,
)
def reads_succeed(t: ServerTarget) -> None:
    """READs that were sent before DISC are done, not refused because of it."""
    with t.peer.transmitting() as session:
        session.peer.hold()
        cookies = [session.send(Cmd.READ, 0, 65536) for _ in range(16)]
        session.disconnect()
        session.peer.release()
        for reply in session.receive_all(cookies):
            expect_equal(len(expect_success(reply).bytes_read()), 65536, "the number of bytes read")


@check("disconnect.finishes-writes", proves=["CMD-071"], legal=True, writes=True)
def finishes_writes(t: ServerTarget) -> None:
    """WRITEs that were sent before DISC are all answered, and what succeeded is read on the next connection."""
    if t.source.per_connection and not t.source.keeps_data:
        return
    start = t.place(16 * t.unit)
    data = t.random.randbytes(16 * t.unit)
    with t.peer.transmitting() as session:
        pieces = [(at, data[at : at + t.unit]) for at in range(0, len(data), t.unit)]
        session.peer.hold()
        cookies = [session.send(Cmd.WRITE, start + at, t.unit, payload=piece) for at, piece in pieces]
        session.disconnect()
        session.peer.release()
        replies = session.receive_all(cookies)
    with t.peer.transmitting() as session:
        for (at, piece), reply in zip(pieces, replies, strict=True):
            if reply.succeeded:
                expect_contents(session, start + at, piece, "READ after DISC")


def magic_is_refused(name: str, requirement: str, magic: int, needs: tuple[Capability, ...] = ()) -> Check:
    """A magic that begins no request."""

    @check(
        f"request.{name}",
        proves=[requirement],
        needs=[*EXPORT, *needs],
        legal=False,
        doc=f"What begins with 0x{magic:08x} is not executed as a request.",
    )
    def run(t: ServerTarget) -> None:
        with t.peer.transmitting() as session:
            # 32 bytes, so that a server that takes it for an extended request has a whole one
            wrong = Request(type=Cmd.READ, cookie=7, length=t.unit).encode(magic=magic) + bytes(4)
            session.peer.send(wrong, summary=f"a READ with magic 0x{magic:08x}")
            seen = session.peer.receive_to_end(limit=4096)
            expect(len(seen) < t.unit, f"{len(seen)} bytes in reply", "an error at most, and the end")

    return run


WRONG_MAGICS = tuple(
    magic_is_refused(*row)
    for row in (
        ("historic-magic", "MAGIC-001", 0x12560953),
        ("log-magic", "MAGIC-003", 0x25609514),
        ("extended-magic", "MAGIC-004", EXTENDED_REQUEST_MAGIC),
        ("no-magic", "RPL-001", 0xDEADBEEF),
    )
)
