"""Plays a saved script once more, and has all names that a script's Python needs."""

from __future__ import annotations

from nbdtest.conformance.source import ServerSource
from nbdtest.conformance.target import DEFAULT_TIMEOUT_S, ServerTarget
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
    "replay",
]


def replay(script: Script, source: ServerSource, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Problem | None:
    """Play `script` on a server and say what it did wrong, if anything."""
    return Player(ServerTarget(source, timeout_s=timeout_s)).play(script, afresh=True)
