"""A queue of received bytes from which messages are taken. Knows nothing of messages."""

from __future__ import annotations

from nbdtest.errors import NBDTestError

__all__ = ["ByteQueue", "Truncated"]

_COMPACT_AT = 1 << 16


class Truncated(NBDTestError):
    """Fewer bytes are queued than were asked for."""


class ByteQueue:
    """First-in first-out bytes. Taking is O(count); the consumed front is given back in large steps."""

    __slots__ = ("_bytes", "_start")

    def __init__(self, data: bytes | bytearray | memoryview = b"") -> None:
        self._bytes = bytearray(data)
        self._start = 0

    def __len__(self) -> int:
        return len(self._bytes) - self._start

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add `data` at the end."""
        self._bytes += data

    def peek(self, count: int, at: int = 0) -> bytes:
        """Return `count` bytes from position `at` without removing them.

        Raises:
            Truncated: fewer than `at + count` bytes are queued.
        """
        first = self._start + at
        if count > len(self._bytes) - first:
            raise Truncated(f"{at + count} bytes wanted, {len(self)} queued")
        return bytes(self._bytes[first : first + count])

    def take(self, count: int) -> bytes:
        """Remove and return the oldest `count` bytes.

        Raises:
            Truncated: fewer than `count` bytes are queued; nothing is removed.
        """
        data = self.peek(count)
        self._start += count
        if self._start == len(self._bytes):
            self.clear()
        elif self._start >= _COMPACT_AT:
            del self._bytes[: self._start]
            self._start = 0
        return data

    def take_into(self, buffer: memoryview) -> int:
        """Move the oldest bytes into `buffer`, as many as there are or fit, and return how many."""
        count = min(len(self), len(buffer))
        buffer[:count] = self.take(count)
        return count

    def take_all(self) -> bytes:
        """Remove and return everything."""
        return self.take(len(self))

    def clear(self) -> None:
        """Forget everything."""
        self._bytes = bytearray()
        self._start = 0
