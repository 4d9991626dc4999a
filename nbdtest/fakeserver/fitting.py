"""What fits where: mistakes in rules and scripts are told where they are made, not when a client comes. Pure.

Numbers become members of their enums here, so that `error(errno.EIO)` is `error(Errno.EIO)`.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from nbdtest.errors import UsageError
from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan, code_name
from nbdtest.fakeserver.damage import Mangle
from nbdtest.wire.numbers import Flags, Number

__all__ = ["CHUNKS", "GREETINGS", "OPTION_REPLIES", "checked", "checked_counting", "checked_plan", "checked_where"]

CHUNKS: tuple[type[Action], ...] = (
    actions.Data,
    actions.Hole,
    actions.Error,
    actions.Status,
    actions.NoData,
    actions.Chunk,
    actions.Simple,
)
"""What answers a command."""
OPTION_REPLIES: tuple[type[Action], ...] = (
    actions.Ack,
    actions.OptError,
    actions.OptReply,
    actions.InfoExport,
    actions.InfoName,
    actions.InfoDescription,
    actions.InfoBlockSize,
    actions.InfoOther,
    actions.ServerExport,
    actions.MetaContext,
    actions.ExportReply,
)
GREETINGS: tuple[type[Action], ...] = (actions.Greeting, actions.OldstyleGreeting)
_MESSAGES = (*CHUNKS, *OPTION_REPLIES, *GREETINGS)


def checked_plan(plan: Iterable[Any], messages: tuple[type[Action], ...], where: str) -> Plan:
    """Give the plan, with numbers made members of their enums, if it can be carried out.

    Args:
        messages: the actions that are messages there; what is raw, or about time and ends, fits everywhere.
        where: names the place in errors, such as "an answer to CMD_READ".

    Raises:
        UsageError: something is no action, does not fit there, or has a value that cannot be sent.
    """
    found = []
    for action in plan:
        action = checked(action)
        bare = action
        while isinstance(bare, Mangle):
            bare = bare.of
        if bare is not action and not isinstance(bare, (*_MESSAGES, actions.Raw, actions.PassThrough)):
            raise UsageError(f"{bare!r} sends nothing that could be mangled")
        if isinstance(bare, _MESSAGES) and not isinstance(bare, messages):
            names = ", ".join(f"{code_name(kind)}()" for kind in messages)
            there = f"there {names} may be sent" if names else "nothing has a form there"
            raise UsageError(f"{bare!r} is no part of {where}: {there}, and raw() sends any bytes")
        found.append(action)
    return tuple(found)


def checked(action: Any) -> Action:
    """Give the action, with numbers made members of their enums.

    Raises:
        UsageError: it is no action, or one of its values cannot be what it is.
    """
    if not isinstance(action, Action):
        if isinstance(action, type) and issubclass(action, Action):
            hint = f": write {code_name(action)}()"
        elif isinstance(action, list | tuple):
            hint = ": give actions one by one, as in reply(*plan)"
        elif isinstance(action, bytes | bytearray):
            hint = ": write raw(...)"
        else:
            hint = ""
        raise UsageError(f"an action is expected, not {action!r}{hint}")
    changes: dict[str, Any] = {}
    kind: Any = type(action)
    for name, hint in _hints(kind).items():
        value = getattr(action, name)
        fitted = _fitted(value, hint, f"{code_name(kind)}(): {name}")
        if fitted is not value:
            changes[name] = fitted
    return replace(action, **changes) if changes else action


def checked_where(where: Any, known: Iterable[str], what: str) -> None:
    """Check the condition of a rule.

    Raises:
        UsageError: it is neither a function nor a mapping, or names what `what` does not have.
    """
    if where is None or callable(where):
        return
    if not isinstance(where, Mapping):
        raise UsageError(f"where= takes a function or a mapping of attributes to values, not {where!r}")
    names = set(known)
    for name in where:
        if name not in names:
            raise UsageError(f"where= names {name!r}: {what} has {', '.join(sorted(names))}")


def checked_counting(**numbers: int | None) -> None:
    """Check nth, times and connection.

    Raises:
        UsageError: one of them is no number from 1 on.
    """
    for name, value in numbers.items():
        if value is not None and type(value) is not int:
            raise UsageError(f"{name}={value!r}: a number is needed")
        if value is not None and value < 1:
            raise UsageError(f"{name}={value}: counting begins at 1")


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(kind)
    return {each.name: hints[each.name] for each in dataclasses.fields(kind)}


def _fitted(value: Any, hint: Any, name: str) -> Any:
    """Give the value as its type wants it."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for part in parts:
        found, fitted = _as(value, part, name)
        if found:
            return fitted
    wanted = " or ".join("None" if part is type(None) else getattr(part, "__name__", str(part)) for part in parts)
    raise UsageError(f"{name} takes {wanted}, not {value!r}")


def _as(value: Any, part: Any, name: str) -> tuple[bool, Any]:
    origin = typing.get_origin(part)
    if origin is tuple:
        return _as_tuple(value, typing.get_args(part), name)
    if part is Action:
        return True, checked(value)
    if issubclass(part, Number | Flags):
        if isinstance(value, part):
            return True, value
        foreign = not isinstance(value, int) or isinstance(value, bool | Number | Flags)
        return (False, None) if foreign or value < 0 else (True, part(value))
    if part is bytes:
        return isinstance(value, bytes | bytearray | memoryview), _plain(value)
    if part is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0, value
    if part is int:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if is_number and value < 0 and not name.startswith("mangle"):
            raise UsageError(f"{name} cannot be negative, like {value}")
        return is_number, value
    return isinstance(value, part), value


def _as_tuple(value: Any, parts: tuple[Any, ...], name: str) -> tuple[bool, Any]:
    if not isinstance(value, tuple):
        return False, None
    if parts[-1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        return False, None
    fitted = tuple(_fitted(each, part, name) for each, part in zip(value, parts, strict=True))
    same = all(ours is theirs for ours, theirs in zip(fitted, value, strict=True))
    return True, value if same else fitted


def _plain(value: Any) -> Any:
    return value if isinstance(value, bytes) or not isinstance(value, bytearray | memoryview) else bytes(value)
