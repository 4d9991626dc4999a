"""Delivery: a byte stream has no messages, so how bytes are cut into segments means nothing."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import UNKNOWN_OPTION, expect_equal, expect_in_step, expect_success
from nbdtest.conformance.gallery import ALL_INFOS
from nbdtest.conformance.negotiation import Negotiation
from nbdtest.conformance.pattern import expect_contents, write_pattern
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import Hangup
from nbdtest.wire import (
    ClientFlag,
    Cmd,
    Errno,
    InfoRequest,
    Message,
    MetaContextRequest,
    NewstyleGreeting,
    Opt,
)

EXPORT = [Capability.EXPORT]


@check("delivery.handshake-by-bytes", proves=["OPT-010", "TERM-001"], needs=[Capability.GO], legal=True)
def handshake_by_bytes(t: ServerTarget) -> None:
    """The whole handshake works when every byte comes alone."""
    with t.peer.negotiating(slowly=True) as nego:
        nego.option(0x7FFF_0001, bytes(20))
        nego.info(t.export, ALL_INFOS)
        expect_in_step(nego)
        session = t.peer.begin_transmission(nego, t.export)
        session.peer.slowly = False
        expect_in_step(session)


@check("delivery.contexts-by-bytes", proves=["META-079"], needs=[Capability.BASE_ALLOCATION], legal=True)
def contexts_by_bytes(t: ServerTarget) -> None:
    """Selecting contexts works when every byte comes alone."""
    with t.peer.negotiating(slowly=True) as nego:
        nego.option(Opt.STRUCTURED_REPLY)
        answer = nego.set_meta(t.export, "base:allocation")
        expect_equal(list(answer.contexts()), ["base:allocation"], "the selected contexts")


@check("delivery.requests-by-bytes", proves=["REQ-012"], needs=EXPORT, legal=True)
def requests_by_bytes(t: ServerTarget) -> None:
    """Requests are understood when every byte comes alone."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.peer.slowly = True
            expect_success(session.read(0, t.unit))
            for offered, type in ((Capability.FLUSH, Cmd.FLUSH), (Capability.CACHE, Cmd.CACHE)):
                if t.has(offered):
                    session.command(type, 0, t.unit if type == Cmd.CACHE else 0)
            expect_in_step(session)


@check("delivery.options-by-bytes", proves=["OPT-010"], needs=[Capability.FIXED_NEWSTYLE], legal=True)
def options_by_bytes(t: ServerTarget) -> None:
    """Every option is answered alike, whether it comes in one piece or byte by byte."""
    with_name = InfoRequest(name=t.export, infos=ALL_INFOS)
    contexts = MetaContextRequest(name=t.export, queries=("base:allocation",))
    options: tuple[tuple[Opt, Message | bytes], ...] = (
        (Opt.LIST, b""),
        (Opt.INFO, with_name),
        (Opt.STRUCTURED_REPLY, b""),
        (Opt.EXTENDED_HEADERS, b""),
        (Opt.LIST_META_CONTEXT, contexts),
        (Opt.SET_META_CONTEXT, contexts),
        (Opt.GO, with_name),
        (Opt.ABORT, b""),
    )
    for option, data in options:
        answers = []
        for slowly in (False, True):
            with t.peer.negotiating(slowly=slowly) as nego:
                try:
                    answers.append(str(nego.option(option, data)))
                except Hangup:
                    answers.append("the end of the connection")
        expect_equal(answers[1], answers[0], f"the answer to {option} byte by byte")


@check("delivery.writes-by-bytes", proves=["REQ-012", "CMD-060"], legal=True, writes=True)
def writes_by_bytes(t: ServerTarget) -> None:
    """Requests that write are understood when every byte comes alone, headers and payloads."""
    start = t.place(2 * t.unit)
    length = t.unit if t.unit <= 512 else t.facts.minimum_block
    with t.peer.transmitting() as session:
        write_pattern(t, session, start, 2 * length)
        session.peer.slowly = length <= 4096
        data = write_pattern(t, session, start, length)
        for offered, type in ((Capability.TRIM, Cmd.TRIM), (Capability.WRITE_ZEROES, Cmd.WRITE_ZEROES)):
            if t.has(offered):
                expect_success(session.command(type, start + length, length))
        expect_contents(session, start, data, "READ after a WRITE byte by byte")


@check("delivery.payload-in-pieces", proves=["CMD-060", "REQ-012"], legal=True, writes=True)
def payload_in_pieces(t: ServerTarget) -> None:
    """A WRITE is understood when header and payload are cut anywhere."""
    start = t.place(4 * t.unit)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            data = t.random.randbytes(4 * t.unit)
            session.peer.hold()
            cookie = session.send(Cmd.WRITE, start, len(data), payload=data)
            session.peer.release(pieces=(5, 20, 40, len(data) - 3))
            expect_equal(session.receive(cookie).error, Errno.OK, "the error of the WRITE")
            expect_contents(session, start, data, "READ after a WRITE in pieces")


@check("delivery.many-writes-at-once", proves=["REQ-012", "CMD-060"], legal=True, writes=True)
def many_writes_at_once(t: ServerTarget) -> None:
    """Many WRITEs and READs in one segment are all done, each with its own payload."""
    start = t.place(32 * t.unit)
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            data = t.random.randbytes(32 * t.unit)
            session.peer.hold()
            cookies = []
            for at in range(0, len(data), t.unit):
                cookies.append(session.send(Cmd.WRITE, start + at, t.unit, payload=data[at : at + t.unit]))
                cookies.append(session.send(Cmd.READ, 0, t.unit))
            session.peer.release()
            for reply in session.receive_all(cookies):
                expect_success(reply)
            expect_contents(session, start, data, "READ after many WRITEs in one piece")


@check(
    "delivery.flags-and-option-at-once",
    proves=["OPT-010"],
    needs=[Capability.FIXED_NEWSTYLE, Capability.CLEAR],
    legal=True,
)
def flags_and_option_at_once(t: ServerTarget) -> None:
    """Client flags and the first option may come in one segment."""
    with t.peer.greeted() as (peer, greeting):
        assert isinstance(greeting, NewstyleGreeting)
        nego = Negotiation(peer, greeting)
        peer.hold()
        nego.send_flags(ClientFlag(greeting.flags & 3))
        sent = nego.send_option(UNKNOWN_OPTION, b"data")
        peer.release()
        nego.receive_answer(sent)
        expect_in_step(nego)
