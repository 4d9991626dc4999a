"""Mutants of how a session ends, and of what is left behind."""

from __future__ import annotations

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd

__all__: list[str] = []


@mutant("disc.answered", breaks=["CMD-076"], checks=["disconnect.closes", "disconnect.at-once", "*"])
def disc_answered(server: FakeServer) -> None:
    """DISC gets a reply."""
    server.configure(quirks={"answers_disc"})


@mutant("disc.stays", breaks=["TERM-031", "CMD-073"], checks=["disconnect.closes", "disconnect.at-once", "*"])
def disc_stays(server: FakeServer) -> None:
    """The connection stays open after DISC."""
    server.configure(quirks={"stays_after_disc"})


@mutant("disc.drops-pending", breaks=["CMD-071"], checks=["disconnect.finishes-reads", "*"])
def disc_drops_pending(server: FakeServer) -> None:
    """Requests that are being carried out are forgotten at DISC."""
    server.configure(quirks={"drops_pending_at_disc"})
    server.on(Cmd.READ, where=lambda asked: asked.length == 65536).reply(actions.pause(0.02), actions.pass_through())


def _crowded(server: FakeServer, came: Moment, went: Moment) -> None:
    """Say nothing more to who comes while seven are between two moments."""
    inside: list[object] = []

    def comes(session: object, plan: actions.Plan) -> actions.Plan:
        inside.append(session)
        return (*plan, actions.stall()) if len(inside) > 7 else plan

    def goes(session: object, plan: actions.Plan) -> actions.Plan:
        del inside[:1]
        return plan

    server.on(came).rewrite(comes)
    server.on(went).rewrite(goes)


@mutant("leaving.idle-crowd-blocks", breaks=["TERM-041"], checks=["abuse.idle-crowd", "*"])
def idle_crowd_blocks(server: FakeServer) -> None:
    """While seven clients say nothing nobody else is greeted."""
    _crowded(server, Moment.CONNECT, Moment.CLIENT_FLAGS)


@mutant("leaving.half-handshakes-block", breaks=["TERM-041"], checks=["abuse.half-handshakes", "*"])
def half_handshakes_block(server: FakeServer) -> None:
    """While seven clients are in the handshake nobody else is served."""
    _crowded(server, Moment.CLIENT_FLAGS, Moment.TRANSMISSION)
