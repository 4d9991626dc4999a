"""The clock: monotonic time, deadlines, and the one place that reads either.

It knows nothing of sockets. Engines above never read it; they are told the time.
"""

import math
import time

__all__ = ["Deadline", "monotonic_s", "pause", "wall_clock_s"]

_LONGEST_MS = (1 << 31) - 1  # what `poll` takes


def monotonic_s() -> float:
    """Seconds since an arbitrary moment; never goes back."""
    return time.monotonic()


def wall_clock_s() -> float:
    """Seconds since 1970-01-01 UTC, for the time stamps of a journal."""
    return time.time()


def pause(seconds: float) -> None:
    """Do nothing for that long; for looking again at what cannot be waited for."""
    time.sleep(seconds)


class Deadline:
    """A moment after which waiting is given up; `None` seconds means never."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = math.inf if seconds is None else seconds
        self._at = time.monotonic() + self.seconds

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return self._at <= time.monotonic()

    def remaining(self) -> float:
        """Seconds left: never negative, `inf` when there is no limit."""
        return max(0.0, self._at - time.monotonic())

    def remaining_or_none(self) -> float | None:
        """Seconds left in the form that waiting calls take: `None` when there is no limit."""
        return None if self._at == math.inf else self.remaining()

    def remaining_ms(self) -> int | None:
        """Milliseconds left, rounded up, in the form that `poll` takes: `None` when there is no limit."""
        return None if self._at == math.inf else min(math.ceil(self.remaining() * 1000), _LONGEST_MS)

    def __repr__(self) -> str:
        return f"Deadline({'never' if self._at == math.inf else f'{self.seconds:g} s, {self.remaining():.3f} s left'})"
