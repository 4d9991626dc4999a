"""Bytes that wait to leave one connection, and how it ends. Told the time, never reads it."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable

from nbdtest.wire.layout import Readable

__all__ = ["End", "Outbox"]


class End(enum.Enum):
    """How a connection ends on our side."""

    FIN = "FIN"
    RST = "RST"


class Outbox:
    """A queue of pieces, some of which may not leave before a certain time."""

    __slots__ = (
        "_cut_after",
        "_cut_end",
        "_drip_at",
        "_drip_left",
        "_end",
        "_every_s",
        "_items",
        "cut_short",
        "size",
        "stalled",
    )

    def __init__(self) -> None:
        self._items: deque[tuple[float, Readable]] = deque()
        self.size = 0
        """Bytes queued."""
        self.stalled = False
        """Whether what is added from here on is lost; what is queued still leaves."""
        self.cut_short = False
        """Whether it ends by a cut: a layer below must not add a farewell."""
        self._every_s: float | None = None
        self._drip_at = 0.0
        self._drip_left: float = math.inf
        self._cut_after: int | None = None
        self._cut_end = End.FIN
        self._end: End | None = None

    @property
    def end(self) -> End | None:
        """How to end the connection now; None as long as it goes on or bytes wait."""
        return self._end if not self._items and not self.stalled else None

    @property
    def ended(self) -> bool:
        """Whether nothing more will be taken in."""
        return self._end is not None

    def add(self, pieces: Iterable[Readable], now: float) -> list[Readable]:
        """Queue the pieces, as far as a cut lets them through; give what was queued."""
        taken: list[Readable] = []
        for piece in pieces:
            if self._end is not None or self.stalled or not len(piece):
                continue
            if self._cut_after is not None:
                piece = piece[: self._cut_after]
                self._cut_after -= len(piece)
                if self._cut_after == 0:
                    self._end = self._cut_end
            taken.append(piece)
            self._queue(piece, now)
        return taken

    def take(self, now: float) -> list[Readable]:
        """Remove what may leave now. A dripping byte leaves alone."""
        found: list[Readable] = []
        while self._items and self._items[0][0] <= now:
            dripping = self._items[0][0] > 0
            if dripping and found:
                break
            piece = self._items.popleft()[1]
            self.size -= len(piece)
            found.append(piece)
            if dripping:
                break
        return found

    def detach(self) -> None:
        """Copy what is a view of a disk, so that what was read before a write does not show it."""
        for at, (when, piece) in enumerate(self._items):
            if isinstance(piece, memoryview):
                self._items[at] = (when, bytes(piece))

    def next_time(self) -> float:
        """When the next piece may leave; `inf` for never."""
        return self._items[0][0] if self._items else math.inf

    def drip(self, every_s: float | None, first: int | None = None) -> None:
        """From here on queue single bytes, so far apart, `first` of them or all; None ends that."""
        self._every_s = every_s
        self._drip_left = math.inf if first is None else first

    def cut(self, after: int, *, rst: bool) -> None:
        """Let `after` more bytes in and then end."""
        self._cut_end = End.RST if rst else End.FIN
        self.cut_short = True
        if after == 0:
            self._end = self._end or self._cut_end
        else:
            self._cut_after = after

    def finish(self) -> None:
        """End by FIN after what is queued."""
        self._end = self._end or End.FIN

    def _queue(self, piece: Readable, now: float) -> None:
        self.size += len(piece)
        if self._every_s is None:
            self._items.append((0.0, piece))
            return
        dripping = int(min(len(piece), self._drip_left))
        self._drip_left -= dripping
        for at in range(dripping):
            self._drip_at = max(self._drip_at, now) + self._every_s
            self._items.append((self._drip_at, piece[at : at + 1]))
        if dripping < len(piece):
            self._items.append((0.0, piece[dripping:]))
