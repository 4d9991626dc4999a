"""Waiting until a device that was disconnected is free, and saying who keeps it when it is not."""

from __future__ import annotations

import select
from collections.abc import Callable

from nbdtest.client.kernel.failures import StillInUse
from nbdtest.client.kernel.sysfs import Sysfs, device_path
from nbdtest.net.clock import Deadline

__all__ = ["pause", "wait_until_free"]

POLL_S = 0.005


def wait_until_free(index: int, sysfs: Sysfs, timeout_s: float, in_use: Callable[[], bool]) -> None:
    """Wait until `in_use` is false: nobody tells when the last opener of a device has gone.

    Raises:
        StillInUse: it is in use after the timeout; the message names by whom.
    """
    deadline = Deadline(timeout_s)
    while in_use():
        if deadline.expired:
            users = "; ".join(sysfs.users(index)) or "by whom cannot be seen from here"
            raise StillInUse(f"{device_path(index)} is disconnected, but still in use: {users}")
        pause()


def pause() -> None:
    """Wait for the moment after which it is worth asking again."""
    select.select([], [], [], POLL_S)
