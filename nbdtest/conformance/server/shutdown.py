"""A server that is told to stop while clients are connected. Few do more than die, so these rules only warn."""

from __future__ import annotations

import signal

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import UNKNOWN_OPTION, expect, expect_in_step, expect_success
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.tls_probe import expect_goodbye, under_tls
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.net.stream import Arrival
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, Errno, Rep

PROCESS = [Capability.OWN_PROCESS, Capability.EXPORT]
_PATIENCE_S = 1.0
"""For a server that is stopped to end its connections; many wait for their clients to do so."""


def stop(t: ServerTarget) -> None:
    """Ask the server to stop, and give it a moment to do so."""
    if not t.source.signal(signal.SIGTERM):
        raise NotApplicable(Capability.OWN_PROCESS.value)
    t.wait(t.quiet_s)


@check(
    "shutdown.option-is-refused",
    proves=["TERM-016", "REP-040"],
    needs=[*PROCESS, Capability.FIXED_NEWSTYLE],
    legal=True,
    hostile=True,
    level=Level.SHOULD,
)
def option_is_refused(t: ServerTarget) -> None:
    """A server that is shut down during a handshake answers the next option with ERR_SHUTDOWN."""
    try:
        with t.peer.negotiating() as nego:
            stop(t)
            answer = nego.option(UNKNOWN_OPTION)
            expect(answer.final.type == Rep.ERR_SHUTDOWN, f"the next option is answered with {answer}", "ERR_SHUTDOWN")
    finally:
        t.source.revive()


@check(
    "shutdown.request-is-told",
    proves=["TERM-037", "ERR-009"],
    needs=PROCESS,
    legal=True,
    hostile=True,
    level=Level.SHOULD,
)
def request_is_told(t: ServerTarget) -> None:
    """A request that comes during a shutdown is done, fails with ESHUTDOWN, or ends the connection."""
    try:
        with t.peer.transmitting() as session:
            stop(t)
            if not session.peer.is_over():
                reply = session.read(0, t.unit)
                expect(reply.error in (Errno.OK, Errno.ESHUTDOWN), f"READ is answered with {reply}", "ESHUTDOWN")
    finally:
        t.source.revive()


@check(
    "shutdown.closes-tls",
    proves=["TERM-033"],
    needs=[*PROCESS, Capability.TLS_LAYER],
    legal=True,
    hostile=True,
    level=Level.SHOULD,
)
def closes_tls(t: ServerTarget) -> None:
    """A server that is shut down while it speaks TLS closes that, with close_notify, before the connection ends."""
    try:
        with under_tls(t) as nego:
            session = t.peer.begin_transmission(nego, t.export)
            expect_in_step(session)
            stop(t)
            if session.peer.stream.arrival(_PATIENCE_S) is Arrival.NOTHING:
                raise NotApplicable("the server keeps its connections after SIGTERM")
            expect_goodbye(session.peer, "the signal to stop")
    finally:
        t.source.revive()


@check(
    "shutdown.requests-are-finished", proves=["TERM-035"], needs=PROCESS, legal=True, hostile=True, level=Level.SHOULD
)
def requests_are_finished(t: ServerTarget) -> None:
    """Requests that came before the shutdown are answered before the connection ends."""
    length = min(t.size, t.facts.maximum_payload, 1 << 20) // t.unit * t.unit
    try:
        with t.peer.transmitting() as session:
            cookies = [session.send(Cmd.READ, 0, length) for _ in range(8)]
            session.receive(cookies[0])
            stop(t)
            for reply in session.receive_all(cookies[1:]):
                expect_success(reply)
    finally:
        t.source.revive()
