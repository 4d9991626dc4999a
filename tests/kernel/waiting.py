"""Waiting for what the kernel does in its own time."""

from __future__ import annotations

import threading
from collections.abc import Callable

LIMIT_S = 10.0
POLL_S = 0.005


def until(fact: Callable[[], bool], what: str) -> None:
    """Wait until `fact` is true; `what` names it in the failure."""
    pause = threading.Event()
    for _ in range(int(LIMIT_S / POLL_S)):
        if fact():
            return
        pause.wait(POLL_S)
    raise AssertionError(f"not within {LIMIT_S:g} s: {what}")
