"""What a server can do at one moment, as frozen values: the vocabulary of rules, of scripts and of the correct server.

An action prints as the code that makes it, and goes to JSON and back. It says what is sent, not how it is framed: that
depends on what was negotiated, and is the business of `rendering`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nbdtest.errors import UsageError
from nbdtest.wire import Errno, Extent, HandshakeFlag, Info, Opt, Rep, ReplyFlag, ReplyType, TransmissionFlag

__all__ = [
    "ACTIONS",
    "Ack",
    "Action",
    "Chunk",
    "Close",
    "Cut",
    "Data",
    "Drip",
    "Error",
    "ExportReply",
    "Greeting",
    "Hold",
    "Hole",
    "InfoBlockSize",
    "InfoDescription",
    "InfoExport",
    "InfoName",
    "InfoOther",
    "MetaContext",
    "NoData",
    "OldstyleGreeting",
    "OptError",
    "OptReply",
    "PassThrough",
    "Pause",
    "Plan",
    "Raw",
    "Release",
    "ServerExport",
    "Simple",
    "Stall",
    "Status",
    "ack",
    "action_from_json",
    "action_to_json",
    "chunk",
    "close",
    "code_name",
    "cut",
    "data",
    "drip",
    "error",
    "export_reply",
    "greeting",
    "hold",
    "hole",
    "info_block_size",
    "info_description",
    "info_export",
    "info_name",
    "info_other",
    "meta_context",
    "no_data",
    "oldstyle_greeting",
    "opt_error",
    "opt_reply",
    "pass_through",
    "pause",
    "raw",
    "release",
    "server_export",
    "simple",
    "stall",
    "status",
    "value_from_json",
    "value_to_json",
]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Action:
    """One step. Positional fields print without their name; fields that have their default are left out."""

    def __repr__(self) -> str:
        shown = []
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if not each.kw_only:
                shown.append(repr(value))
            elif value != each.default:
                shown.append(f"{each.name}={value!r}")
        return f"{code_name(type(self))}({', '.join(shown)})"


Plan: TypeAlias = tuple[Action, ...]
"""Actions in their order: a whole reply, or what follows one."""


# Replies to commands. Positions are absolute; None is what the request asked for.


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Data(Action):
    """Bytes of the export (or other `content`) in a content chunk. `done` overrides where DONE is set."""

    at: int | None = None
    length: int | None = None
    content: bytes | None = None
    done: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Hole(Action):
    """A chunk that says "zeroes" without sending them."""

    at: int | None = None
    length: int | None = None
    done: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Error(Action):
    """An error chunk, with offset if `at` is given; without structured replies an error reply."""

    errno: Errno = field(kw_only=False)
    at: int | None = None
    message: str = ""
    done: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Status(Action):
    """A block status chunk for one context, by name or by id."""

    context: str | int = field(kw_only=False)
    extents: tuple[Extent, ...] = field(default=(), kw_only=False)
    done: bool | None = None

    def __repr__(self) -> str:
        pairs = "".join(f", ({extent.length}, {extent.status})" for extent in self.extents)
        return f"status({self.context!r}{pairs}{'' if self.done is None else f', done={self.done}'})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NoData(Action):
    """A NONE chunk: success, or the end of a reply; without structured replies a reply without error."""

    done: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Chunk(Action):
    """A chunk of any type with any payload; `flags` replaces the reply flags, DONE included."""

    type: ReplyType = field(kw_only=False)
    payload: bytes = field(default=b"", kw_only=False)
    flags: ReplyFlag | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Simple(Action):
    """A simple reply whatever was negotiated, and bytes after it."""

    errno: Errno = field(default=Errno.OK, kw_only=False)
    content: bytes = b""
    cookie: int | None = None


# Replies to options, and greetings. None is what the export or the settings say.


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Ack(Action):
    """REP_ACK, the end of a successful answer."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OptError(Action):
    """An error reply to an option."""

    type: Rep = field(kw_only=False)
    text: str = field(default="", kw_only=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OptReply(Action):
    """An option reply of any type with any data; `option` replaces the echoed number."""

    type: Rep = field(kw_only=False)
    data: bytes = field(default=b"", kw_only=False)
    option: Opt | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class InfoExport(Action):
    """REP_INFO with INFO_EXPORT."""

    size: int | None = None
    flags: TransmissionFlag | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class InfoName(Action):
    """REP_INFO with INFO_NAME."""

    name: str | None = field(default=None, kw_only=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class InfoDescription(Action):
    """REP_INFO with INFO_DESCRIPTION."""

    description: str | None = field(default=None, kw_only=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class InfoBlockSize(Action):
    """REP_INFO with INFO_BLOCK_SIZE."""

    minimum: int | None = None
    preferred: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class InfoOther(Action):
    """REP_INFO with any information type and data."""

    info: Info = field(kw_only=False)
    data: bytes = field(default=b"", kw_only=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ServerExport(Action):
    """REP_SERVER: one line of the list of exports."""

    name: str = field(default="", kw_only=False)
    description: str = field(default="", kw_only=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MetaContext(Action):
    """REP_META_CONTEXT."""

    name: str = field(kw_only=False)
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ExportReply(Action):
    """The bare answer to OPT_EXPORT_NAME."""

    size: int | None = None
    flags: TransmissionFlag | None = None
    padded: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Greeting(Action):
    """The 18 bytes of a newstyle greeting."""

    flags: HandshakeFlag | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OldstyleGreeting(Action):
    """The 152 bytes of an oldstyle greeting."""

    size: int | None = None
    flags: TransmissionFlag | None = None


# Anything, anywhere.


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PassThrough(Action):
    """What the correct server would do."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Raw(Action):
    """These bytes."""

    data: bytes = field(kw_only=False)


# When and how bytes leave.


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pause(Action):
    """The rest of this reply comes `seconds` later; other requests are answered meanwhile."""

    seconds: float = field(kw_only=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Stall(Action):
    """Nothing more leaves on this connection, which stays open."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Drip(Action):
    """What follows leaves one byte at a time, `every_s` seconds apart: the `first` bytes, or all of this reply."""

    every_s: float = 0.0005
    first: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Hold(Action):
    """The rest of this reply waits for `release` of this name, on any connection; not if that has happened."""

    name: str = field(kw_only=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Release(Action):
    """Lets everything go that is held under this name."""

    name: str = field(kw_only=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Cut(Action):
    """`after` more bytes leave this connection, then it ends by FIN, or by RST where there is such a thing."""

    after: int = 0
    rst: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Close(Action):
    """The connection ends by FIN after what has been sent."""


def status(context: str | int, *extents: Extent | tuple[int, int], done: bool | None = None) -> Status:
    """Describe one context by extents (length, status).

    Raises:
        UsageError: something is no such pair.
    """
    plain = tuple(map(_extent, extents))
    return Status(context, plain, done=done)


data = Data
hole = Hole
error = Error
no_data = NoData
chunk = Chunk
simple = Simple
ack = Ack
opt_error = OptError
opt_reply = OptReply
info_export = InfoExport
info_name = InfoName
info_description = InfoDescription
info_block_size = InfoBlockSize
info_other = InfoOther
server_export = ServerExport
meta_context = MetaContext
export_reply = ExportReply
greeting = Greeting
oldstyle_greeting = OldstyleGreeting
pass_through = PassThrough
raw = Raw
pause = Pause
stall = Stall
drip = Drip
hold = Hold
release = Release
cut = Cut
close = Close


def _extent(extent: Any) -> Extent:
    if isinstance(extent, Extent):
        return extent
    try:
        length, value = extent
    except (TypeError, ValueError):
        raise UsageError(f"status() takes pairs (length, status), not {extent!r}") from None
    return Extent(length, value)


def code_name(kind: type[Action]) -> str:
    """What code calls the action."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


class _Registry(dict[str, type[Action]]):
    """Action classes by the name that code uses for them."""

    def add(self, kind: type[Action]) -> type[Action]:
        self[code_name(kind)] = kind
        return kind


ACTIONS = _Registry()
for _kind in Action.__subclasses__():
    ACTIONS.add(_kind)

_NUMBERS: Mapping[str, type[int]] = {
    kind.__name__: kind for kind in (Errno, HandshakeFlag, Info, Opt, Rep, ReplyFlag, ReplyType, TransmissionFlag)
}


def action_to_json(action: Action) -> dict[str, Any]:
    """Give the action as what `json.dumps` takes; fields that have their default are left out.

    Raises:
        UsageError: it holds something that only exists in this process, such as a function.
    """
    fields = {
        each.name: value_to_json(getattr(action, each.name))
        for each in dataclasses.fields(action)
        if getattr(action, each.name) != each.default
    }
    return {"action": code_name(type(action)), **fields}


def action_from_json(row: Mapping[str, Any]) -> Action:
    """Make the action again that `action_to_json` described.

    Raises:
        UsageError: it does not describe an action.
    """
    try:
        kind = ACTIONS[row["action"]]
        return kind(**{name: value_from_json(value) for name, value in row.items() if name != "action"})
    except (KeyError, TypeError, ValueError) as problem:
        raise UsageError(f"this is no action ({problem}): {str(row)[:120]}") from problem


def value_to_json(value: Any) -> Any:
    """Give one value of an action as what `json.dumps` takes."""
    match value:
        case Action():
            return action_to_json(value)
        case Extent():
            return {"extent": [value.length, value.status]}
        case bytes():
            return {"hex": value.hex()}
        case tuple():
            return [value_to_json(item) for item in value]
        case bool() | float() | str() | None:
            return value
        case int():
            name = type(value).__name__
            return {name: int(value)} if name in _NUMBERS else value
    raise UsageError(f"{value!r} cannot be saved: it exists in this process only")


def value_from_json(value: Any) -> Any:
    """Make the value again that `value_to_json` gave."""
    match value:
        case {"action": _}:
            return action_from_json(value)
        case {"extent": [length, status]}:
            return Extent(length, status)
        case {"hex": str(digits)}:
            return bytes.fromhex(digits)
        case dict() if len(value) == 1 and next(iter(value)) in _NUMBERS:
            name, number = next(iter(value.items()))
            return _NUMBERS[name](number)
        case list():
            return tuple(value_from_json(item) for item in value)
        case dict():
            raise ValueError(f"unknown value {value}")
    return value
