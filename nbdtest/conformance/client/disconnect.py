"""How the client leaves transmission: with DISC, with nothing under way, and with nothing after it."""

from __future__ import annotations

from collections.abc import Iterable

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client.replies import HOLD_S
from nbdtest.conformance.client_gallery import HONEST, SHOWN
from nbdtest.conformance.client_probe import Deed, Ending, probe_of
from nbdtest.conformance.client_target import ClientTarget
from nbdtest.conformance.declare import check
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.fakeserver import FakeServer, pass_through, pause
from nbdtest.wire import Cmd


@check("client-disconnect.says-so", proves=["TERM-042"], needs=[Ability.TRANSMITS], legal=True, role="client")
def says_so(t: ClientTarget) -> None:
    """A session in which all went well ends with DISC."""
    _says_so(t, HONEST, succeeded=True)


@check(
    "client-disconnect.says-so-after-failures",
    proves=["TERM-042"],
    needs=[Ability.TRANSMITS],
    legal=True,
    role="client",
)
def says_so_after_failures(t: ClientTarget) -> None:
    """A session in which the server failed or refused requests ends with DISC as well."""
    _says_so(t, [name for name in SHOWN if name.endswith("errors")], succeeded=False)


def _says_so(t: ClientTarget, names: Iterable[str], *, succeeded: bool) -> None:
    judged = False
    for name in names:
        seen = t.gallery.seen(name)
        if seen.exit is None or seen.succeeded is not succeeded:
            continue
        for talk in seen.talks:
            if talk.requests:
                judged = True
                t.transcript = seen.transcript
                if not talk.disconnected:
                    last = talk.requests[-1].type
                    raise Complaint(f"on the server {name!r} the connection ends after {last}", "CMD_DISC")
    if not judged:
        raise NotApplicable("no run of the command ended so")


def _slow(command: Cmd) -> Deed:
    def change(server: FakeServer) -> None:
        server.on(command).reply(pause(HOLD_S), pass_through())

    return change


WAITS = probe_of(
    "client-disconnect.waits-for-replies",
    "DISC is sent when every request has been answered, however long that takes.",
    *map(_slow, (Cmd.READ, Cmd.WRITE, Cmd.FLUSH, Cmd.BLOCK_STATUS)),
    proves=["TERM-040"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[Ability.DISC],
)
