"""Leaving: the client vanishes at every moment, and the server serves the next one as if nothing had been."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.expect import expect, expect_in_step, expect_success
from nbdtest.conformance.idleness import WATCHED_S, restless_s
from nbdtest.conformance.peer import Peer
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.tls_probe import under_tls
from nbdtest.conformance.verdict import Complaint, Hangup
from nbdtest.net.tls import TLSStream
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, Opt, Option, Request, Sender

Moment = Callable[[ServerTarget, Callable[[Peer], None]], None]
_ROUNDS = 20


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


MOMENTS: tuple[tuple[str, Moment, bool], ...] = (
    ("after-connect", after_connect, False),
    ("after-greeting", after_greeting, False),
    ("after-client-flags", after_client_flags, False),
    ("within-option-header", within_option_header, False),
    ("within-option-data", within_option_data, False),
    ("before-option-reply", before_option_reply, False),
    ("after-go", after_go, False),
    ("within-request-header", within_request_header, False),
    ("with-reads-in-flight", with_reads_in_flight, False),
    ("after-first-reply", after_first_reply, False),
    ("within-write-payload", within_write_payload, True),
    ("after-disc", after_disc, False),
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
    assert isinstance(peer.stream, TLSStream)
    peer.note(b"", "close_notify", Sender.CLIENT)
    peer.stream = peer.stream.close_session()
    peer.cut()


WAYS: tuple[Callable[[Peer], None], ...] = (by_fin, by_rst, by_half_close)


def is_survived(name: str, moment: Moment, writes: bool) -> Check:
    """One moment, left in every way."""

    @check(
        f"leaving.{name}",
        proves=["TERM-041"],
        needs=[Capability.EXPORT, Capability.NEWSTYLE] if "option" in name or "flags" in name else [Capability.EXPORT],
        legal=True,
        hostile=True,
        writes=writes,
        level=Level.MUST,
        doc=f"A client that vanishes {name.replace('-', ' ')}, by FIN, RST or half-close, disturbs nobody else.",
    )
    def run(t: ServerTarget) -> None:
        with t.peer.transmitting() if t.has(Capability.SECOND_CONNECTION) else nullcontext() as other:
            for way in WAYS:
                moment(t, way)
            if other is not None:
                expect_in_step(other)
        with t.peer.transmitting() as session:
            expect_success(session.read(0, t.unit))

    return run


LEAVING = tuple(is_survived(*row) for row in MOMENTS)


def vanish(t: ServerTarget) -> None:
    """Leave at every moment that writes nothing, by FIN and by RST."""
    for _, moment, writes in MOMENTS:
        if not writes:
            moment(t, by_fin)
            moment(t, by_rst)


@check(
    "leaving.leaks-nothing",
    proves=["TERM-041"],
    needs=[Capability.OWN_PROCESS, Capability.NEWSTYLE, Capability.EXPORT],
    legal=True,
    hostile=True,
)
def leaks_nothing(t: ServerTarget) -> None:
    """Clients that vanish leave no descriptors, threads or processes behind."""
    vanish(t)
    t.wait(4 * t.quiet_s)
    before = t.source.vitals()
    for _ in range(2):
        vanish(t)
    t.wait(4 * t.quiet_s)
    after = t.source.vitals()
    if before is None or after is None:
        return
    for what in ("processes", "threads", "descriptors"):
        grown = getattr(after, what) - getattr(before, what)
        # 44 clients came and went: a server that keeps something for each would have grown by that
        expect(grown < _ROUNDS, f"{grown} more {what} after 44 clients vanished", "none")


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
