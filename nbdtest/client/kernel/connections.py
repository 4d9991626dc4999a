"""Which connections the kernel can carry on, and what it has to be told about the export behind them.

The kernel starts at the transmission phase and speaks compact requests and simple replies, over TCP and Unix streams.
What it would accept and then trip over is refused here, before anything is attached.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from nbdtest.client.kernel.failures import UnsuitableConnection
from nbdtest.errors import UsageError
from nbdtest.net.stream import SocketStream
from nbdtest.wire.numbers import TransmissionFlag

__all__ = [
    "BLOCK_SIZES",
    "KERNEL_FLAGS",
    "Connectable",
    "Export",
    "NegotiatedHandle",
    "check_setup",
    "duplicate",
    "exports_agree",
    "negotiated_export",
]

PAGE: Final = mmap.PAGESIZE
BLOCK_SIZES: Final = tuple(1 << bit for bit in range(9, PAGE.bit_length()))
"""From 512 to the page size."""

KERNEL_FLAGS: Final = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.READ_ONLY
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.ROTATIONAL
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.CAN_MULTI_CONN
)
"""The flags that some kernel heeds."""

SIZE_MINIMUM, SIZE_PREFERRED, SIZE_MAXIMUM = range(3)


@runtime_checkable
class NegotiatedHandle(Protocol):
    """What is asked of a handle that has finished its handshake: the part of libnbd's API that describes it."""

    def aio_get_fd(self) -> int: ...
    def aio_is_ready(self) -> bool: ...
    def aio_in_flight(self) -> int: ...
    def get_tls_negotiated(self) -> bool: ...
    def get_structured_replies_negotiated(self) -> bool: ...
    def get_size(self) -> int: ...
    def get_block_size(self, size_type: int) -> int: ...
    def is_read_only(self) -> bool: ...
    def is_rotational(self) -> bool: ...
    def can_flush(self) -> bool: ...
    def can_fua(self) -> bool: ...
    def can_trim(self) -> bool: ...
    def can_zero(self) -> bool: ...
    def can_multi_conn(self) -> bool: ...
    def close(self) -> None: ...


Connectable = socket.socket | SocketStream | int
"""A connected socket, or its descriptor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What the kernel is told of an export. `block_size` is the device's, `max_request` 0 when there is no limit."""

    size: int
    flags: TransmissionFlag
    block_size: int = BLOCK_SIZES[0]
    max_request: int = 0


def duplicate(connection: Connectable) -> socket.socket:
    """Return a socket of our own for a connection that the kernel can carry on.

    Raises:
        UnsuitableConnection: it cannot; the message says why, and what would do.
    """
    descriptor = connection if isinstance(connection, int) else connection.fileno()
    try:
        copy = socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        kind = "closed" if error.errno == errno.EBADF else "no socket"
        raise UnsuitableConnection(f"descriptor {descriptor} is {kind}", errno=error.errno or 0) from error
    try:
        _check(copy)
    except BaseException:
        copy.close()
        raise
    return copy


def _check(connection: socket.socket) -> None:
    if connection.family == socket.AF_VSOCK:
        raise UnsuitableConnection(
            "the kernel's NBD client takes TCP and Unix sockets, this one is vsock: copy between it and a socketpair"
        )
    if connection.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise UnsuitableConnection(
            f"the kernel's NBD client takes TCP and Unix sockets, this one is of family {connection.family}"
        )
    if connection.type != socket.SOCK_STREAM:
        raise UnsuitableConnection(
            f"the kernel's NBD client takes stream sockets, this one is of type {connection.type}"
        )
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise UnsuitableConnection("this socket listens: pass one that accept() returned, or that is connected")
    try:
        connection.getpeername()
    except OSError as error:
        # The kernel would take it, and every request would fail.
        raise UnsuitableConnection("this socket is not connected, or no longer", errno=error.errno or 0) from error


def negotiated_export(handle: NegotiatedHandle) -> Export:
    """Describe the export of a handle whose connection is to be handed to the kernel.

    Raises:
        UnsuitableConnection: the kernel does not speak what was negotiated.
    """
    if not handle.aio_is_ready():
        raise UnsuitableConnection(
            "the handle has to be connected, with its handshake finished and no request under way"
        )
    if handle.aio_in_flight():
        raise UnsuitableConnection(
            f"{handle.aio_in_flight()} requests of the handle await their replies: let them complete first"
        )
    if handle.get_tls_negotiated():
        raise UnsuitableConnection("the connection is encrypted, and the kernel's NBD client does not do TLS")
    extended = getattr(handle, "get_extended_headers_negotiated", None)  # libnbd has it since 1.18
    if extended is not None and extended():
        raise UnsuitableConnection(_unspoken("extended headers", "set_request_extended_headers"))
    if handle.get_structured_replies_negotiated():
        raise UnsuitableConnection(_unspoken("structured replies", "set_request_structured_replies"))
    minimum, maximum = handle.get_block_size(SIZE_MINIMUM), handle.get_block_size(SIZE_MAXIMUM)
    block_size = max(minimum, BLOCK_SIZES[0])
    if block_size not in BLOCK_SIZES:
        raise UnsuitableConnection(
            f"the server's smallest request is {minimum} bytes, the kernel's block size can be {PAGE} at most"
        )
    if maximum and maximum < PAGE:
        raise UnsuitableConnection(
            f"the server's largest request is {maximum} bytes, the kernel transfers whole pages of {PAGE}"
        )
    return Export(size=handle.get_size(), flags=_flags(handle), block_size=block_size, max_request=maximum)


def check_setup(*, block_size: int, flags: TransmissionFlag, connections: int) -> None:
    """Refuse what the kernel would refuse while it can be tried again: over ioctl a later refusal shuts the connection.

    Raises:
        UsageError, UnsuitableConnection: the device cannot be set up like this.
    """
    if block_size not in BLOCK_SIZES:
        sizes = ", ".join(map(str, BLOCK_SIZES))
        raise UsageError(f"a block size of {block_size}: the kernel takes {sizes}")
    if connections > 1 and TransmissionFlag.CAN_MULTI_CONN not in flags:
        raise UnsuitableConnection(
            "the server does not promise that several connections see each other's writes (CAN_MULTI_CONN): attach one"
        )


def exports_agree(exports: Sequence[Export]) -> Export:
    """Return what several connections of one device have in common.

    Raises:
        UnsuitableConnection: they differ.
    """
    first = exports[0]
    if any(other != first for other in exports):
        raise UnsuitableConnection(
            f"the connections of one device have to describe the same export, these differ: {exports}"
        )
    return first


def _flags(handle: NegotiatedHandle) -> TransmissionFlag:
    offered = (
        (TransmissionFlag.READ_ONLY, handle.is_read_only()),
        (TransmissionFlag.SEND_FLUSH, handle.can_flush()),
        (TransmissionFlag.SEND_FUA, handle.can_fua()),
        (TransmissionFlag.ROTATIONAL, handle.is_rotational()),
        (TransmissionFlag.SEND_TRIM, handle.can_trim()),
        (TransmissionFlag.SEND_WRITE_ZEROES, handle.can_zero()),
        (TransmissionFlag.CAN_MULTI_CONN, handle.can_multi_conn()),
    )
    flags = TransmissionFlag.HAS_FLAGS
    for flag, is_offered in offered:
        if is_offered:
            flags |= flag
    return flags


def _unspoken(what: str, setting: str) -> str:
    return f"{what} were negotiated, which the kernel does not understand: call {setting}(False) before connecting"
