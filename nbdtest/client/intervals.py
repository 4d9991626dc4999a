"""Sets of byte positions as disjoint intervals: which parts of a read have arrived. Pure arithmetic."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

__all__ = ["Intervals"]


class Intervals:
    """A set of integers, stored as sorted, disjoint, non-adjacent half-open intervals."""

    __slots__ = ("_ends", "_starts", "total")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0
        """How many integers are in the set."""

    def add(self, start: int, end: int) -> bool:
        """Add [start, end) and say whether none of it was there before."""
        if start >= end:
            return True
        first = bisect_left(self._ends, start)  # the first interval that touches or follows
        last = bisect_right(self._starts, end)  # one past the last that touches or precedes
        before = self.total
        new_start, new_end, swallowed = start, end, 0
        if first < last:
            new_start = min(start, self._starts[first])
            new_end = max(end, self._ends[last - 1])
            swallowed = sum(self._ends[at] - self._starts[at] for at in range(first, last))
        self._starts[first:last] = [new_start]
        self._ends[first:last] = [new_end]
        self.total = before - swallowed + (new_end - new_start)
        return self.total - before == end - start

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The intervals of [start, end) that are not in the set, in order."""
        at = start
        for begin, stop in zip(self._starts, self._ends, strict=True):
            if stop <= at:
                continue
            if begin >= end:
                break
            if begin > at:
                yield at, begin
            at = stop
        if at < end:
            yield at, end

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)
