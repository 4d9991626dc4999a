"""The vocabulary in which messages state their layout, and the one codec that reads and writes any layout.

A layout lists its slots in the order of the wire. Everything derived from it (encoding, decoding, mangling by field,
the fuzzer's strategies) walks the same list, so a message is declared once. All integers are unsigned, big-endian.
Nothing here knows a particular message.
"""

from __future__ import annotations

import contextlib
import operator
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from nbdtest.errors import PeerViolation, UsageError
from nbdtest.wire.queue import ByteQueue

__all__ = [
    "Blob",
    "Constant",
    "Count",
    "Integer",
    "Items",
    "Layout",
    "Length",
    "Message",
    "Readable",
    "Rest",
    "Slot",
    "Text",
]

Readable = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Slot:
    """One stretch of a message. `name` is the dataclass field it carries, or what it is called when it carries none."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant(Slot):
    """A number that is the same in every such message: a magic or a type. Carries no field."""

    width: int
    value: int


@dataclass(frozen=True, slots=True)
class Integer(Slot):
    """A number of `width` bytes; `kind` turns it into an enum."""

    width: int
    kind: Callable[[int], int] = int


@dataclass(frozen=True, slots=True)
class Length(Slot):
    """The length in bytes of the slot named `of`. Carries no field."""

    width: int
    of: str


@dataclass(frozen=True, slots=True)
class Count(Slot):
    """The number of items of the slot named `of`. Carries no field."""

    width: int
    of: str


@dataclass(frozen=True, slots=True)
class Blob(Slot):
    """Exactly `width` bytes."""

    width: int


@dataclass(frozen=True, slots=True)
class Rest(Slot):
    """Bytes, as many as its `Length` says, or all that is left when it has none."""


@dataclass(frozen=True, slots=True)
class Text(Slot):
    """UTF-8 text, delimited like `Rest`. Bytes that are not UTF-8 survive as lone surrogates."""


@dataclass(frozen=True, slots=True)
class Items(Slot):
    """A tuple of items, as many as its `Count` says, or up to the end of the data when it has none.

    Without `make` an item is the single field of `layout`; with it, `make(*fields)` in the order of the layout.
    """

    layout: Layout
    make: Callable[..., Any] | None = None


class _More(Exception):
    """The data ends before the message does."""


class Layout:
    """The slots of a message, in wire order."""

    __slots__ = ("by_name", "counts", "field_names", "fixed", "front", "lengths", "pack", "slots", "tail")

    def __init__(self, *slots: Slot) -> None:
        self.slots = slots
        self.by_name = {slot.name: slot for slot in slots}
        self.field_names = [slot.name for slot in slots if not isinstance(slot, Constant | Length | Count)]
        self.lengths = {slot.of: slot for slot in slots if isinstance(slot, Length)}
        self.counts = {slot.of: slot for slot in slots if isinstance(slot, Count)}
        self.front, self.tail = _split(slots)
        """The slots of known size up to the first of unknown size, as one `struct.Struct`, and the slots after them."""
        self.fixed = None if self.tail else self.front
        """The whole layout as a `struct.Struct`, or None if its size varies."""
        self.pack = _packer_of(slots, self.front, self.tail)
        """Writes a whole message of the ordinary shapes; None for other layouts."""

    @property
    def ends_itself(self) -> bool:
        """Whether a reader can tell the message's end from its bytes."""
        return all(
            slot.name in self.lengths or slot.name in self.counts or not isinstance(slot, Rest | Text | Items)
            for slot in self.slots
        )

    def encode(self, fields: Mapping[str, Any], overrides: Mapping[str, int | bytes] | None = None) -> bytes:
        """Write `fields`; `overrides` names slots (also constants, lengths and counts) to be written otherwise.

        Raises:
            UsageError: a value does not fit its slot, or an override names no slot.
        """
        wrong = dict(overrides or {})
        if unknown := wrong.keys() - self.by_name.keys():
            raise UsageError(f"no slot {', '.join(sorted(unknown))} here; there are {', '.join(self.by_name)}")
        bodies = {
            slot.name: _encode_body(slot, fields[slot.name])
            for slot in self.slots
            if not isinstance(slot, Constant | Length | Count)
        }
        parts = []
        for slot in self.slots:
            replacement = wrong.get(slot.name)
            match slot:
                case _ if isinstance(replacement, bytes):
                    parts.append(replacement)
                case Constant(width=width, value=value):
                    parts.append(_number(slot, width, value if replacement is None else replacement))
                case Length(width=width, of=of):
                    parts.append(_number(slot, width, len(bodies[of]) if replacement is None else replacement))
                case Count(width=width, of=of):
                    parts.append(_number(slot, width, len(fields[of]) if replacement is None else replacement))
                case Integer(width=width) if replacement is not None:
                    parts.append(_number(slot, width, replacement))
                case _ if replacement is not None:
                    raise UsageError(f"{slot.name} holds bytes; replace it with bytes, not {replacement!r}")
                case _:
                    parts.append(bodies[slot.name])
        return b"".join(parts)

    def decode(self, data: memoryview, at: int, what: str) -> tuple[dict[str, Any], int]:
        """Read the fields from position `at`, and say where they end.

        Raises:
            _More: the data ends before the message does.
            PeerViolation: a constant is wrong.
        """
        if at + self.front.size > len(data):
            self._check_constants(data[at:], what)
            raise _More
        fields: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        for slot, seen in zip(self.slots, self.front.unpack_from(data, at), strict=False):  # the tail has no values yet
            if isinstance(slot, Integer):
                fields[slot.name] = seen if slot.kind is int else slot.kind(seen)
            elif isinstance(slot, Constant):
                _check_constant(slot, seen, what)
            elif isinstance(slot, Length | Count):
                sizes[slot.of] = seen
            else:
                fields[slot.name] = seen
        at += self.front.size
        for slot in self.tail:
            match slot:
                case Constant(width=width):
                    seen, at = _read_number(data, at, width)
                    _check_constant(slot, seen, what)
                case Integer(width=width, kind=kind):
                    seen, at = _read_number(data, at, width)
                    fields[slot.name] = kind(seen)
                case Length(width=width, of=of) | Count(width=width, of=of):
                    sizes[of], at = _read_number(data, at, width)
                case Items(layout=layout, make=make):
                    fields[slot.name], at = _read_items(data, at, layout, make, sizes.get(slot.name), what)
                case _:
                    size = slot.width if isinstance(slot, Blob) else sizes.get(slot.name, len(data) - at)
                    if at + size > len(data):
                        raise _More
                    body = bytes(data[at : at + size])
                    fields[slot.name] = _decode_text(body) if isinstance(slot, Text) else body
                    at += size
        return fields, at

    def announced(self, front: bytes) -> int:
        """Return the size of the message as far as its front tells: at least this, often exactly this."""
        size = self.front.size
        for slot, seen in zip(self.slots, self.front.unpack(front), strict=False):
            if isinstance(slot, Length):
                size += seen
        return size

    def _check_constants(self, data: memoryview, what: str) -> None:
        """Compare the constants that have arrived: a wrong magic is wrong before the rest is there."""
        at = 0
        for slot in self.slots:
            if not isinstance(slot, Constant) or at + slot.width > len(data):
                return
            seen, at = _read_number(data, at, slot.width)
            _check_constant(slot, seen, what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Base of every message: a frozen dataclass whose `LAYOUT` says how it stands on the wire."""

    LAYOUT: ClassVar[Layout]

    def encode(self, **overrides: int | bytes) -> bytes:
        """Return the wire bytes; `overrides` writes the named slots otherwise, also lengths, counts and magics.

        Raises:
            UsageError: a value does not fit its slot, or an override names no slot.
        """
        if self.LAYOUT.pack is not None and not overrides:
            try:
                return self.LAYOUT.pack(self)
            except struct.error:
                pass  # the general encoder says which slot it was
        return self.LAYOUT.encode({name: getattr(self, name) for name in self.LAYOUT.field_names}, overrides)

    @classmethod
    def decode(cls, data: Readable) -> Self:
        """Read exactly one message that fills `data`.

        Raises:
            PeerViolation: the data is too short or too long, or a constant is wrong.
        """
        found = cls._read(memoryview(data))
        if found is None:
            raise PeerViolation(f"{cls.__name__}: {len(data)} bytes are too few: {bytes(data[:64]).hex(' ')}")
        message, end = found
        if end != len(data):
            raise PeerViolation(
                f"{cls.__name__}: {len(data) - end} surplus bytes: {bytes(data[end : end + 64]).hex(' ')}"
            )
        return message

    @classmethod
    def take(cls, queue: ByteQueue, *, limit: int = 1 << 26) -> Self | None:
        """Remove one message from the front of `queue`; None, and nothing removed, if more bytes are needed.

        Raises:
            PeerViolation: a constant is wrong, or the message would be longer than `limit` bytes.
            UsageError: this message does not say where it ends.
        """
        if not cls.LAYOUT.ends_itself:
            raise UsageError(f"{cls.__name__} does not say where it ends: use decode() on its exact bytes")
        layout = cls.LAYOUT
        wanted = layout.front.size
        if len(queue) >= wanted:
            wanted = layout.announced(queue.peek(wanted))
        if len(queue) < wanted or wanted > limit:
            cls._read(memoryview(queue.peek(min(layout.front.size, len(queue)))))  # a wrong magic matters more
            if wanted > limit:
                raise PeerViolation(f"{cls.__name__}: {wanted} bytes announced, at most {limit} accepted")
            return None
        ends_there = not layout.tail or layout.tail[-1].name in layout.lengths
        found = cls._read(memoryview(queue.peek(wanted if ends_there else len(queue))))
        if found is None:
            if len(queue) > limit:
                raise PeerViolation(f"{cls.__name__}: longer than {limit} bytes")
            return None
        message, end = found
        queue.take(end)
        return message

    @classmethod
    def wire_size(cls) -> int:
        """Return the length in bytes of a message of fixed size.

        Raises:
            UsageError: the size varies.
        """
        if cls.LAYOUT.fixed is None:
            raise UsageError(f"{cls.__name__} has no fixed size")
        return cls.LAYOUT.fixed.size

    @classmethod
    def _read(cls, data: memoryview) -> tuple[Self, int] | None:
        try:
            fields, end = cls.LAYOUT.decode(data, 0, cls.__name__)
        except _More:
            return None
        return cls(**fields), end


_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _split(slots: tuple[Slot, ...]) -> tuple[struct.Struct, tuple[Slot, ...]]:
    code = ">"
    for number, slot in enumerate(slots):
        if isinstance(slot, Constant | Integer | Length | Count):
            code += _CODES[slot.width]
        elif isinstance(slot, Blob):
            code += f"{slot.width}s"
        else:
            return struct.Struct(code), slots[number:]
    return struct.Struct(code), ()


def _packer_of(
    slots: tuple[Slot, ...], front: struct.Struct, tail: tuple[Slot, ...]
) -> Callable[[object], bytes] | None:
    """Build the fast way to write a layout of constants first, then integers, and perhaps bytes or text at the end.

    The length of these may stand in front of them.
    """
    constants = [slot.value for slot in slots if isinstance(slot, Constant)]
    rest = slots[len(constants) : len(slots) - len(tail)]
    counted = bool(rest) and isinstance(rest[-1], Length)
    numbers = rest[:-1] if counted else rest
    if len(tail) > 1 or counted > len(tail) or not all(isinstance(slot, Integer) for slot in numbers):
        return None
    if not (numbers or tail) or not all(isinstance(slot, Rest | Text) for slot in tail):
        return None
    pack, values = front.pack, _values_of([slot.name for slot in numbers])
    if not tail:
        return lambda message: pack(*constants, *values(message))
    (end,) = tail

    def write(message: object) -> bytes:
        body = _encode_body(end, getattr(message, end.name))
        return pack(*constants, *values(message), *((len(body),) if counted else ())) + body

    return write


def _values_of(names: list[str]) -> Callable[[object], tuple[Any, ...]]:
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)


def _check_constant(slot: Constant, seen: int, what: str) -> None:
    if seen != slot.value:
        raise PeerViolation(f"{what}: {slot.name} is 0x{seen:x}, 0x{slot.value:x} expected")


def _number(slot: Slot, width: int, value: int) -> bytes:
    try:
        return value.to_bytes(width, "big")
    except OverflowError:
        raise UsageError(f"{slot.name} is {value}: it has to fit {width} unsigned bytes") from None


def _encode_body(slot: Slot, value: Any) -> bytes:
    match slot:
        case Integer(width=width):
            return _number(slot, width, value)
        case Text():
            return _encode_text(slot, value)
        case Items(layout=layout, make=make):
            names = layout.field_names
            if make is None:
                return b"".join(layout.encode({names[0]: item}) for item in value)
            if layout.pack is not None:
                with contextlib.suppress(struct.error):  # then the general encoder says which slot it was
                    return b"".join(map(layout.pack, value))
            return b"".join(layout.encode({name: getattr(item, name) for name in names}) for item in value)
        case Blob(width=width) if len(value) != width:
            raise UsageError(f"{slot.name} has {len(value)} bytes: {width} wanted")
    return bytes(value)


def _read_number(data: memoryview, at: int, width: int) -> tuple[int, int]:
    if at + width > len(data):
        raise _More
    return int.from_bytes(data[at : at + width], "big"), at + width


def _read_items(
    data: memoryview, at: int, layout: Layout, make: Callable[..., Any] | None, count: int | None, what: str
) -> tuple[tuple[Any, ...], int]:
    if layout.fixed is not None and all(type(slot) is Integer and slot.kind is int for slot in layout.slots):
        return _read_plain_items(data, at, layout.fixed, make, count)
    items: list[Any] = []
    while at < len(data) if count is None else len(items) < count:
        fields, at = layout.decode(data, at, what)
        items.append(make(*fields.values()) if make is not None else next(iter(fields.values())))
    return tuple(items), at


def _read_plain_items(
    data: memoryview, at: int, fixed: struct.Struct, make: Callable[..., Any] | None, count: int | None
) -> tuple[tuple[Any, ...], int]:
    """Read items of plain integers at once: block status replies have up to a million of them."""
    left = len(data) - at
    size = left - left % fixed.size if count is None else count * fixed.size
    if size > left or (count is None and size != left):
        raise _More
    rows = fixed.iter_unpack(data[at : at + size])
    return tuple([make(*row) for row in rows] if make is not None else [row[0] for row in rows]), at + size


def _encode_text(slot: Slot, text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"{slot.name} is not text that UTF-8 can hold: {error}") from None


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
