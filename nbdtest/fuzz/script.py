"""What a session does, as frozen values: they print as the Python that makes them, and go to JSON and back.

A script knows no server: the same one can be played on any.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nbdtest.errors import UsageError
from nbdtest.fuzz.commands import Brief, Command
from nbdtest.wire import Opt, Option
from nbdtest.wire.numbers import Cmd, CmdFlag

__all__ = ["Hostile", "Leave", "Mode", "Opening", "Script", "Send", "Step", "Way", "script_from_json", "script_to_json"]


class _Word(enum.StrEnum):
    """A choice that prints as Python."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class Mode(_Word):
    """Which replies a connection asks for."""

    SIMPLE = "simple"
    STRUCTURED = "structured"
    EXTENDED = "extended"


class Way(_Word):
    """How a client leaves."""

    DISC = "disc"
    FIN = "fin"
    RST = "rst"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Opening(Brief):
    """How a connection is opened: `options` first, of any kind, then what it takes to get to transmission.

    With `padded` the 124 zeroes after EXPORT_NAME are not declined; with `slowly` the handshake is sent byte by byte.
    """

    mode: Mode = Mode.SIMPLE
    contexts: bool = False
    by_export_name: bool = False
    padded: bool = False
    slowly: bool = False
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Send(Brief):
    """Send `commands` on a connection and wait for all replies.

    They are in flight together as far as the outcome does not depend on their order. In a session of several
    connections a FLUSH follows, so that what was written is seen on all of them.
    """

    on: int = 0
    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Hostile(Brief):
    """Send bytes that make no sense, and then nothing more: whatever the server does on this connection is right.

    It stays open to the end of the session, or to a `Leave`. The bytes follow the handshake, or with `early` the
    greeting. Other clients must not suffer.
    """

    on: int = 0
    data: bytes = b""
    early: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Leave(Brief):
    """End a connection."""

    on: int = 0
    way: Way = Way.DISC


Step: TypeAlias = Send | Hostile | Leave


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Script(Brief):
    """A whole session: its connections, opened when first used, and what happens on them in this order."""

    openings: tuple[Opening, ...] = (Opening(),)
    steps: tuple[Step, ...] = ()

    @property
    def commands(self) -> int:
        """How many commands it sends."""
        return sum(len(step.commands) for step in self.steps if isinstance(step, Send))

    @property
    def messages(self) -> int:
        """How many messages it sends besides the plain handshake."""
        options = sum(len(opening.options) for opening in self.openings)
        return self.commands + options + sum(isinstance(step, Hostile) for step in self.steps)


def script_to_json(script: Script) -> dict[str, Any]:
    """Give the script as what `json.dumps` takes."""
    return {
        "openings": [
            {
                "mode": opening.mode.value,
                "contexts": opening.contexts,
                "by_export_name": opening.by_export_name,
                "padded": opening.padded,
                "slowly": opening.slowly,
                "options": [[int(option.option), option.data.hex()] for option in opening.options],
            }
            for opening in script.openings
        ],
        "steps": [_step_to_json(step) for step in script.steps],
    }


def script_from_json(row: Mapping[str, Any]) -> Script:
    """Make the script again that `script_to_json` described.

    Raises:
        UsageError: it does not describe a script.
    """
    try:
        return Script(
            openings=tuple(
                Opening(
                    mode=Mode(opening["mode"]),
                    contexts=bool(opening["contexts"]),
                    by_export_name=bool(opening["by_export_name"]),
                    padded=bool(opening.get("padded")),
                    slowly=bool(opening.get("slowly")),
                    options=tuple(
                        Option(option=Opt(number), data=bytes.fromhex(data)) for number, data in opening["options"]
                    ),
                )
                for opening in row["openings"]
            ),
            steps=tuple(_step_from_json(step) for step in row["steps"]),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise UsageError(f"this is no script ({problem}): {str(row)[:120]}") from problem


def _step_to_json(step: Step) -> dict[str, Any]:
    match step:
        case Send(on=on, commands=commands):
            rows = [[int(c.type), int(c.flags), c.offset, c.length, c.seed] for c in commands]
            return {"step": "send", "on": on, "commands": rows}
        case Hostile(on=on, data=data, early=early):
            return {"step": "hostile", "on": on, "data": data.hex(), "early": early}
        case Leave(on=on, way=way):
            return {"step": "leave", "on": on, "way": way.value}


def _step_from_json(row: Mapping[str, Any]) -> Step:
    match row["step"]:
        case "send":
            commands = tuple(
                Command(type=Cmd(kind), flags=CmdFlag(flags), offset=offset, length=length, seed=seed)
                for kind, flags, offset, length, seed in row["commands"]
            )
            return Send(on=row["on"], commands=commands)
        case "hostile":
            return Hostile(on=row["on"], data=bytes.fromhex(row["data"]), early=bool(row["early"]))
        case "leave":
            return Leave(on=row["on"], way=Way(row["way"]))
    raise ValueError(f"unknown step {row['step']!r}")
