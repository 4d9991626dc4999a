"""Strategies for single messages, derived from the slots of their layouts.

A message class needs nothing but its `LAYOUT` to be generated: the slot's width bounds a number, its enum adds the
values that somebody assigned. Knows nothing of what makes a message sensible; see `dialogues`, `commands`, `replies`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from hypothesis import strategies as st

from nbdtest.wire.layout import Blob, Integer, Items, Layout, Length, Message, Rest, Slot, Text
from nbdtest.wire.numbers import Flags, Number

__all__ = ["any_message", "message_classes", "messages", "numbers"]

M = TypeVar("M", bound=Message)

_LONGEST = 48
"""Bytes of generated data and text: enough to cross every boundary of the codecs, short enough to read."""
_MOST_ITEMS = 5


def message_classes() -> tuple[type[Message], ...]:
    """Return every message class that is declared, in the order of their names."""
    found = {cls for cls in _declared(Message) if getattr(sys.modules[cls.__module__], cls.__name__, None) is cls}
    return tuple(sorted(found, key=lambda cls: cls.__name__))


def numbers(width: int, kind: Callable[[int], int] = int) -> st.SearchStrategy[int]:
    """Generate integers of `width` bytes: assigned values of `kind` if it is an enum, the limits, powers of 2, any."""
    top = (1 << 8 * width) - 1
    edges = st.sampled_from(sorted({0, 1, top >> 1, (top >> 1) + 1, top - 1, top}))
    powers = st.integers(0, 8 * width - 1).map(lambda bit: 1 << bit)
    choices = [edges, powers, st.integers(0, top)]
    if isinstance(kind, type) and issubclass(kind, Number):
        choices.insert(0, st.sampled_from(list(kind)))
    elif isinstance(kind, type) and issubclass(kind, Flags):
        choices.insert(0, st.sets(st.sampled_from(list(kind))).map(sum))
    return st.one_of(choices).map(kind)


def messages(cls: type[M], **fixed: Any) -> st.SearchStrategy[M]:
    """Generate messages of one class; `fixed` holds fields to a value, or to a strategy of values."""
    fields = _fields(cls.LAYOUT) | {
        name: value if isinstance(value, st.SearchStrategy) else st.just(value) for name, value in fixed.items()
    }
    return st.builds(cls, **fields)


def any_message() -> st.SearchStrategy[Message]:
    """Generate messages of every declared class."""
    return st.one_of([messages(cls) for cls in message_classes()])


def _declared(parent: type[Message]) -> Iterator[type[Message]]:
    for child in parent.__subclasses__():
        yield child
        yield from _declared(child)


def _fields(layout: Layout) -> dict[str, st.SearchStrategy[Any]]:
    by_name = layout.by_name
    return {name: _values(by_name[name], layout.lengths.get(name)) for name in layout.field_names}


@functools.singledispatch
def _values(slot: Slot, length: Length | None) -> st.SearchStrategy[Any]:
    raise TypeError(f"no values are known for a {type(slot).__name__}")


@_values.register
def _(slot: Integer, length: Length | None) -> st.SearchStrategy[Any]:
    return numbers(slot.width, slot.kind)


@_values.register
def _(slot: Blob, length: Length | None) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(bytes(slot.width)), st.binary(min_size=slot.width, max_size=slot.width))


@_values.register
def _(slot: Rest, length: Length | None) -> st.SearchStrategy[Any]:
    return st.binary(max_size=_LONGEST)


@_values.register
def _(slot: Text, length: Length | None) -> st.SearchStrategy[Any]:
    # Any bytes may stand for text on the wire: those that are not UTF-8 come back as lone surrogates.
    garbage = st.binary(max_size=_LONGEST).map(lambda data: data.decode("utf-8", "surrogateescape"))
    return st.one_of(st.text(st.characters(codec="utf-8"), max_size=_LONGEST // 4), garbage)


@_values.register
def _(slot: Items, length: Length | None) -> st.SearchStrategy[Any]:
    fields = _fields(slot.layout)
    item = st.builds(slot.make, **fields) if slot.make is not None else next(iter(fields.values()))
    return st.lists(item, max_size=_MOST_ITEMS).map(tuple)
