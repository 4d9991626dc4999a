"""The gallery on servers that do not let everything be gathered."""

from __future__ import annotations

import pytest

from nbdtest.conformance import NotApplicable, ServerTarget
from nbdtest.fakeserver import FakeServer, actions
from nbdtest.fakeserver.mutants import MUTANTS
from nbdtest.wire import Cmd
from tests.conformance.configurations import CONFIGURATIONS, target_of


def modes_seen(target: ServerTarget) -> list[str]:
    seen = []
    for mode in target.modes:
        try:
            if list(target.gallery.replies(mode=mode)):
                seen.append(mode)
        except NotApplicable:
            continue
    return seen


def test_a_mode_in_which_no_session_can_be_opened_is_left_out() -> None:
    made = MUTANTS["extended.contexts-need-structured"]
    with target_of(CONFIGURATIONS["full"], change=made.apply) as target:
        assert modes_seen(target) == ["simple", "structured"]


@pytest.mark.parametrize("command", [Cmd.WRITE, Cmd.CACHE])
def test_a_session_that_breaks_is_followed_by_another(command: Cmd) -> None:
    def hang_up(server: FakeServer) -> None:
        server.on(command).reply(actions.close())

    with target_of(CONFIGURATIONS["full"], change=hang_up) as target:
        assert [reply.request.type for reply in target.gallery.replies(Cmd.READ, mode="simple")] != []
