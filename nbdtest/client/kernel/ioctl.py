"""The NBD driver's ioctl interface: one method per request, on one open device node.

All setup belongs to the open file: when it is closed before the service loop runs, everything is lost. In which order
the requests are to be made, and what has to follow, is decided in `ioctl_attachment`. Source: include/uapi/linux/nbd.h.
"""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum
from types import TracebackType
from typing import Self

from nbdtest.client.kernel.failures import explain
from nbdtest.client.kernel.kernel_log import KernelLog
from nbdtest.client.kernel.sysfs import Sysfs
from nbdtest.wire.numbers import TransmissionFlag

__all__ = ["NBDIoctl", "Request"]


class Request(IntEnum):
    """The driver's requests: _IO(0xab, n), an argument that is a number or none."""

    SET_SOCK = 0xAB00
    SET_BLKSIZE = 0xAB01
    SET_SIZE = 0xAB02
    DO_IT = 0xAB03
    CLEAR_SOCK = 0xAB04
    CLEAR_QUE = 0xAB05
    PRINT_DEBUG = 0xAB06
    SET_SIZE_BLOCKS = 0xAB07
    DISCONNECT = 0xAB08
    SET_TIMEOUT = 0xAB09
    SET_FLAGS = 0xAB0A


_libc = ctypes.CDLL(None, use_errno=True)


def call(descriptor: int, request: int, argument: int) -> None:
    """Make an ioctl whose argument is an unsigned long; `fcntl.ioctl` takes only what fits a signed int.

    Other threads run meanwhile.

    Raises:
        OSError: the kernel refused.
    """
    ctypes.set_errno(0)
    if _libc.ioctl(ctypes.c_int(descriptor), ctypes.c_ulong(request), ctypes.c_ulong(argument)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class NBDIoctl:
    """A device node held open. Opening it, and being allowed to, is all that is checked here.

    Raises:
        NoModule: there is no such node, or no driver behind it.
        NotPermitted: it may not be opened, or not set up.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            # Read-only suffices for every request, and does not count as a writer.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Sysfs().no_such_device(path) from error
        except OSError as error:
            raise explain(error, f"opening {path}") from error

    def set_socket(self, descriptor: int) -> None:
        """Claim the device, if it is free, and add a connection. All of a device's are added by the same thread."""
        self._call(Request.SET_SOCK, descriptor)

    def set_block_size(self, size: int) -> None:
        """Set the smallest unit of a request: a power of two from 512 to the page size; 0 is the driver's default."""
        self._call(Request.SET_BLKSIZE, size)

    def set_size(self, size: int) -> None:
        """Set the size in bytes."""
        self._call(Request.SET_SIZE, size)

    def set_size_blocks(self, blocks: int) -> None:
        """Set the size in blocks of the block size."""
        self._call(Request.SET_SIZE_BLOCKS, blocks)

    def set_flags(self, flags: TransmissionFlag) -> None:
        """Say what the export offers, as the server said it."""
        self._call(Request.SET_FLAGS, flags)

    def set_timeout(self, seconds: int) -> None:
        """Limit the time that a request may take; 0 is no limit."""
        self._call(Request.SET_TIMEOUT, seconds)

    def do_it(self) -> None:
        """Serve the device until the connection ends, and return whatever ended it.

        A signal that reaches the thread ends it as well, without a disconnect request to the server.
        """
        self._call(Request.DO_IT, 0)

    def disconnect(self) -> None:
        """Send a disconnect request to the server; `do_it` returns when the server closes the connection."""
        self._call(Request.DISCONNECT, 0)

    def clear_socket(self) -> None:
        """Drop the connections and fail what is in flight.

        The driver lets anybody do this to anybody's device: only to be used after `set_socket` succeeded here.
        """
        self._call(Request.CLEAR_SOCK, 0)

    def clear_queue(self) -> None:
        """Do nothing: kernels since 4.x accept the request for old programs' sake."""
        self._call(Request.CLEAR_QUE, 0)

    def close(self) -> None:
        """Close the node; with the last opener goes the setup. Any number of times."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _call(self, request: Request, argument: int) -> None:
        with KernelLog() as log:
            try:
                call(self._descriptor, request, argument)
            except OSError as error:
                raise explain(error, f"{request.name} on {self.path}", log=log.about_nbd()) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
