"""Plays a saved script once more, and has all names that a script's Python needs."""

from __future__ import annotations

from nbdtest.conformance.source import ServerSource
from nbdtest.conformance.target import DEFAULT_TIMEOUT_S, ServerTarget
from nbdtest.errors import UsageError
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.player import Player
from nbdtest.fuzz.problem import Problem
from nbdtest.fuzz.script import Hostile, Leave, Mode, Opening, Script, Send, Way
from nbdtest.wire import Cmd, CmdFlag, Opt, Option

__all__ = [
    "Cmd",
    "CmdFlag",
    "Command",
    "Hostile",
    "Leave",
    "Mode",
    "Opening",
    "Opt",
    "Option",
    "Script",
    "Send",
    "Way",
    "must_bear",
    "replay",
]


def replay(script: Script, source: ServerSource, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Problem | None:
    """Play `script` on a server and say what it did wrong, if anything.

    Raises:
        UsageError: it could write to a server whose disk is not to be changed.
    """
    player = Player(ServerTarget(source, timeout_s=timeout_s))
    must_bear(player, script)
    return player.play(script, afresh=True)


def must_bear(player: Player, script: Script) -> None:
    """See that `script` may be played.

    Raises:
        UsageError: it could write to a server whose disk is not to be changed.
    """
    if not player.ground.bears(script):
        name = player.target.source.name
        raise UsageError(f"{name} was running before and its disk is not to be changed, but this session could write")
