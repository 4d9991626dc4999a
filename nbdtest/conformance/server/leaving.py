"""Leaving: the client vanishes at every moment, and the server serves the next one as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.expect import expect_in_step, expect_success
from nbdtest.conformance.idleness import WATCHED_S, restless_s
from nbdtest.conformance.peer import Peer
from nbdtest.conformance.source import Vitals
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.tls_probe import client_hello, starting_tls, under_tls
from nbdtest.conformance.verdict import Complaint, Hangup
from nbdtest.net.clock import Deadline
from nbdtest.net.tls import TLSStream
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, ExportName, Info, InfoRequest, Message, MetaContextRequest, Opt, Option, Request, Sender

Moment = Callable[[ServerTarget, Callable[[Peer], None]], None]
_ROUNDS = 20
_MEMORY = 48 << 20
"""What a server may keep for the next clients: less than a buffer of 1 MiB for each of those that left."""


def after_connect(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.connected() as peer:
        leave(peer)


def after_greeting(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.greeted() as (peer, _):
        leave(peer)


def after_client_flags(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.negotiating() as nego:
        leave(nego.peer)


def within_option_header(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.negotiating() as nego:
        nego.peer.send(Option(option=Opt.LIST).encode()[:9], summary="half an option")
        leave(nego.peer)


def within_option_data(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.negotiating() as nego:
        nego.send_option(Opt.INFO, b"\0\0\0\4na", length=10)
        leave(nego.peer)


def before_option_reply(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.negotiating() as nego:
        for option in (Opt.LIST, Opt.STRUCTURED_REPLY, 0x7FFF_0001):
            nego.send_option(option)
        leave(nego.peer)
    for option, data in (
        (Opt.GO, InfoRequest(name=t.export, infos=(Info.NAME,))),
        (Opt.EXPORT_NAME, ExportName(name=t.export)),
    ):
        with t.peer.negotiating() as nego:
            nego.send_option(option, data)
            leave(nego.peer)


def _questions(t: ServerTarget) -> tuple[tuple[Opt, Message | bytes], ...]:
    """Options that are answered, and begin nothing else."""
    return (
        (Opt.LIST, b""),
        (Opt.INFO, InfoRequest(name=t.export)),
        (Opt.STRUCTURED_REPLY, b""),
        (Opt.SET_META_CONTEXT, MetaContextRequest(name=t.export, queries=("base:allocation",))),
        (Opt.ABORT, b""),
    )


def after_option_replies(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    for option, data in _questions(t):
        with t.peer.negotiating() as nego:
            with suppress(Complaint):  # what it is answered with is the business of others
                nego.option(option, data)
            leave(nego.peer)


def after_go(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.transmitting() as session:
        leave(session.peer)


def within_request_header(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.transmitting() as session:
        session.peer.send(Request(type=Cmd.READ, cookie=1, length=t.unit).encode()[:17], summary="half a request")
        leave(session.peer)


def with_reads_in_flight(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    length = min(t.size, t.facts.maximum_payload, 1 << 20) // t.unit * t.unit
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            for _ in range(16):
                session.send(Cmd.READ, 0, length)
            leave(session.peer)


def after_first_reply(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.transmitting() as session:
        cookies = [session.send(Cmd.READ, 0, min(t.size, 65536) // t.unit * t.unit) for _ in range(16)]
        session.receive(cookies[0])
        leave(session.peer)


def within_a_reply(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    length = min(t.size, t.facts.maximum_payload, 256 << 10) // t.unit * t.unit
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.send(Cmd.READ, 0, length)
            session.peer.note(session.peer.receive_bytes(18, wanted="a reply"), "the beginning of a reply")
            leave(session.peer)


def with_other_commands_in_flight(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    offered = ((Capability.FLUSH, Cmd.FLUSH, 0), (Capability.CACHE, Cmd.CACHE, t.unit))
    for command, length in [(type, length) for needed, type, length in offered if t.has(needed)] + [(Cmd(0x7FFF), 0)]:
        with t.peer.transmitting() as session:
            session.send(command, 0, length)
            leave(session.peer)
    if t.has(Capability.BASE_ALLOCATION):
        with t.peer.transmitting(mode="structured", contexts=["base:allocation"]) as session:
            session.send(Cmd.BLOCK_STATUS, 0, t.unit)
            leave(session.peer)


def with_writes_in_flight(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.transmitting() as session:
        for at in range(16):
            session.send(Cmd.WRITE, at * t.unit, t.unit, payload=bytes(t.unit))
        for offered, type in ((Capability.TRIM, Cmd.TRIM), (Capability.WRITE_ZEROES, Cmd.WRITE_ZEROES)):
            if t.has(offered):
                session.send(type, 0, t.unit)
        leave(session.peer)


def within_write_payload(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.transmitting() as session:
        head = Request(type=Cmd.WRITE, cookie=1, offset=0, length=t.unit).encode()
        session.peer.send(head + bytes(t.unit // 2), summary="half a WRITE")
        leave(session.peer)


def after_disc(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.transmitting() as session:
        session.send(Cmd.READ, 0, t.unit)
        session.disconnect()
        leave(session.peer)


def after_second_disc(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    with t.peer.transmitting() as session, suppress(Hangup):  # the first one may have ended it
        session.send(Cmd.READ, 0, t.unit)
        session.disconnect()
        session.disconnect()
        leave(session.peer)


MOMENTS: tuple[tuple[str, Moment, bool], ...] = (
    ("after-connect", after_connect, False),
    ("after-greeting", after_greeting, False),
    ("after-client-flags", after_client_flags, False),
    ("within-option-header", within_option_header, False),
    ("within-option-data", within_option_data, False),
    ("before-option-reply", before_option_reply, False),
    ("after-option-replies", after_option_replies, False),
    ("after-go", after_go, False),
    ("within-request-header", within_request_header, False),
    ("with-reads-in-flight", with_reads_in_flight, False),
    ("after-first-reply", after_first_reply, False),
    ("within-a-reply", within_a_reply, False),
    ("with-other-commands-in-flight", with_other_commands_in_flight, False),
    ("with-writes-in-flight", with_writes_in_flight, True),
    ("within-write-payload", within_write_payload, True),
    ("after-disc", after_disc, False),
    ("after-second-disc", after_second_disc, False),
)


def by_fin(peer: Peer) -> None:
    peer.cut()


def by_rst(peer: Peer) -> None:
    peer.cut(rst=True)


def by_half_close(peer: Peer) -> None:
    peer.half_close()
    with suppress(Hangup):
        peer.receive_to_end(limit=32 << 20)


def by_closing_tls(peer: Peer) -> None:
    if not isinstance(peer.stream, TLSStream):  # it has not begun, or not here
        return peer.cut()
    peer.note(b"", "close_notify", Sender.CLIENT)
    peer.stream = peer.stream.close_session()
    return peer.cut()


WAYS: tuple[Callable[[Peer], None], ...] = (by_fin, by_rst, by_half_close)
_NEWSTYLE, _FIXED = (Capability.NEWSTYLE,), (Capability.FIXED_NEWSTYLE,)
_NEEDS = {
    "after-client-flags": _NEWSTYLE,
    "within-option-header": _NEWSTYLE,
    "within-option-data": _NEWSTYLE,
    "before-option-reply": _NEWSTYLE,
    "after-option-replies": _FIXED,
}


def is_survived(name: str, moment: Moment, writes: bool) -> Check:
    """One moment, left in every way."""

    @check(
        f"leaving.{name}",
        proves=["TERM-041"],
        needs=[Capability.EXPORT, *_NEEDS.get(name, ())],
        legal=True,
        hostile=True,
        writes=writes,
        level=Level.MUST,
        doc=f"A client that vanishes {name.replace('-', ' ')}, by FIN, RST, half-close or end of TLS, disturbs nobody.",
    )
    def run(t: ServerTarget) -> None:
        with t.peer.transmitting() if t.has(Capability.SECOND_CONNECTION) else nullcontext() as other:
            for way in (*WAYS, by_closing_tls) if t.has(Capability.FORCED_TLS) else WAYS:
                moment(t, way)
            if other is not None:
                expect_in_step(other)
        with t.peer.transmitting() as session:
            expect_success(session.read(0, t.unit))

    return run


LEAVING = tuple(is_survived(*row) for row in MOMENTS)


def vanish(t: ServerTarget) -> None:
    """Leave at every moment that writes nothing, by FIN and by RST."""
    for name, moment, writes in MOMENTS:
        if not writes and all(map(t.has, _NEEDS.get(name, ()))):
            moment(t, by_fin)
            moment(t, by_rst)


def _during_starttls(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    """Leave when TLS has been agreed on, and in the middle of its handshake."""
    hello = client_hello(0x0303, t.random.randbytes(32))
    for begun in (b"", hello[:3], hello[:40], hello):
        with starting_tls(t) as nego:
            if begun:
                nego.peer.send(begun, summary="a TLS ClientHello, or its beginning")
            leave(nego.peer)


def _under_tls(t: ServerTarget, leave: Callable[[Peer], None]) -> None:
    """Leave after each message under TLS, and in the middle of some."""
    with under_tls(t) as nego:
        leave(nego.peer)
    for option, data in _questions(t):
        with under_tls(t) as nego:
            with suppress(Complaint):
                nego.option(option, data)
            leave(nego.peer)
    with under_tls(t) as nego:
        nego.send_option(Opt.INFO, b"\0\0\0\4na", length=10)
        leave(nego.peer)
    with under_tls(t) as nego:
        leave(t.peer.begin_transmission(nego, t.export).peer)
    with under_tls(t) as nego:
        session = t.peer.begin_transmission(nego, t.export)
        for _ in range(8):
            session.send(Cmd.READ, 0, min(t.size, 65536) // t.unit * t.unit)
        leave(session.peer)
    with under_tls(t) as nego:
        session = t.peer.begin_transmission(nego, t.export)
        session.peer.send(Request(type=Cmd.READ, cookie=1, length=t.unit).encode()[:17], summary="half a request")
        leave(session.peer)
    with under_tls(t) as nego:
        session = t.peer.begin_transmission(nego, t.export)
        session.send(Cmd.READ, 0, t.unit)
        session.disconnect()
        leave(session.peer)


@check(
    "leaving.during-starttls",
    proves=["TERM-041"],
    needs=[Capability.TLS, Capability.EXPORT],
    legal=True,
    hostile=True,
    level=Level.MUST,
)
def during_starttls(t: ServerTarget) -> None:
    """A client that vanishes between STARTTLS and the end of the TLS handshake disturbs nobody."""
    for way in WAYS:
        _during_starttls(t, way)
    with t.peer.negotiating(clear=True) as nego:
        expect_in_step(nego)


@check(
    "leaving.under-tls",
    proves=["TERM-041"],
    needs=[Capability.TLS_LAYER, Capability.EXPORT],
    legal=True,
    hostile=True,
    level=Level.MUST,
)
def leaving_under_tls(t: ServerTarget) -> None:
    """A client that vanishes under TLS, with and without closing it, disturbs nobody."""
    for way in (by_fin, by_rst, by_closing_tls):
        _under_tls(t, way)
    with under_tls(t) as nego:
        expect_in_step(t.peer.begin_transmission(nego, t.export))


@check(
    "leaving.leaks-nothing",
    proves=["TERM-041"],
    needs=[Capability.OWN_PROCESS, Capability.NEWSTYLE, Capability.EXPORT],
    legal=True,
    hostile=True,
)
def leaks_nothing(t: ServerTarget) -> None:
    """Clients that vanish leave no descriptors, threads, processes or memory behind."""
    vanish(t)
    t.wait(4 * t.quiet_s)
    before = t.source.vitals()
    for _ in range(2):
        vanish(t)
    patience = Deadline(t.timeout_s)
    while True:
        t.wait(4 * t.quiet_s)
        after = t.source.vitals()
        if not before or not after or not (kept := _kept(before, after)):
            return
        if patience.expired:
            raise Complaint(f"{kept} after many clients have vanished", "none")


def _kept(before: Vitals, after: Vitals) -> str:
    """What a server has more of than it can be given for other reasons; "" if nothing."""
    for what in ("processes", "threads", "descriptors"):
        grown = getattr(after, what) - getattr(before, what)
        # More than 60 clients came and went: a server that keeps something for each would have grown by that
        if grown >= _ROUNDS:
            return f"{grown} more {what}"
    grown = after.resident_bytes - before.resident_bytes
    return f"{grown >> 20} MiB more memory" if grown >= _MEMORY else ""


@check(
    "leaving.burns-no-cpu",
    proves=["TERM-041"],
    needs=[Capability.OWN_PROCESS, Capability.NEWSTYLE, Capability.EXPORT],
    legal=True,
    hostile=True,
)
def burns_no_cpu(t: ServerTarget) -> None:
    """A server whose clients have vanished is idle."""
    vanish(t)
    expect_idle(t)


@check(
    "leaving.burns-no-cpu-after-tls",
    proves=["TERM-041"],
    needs=[Capability.OWN_PROCESS, Capability.TLS_LAYER, Capability.EXPORT],
    legal=True,
    hostile=True,
)
def burns_no_cpu_after_tls(t: ServerTarget) -> None:
    """A server whose clients have vanished from under TLS is idle, too."""
    for way in (by_fin, by_rst, by_closing_tls):
        with under_tls(t) as nego:
            way(nego.peer)
        with under_tls(t) as nego:
            way(t.peer.begin_transmission(nego, t.export).peer)
    expect_idle(t)


def expect_idle(t: ServerTarget) -> None:
    """Complain if the server stays busy although nobody is connected."""
    used = restless_s(t)
    if not used:
        return
    t.source.revive()  # or it would slow down all that follows
    raise Complaint(f"{used:.2f} s of processor in {WATCHED_S} s while nobody is connected", "idleness")
