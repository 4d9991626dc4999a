"""What the server's disk must hold, as far as that is known: a copy of the stretches in which sessions work.

What the server may have changed in a way that nobody can foretell is unknown until it is read again.
"""

from __future__ import annotations

from collections.abc import Iterator

from nbdtest.fuzz.ground import Ground

__all__ = ["Shadow"]

_UNKNOWN, _KNOWN = 0, 1


class _Window:
    """One stretch of the disk: a byte of data and a mark for each position. What is unknown is zero in `data`."""

    __slots__ = ("blank", "data", "end", "known", "put", "put_marks", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.data = bytearray(end - start)
        self.known = bytearray(end - start)
        # What is assigned to a slice of a view is copied once, to a slice of a bytearray twice.
        self.put = memoryview(self.data)
        self.put_marks = memoryview(self.known)
        self.blank = True


class Shadow:
    """The remembered contents of an export. Ranges may lie anywhere; outside the windows nothing is remembered."""

    def __init__(self, ground: Ground) -> None:
        self._windows = [_Window(start, end) for start, end in ground.windows]
        longest = max(window.end - window.start for window in self._windows)
        self._zeroes = memoryview(bytes(longest))
        self._marks = memoryview(bytes([_KNOWN]) * longest)

    def forget_all(self) -> None:
        """Know nothing any more: the server has been started anew."""
        for window in self._windows:
            if not window.blank:
                self.forget(window.start, window.end - window.start)
                window.blank = True

    def forget(self, offset: int, length: int) -> None:
        """Know nothing of this range any more."""
        for window, first, last, _ in self._parts(offset, length):
            window.put[first:last] = window.put_marks[first:last] = self._zeroes[: last - first]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Remember `data`."""
        for window, first, last, at in self._parts(offset, len(data)):
            window.put[first:last] = data if last - first == len(data) else data[at : at + last - first]
            self._learned(window, first, last)

    def zero(self, offset: int, length: int) -> None:
        """Remember zeroes."""
        for window, first, last, _ in self._parts(offset, length):
            window.put[first:last] = self._zeroes[: last - first]
            self._learned(window, first, last)

    def compare(self, offset: int, data: bytes | memoryview) -> int | None:
        """Hold what was read against what is known, and learn the rest; return the first wrong position."""
        for window, first, last, at in self._parts(offset, len(data)):
            got = data if last - first == len(data) else data[at : at + last - first]
            if window.known.find(_UNKNOWN, first, last) < 0 and window.data.startswith(got, first):
                continue
            wrong = self._first_wrong(window, first, last, got)
            if wrong is not None:
                return window.start + wrong
            window.put[first:last] = got
            self._learned(window, first, last)
        return None

    def first_nonzero(self, offset: int, length: int) -> int | None:
        """Return the first position of the range that is known not to be zero."""
        for window, first, last, _ in self._parts(offset, length):
            if not window.data.startswith(self._zeroes[: last - first], first):
                return window.start + last - len(window.data[first:last].lstrip(b"\0"))
        return None

    def _learned(self, window: _Window, first: int, last: int) -> None:
        window.put_marks[first:last] = self._marks[: last - first]
        window.blank = False

    def _parts(self, offset: int, length: int) -> Iterator[tuple[_Window, int, int, int]]:
        """The parts of a range that lie in windows: window, positions in it, and position in the range."""
        end = offset + length
        for window in self._windows:
            start = window.start
            if offset < window.end and start < end:
                first = offset if offset > start else start
                last = end if end < window.end else window.end
                if first < last:
                    yield window, first - start, last - start, first - offset

    @staticmethod
    def _first_wrong(window: _Window, first: int, last: int, got: bytes | memoryview) -> int | None:
        at = window.known.find(_KNOWN, first, last)
        while at >= 0:
            end = window.known.find(_UNKNOWN, at, last)
            end = last if end < 0 else end
            if not window.data.startswith(got[at - first : end - first], at):
                return next(here for here in range(at, end) if window.data[here] != got[here - first])
            at = window.known.find(_KNOWN, end, last)
        return None
