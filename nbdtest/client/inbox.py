"""Where received bytes go: a staging buffer for headers and small payloads, or a buffer that a caller lent for a large
one.

It knows no messages. The driver fills `space()`, says how much it put there, and the parser takes bytes out or lends a
buffer.
"""

from __future__ import annotations

__all__ = ["CAPACITY", "WORTH_LENDING", "Inbox"]

FIRST_CAPACITY = 1 << 14
"""Bytes of a new staging buffer: enough for a handshake."""

CAPACITY = 1 << 19
"""Bytes of one that was filled: all that a Unix socket can hold, behind the beginning of a reply."""

NARROW = 1 << 12
"""Bytes offered while large payloads are expected: what gets into the staging buffer has to be copied out of it."""


WORTH_LENDING = 1 << 14
"""So many missing bytes of an ordinary reply are received where they belong, at the cost of a system call."""


class Inbox:
    """Received bytes in order. `buffer[head:tail]` are the ones that nobody has taken."""

    __slots__ = ("_capacity", "_lent", "buffer", "head", "narrow", "tail", "view", "worth_lending")

    def __init__(self, capacity: int = FIRST_CAPACITY) -> None:
        self._capacity = capacity
        self.buffer = bytearray(capacity)
        self.view = memoryview(self.buffer)
        self.head = 0
        self.tail = 0
        self.narrow = False
        self.worth_lending = WORTH_LENDING
        self._lent: memoryview | None = None

    def __len__(self) -> int:
        return self.tail - self.head

    @property
    def lent_rest(self) -> int:
        """How many bytes of the lent buffer are still to be filled."""
        return 0 if self._lent is None else len(self._lent)

    def space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._lent is not None:
            return self._lent
        if self.head == self.tail:
            self.head = self.tail = 0
        elif self.head and (self.tail - self.head < NARROW or self._capacity - self.tail < NARROW):
            self._compact()  # a few bytes are moved to have room for many
        if self.narrow:
            return self.view[self.tail : self.tail + NARROW]
        return self.view[self.tail :] if self.tail else self.view

    def received(self, count: int) -> None:
        """The first `count` bytes of `space()` have been filled."""
        if self._lent is None:
            self.tail += count
            if self.tail == self._capacity < CAPACITY:
                self._grow(CAPACITY)
        elif count == len(self._lent):
            self._lent = None
        else:
            self._lent = self._lent[count:]

    def preload(self, data: bytes) -> None:
        """Add bytes that were received elsewhere. Nothing may be lent."""
        needed = self.tail - self.head + len(data)
        if needed > self._capacity - NARROW:
            self._grow(needed + CAPACITY)
        elif self._capacity - self.tail < len(data):
            self._compact()
        self.view[self.tail : self.tail + len(data)] = data
        self.tail += len(data)

    def take(self, count: int) -> bytes:
        """Remove and return the oldest `count` bytes, which must be there."""
        start = self.head
        self.head = start + count
        return bytes(self.view[start : start + count])

    def lend(self, buffer: memoryview) -> None:
        """Fill `buffer` with the next bytes: those that are staged at once, the others where they arrive."""
        count = min(self.tail - self.head, len(buffer))
        if count:
            buffer[:count] = self.view[self.head : self.head + count]
            self.head += count
        self._lent = buffer[count:] if count < len(buffer) else None

    def skip(self, count: int) -> int:
        """Throw away up to `count` staged bytes and return how many there were."""
        count = min(self.tail - self.head, count)
        self.head += count
        return count

    def _grow(self, capacity: int) -> None:
        staged = self.view[self.head : self.tail]
        self._capacity = capacity
        self.buffer = bytearray(capacity)
        self.view = memoryview(self.buffer)
        self.view[: len(staged)] = staged
        self.head, self.tail = 0, len(staged)

    def _compact(self) -> None:
        rest = self.tail - self.head
        self.view[:rest] = self.view[self.head : self.tail]  # they may overlap
        self.head, self.tail = 0, rest

    def withdraw(self) -> None:
        """Forget the lent buffer: its owner wants it back."""
        self._lent = None
