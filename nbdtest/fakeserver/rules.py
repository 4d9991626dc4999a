"""Rules: which moment of a session gets which plan instead of the correct one. Values and counters, no I/O.

A rule is made in steps: `book.on(Cmd.READ, nth=2).reply(...).then(...)`. Rules are asked in the order in which they
were made, and the first that matches acts. `on_send` rules see every message that is about to leave, whoever made it.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from nbdtest import wire
from nbdtest.errors import UsageError
from nbdtest.fakeserver.actions import Action as Action
from nbdtest.fakeserver.actions import (
    PassThrough,
    Plan,
    action_from_json,
    action_to_json,
    value_from_json,
)
from nbdtest.fakeserver.conditions import (
    COUNTING,
    Counted,
    Moment,
    Trigger,
    Where,
    attributes,
    holds,
    name_of,
    where_to_json,
)
from nbdtest.fakeserver.damage import Mangle, mangle
from nbdtest.fakeserver.fitting import (
    CHUNKS,
    GREETINGS,
    OPTION_REPLIES,
    checked,
    checked_counting,
    checked_plan,
    checked_where,
)
from nbdtest.wire import (
    Cmd,
    ExtendedReply,
    Message,
    Opt,
    OptionReply,
    StructuredReply,
)

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


Rewrite: TypeAlias = Callable[[Any], Message | bytes | Iterable[Message | bytes] | None]
"""What leaves instead of a message: another, some bytes, several of them, or nothing."""


class Rule:
    """Replaces the correct answer to one kind of thing that a client does."""

    def __init__(self, trigger: Trigger, where: Where, counted: Counted, changed: Callable[[], None]) -> None:
        self.trigger = trigger
        self.where = where
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
        """Answer with these actions; with none, do not answer.

        Raises:
            UsageError: one of them can be no part of an answer here.
        """
        self.plan = self._checked(plan)
        self._changed()
        return self

    def pass_through(self) -> Rule:
        """Answer as the correct server does."""
        return self.reply(PassThrough())

    def rewrite(self, compute: Callable[[Any, Plan], Iterable[Action]]) -> Rule:
        """Answer with what `compute(received, correct_plan)` returns."""
        if not callable(compute):
            raise UsageError(f"rewrite() takes a function of what was received and the correct plan, not {compute!r}")
        self.compute = compute
        self._changed()
        return self

    def then(self, *plan: Action) -> Rule:
        """Do this after the answer; alone, after the correct one.

        Raises:
            UsageError: something can be done neither here nor anywhere.
        """
        self.after += self._checked(plan)
        self._changed()
        return self

    def concerns(self, trigger: Trigger, received: Any) -> bool:
        """Whether it is about this trigger, and `where` holds; nothing is counted."""
        return self.trigger == trigger and type(self.trigger) is type(trigger) and holds(self.where, received)

    @property
    def needs_correct(self) -> bool:
        """Whether the correct answer is part of this one; if not, what was asked for is not carried out."""
        if self.compute is not None or self.plan is None:
            return True
        return any(isinstance(action.of if isinstance(action, Mangle) else action, PassThrough) for action in self.plan)

    def answer(self, received: Any, correct: Plan) -> Plan:
        """The whole plan for `received`, with the correct one in place of `pass_through()`."""
        if self.compute is not None:
            plan = self._checked(self.compute(received, correct))
        else:
            plan = correct if self.plan is None else self.plan
        return _expanded(plan, correct) + self.after

    def to_json(self) -> dict[str, Any]:
        """Give the rule as what `json.dumps` takes.

        Raises:
            UsageError: it has functions in it.
        """
        if callable(self.where) or self.compute is not None:
            raise UsageError(f"{self!r} cannot be saved: it holds a function")
        row = {"on": trigger_to_json(self.trigger), **where_to_json(self.where), **self.counted.to_json()}
        if self.plan is not None:
            row["reply"] = [action_to_json(action) for action in self.plan]
        if self.after:
            row["then"] = [action_to_json(action) for action in self.after]
        return row

    def _checked(self, plan: Iterable[Action]) -> Plan:
        return checked_plan(plan, _messages(self.trigger), f"an answer to {name_of(self.trigger)}")

    def __repr__(self) -> str:
        where = f", where={self.where!r}" if self.where else ""
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

    def __init__(self, kind: type[Message], where: Where, counted: Counted, changed: Callable[[], None]) -> None:
        self.kind = kind
        self.where = where
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
        nothing = PassThrough()
        return self.damage_by(
            mangle(nothing, flip=flip, overwrite=overwrite, insert=insert, append=append, keep=keep, **fields)
        )

    def damage_by(self, damage: Action) -> SendRule:
        """Send it with the damage of a `mangle(...)`, whatever that is around.

        Raises:
            UsageError: it is none, or damages what the message does not have.
        """
        checked(damage)
        if not isinstance(damage, Mangle):
            raise UsageError(f"{damage!r} is no damage: a mangle(...) is needed")
        known = self.kind.LAYOUT.by_name
        framed = issubclass(self.kind, StructuredReply | ExtendedReply | OptionReply)
        if not framed and (unknown := [name for name, _ in damage.fields if name not in known]):
            raise UsageError(f"mangle() names {', '.join(unknown)}: a {self.kind.__name__} has {', '.join(known)}")
        self.damage = damage
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

    def to_json(self) -> dict[str, Any]:
        """Give the rule as what `json.dumps` takes.

        Raises:
            UsageError: it has functions in it, or does nothing yet.
        """
        row = {"on_send": self.kind.__name__, **where_to_json(self.where), **self.counted.to_json()}
        if callable(self.where) or self.compute not in (None, _nothing):
            raise UsageError(f"{self!r} cannot be saved: it holds a function")
        if self.damage is None and self.compute is None:
            raise UsageError(f"{self!r} cannot be saved: it does nothing")
        return {**row, "drop": True} if self.damage is None else {**row, "mangle": action_to_json(self.damage)}

    def matches(self, message: Message) -> bool:
        """Whether the class fits and `where` holds; nothing is counted."""
        return isinstance(message, self.kind) and holds(self.where, message)

    def __repr__(self) -> str:
        where = f", where={self.where!r}" if self.where else ""
        text = f"on_send({self.kind.__name__}{where}{self.counted.arguments()})"
        if self.damage is not None:
            return text + "." + repr(self.damage).replace("pass_through(), ", "", 1)
        if self.compute is None:
            return text
        if self.compute is _nothing:
            return f"{text}.drop()"
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
            where: a function of the `Asked` or `Option`, or values that its attributes must have; for an option also
                what its data say: `name` (of the export), `infos`, `queries`.
            times: at most so often.
            connection: only on this connection; they are numbered from 1.
            per_connection: count on each connection anew.

        Raises:
            UsageError: there can be no such rule.
        """
        if not isinstance(trigger, Cmd | Opt | Moment):
            raise UsageError(f"on() takes a Cmd, an Opt or a Moment, such as Cmd.READ, not {trigger!r}")
        checked_counting(nth=nth, times=times, connection=connection)
        checked_where(where, *attributes(trigger))
        counted = Counted(nth=nth, times=times, per_connection=per_connection, connection=connection)
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
        """Begin a rule for messages of a class on their way out; the arguments are those of `on`.

        Raises:
            UsageError: there can be no such rule.
        """
        named: Any = kind
        if not (isinstance(named, type) and issubclass(named, Message)):
            raise UsageError(f"on_send() takes a class of messages, such as SimpleReply, not {kind!r}")
        checked_counting(nth=nth, times=times, connection=connection)
        checked_where(where, [each.name for each in dataclasses.fields(kind)], f"a {kind.__name__}")
        counted = Counted(nth=nth, times=times, per_connection=per_connection, connection=connection)
        rule = SendRule(kind, where, counted, self._changed)
        with self._lock:
            self.send_rules.append(rule)
        return rule

    def find(self, trigger: Trigger, received: Any, connection: int) -> Rule | None:
        """Count this event in every rule that it concerns, and find the one that acts on it."""
        if not self.rules:
            return None
        with self._lock:
            return _acting((rule for rule in self.rules if rule.concerns(trigger, received)), connection)

    def overlooks(self, trigger: Trigger, received: Any, connection: int) -> bool:
        """Count this event if no rule acts on it; False, and nothing is counted, if one does.

        Only for triggers that have a name: there is only one of each, which makes this quick.
        """
        with self._lock:
            concerned = [rule.counted for rule in self.rules if rule.trigger is trigger and holds(rule.where, received)]
            for counted in concerned:
                if counted.would_be_due(connection):
                    return False
            for counted in concerned:
                counted.due(connection)
        return True

    def overlooks_all(self, events: Iterable[tuple[Trigger, Any]], connection: int) -> bool:
        """Count these events if no rule acts on any of them; False, and nothing is counted, if one does."""
        if not self.rules:
            return True
        with self._lock:
            before = [(rule.counted, dict(rule.counted.seen)) for rule in self.rules]
            for trigger, received in events:
                for rule in self.rules:
                    if rule.concerns(trigger, received) and rule.counted.due(connection):
                        for counted, seen in before:
                            counted.seen = seen
                        return False
        return True

    def find_send(self, message: Message, connection: int) -> SendRule | None:
        """Count this message in every rule that it concerns, and find the one that changes it."""
        with self._lock:
            return _acting((rule for rule in self.send_rules if rule.matches(message)), connection)

    def watches(self, trigger: Trigger) -> bool:
        """Whether a rule could still act on this. Only for triggers that have a name."""
        with self._lock:
            return any(rule.trigger is trigger and rule.counted.live() for rule in self.rules)

    def watches_messages(self) -> bool:
        """Whether a rule could still act on a message on its way out."""
        with self._lock:
            return any(rule.counted.live() for rule in self.send_rules)

    def acts_on_handshakes(self) -> bool:
        """Whether a rule could act on every handshake, or on a message sent in one."""
        with self._lock:
            return any(rule.counted.live() for rule in self.send_rules) or any(
                rule.counted.nth is None and not isinstance(rule.trigger, Cmd) and rule.counted.live()
                for rule in self.rules
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
        return [rule.to_json() for rule in self.rules] + [rule.to_json() for rule in self.send_rules]

    def add_json(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add the rules that `to_json` described.

        Raises:
            UsageError: a row describes no rule; those before it have been added.
        """
        if isinstance(rows, Mapping):
            raise UsageError("rules are a list of rows, also when there is only one")
        for row in rows:
            try:
                self._add_row(dict(row))
            except (KeyError, TypeError, ValueError, UsageError) as problem:
                raise UsageError(f"this is no rule ({problem}): {str(row)[:120]}") from problem

    def _add_row(self, row: dict[str, Any]) -> None:
        where = {name: value_from_json(value) for name, value in row.pop("where", {}).items()} or None
        counting = {name: row.pop(name) for name in COUNTING if name in row}
        if "on_send" in row:
            rule = self.on_send(_message_class(row.pop("on_send")), where=where, **counting)
            if row.pop("drop", False):
                rule.drop()
            else:
                rule.damage_by(action_from_json(row.pop("mangle")))
        else:
            on = self.on(trigger_from_json(row.pop("on")), where=where, **counting)
            if "reply" in row:
                on.reply(*map(action_from_json, row.pop("reply")))
            on.then(*map(action_from_json, row.pop("then", ())))
        if row:
            raise UsageError(f"it says {', '.join(row)}, which means nothing")

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


def _messages(trigger: Trigger) -> tuple[type[Action], ...]:
    """The messages that can be an answer to this."""
    if isinstance(trigger, Cmd) or trigger is Moment.TRANSMISSION:
        return CHUNKS
    return OPTION_REPLIES if isinstance(trigger, Opt) else GREETINGS


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


def _message_class(name: str) -> type[Message]:
    found = getattr(wire, name, None)
    if not (isinstance(found, type) and issubclass(found, Message)):
        raise UsageError(f"there is no class of messages {name!r}")
    return found


_TRIGGERS: Mapping[str, Callable[[Any], Trigger]] = {"Cmd": Cmd, "Opt": Opt, "Moment": Moment}


def trigger_to_json(trigger: Trigger) -> dict[str, Any]:
    return {type(trigger).__name__: trigger.value}


def trigger_from_json(row: Mapping[str, Any]) -> Trigger:
    ((name, value),) = row.items()
    return _TRIGGERS[name](value)
