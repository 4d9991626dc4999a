"""Mutants of which requests are accepted, and which errors the others get."""

from __future__ import annotations

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, Errno

__all__: list[str] = []


@mutant("command.unknown-succeeds", breaks=["ERR-029"])
def unknown_succeeds(server: FakeServer) -> None:
    """Unknown commands are answered with success."""
    server.configure(quirks={"skips_command_check"})


@mutant("command.unknown-flags-ignored", breaks=["ERR-030", "ERR-031"])
def unknown_flags_ignored(server: FakeServer) -> None:
    """Command flags that are unknown or do not belong there are ignored."""
    server.configure(quirks={"skips_flag_check"})


@mutant("command.flush-fails", breaks=["FLAG-003", "FLAG-013"])
def flush_fails(server: FakeServer) -> None:
    """FLUSH is offered but always fails."""
    server.on(Cmd.FLUSH).reply(actions.error(Errno.EINVAL, message="what is that?"))


@mutant("command.raw-errno", breaks=["ERR-001"])
def raw_errno(server: FakeServer) -> None:
    """Errors are numbers of the server's own machine."""
    server.on(Cmd.READ).rewrite(
        lambda asked, plan: [actions.error(Errno(14)) if isinstance(each, actions.Error) else each for each in plan]
    )
