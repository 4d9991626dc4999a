"""Strategies for exports of the fake server, and for rules that make it misbehave.

Rules are generated from the fields of the actions, so a new action is tried the day it is declared.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from nbdtest.fakeserver.actions import ACTIONS, Action, PassThrough, Plan
from nbdtest.fakeserver.damage import Mangle
from nbdtest.fakeserver.export import BlockSizes, Export
from nbdtest.fakeserver.rules import Moment, RuleBook, Trigger
from nbdtest.fuzz.strategies.codec import numbers
from nbdtest.model import MemoryDisk
from nbdtest.wire import Cmd, Errno, Extent, Opt, Rep
from nbdtest.wire.numbers import Flags, Number

__all__ = ["Misbehaviour", "actions", "block_sizes", "exports", "misbehaviours", "scripts"]

_FOR_COMMANDS = ("data", "hole", "error", "status", "no_data", "chunk", "simple", "pass_through", "raw", "cut", "close")
_FOR_OPTIONS = (
    "ack",
    "opt_error",
    "opt_reply",
    "info_export",
    "info_name",
    "info_description",
    "info_block_size",
    "info_other",
    "server_export",
    "meta_context",
    "export_reply",
    "pass_through",
    "raw",
    "cut",
    "close",
)
_AT_FIRST = ("greeting", "oldstyle_greeting", "pass_through", "raw", "cut", "close")
_SHORTEST = 10
"""No correct answer has fewer bytes: that to EXPORT_NAME has as many."""


def block_sizes() -> st.SearchStrategy[BlockSizes]:
    """Generate size constraints that obey the specification."""

    @st.composite
    def sizes(draw: st.DrawFn) -> BlockSizes:
        minimum = 1 << draw(st.integers(0, 16))
        preferred = max(512, minimum) << draw(st.integers(0, 4))
        maximum = max(preferred, minimum * ((1 << 20) // minimum)) << draw(st.integers(0, 5))
        return BlockSizes(minimum=minimum, preferred=preferred, maximum=maximum)

    return sizes()


def exports(name: str = "", *, most: int = 1 << 16) -> st.SearchStrategy[Export]:
    """Generate exports of up to `most` bytes with some data and holes, and any set of abilities that makes sense."""

    @st.composite
    def export(draw: st.DrawFn) -> Export:
        constraints = draw(st.none() | block_sizes().filter(lambda sizes: sizes.minimum <= most))
        unit = constraints.minimum if constraints else 1
        size = unit * draw(st.integers(0, most // unit))
        disk = MemoryDisk(size)
        for _ in range(draw(st.integers(0, 3)) if size else 0):
            start = draw(st.integers(0, size - 1))
            data = bytes([draw(st.integers(1, 255))]) * draw(st.integers(1, size - start))
            disk.write(start, data)
        return Export(
            name,
            disk=disk,
            block_sizes=constraints,
            read_only=draw(st.booleans()),
            rotational=draw(st.booleans()),
            multi_conn=draw(st.booleans()),
            whole_reads=draw(st.booleans()),
            can_flush=draw(st.booleans()),
            can_fua=draw(st.booleans()),
            can_trim=draw(st.booleans()),
            can_zero=draw(st.booleans()),
            can_fast_zero=draw(st.booleans()),
            can_cache=draw(st.booleans()),
            can_df=draw(st.booleans()),
        )

    return export()


def actions(kind: type[Action]) -> st.SearchStrategy[Action]:
    """Generate actions of one class with any values in its fields."""
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{each.name: _values(hints[each.name]) for each in dataclasses.fields(kind)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """What the fake server does instead of the right thing when `trigger` comes for the `nth` time."""

    trigger: Trigger
    nth: int
    reply: Plan

    def install(self, book: RuleBook) -> None:
        """Make it a rule of `book`."""
        book.on(self.trigger, nth=self.nth).reply(*self.reply)


EVERY_TRIGGER: tuple[Trigger, ...] = (*Cmd, *Opt, Moment.GREETING)
"""What a client does that can be answered wrongly; the greeting comes first of all."""


def misbehaviours(triggers: Sequence[Trigger] = EVERY_TRIGGER) -> st.SearchStrategy[Misbehaviour]:
    """Generate wrong (and now and then right) answers to commands and options, and greetings; none waits for anything.

    Half of them are the right answer with something wrong in its bytes.
    """

    def rule(trigger: Trigger) -> st.SearchStrategy[Misbehaviour]:
        names = _FOR_COMMANDS if isinstance(trigger, Cmd) else _FOR_OPTIONS if isinstance(trigger, Opt) else _AT_FIRST
        step = st.one_of([_mangled(), *(actions(ACTIONS[name]) for name in names)])
        return st.builds(
            Misbehaviour,
            trigger=st.just(trigger),
            nth=st.just(1) if trigger is Moment.GREETING else st.integers(1, 3),
            reply=st.one_of(st.lists(step, max_size=4).map(tuple), st.tuples(_mangled())),
        )

    return st.sampled_from(list(triggers)).flatmap(rule)


def scripts(
    triggers: Sequence[Trigger] = EVERY_TRIGGER, *, most: int = 3
) -> st.SearchStrategy[tuple[Misbehaviour, ...]]:
    """Generate what a fake server does wrong in a whole run: one to `most` misbehaviours."""
    return st.lists(misbehaviours(triggers), min_size=1, max_size=most).map(tuple)


def _mangled() -> st.SearchStrategy[Action]:
    """Generate damage to the correct answer: a bit, a few bytes, the length. Every answer is long enough for it."""
    places = st.integers(0, _SHORTEST - 1)
    few = st.binary(min_size=1, max_size=4)
    damage = st.one_of(
        st.fixed_dictionaries({"flip": st.integers(0, 8 * _SHORTEST - 1)}),
        st.fixed_dictionaries({"overwrite": st.tuples(st.integers(0, _SHORTEST - 4), few)}),
        st.fixed_dictionaries({"insert": st.tuples(places, few)}),
        st.fixed_dictionaries({"append": st.binary(min_size=1, max_size=40)}),
        st.fixed_dictionaries({"keep": places}),
    )
    return damage.map(lambda fields: Mangle(PassThrough(), **fields))


@functools.cache
def _values(hint: Any) -> st.SearchStrategy[Any]:
    if isinstance(hint, types.UnionType):
        return st.one_of([_values(part) for part in typing.get_args(hint)])
    if isinstance(hint, type) and issubclass(hint, Number | Flags):
        return numbers(4 if hint in (Errno, Opt, Rep) else 2, hint)
    if hint == tuple[Extent, ...]:
        return st.lists(st.builds(Extent, numbers(4), numbers(4)), max_size=4).map(tuple)
    return _PLAIN[hint]


_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    type(None): st.none(),
    bool: st.booleans(),
    int: st.one_of(st.integers(0, 1 << 17), numbers(4)),
    float: st.just(0.0),
    str: st.text(st.characters(codec="utf-8"), max_size=20),
    bytes: st.binary(max_size=40),
}
