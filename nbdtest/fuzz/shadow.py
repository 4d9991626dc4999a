"""What the server's disk must hold, as far as that is known: a copy of the stretches in which sessions work.

What the server may have changed in a way that nobody can foretell is unknown until it is read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nbdtest.fuzz.ground import Ground

__all__ = ["Shadow"]

_UNKNOWN, _KNOWN = b"\0", b"\1"


@dataclass(slots=True)
class _Window:
    start: int
    end: int
    data: bytearray
    known: bytearray


class Shadow:
    """The remembered contents of an export. Ranges may lie anywhere; outside the windows nothing is remembered."""

    def __init__(self, ground: Ground) -> None:
        self._windows = [
            _Window(start, end, bytearray(end - start), bytearray(end - start)) for start, end in ground.windows
        ]

    def forget_all(self) -> None:
        """Know nothing any more: the server has been started anew."""
        for window in self._windows:
            window.known = bytearray(len(window.known))

    def forget(self, offset: int, length: int) -> None:
        """Know nothing of this range any more."""
        for window, first, last, _ in self._parts(offset, length):
            window.known[first:last] = _UNKNOWN * (last - first)

    def write(self, offset: int, data: bytes) -> None:
        """Remember `data`."""
        for window, first, last, at in self._parts(offset, len(data)):
            window.data[first:last] = data[at : at + last - first]
            window.known[first:last] = _KNOWN * (last - first)

    def zero(self, offset: int, length: int) -> None:
        """Remember zeroes."""
        for window, first, last, _ in self._parts(offset, length):
            window.data[first:last] = bytes(last - first)
            window.known[first:last] = _KNOWN * (last - first)

    def compare(self, offset: int, data: bytes) -> int | None:
        """Hold what was read against what is known, and learn the rest; return the first wrong position."""
        for window, first, last, at in self._parts(offset, len(data)):
            got = data if last - first == len(data) else data[at : at + last - first]
            if window.data[first:last] != got:
                wrong = self._first_wrong(window, first, last, got)
                if wrong is not None:
                    return window.start + wrong
                window.data[first:last] = got
            if window.known.find(_UNKNOWN, first, last) >= 0:
                window.data[first:last] = got
                window.known[first:last] = _KNOWN * (last - first)
        return None

    def first_nonzero(self, offset: int, length: int) -> int | None:
        """Return the first position of the range that is known not to be zero."""
        for window, first, last, _ in self._parts(offset, length):
            if window.data.count(0, first, last) == last - first:
                continue
            for at in range(first, last):
                if window.data[at] and window.known[at]:
                    return window.start + at
        return None

    def _parts(self, offset: int, length: int) -> Iterator[tuple[_Window, int, int, int]]:
        """The parts of a range that lie in windows: window, positions in it, and position in the range."""
        end = offset + length
        for window in self._windows:
            first, last = max(offset, window.start), min(end, window.end)
            if first < last:
                yield window, first - window.start, last - window.start, first - offset

    @staticmethod
    def _first_wrong(window: _Window, first: int, last: int, got: bytes) -> int | None:
        at = window.known.find(_KNOWN, first, last)
        while at >= 0:
            end = window.known.find(_UNKNOWN, at, last)
            end = last if end < 0 else end
            if window.data[at:end] != got[at - first : end - first]:
                return next(here for here in range(at, end) if window.data[here] != got[here - first])
            at = window.known.find(_KNOWN, end, last)
        return None
