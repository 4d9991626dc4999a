"""Two ways to wait for a reply, and finding out by trying which one a server likes better.

Receiving at once saves a system call; polling first lets some servers (qemu-nbd) finish before they lose the processor,
which is worth more. How long an exchange takes depends even more on the mood of the scheduler, which lasts for some
thousand exchanges; therefore there are several trials, ever further apart. Nothing here waits: it counts and compares
durations.
"""

from __future__ import annotations

__all__ = ["BLOCK", "FIRST_REST", "NEVER", "ROUNDS", "TRIALS", "Pacing"]

BLOCK = 16  # replies in a row before the other way has its turn
ROUNDS = 5  # blocks of either way in a trial
TRIALS = 6
FIRST_REST = 400  # exchanges between the first trial and the second; then twice as many each time
GAIN = 0.97  # polling has to be better by that much: it is the exception
NEVER = 1 << 64


class Pacing:
    """Whether to poll before receiving. From the exchange number `tries_from` on, durations are wanted."""

    __slots__ = ("_durations", "polls", "tries_from")

    def __init__(self) -> None:
        self.polls = False
        self.tries_from = 0
        self._durations: tuple[list[float], list[float]] = ([], [])

    def took(self, seconds: float, number: int) -> None:
        """The exchange `number` has taken that long in the present way."""
        durations = self._durations[self.polls]
        durations.append(seconds)
        if len(durations) % BLOCK:
            return
        if not self.polls or len(durations) % (BLOCK * ROUNDS):
            self.polls = not self.polls
            return
        received, polled = self._durations
        self.polls = _typical(polled) < GAIN * _typical(received)
        trials = len(polled) // (BLOCK * ROUNDS)
        self.tries_from = number + (FIRST_REST << trials - 1) if trials < TRIALS else NEVER


def _typical(durations: list[float]) -> float:
    # The lower quartile: a busy machine only ever makes exchanges longer.
    return sorted(durations)[len(durations) // 4]
