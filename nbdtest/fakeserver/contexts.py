"""Metadata contexts: what BLOCK_STATUS tells about an export, and how a client's queries select them.

Nothing here knows how extents travel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from nbdtest.errors import UsageError
from nbdtest.model import Disk, IntervalMap
from nbdtest.wire import Extent

__all__ = ["BASE_ALLOCATION", "Allocation", "Context", "DirtyBitmap", "TracksWrites", "UserContext", "matches"]

BASE_ALLOCATION = "base:allocation"

Extents = Iterable[Extent | tuple[int, int]]


class Context(Protocol):
    """One metadata context of an export. `wide` ones need 64 bits, hence extended headers."""

    @property
    def name(self) -> str:
        """Namespace, colon, leaf."""

    @property
    def wide(self) -> bool:
        """Whether its lengths or status values need 64 bits."""

    def extents(self, disk: Disk, offset: int, length: int) -> Sequence[Extent]:
        """Describe the range from its start; the lengths add up to `length` or less, at least one byte."""


@runtime_checkable
class TracksWrites(Protocol):
    """A context that wants to know what has been written."""

    def written(self, offset: int, length: int) -> None:
        """Take note of a range whose contents may have changed."""


class Allocation:
    """base:allocation as the disk reports it."""

    name = BASE_ALLOCATION
    wide = False

    def extents(self, disk: Disk, offset: int, length: int) -> Sequence[Extent]:
        return disk.extents(offset, length)

    def __repr__(self) -> str:
        return "Allocation()"


class DirtyBitmap:
    """What was written since the bitmap was made or cleared, in grains, like QEMU's `qemu:dirty-bitmap:NAME`."""

    wide = False

    def __init__(self, bitmap: str, *, granularity: int = 65536) -> None:
        if granularity < 1:
            raise UsageError(f"a dirty bitmap of granularity {granularity}: at least 1 byte is needed")
        self.name = f"qemu:dirty-bitmap:{bitmap}"
        self.granularity = granularity
        self._dirty = IntervalMap(1 << 64)
        self._lock = threading.Lock()

    def written(self, offset: int, length: int) -> None:
        grain = self.granularity
        with self._lock:
            self._dirty.set(offset // grain * grain, -(-(offset + length) // grain) * grain, 1)

    def clear(self) -> None:
        """Call everything clean."""
        with self._lock:
            self._dirty.set(0, self._dirty.size, 0)

    def extents(self, disk: Disk, offset: int, length: int) -> Sequence[Extent]:
        with self._lock:
            return [Extent(run.end - run.start, run.value) for run in self._dirty.runs(offset, offset + length)]

    def __repr__(self) -> str:
        return f"DirtyBitmap({self.name.rpartition(':')[2]!r}, granularity={self.granularity})"


class UserContext:
    """A test's own context: extents of the whole export from position 0, or a function (offset, length) -> extents."""

    def __init__(self, name: str, extents: Extents | Callable[[int, int], Extents], *, wide: bool = False) -> None:
        if not name.partition(":")[2] and ":" not in name:
            raise UsageError(f"context name {name!r}: a namespace and a colon are needed, such as x-test:{name}")
        self.name = name
        self.wide = wide
        self._extents = extents if callable(extents) else _plain(extents)

    def extents(self, disk: Disk, offset: int, length: int) -> Sequence[Extent]:
        if callable(self._extents):
            return _plain(self._extents(offset, length)) or [Extent(length, 0)]
        found = []
        start, end = 0, offset + length
        for extent in self._extents:
            shared = min(start + extent.length, end) - max(start, offset)
            if shared > 0:
                found.append(Extent(shared, extent.status))
            start += extent.length
        if start < end:
            found.append(Extent(end - max(start, offset), 0))
        return found

    def __repr__(self) -> str:
        return f"UserContext({self.name!r}, ...)"


def matches(query: str, name: str, *, listing: bool) -> bool:
    """Say whether a LIST or SET query selects the context `name`.

    META-021, META-022: a query that ends in a colon is a wildcard when listing and selects nothing when setting.
    """
    if query == name:
        return True
    return listing and query.endswith(":") and name.startswith(query)


def _plain(extents: Extents) -> list[Extent]:
    return [extent if isinstance(extent, Extent) else Extent(*extent) for extent in extents]
