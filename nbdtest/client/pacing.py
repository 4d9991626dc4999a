"""Two ways to wait for a reply, and finding out by trying which one a server likes better.

Receiving at once saves a system call; polling first lets some servers (qemu-nbd) finish before they lose the processor,
which is worth more. Nothing here waits: it counts and compares durations.
"""

from __future__ import annotations

__all__ = ["Pacing"]

BLOCK = 16  # replies in a row before the other way has its turn
ROUNDS = 5
GAIN = 0.97  # polling has to be better by that much: it is the exception


class Pacing:
    """Whether to poll before receiving. While `trying`, the duration of each exchange is wanted."""

    __slots__ = ("_durations", "polls", "trying")

    def __init__(self) -> None:
        self.polls = False
        self.trying = True
        self._durations: tuple[list[float], list[float]] = ([], [])

    def took(self, seconds: float) -> None:
        """An exchange has taken that long in the present way."""
        durations = self._durations[self.polls]
        durations.append(seconds)
        if len(durations) % BLOCK:
            return
        if self.polls and len(durations) == BLOCK * ROUNDS:
            received, polled = self._durations
            self.polls = _typical(polled) < GAIN * _typical(received)
            self.trying = False
        else:
            self.polls = not self.polls


def _typical(durations: list[float]) -> float:
    # The lower quartile: a busy machine only ever makes exchanges longer.
    return sorted(durations)[len(durations) // 4]
