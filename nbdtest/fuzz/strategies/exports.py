"""Strategies for exports of the fake server, and for rules that make it misbehave.

Rules are generated from the fields of the actions, so a new action is tried the day it is declared.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from nbdtest.fakeserver.actions import ACTIONS, Action, Plan
from nbdtest.fakeserver.export import BlockSizes, Export
from nbdtest.fakeserver.rules import RuleBook, Trigger
from nbdtest.fuzz.strategies.codec import numbers
from nbdtest.model import MemoryDisk
from nbdtest.wire import Cmd, Errno, Extent, Opt, Rep
from nbdtest.wire.numbers import Flags, Number

__all__ = ["Misbehaviour", "actions", "block_sizes", "exports", "misbehaviours"]

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


def misbehaviours() -> st.SearchStrategy[Misbehaviour]:
    """Generate wrong (and now and then right) answers to commands and options; none waits for anything."""

    def rule(triggers: type[Cmd] | type[Opt], names: tuple[str, ...]) -> st.SearchStrategy[Misbehaviour]:
        step = st.one_of([actions(ACTIONS[name]) for name in names])
        return st.builds(
            Misbehaviour,
            trigger=st.sampled_from(triggers),
            nth=st.integers(1, 3),
            reply=st.lists(step, max_size=4).map(tuple),
        )

    return rule(Cmd, _FOR_COMMANDS) | rule(Opt, _FOR_OPTIONS)


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
