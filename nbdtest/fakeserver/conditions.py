"""When a rule acts: the moments of a session, what is demanded of them, and how often. Values and counters, no I/O."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nbdtest.errors import PeerViolation
from nbdtest.fakeserver.actions import value_to_json
from nbdtest.fakeserver.rendering import Asked
from nbdtest.fakeserver.session import Session
from nbdtest.wire import ClientFlags, Cmd, InfoRequest, MetaContextRequest, Opt, Option

__all__ = ["COUNTING", "Counted", "Moment", "Trigger", "Where", "attributes", "holds", "name_of", "where_to_json"]

COUNTING = ("nth", "times", "connection", "per_connection")
"""What `on` takes for counting."""


class Moment(enum.Enum):
    """Moments of a connection that are neither an option nor a command."""

    CONNECT = "connect"
    """Before anything is sent."""
    GREETING = "greeting"
    CLIENT_FLAGS = "client flags"
    TRANSMISSION = "transmission"
    """The handshake is over; nothing is sent at this moment by a correct server."""

    def __repr__(self) -> str:
        return f"Moment.{self.name}"


Trigger: TypeAlias = Cmd | Opt | Moment
Where: TypeAlias = Callable[[Any], bool] | Mapping[str, Any] | None
"""A function of what was received (or is about to be sent), or values that its attributes have to have."""


@dataclass(slots=True, kw_only=True)
class Counted:
    """How often something was seen, and whether this time counts."""

    nth: int | None
    times: int | None
    per_connection: bool
    connection: int | None
    seen: dict[int | None, int] = field(default_factory=dict)
    acted: dict[int | None, int] = field(default_factory=dict)
    fired: int = 0

    def due(self, connection: int) -> bool:
        """Count one more event, and say whether the rule wants to act on it."""
        if self.connection not in (None, connection):
            return False
        key = connection if self.per_connection else None
        self.seen[key] = self.seen.get(key, 0) + 1
        return self._wants(key, self.seen[key])

    def would_be_due(self, connection: int) -> bool:
        """What `due` would say; nothing is counted."""
        if self.connection not in (None, connection):
            return False
        key = connection if self.per_connection else None
        return self._wants(key, self.seen.get(key, 0) + 1)

    def _wants(self, key: int | None, count: int) -> bool:
        if self.nth is not None:
            return self.nth <= count <= self._last()
        return self.times is None or self.acted.get(key, 0) < self.times

    def act(self, connection: int) -> None:
        """Count that the rule acts."""
        key = connection if self.per_connection else None
        self.acted[key] = self.acted.get(key, 0) + 1
        self.fired += 1

    def live(self) -> bool:
        """Whether it can still act."""
        if self.per_connection:
            return True
        if self.nth is not None:
            return self.seen.get(None, 0) < self._last()
        return self.times is None or self.acted.get(None, 0) < self.times

    def _last(self) -> int:
        return (self.nth or 1) + (self.times or 1) - 1

    def to_json(self) -> dict[str, Any]:
        """What is not as it is by default."""
        return {name: value for name in COUNTING if (value := getattr(self, name))}

    def arguments(self) -> str:
        """The same as the end of the arguments of `on`."""
        shown = ""
        for name, value in self.to_json().items():
            shown += f", {name}={value}"
        return shown


def holds(where: Where, received: Any) -> bool:
    """Whether what was received is as `where` demands."""
    if where is None:
        return True
    if callable(where):
        return bool(where(received))
    if isinstance(received, Option):
        said = _said_in(received)
        return all(getattr(received, name, said.get(name)) == value for name, value in where.items())
    return all(getattr(received, name, None) == value for name, value in where.items())


def _said_in(option: Option) -> Mapping[str, Any]:
    """What the data of an option say, as far as they can be read."""
    if option.option == Opt.EXPORT_NAME:
        return {"name": option.data.decode("utf-8", "surrogateescape")}
    kind = _CONTENTS.get(option.option)
    if kind is None:
        return {}
    try:
        message = kind.decode(option.data)
    except PeerViolation:
        return {}
    return {each.name: getattr(message, each.name) for each in dataclasses.fields(message)}


def name_of(trigger: Trigger) -> str:
    """What people call it."""
    return repr(trigger) if isinstance(trigger, Moment) else str(trigger)


def attributes(trigger: Trigger) -> tuple[list[str], str]:
    """What a `where` may name, and of what."""
    kind: type[Any]
    match trigger:
        case Cmd():
            kind = Asked
        case Opt():
            kind = Option
        case Moment.CLIENT_FLAGS:
            kind = ClientFlags
        case _:
            kind = Session
    names = [each.name for each in dataclasses.fields(kind)]
    if isinstance(trigger, Opt):
        contents = _CONTENTS.get(trigger)
        names += [each.name for each in dataclasses.fields(contents)] if contents else []
        names += ["name"] if trigger == Opt.EXPORT_NAME else []
    return names, f"{name_of(trigger)} as it is received"


def where_to_json(where: Where) -> dict[str, Any]:
    """Give the part of a rule's row that holds its condition."""
    if not isinstance(where, Mapping) or not where:
        return {}
    return {"where": {name: int(v) if isinstance(v, int) else value_to_json(v) for name, v in where.items()}}


_CONTENTS: Mapping[Opt, type[InfoRequest | MetaContextRequest]] = {
    Opt.INFO: InfoRequest,
    Opt.GO: InfoRequest,
    Opt.LIST_META_CONTEXT: MetaContextRequest,
    Opt.SET_META_CONTEXT: MetaContextRequest,
}
