"""Disks: what a server serves and what an oracle believes of it. Knows nothing of connections or replies.

`Disk` is the contract; `MemoryDisk` keeps only what was written. A disk may be used from several threads at once.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from nbdtest.errors import NBDTestError, UsageError
from nbdtest.model.intervals import IntervalMap, Run
from nbdtest.wire import Errno, Extent, State
from nbdtest.wire.layout import Readable

__all__ = ["DATA", "HOLE", "SLAB", "ZERO", "Disk", "DiskError", "MemoryDisk"]

DATA = State(0)
"""Allocated, with contents."""
ZERO = State.ZERO
"""Allocated, reads as zeroes."""
HOLE = State.HOLE | State.ZERO
"""Not allocated, reads as zeroes."""

SLAB = 1 << 20
"""Memory is taken in pieces of this size; the kernel backs only the pages that are touched."""

_ZEROES = memoryview(bytes(SLAB))
_DATA = int(DATA)


class DiskError(NBDTestError):
    """A disk cannot do what was asked; `errno` goes to the client, and `offset` when the place is known."""

    def __init__(self, errno: Errno, message: str = "", *, offset: int | None = None) -> None:
        super().__init__(f"{errno}{f' at {offset}' if offset is not None else ''}{f': {message}' if message else ''}")
        self.errno = errno
        self.text = message
        self.offset = offset


@runtime_checkable
class Disk(Protocol):
    """Bytes with a size. The caller keeps every range inside [0, size). Failures are `DiskError`."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, length: int) -> Readable:
        """Return exactly `length` bytes."""

    def write(self, offset: int, data: Readable) -> None:
        """Store `data`."""

    def zero(self, offset: int, length: int, *, allocate: bool = False, fast: bool = False) -> None:
        """Make the range read as zeroes; with `allocate` it is not a hole afterwards.

        Raises:
            DiskError: ENOTSUP if `fast` and this would be no faster than writing; nothing is changed then.
        """

    def trim(self, offset: int, length: int) -> None:
        """Give up the contents of the range, as a whole or in part."""

    def flush(self) -> None:
        """Put everything written so far on stable storage."""

    def extents(self, offset: int, length: int) -> list[Extent]:
        """Describe the range with base:allocation status; the lengths add up to `length`."""

    def resize(self, size: int) -> None:
        """Change the size; a new part reads as zeroes."""


class MemoryDisk:
    """A sparse disk in memory, of any size. It tells holes, allocated zeroes and data apart, in blocks."""

    def __init__(self, size: int, content: Readable = b"", *, limit: int = 4 << 30, granularity: int = 512) -> None:
        """Make a disk of holes, with `content` at its start; `limit` bounds the memory it takes, in bytes.

        A block of `granularity` bytes that holds any data is data as a whole.

        Raises:
            UsageError: the content does not fit.
        """
        if size < 0 or len(content) > size:
            raise UsageError(f"{len(content)} bytes of content on a disk of {size} bytes")
        self._slabs: dict[int, memoryview] = {}
        self._map = IntervalMap(size, int(HOLE))
        self._lock = threading.Lock()
        self._limit = limit
        self._block = granularity
        if content:
            self.write(0, content)

    @property
    def size(self) -> int:
        return self._map.size

    def read(self, offset: int, length: int) -> bytes:
        return b"".join(self.pieces(offset, length))

    def pieces(self, offset: int, length: int) -> list[memoryview]:
        """Give the range as views, which see later writes."""
        number, at = divmod(offset, SLAB)
        slab = self._slabs.get(number, _ZEROES)
        if at + length <= SLAB:
            return [slab[at : at + length]]
        found = []
        for number, at, count in _spans(offset, length):
            found.append(self._slabs.get(number, _ZEROES)[at : at + count])
        return found

    @property
    def version(self) -> int:
        """Grows whenever size or status change somewhere; writing to what is data already changes neither."""
        return self._map.version

    def run_at(self, offset: int) -> Run:
        """Give the stretch of equal status that holds `offset`."""
        with self._lock:
            return self._map.run_at(offset)

    def write(self, offset: int, data: Readable) -> None:
        view = memoryview(data)
        number, at = divmod(offset, SLAB)
        with self._lock:
            if at + len(view) <= SLAB and number in self._slabs:  # by far the most frequent case
                self._slabs[number][at : at + len(view)] = view
                self._map.set(self._down(offset), self._up(offset + len(view)), _DATA)
                return
            done = 0
            for number, at, count in _spans(offset, len(view)):
                self._slab(number)[at : at + count] = view[done : done + count]
                done += count
                self._map.set(self._down(offset), self._up(offset + done), _DATA)

    def zero(self, offset: int, length: int, *, allocate: bool = False, fast: bool = False) -> None:
        with self._lock:
            self._clear(offset, length)
            start, end = self._up(offset), self._down(offset + length)
            if offset + length == self._map.size:
                end = self._map.size
            self._map.set(start, end, int(ZERO if allocate else HOLE))
            if allocate and length:
                # The blocks that are covered in part: a hole there is a hole no more.
                for at in (self._down(offset), self._down(offset + length - 1)):
                    if self._map.run_at(at).value == HOLE:
                        self._map.set(at, self._up(at + 1), int(ZERO))

    def trim(self, offset: int, length: int) -> None:
        self.zero(offset, length)

    def flush(self) -> None:
        """Do nothing: memory is as stable as this storage gets, and all connections see it at once."""

    def extents(self, offset: int, length: int) -> list[Extent]:
        with self._lock:
            return [Extent(run.end - run.start, run.value) for run in self._map.runs(offset, offset + length)]

    def resize(self, size: int) -> None:
        with self._lock:
            if size < self._map.size:
                self._clear(size, self._map.size - size)
            self._map.resize(size, int(HOLE))

    def allocated(self) -> int:
        """Count the bytes that are not in holes."""
        with self._lock:
            return self._map.size - self._map.total(int(HOLE))

    def __repr__(self) -> str:
        return f"MemoryDisk({self.size})"

    def _down(self, position: int) -> int:
        return position - position % self._block

    def _up(self, position: int) -> int:
        return min(position + -position % self._block, self._map.size)

    def _slab(self, number: int) -> memoryview:
        slab = self._slabs.get(number)
        if slab is None:
            if (len(self._slabs) + 1) * SLAB > max(self._limit, SLAB):
                raise DiskError(Errno.ENOSPC, f"the memory limit of {self._limit} bytes is reached")
            slab = self._slabs[number] = memoryview(mmap.mmap(-1, SLAB))
        return slab

    def _clear(self, offset: int, length: int) -> None:
        first, last = offset // SLAB, (offset + length - 1) // SLAB
        for number in [number for number in self._slabs if first <= number <= last]:
            start, end = max(offset - number * SLAB, 0), min(offset + length - number * SLAB, SLAB)
            if end - start == SLAB:
                del self._slabs[number]
            else:
                self._slabs[number][start:end] = _ZEROES[: end - start]


def _spans(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Split a range at slab borders: slab number, position in it, count."""
    while length:
        number, at = divmod(offset, SLAB)
        count = min(length, SLAB - at)
        yield number, at, count
        offset += count
        length -= count
