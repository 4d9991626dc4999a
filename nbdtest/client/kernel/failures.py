"""What can go wrong between us and the kernel's NBD driver, as exceptions that say what to do.

The mapping from error numbers is data here; who calls the kernel is not known.
"""

from __future__ import annotations

import errno
import os

from nbdtest.errors import NBDTestError

__all__ = [
    "DeviceBusy",
    "DeviceError",
    "NoModule",
    "NotPermitted",
    "StillInUse",
    "UnsuitableConnection",
    "explain",
]


class DeviceError(NBDTestError):
    """The kernel's NBD client refused something. `errno` is its error number, 0 when it was not asked."""

    def __init__(self, message: str, *, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class NoModule(DeviceError):
    """This kernel has no NBD client, or it is not loaded."""


class NotPermitted(DeviceError):
    """This process may not set up block devices."""


class DeviceBusy(DeviceError):
    """Somebody else uses the device."""


class UnsuitableConnection(DeviceError):
    """The kernel cannot carry on this connection: its socket is of the wrong kind, or what was negotiated on it is."""


class StillInUse(DeviceError):
    """The device was disconnected, but somebody keeps it open; the message names who."""


NO_MODULE = "the kernel's NBD client is not loaded: modprobe nbd (as root)"
NOT_PERMITTED = "this needs the capability CAP_SYS_ADMIN: run it as root"
BUSY = "it is set up, or held open, by somebody else: take another device, or let the kernel choose one"

_CAUSES: dict[int, tuple[type[DeviceError], str]] = {
    errno.ENODEV: (NoModule, NO_MODULE),
    errno.ENXIO: (NoModule, NO_MODULE),
    errno.EPERM: (NotPermitted, NOT_PERMITTED),
    errno.EACCES: (NotPermitted, NOT_PERMITTED),
    errno.EBUSY: (DeviceBusy, BUSY),
    errno.EBADF: (UnsuitableConnection, "the descriptor of the connection is closed"),
    errno.ENOTSOCK: (UnsuitableConnection, "the descriptor is no socket"),
    errno.ENOMEM: (DeviceError, "the kernel has no memory for another device"),
    errno.ENOTTY: (DeviceError, "this is no NBD device"),
}


def explain(error: OSError, doing: str, *, log: str = "") -> DeviceError:
    """Turn the kernel's answer into an exception.

    `doing` says what was tried, such as "connecting /dev/nbd3"; `log` is what the kernel logged meanwhile, without
    which an EINVAL says nothing.
    """
    number = error.errno or 0
    kind, advice = _CAUSES.get(number, (DeviceError, ""))
    name = errno.errorcode.get(number, str(number))
    details = "; ".join(part for part in (advice, f"the kernel says {log!r}" if log else "") if part)
    return kind(f"{doing}: {os.strerror(number)} ({name})" + (f": {details}" if details else ""), errno=number)
