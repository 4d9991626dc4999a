"""The NBD driver's generic netlink family: connect, disconnect, reconfigure, status, and the news of dead connections.

One method per command, with the kernel's own arguments. What is wise to ask for is decided in `netlink_attachment`.
Source: the kernel's include/uapi/linux/nbd-netlink.h.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag
from types import TracebackType
from typing import Final, Self

from nbdtest.client.kernel import genetlink
from nbdtest.client.kernel.failures import NO_MODULE, NoModule, explain
from nbdtest.client.kernel.kernel_log import KernelLog
from nbdtest.errors import UsageError
from nbdtest.net.clock import Deadline
from nbdtest.wire.numbers import TransmissionFlag

__all__ = ["SECONDS_MAXIMUM", "ConfigFlag", "LinkEvents", "NBDNetlink", "NetlinkChannel", "Parameters"]

NETLINK_GENERIC: Final = 16
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
RECEIVE_BYTES: Final = 1 << 16

FAMILY: Final = "nbd"
EVENTS: Final = "nbd_mc_group"

CONNECT, DISCONNECT, RECONFIGURE, LINK_DEAD, STATUS = range(1, 6)
(
    INDEX,
    SIZE_BYTES,
    BLOCK_SIZE_BYTES,
    TIMEOUT,
    SERVER_FLAGS,
    CLIENT_FLAGS,
    SOCKETS,
    DEAD_CONNECTION_TIMEOUT,
    DEVICE_LIST,
    BACKEND_IDENTIFIER,
) = range(1, 11)
SOCKET_ITEM, SOCKET_FD = 1, 1
DEVICE_ITEM, DEVICE_INDEX, DEVICE_CONNECTED = 1, 1, 2


SECONDS_MAXIMUM: Final = 4_294_967
"""The driver counts a timeout in ticks, up to 1000 a second, in 32 bits; what does not fit it would cut off."""
MAXIMA: Final = {
    "size": (1 << 63) - 1,
    "block_size": (1 << 32) - 1,
    "timeout_s": SECONDS_MAXIMUM,
    "dead_connection_timeout_s": SECONDS_MAXIMUM,
}


class ConfigFlag(IntFlag):
    """What the driver does with a device on its own (NBD_CFLAG_*)."""

    DESTROY_ON_DISCONNECT = 1 << 0
    DISCONNECT_ON_CLOSE = 1 << 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What can be said of a device; None leaves it as it is, or to the kernel. Times are whole seconds.

    Raises:
        UsageError: a number is none, or out of the kernel's range.
    """

    size: int | None = None
    block_size: int | None = None
    timeout_s: int | None = None
    dead_connection_timeout_s: int | None = None
    flags: TransmissionFlag | None = None
    config_flags: ConfigFlag | None = None
    backend_identifier: str | None = None
    sockets: Sequence[int] = ()

    def __post_init__(self) -> None:
        for name, maximum in MAXIMA.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and 0 <= value <= maximum):
                raise UsageError(f"{name} is a whole number from 0 to {maximum}, not {value!r}")

    def encode(self) -> bytes:
        """Write them as the attributes of a request."""
        numbers = (
            (SIZE_BYTES, self.size),
            (BLOCK_SIZE_BYTES, self.block_size),
            (TIMEOUT, self.timeout_s),
            (SERVER_FLAGS, self.flags),
            (CLIENT_FLAGS, self.config_flags),
            (DEAD_CONNECTION_TIMEOUT, self.dead_connection_timeout_s),
        )
        parts = [genetlink.u64(kind, value) for kind, value in numbers if value is not None]
        if self.backend_identifier is not None:
            parts.append(genetlink.string(BACKEND_IDENTIFIER, self.backend_identifier))
        if self.sockets:
            items = (genetlink.nest(SOCKET_ITEM, genetlink.u32(SOCKET_FD, descriptor)) for descriptor in self.sockets)
            parts.append(genetlink.nest(SOCKETS, *items))
        return b"".join(parts)


class NetlinkChannel:
    """A generic netlink socket on which one request at a time is answered."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        except OSError as error:
            raise NoModule(f"this kernel has no generic netlink: {error.strerror}", errno=error.errno or 0) from error
        self._socket.bind((0, 0))
        self._sequence = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def family(self, name: str) -> genetlink.Family:
        """Look a family up.

        Raises:
            OSError: ENOENT: the kernel has none of that name.
        """
        answer = self._exchange(genetlink.family_query(name, sequence=self._next()))
        return genetlink.parse_family(answer)

    def ask(self, family: int, command: int, payload: bytes) -> bytes:
        """Send a request, and return the data that came before its acknowledgement.

        Raises:
            OSError: the kernel refused.
        """
        return self._exchange(genetlink.encode(family, command, payload, sequence=self._next()))

    def join(self, group: int) -> None:
        """Receive what is sent to a multicast group from now on."""
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def receive(self) -> bytes:
        """Return one datagram that has arrived.

        Raises:
            BlockingIOError: there is none.
        """
        return self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Release the socket. Any number of times."""
        self._socket.close()

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _exchange(self, request: bytes) -> bytes:
        self._socket.send(request)
        answer = b""
        while True:
            for message in genetlink.decode(self._socket.recv(RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue
                if message.error is None:
                    answer = message.payload
                elif message.error:
                    raise OSError(message.error, os.strerror(message.error))
                else:
                    return answer


class NBDNetlink:
    """The commands of the NBD family. Descriptors in them are those of the calling process.

    Raises:
        NoModule: the kernel has no such family.
    """

    def __init__(self, *, open_channel: Callable[[], NetlinkChannel] = NetlinkChannel) -> None:
        self._open_channel = open_channel
        self._channel = open_channel()
        try:
            self._family = self._channel.family(FAMILY)
        except OSError as error:
            self._channel.close()
            if error.errno == errno.ENOENT:
                raise NoModule(
                    f"there is no generic netlink family {FAMILY!r}: {NO_MODULE}", errno=errno.ENOENT
                ) from error
            raise explain(error, "looking for the kernel's NBD client") from error

    def connect(self, parameters: Parameters, index: int | None = None) -> int:
        """Set a device up and return its index; without one the kernel takes a free device or makes one.

        The sockets are resolved in this process at once: their descriptors can be closed when this returns.

        Raises:
            DeviceError: the kernel refused.
        """
        chosen = b"" if index is None else genetlink.u32(INDEX, index)
        answer = self._ask(CONNECT, chosen + parameters.encode(), f"connecting {_named(index)}")
        return genetlink.number(dict(genetlink.attributes(answer))[INDEX])

    def disconnect(self, index: int) -> None:
        """Send a disconnect request on every connection of the device, shut them, and fail what is in flight.

        A device that is free already stays so. The call does not wait until everybody has closed the device.
        """
        self._ask(DISCONNECT, genetlink.u32(INDEX, index), f"disconnecting {_named(index)}")

    def reconfigure(self, index: int, parameters: Parameters) -> None:
        """Change a device that is set up. Sockets take the places of dead connections; others are ignored."""
        self._ask(RECONFIGURE, genetlink.u32(INDEX, index) + parameters.encode(), f"reconfiguring {_named(index)}")

    def status(self, index: int | None = None) -> dict[int, bool]:
        """Return for one device, or for all, whether it is set up. A stray opener of an old one counts as well.

        A device that does not exist is not in the answer. This needs no privilege.
        """
        chosen = b"" if index is None else genetlink.u32(INDEX, index)
        try:
            answer = self._channel.ask(self._family.id, STATUS, chosen)
        except OSError as error:
            if index is not None and error.errno in (errno.EINVAL, errno.ENODEV):
                return {}
            raise explain(error, f"asking for the status of {_named(index)}") from error
        devices = {}
        for _, entry in genetlink.attributes(dict(genetlink.attributes(answer)).get(DEVICE_LIST, b"")):
            device = dict(genetlink.attributes(entry))
            devices[genetlink.number(device[DEVICE_INDEX])] = bool(genetlink.number(device[DEVICE_CONNECTED]))
        return devices

    def events(self) -> LinkEvents:
        """Open a channel on which the kernel tells of every connection that dies from now on."""
        channel = self._open_channel()
        try:
            channel.join(self._family.groups[EVENTS])
        except BaseException:
            channel.close()
            raise
        return LinkEvents(channel, self._family.id)

    def close(self) -> None:
        """Release the socket; devices stay as they are. Any number of times."""
        self._channel.close()

    def _ask(self, command: int, payload: bytes, doing: str) -> bytes:
        with KernelLog() as log:
            try:
                return self._channel.ask(self._family.id, command, payload)
            except OSError as error:
                raise explain(error, doing, log=log.about_nbd()) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LinkEvents:
    """The news of dead connections: one event for each connection that died other than by a disconnect."""

    def __init__(self, channel: NetlinkChannel, family: int) -> None:
        self._channel = channel
        self._family = family

    def fileno(self) -> int:
        return self._channel.fileno()

    def wait(self, timeout_s: float | None = 0, *, also: int | None = None) -> list[int]:
        """Return the index of a device for each connection that it lost, waiting for the first until the timeout.

        `also` is a descriptor that ends the wait as well when it becomes readable.
        """
        poller = select.poll()
        poller.register(self._channel.fileno(), select.POLLIN)
        if also is not None:
            poller.register(also, select.POLLIN)
        poller.poll(Deadline(timeout_s).remaining_ms())
        indexes = []
        with suppress(BlockingIOError):
            while True:
                try:
                    datagram = self._channel.receive()
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # some news were lost; what comes after them is still there
                        raise
                    continue
                for message in genetlink.decode(datagram):
                    if message.family == self._family and message.command == LINK_DEAD:
                        indexes.append(genetlink.number(dict(genetlink.attributes(message.payload))[INDEX]))
        return indexes

    def close(self) -> None:
        """Stop listening. Any number of times."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _named(index: int | None) -> str:
    return "an NBD device" if index is None else f"/dev/nbd{index}"
