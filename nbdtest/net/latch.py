"""A one-way signal from one thread to others that ^C cannot break.

`threading.Event` can be left locked for ever by an interrupt that arrives while a thread enters or leaves its `wait`;
the thread that calls `set` then hangs. Here the one who opens never waits.
"""

import threading

from nbdtest.net.clock import Deadline

__all__ = ["Latch"]

SLICE_S = 0.5


class Latch:
    """Closed at first, then open for good."""

    __slots__ = ("_is_open", "_lock")

    def __init__(self) -> None:
        self._is_open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let everybody through. Once only."""
        self._is_open = True
        self._lock.release()

    def wait(self, within: float | None = None) -> bool:
        """Wait until it is open, at most `within` seconds; whether it is."""
        deadline = Deadline(within)
        while not self._is_open:
            # In slices: a thread that is interrupted between these two lines takes the lock with it.
            if self._lock.acquire(timeout=min(SLICE_S, deadline.remaining())):
                self._lock.release()
            elif deadline.expired:
                break
        return self._is_open
