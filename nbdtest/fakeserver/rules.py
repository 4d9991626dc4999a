"""Rules: which moment of a session gets which plan instead of the correct one. Values and counters, no I/O.

A rule is made in steps: `book.on(Cmd.READ, nth=2).reply(...).then(...)`. Rules are asked in the order in which they
were made, and the first that matches acts. `on_send` rules see every message that is about to leave, whoever made it.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from nbdtest.errors import UsageError
from nbdtest.fakeserver.actions import Action as Action
from nbdtest.fakeserver.actions import PassThrough, Plan, action_from_json, action_to_json
from nbdtest.fakeserver.damage import Mangle
from nbdtest.wire import Cmd, Message, Opt

__all__ = [
    "Moment",
    "Rewrite",
    "Rule",
    "RuleBook",
    "SendRule",
    "Trigger",
    "Where",
    "trigger_from_json",
    "trigger_to_json",
]


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
Rewrite: TypeAlias = Callable[[Any], Message | bytes | Iterable[Message | bytes] | None]
"""What leaves instead of a message: another, some bytes, several of them, or nothing."""


@dataclass(slots=True, kw_only=True)
class _Counted:
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
        self.seen[key] = count = self.seen.get(key, 0) + 1
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

    def arguments(self) -> str:
        shown = ""
        for name, default in (("nth", None), ("times", None), ("connection", None), ("per_connection", False)):
            if (value := getattr(self, name)) != default:
                shown += f", {name}={value}"
        return shown


class Rule:
    """Replaces the correct answer to one kind of thing that a client does."""

    def __init__(self, trigger: Trigger, where: Where, counted: _Counted, changed: Callable[[], None]) -> None:
        self.trigger = trigger
        self._where = where
        self.counted = counted
        self._changed = changed
        self.plan: Plan | None = None
        self.compute: Callable[[Any, Plan], Iterable[Action]] | None = None
        self.after: Plan = ()

    @property
    def fired(self) -> int:
        """How often it acted."""
        return self.counted.fired

    def reply(self, *plan: Action) -> Rule:
        """Answer with these actions; with none, do not answer."""
        self.plan = plan
        self._changed()
        return self

    def pass_through(self) -> Rule:
        """Answer as the correct server does."""
        return self.reply(PassThrough())

    def rewrite(self, compute: Callable[[Any, Plan], Iterable[Action]]) -> Rule:
        """Answer with what `compute(received, correct_plan)` returns."""
        self.compute = compute
        self._changed()
        return self

    def then(self, *plan: Action) -> Rule:
        """Do this after the answer; alone, after the correct one."""
        self.after += plan
        self._changed()
        return self

    def matches(self, received: Any) -> bool:
        """Whether `where` holds; nothing is counted."""
        return _holds(self._where, received)

    @property
    def needs_correct(self) -> bool:
        """Whether the correct answer is part of this one; if not, what was asked for is not carried out."""
        if self.compute is not None or self.plan is None:
            return True
        return any(isinstance(action.of if isinstance(action, Mangle) else action, PassThrough) for action in self.plan)

    def answer(self, received: Any, correct: Plan) -> Plan:
        """The whole plan for `received`, with the correct one in place of `pass_through()`."""
        if self.compute is not None:
            plan: Plan = tuple(self.compute(received, correct))
        else:
            plan = correct if self.plan is None else self.plan
        return _expanded(plan, correct) + self.after

    def to_json(self) -> dict[str, Any]:
        """Give the rule as what `json.dumps` takes.

        Raises:
            UsageError: it has functions in it.
        """
        if callable(self._where) or self.compute is not None:
            raise UsageError(f"{self!r} cannot be saved: it holds a function")
        row: dict[str, Any] = {"on": trigger_to_json(self.trigger)}
        if self._where:
            row["where"] = {name: int(v) if isinstance(v, int) else v for name, v in self._where.items()}
        for name in ("nth", "times", "connection", "per_connection"):
            if value := getattr(self.counted, name):
                row[name] = value
        if self.plan is not None:
            row["reply"] = [action_to_json(action) for action in self.plan]
        if self.after:
            row["then"] = [action_to_json(action) for action in self.after]
        return row

    def __repr__(self) -> str:
        where = f", where={self._where!r}" if self._where else ""
        text = f"on({self.trigger!r}{where}{self.counted.arguments()})"
        if self.compute is not None:
            text += f".rewrite({getattr(self.compute, '__name__', self.compute)})"
        elif self.plan == (PassThrough(),):
            text += ".pass_through()"
        elif self.plan is not None:
            text += f".reply({', '.join(map(repr, self.plan))})"
        if self.after:
            text += f".then({', '.join(map(repr, self.after))})"
        return text


class SendRule:
    """Changes messages of one class on their way out."""

    def __init__(self, kind: type[Message], where: Where, counted: _Counted, changed: Callable[[], None]) -> None:
        self.kind = kind
        self._where = where
        self.counted = counted
        self._changed = changed
        self.damage: Mangle | None = None
        self.compute: Rewrite | None = None

    @property
    def fired(self) -> int:
        """How often it acted."""
        return self.counted.fired

    def mangle(
        self,
        *,
        flip: int | None = None,
        overwrite: tuple[int, bytes] | None = None,
        insert: tuple[int, bytes] | None = None,
        append: bytes = b"",
        keep: int | None = None,
        **fields: int | bytes,
    ) -> SendRule:
        """Send it damaged; the arguments are those of `mangle`."""
        pairs = tuple(fields.items())
        self.damage = Mangle(
            PassThrough(), fields=pairs, flip=flip, overwrite=overwrite, insert=insert, append=append, keep=keep
        )
        self._changed()
        return self

    def rewrite(self, compute: Rewrite) -> SendRule:
        """Send what `compute(message)` returns instead: a message, bytes, several of them, or None for nothing."""
        self.compute = compute
        self._changed()
        return self

    def drop(self) -> SendRule:
        """Do not send it."""
        return self.rewrite(_nothing)

    def matches(self, message: Message) -> bool:
        """Whether the class fits and `where` holds; nothing is counted."""
        return isinstance(message, self.kind) and _holds(self._where, message)

    def __repr__(self) -> str:
        where = f", where={self._where!r}" if self._where else ""
        text = f"on_send({self.kind.__name__}{where}{self.counted.arguments()})"
        if self.damage is not None:
            return text + "." + repr(self.damage).replace("pass_through(), ", "", 1)
        return f"{text}.rewrite({getattr(self.compute, '__name__', self.compute)})"


class RuleBook:
    """All rules of one server. May be asked from several threads; rules may be added while it serves."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.send_rules: list[SendRule] = []
        self.version = 0
        """Grows whenever a rule is added or changed."""
        self._lock = threading.Lock()

    def on(
        self,
        trigger: Trigger,
        *,
        nth: int | None = None,
        where: Where = None,
        times: int | None = None,
        connection: int | None = None,
        per_connection: bool = False,
    ) -> Rule:
        """Begin a rule for a command, an option or a moment.

        Args:
            nth: only the nth time (from 1) that the rest holds; with `times`, so many times from then on.
            where: a function of the `Asked` or `Option`, or values that its attributes must have.
            times: at most so often.
            connection: only on this connection; they are numbered from 1.
            per_connection: count on each connection anew.
        """
        if nth is not None and nth < 1:
            raise UsageError(f"nth={nth}: counting begins at 1")
        counted = _Counted(nth=nth, times=times, per_connection=per_connection, connection=connection)
        rule = Rule(trigger, where, counted, self._changed)
        with self._lock:
            self.rules.append(rule)
        return rule

    def on_send(
        self,
        kind: type[Message],
        *,
        nth: int | None = None,
        where: Where = None,
        times: int | None = None,
        connection: int | None = None,
        per_connection: bool = False,
    ) -> SendRule:
        """Begin a rule for messages of a class on their way out; the arguments are those of `on`."""
        counted = _Counted(nth=nth, times=times, per_connection=per_connection, connection=connection)
        rule = SendRule(kind, where, counted, self._changed)
        with self._lock:
            self.send_rules.append(rule)
        return rule

    def find(self, trigger: Trigger, received: Any, connection: int) -> Rule | None:
        """Count this event in every rule that it concerns, and find the one that acts on it."""
        if not self.rules:
            return None
        kind = type(trigger)
        with self._lock:
            return _acting(
                (
                    rule
                    for rule in self.rules
                    if rule.trigger == trigger and type(rule.trigger) is kind and rule.matches(received)
                ),
                connection,
            )

    def find_send(self, message: Message, connection: int) -> SendRule | None:
        """Count this message in every rule that it concerns, and find the one that changes it."""
        with self._lock:
            return _acting((rule for rule in self.send_rules if rule.matches(message)), connection)

    def watches(self, *triggers: Trigger) -> bool:
        """Whether a rule could still act on one of these, or on any message sent."""
        if not self.rules and not self.send_rules:
            return False
        with self._lock:
            return any(rule.counted.live() for rule in self.send_rules) or any(
                rule.trigger in triggers and rule.counted.live() for rule in self.rules
            )

    def watches_handshake(self) -> bool:
        """Whether a rule could still act before the first request."""
        with self._lock:
            return any(rule.counted.live() for rule in self.send_rules) or any(
                not isinstance(rule.trigger, Cmd) and rule.counted.live() for rule in self.rules
            )

    def unused(self) -> list[Rule | SendRule]:
        """The rules that never acted."""
        every: list[Rule | SendRule] = [*self.rules, *self.send_rules]
        return [rule for rule in every if not rule.fired]

    def to_json(self) -> list[dict[str, Any]]:
        """Give all rules as what `json.dumps` takes.

        Raises:
            UsageError: one of them has a function in it.
        """
        if self.send_rules:
            raise UsageError(f"{self.send_rules[0]!r} cannot be saved")
        return [rule.to_json() for rule in self.rules]

    def add_json(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the rules that `to_json` described.

        Raises:
            UsageError: a row describes no rule.
        """
        for row in rows:
            try:
                counting = {name: row[name] for name in ("nth", "times", "connection", "per_connection") if name in row}
                rule = self.on(trigger_from_json(row["on"]), where=row.get("where"), **counting)
                if "reply" in row:
                    rule.reply(*(action_from_json(action) for action in row["reply"]))
                rule.then(*(action_from_json(action) for action in row.get("then", ())))
            except (KeyError, TypeError, ValueError) as problem:
                raise UsageError(f"this is no rule ({problem}): {str(row)[:120]}") from problem

    def _changed(self) -> None:
        self.version += 1


_AnyRule = TypeVar("_AnyRule", Rule, SendRule)


def _acting(concerned: Iterable[_AnyRule], connection: int) -> _AnyRule | None:
    found = None
    for rule in concerned:
        if rule.counted.due(connection) and found is None:
            found = rule
    if found is not None:
        found.counted.act(connection)
    return found


def _holds(where: Where, received: Any) -> bool:
    if where is None:
        return True
    if callable(where):
        return bool(where(received))
    return all(getattr(received, name, None) == value for name, value in where.items())


def _expanded(plan: Plan, correct: Plan) -> Plan:
    """Put the correct plan where `pass_through()` stands, also inside `mangle`."""
    found: list[Action] = []
    for action in plan:
        if isinstance(action, PassThrough):
            found.extend(correct)
        elif isinstance(action, Mangle) and isinstance(action.of, PassThrough):
            found.extend(action.around(each) for each in correct)
        else:
            found.append(action)
    return tuple(found)


def _nothing(message: Message) -> None:
    return None


_TRIGGERS: Mapping[str, Callable[[Any], Trigger]] = {"Cmd": Cmd, "Opt": Opt, "Moment": Moment}


def trigger_to_json(trigger: Trigger) -> dict[str, Any]:
    return {type(trigger).__name__: trigger.value}


def trigger_from_json(row: Mapping[str, Any]) -> Trigger:
    ((name, value),) = row.items()
    return _TRIGGERS[name](value)
