"""A disk whose writes nobody else sees until it is given up: the lie behind CAN_MULTI_CONN. Used by one quirk only."""

from __future__ import annotations

from nbdtest.model import Disk, IntervalMap
from nbdtest.wire import Extent
from nbdtest.wire.layout import Readable

__all__ = ["PrivateCache"]


class PrivateCache:
    """Reads and writes like `below`, but keeps the changes to itself, and FLUSH does not help."""

    def __init__(self, below: Disk) -> None:
        self._below = below
        self._changed = IntervalMap(below.size)
        self._bytes: dict[int, bytearray] = {}
        self._block = 4096

    @property
    def size(self) -> int:
        return self._below.size

    def read(self, offset: int, length: int) -> Readable:
        data = bytearray(self._below.read(offset, length))
        for run in self._changed.runs(offset, offset + length):
            if run.value:
                data[run.start - offset : run.end - offset] = self._own(run.start, run.end)
        return data

    def write(self, offset: int, data: Readable) -> None:
        done = 0
        while done < len(data):
            number, at = divmod(offset + done, self._block)
            count = min(self._block - at, len(data) - done)
            self._bytes.setdefault(number, bytearray(self._block))[at : at + count] = data[done : done + count]
            done += count
        self._changed.set(offset, offset + len(data), 1)

    def zero(self, offset: int, length: int, *, allocate: bool = False, fast: bool = False) -> None:
        self.write(offset, bytes(length))

    def trim(self, offset: int, length: int) -> None:
        self.zero(offset, length)

    def flush(self) -> None:
        """Do nothing: that is the bug."""

    def extents(self, offset: int, length: int) -> list[Extent]:
        return [Extent(length, 0)]

    def resize(self, size: int) -> None:
        self._below.resize(size)

    def give_up(self) -> None:
        """Write everything through, as closing the connection does."""
        for run in list(self._changed.runs(0, self._changed.size)):
            if run.value:
                self._below.write(run.start, self._own(run.start, run.end))
        self._changed.set(0, self._changed.size, 0)

    def _own(self, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            number, at = divmod(start, self._block)
            count = min(self._block - at, end - start)
            parts.append(bytes(self._bytes[number][at : at + count]))
            start += count
        return b"".join(parts)
