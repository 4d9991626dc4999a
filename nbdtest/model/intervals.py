"""A map from every position of [0, size) to a small number, kept as runs of equal values. Knows nothing of disks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["IntervalMap", "Run"]


class Run(NamedTuple):
    """The positions [start, end), all with the same `value`."""

    start: int
    end: int
    value: int


class IntervalMap:
    """Runs of equal values that cover [0, size) without gaps; neighbouring runs differ."""

    __slots__ = ("_starts", "_values", "size", "version")

    def __init__(self, size: int, value: int = 0) -> None:
        self.size = size
        self.version = 0
        """Grows with every change; while it stays, what has been seen still holds."""
        self._starts = [0]
        self._values = [value]

    def set(self, start: int, end: int, value: int) -> None:
        """Give every position of [start, end) this value; an empty range changes nothing."""
        if start >= end:
            return
        starts, values = self._starts, self._values
        first = bisect_right(starts, start) - 1
        if values[first] == value and end <= self._end(first):
            return
        self.version += 1
        after = bisect_left(starts, end)
        fresh = [(start, value)]
        if starts[first] < start:
            fresh.insert(0, (starts[first], values[first]))
        elif first:
            first -= 1
            fresh.insert(0, (starts[first], values[first]))
        if end < self._end(after - 1):
            fresh.append((end, values[after - 1]))
        elif after < len(starts):
            fresh.append((starts[after], values[after]))
            after += 1
        merged = [run for at, run in enumerate(fresh) if at == 0 or run[1] != fresh[at - 1][1]]
        starts[first:after] = [run[0] for run in merged]
        values[first:after] = [run[1] for run in merged]

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """Give the runs of [start, end), cut to that range and to the map, in order."""
        end = min(end, self.size)
        at = bisect_right(self._starts, start) - 1
        while start < end:
            stop = min(end, self._end(at))
            yield Run(start, stop, self._values[at])
            start = stop
            at += 1

    def run_at(self, position: int) -> Run:
        """Give the whole run that holds `position`."""
        at = bisect_right(self._starts, position) - 1
        return Run(self._starts[at], self._end(at), self._values[at])

    def total(self, value: int) -> int:
        """Count the positions with this value."""
        return sum(self._end(at) - self._starts[at] for at, seen in enumerate(self._values) if seen == value)

    def resize(self, size: int, value: int = 0) -> None:
        """Cut the map short, or make it longer with `value` in the new part."""
        self.version += 1
        if size < self.size:
            keep = max(1, bisect_left(self._starts, size))
            del self._starts[keep:], self._values[keep:]
            self.size = size
        elif size > self.size:
            old, self.size = self.size, size
            previous = self._values[-1]
            if previous != value:
                if old == 0:
                    self._values[-1] = value
                else:
                    self._starts.append(old)
                    self._values.append(value)

    def _end(self, at: int) -> int:
        return self._starts[at + 1] if at + 1 < len(self._starts) else self.size
