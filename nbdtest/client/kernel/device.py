"""`NBDDevice`: a /dev/nbdN and the connections behind it, over netlink or ioctl.

It holds the settings and the order of life (settings, attached, closed). How the kernel is asked is in the attachments.
"""

from __future__ import annotations

import os
import socket as sockets
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from nbdtest.client.kernel.connections import (
    Connectable,
    NegotiatedHandle,
    check_setup,
    duplicate,
    exports_agree,
    negotiated_export,
)
from nbdtest.client.kernel.failures import DeviceError
from nbdtest.client.kernel.ioctl_attachment import IoctlAttachment
from nbdtest.client.kernel.netlink import ConfigFlag, Parameters
from nbdtest.client.kernel.netlink_attachment import NetlinkAttachment
from nbdtest.client.kernel.sysfs import Sysfs, device_index, device_path
from nbdtest.errors import UsageError
from nbdtest.net.clock import wall_clock_s
from nbdtest.wire.numbers import TransmissionFlag

__all__ = ["CLOSE_S", "DEFAULT_BLOCK_SIZE", "DEFAULT_TIMEOUT_S", "DeviceStatus", "Interface", "NBDDevice"]

CLOSE_S = 5.0
DEFAULT_BLOCK_SIZE = 512
DEFAULT_TIMEOUT_S = 30


class Interface(Enum):
    """How the kernel is asked."""

    NETLINK = "netlink"
    IOCTL = "ioctl"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """What is known of a device now. `size` is in bytes; `pid` is the thread that the kernel holds responsible."""

    device: str | None
    attached: bool
    live_connections: int
    size: int
    pid: int | None
    users: list[str]


class Attachment(Protocol):
    """What both interfaces can do with a device that is set up."""

    index: int

    @property
    def attached(self) -> bool: ...
    @property
    def live_connections(self) -> int: ...
    @property
    def pid(self) -> int | None: ...
    def reconfigure(self, parameters: Parameters) -> None: ...
    def wait(self, timeout_s: float | None) -> bool: ...
    def stop(self, *, polite: bool, timeout_s: float) -> None: ...
    def abandon(self) -> None: ...
    def forsake(self) -> None: ...


class NBDDevice:
    """A block device of the kernel that is served over the given connections.

    Use `attach` on a connected handle; or give a socket on which the handshake is over, with size and flags:

        with NBDDevice.attach(handle) as device:
            subprocess.run(["mkfs.ext4", device.device])

    Every setting can be changed before `run_async`, and those that the kernel can change at any time. The device
    outlives the process only after `release`. A process that runs the device's server in a thread must not map the
    device into memory: a page fault would wait for a thread that waits for the interpreter.

    Args:
        socket: a connected TCP or Unix stream socket, several, or None until it is set. A duplicate is kept.
        device: "/dev/nbdN", or None for one that nobody uses: over netlink the kernel chooses it, without a race.
        size: the export's size in bytes; what follows its last whole block cannot be reached.
        timeout_s: after how many seconds without an answer a connection is given up; 0, never, leaves readers stuck.
        max_request: the most bytes that one request transfers, 0 for the driver's own limit.
        dead_connection_timeout_s: how long requests wait for `reconnect` when the last connection has died (netlink).
        destroy_on_disconnect: whether the node itself vanishes with the last user (netlink).
        disconnect_on_close: whether the last close disconnects, be it that of a passing blkid (netlink).
        backend_identifier: what /sys/block/nbdN/backend shows; by default something unique (netlink).
        close_timeout_s: how long a detached device is waited for until nobody uses it any more.
    """

    def __init__(
        self,
        socket: Connectable | Sequence[Connectable] | None = None,
        device: str | os.PathLike[str] | int | None = None,
        *,
        interface: Interface | str = Interface.NETLINK,
        size: int = 0,
        block_size: int = DEFAULT_BLOCK_SIZE,
        flags: TransmissionFlag = TransmissionFlag.HAS_FLAGS,
        timeout_s: int = DEFAULT_TIMEOUT_S,
        max_request: int = 0,
        dead_connection_timeout_s: int = 0,
        destroy_on_disconnect: bool = False,
        disconnect_on_close: bool = False,
        backend_identifier: str | None = None,
        close_timeout_s: float = CLOSE_S,
        sysfs: Sysfs | None = None,
    ) -> None:
        self.interface = Interface(interface)
        config = ConfigFlag(0)
        if destroy_on_disconnect:
            config |= ConfigFlag.DESTROY_ON_DISCONNECT
        if disconnect_on_close:
            config |= ConfigFlag.DISCONNECT_ON_CLOSE
        if self.interface is Interface.IOCTL and (dead_connection_timeout_s or config or backend_identifier):
            names = "dead_connection_timeout_s, destroy_on_disconnect, disconnect_on_close, backend_identifier"
            raise UsageError(f"over ioctl there is no {names}: use netlink")
        self.close_timeout_s = close_timeout_s
        self._sysfs = sysfs or Sysfs()
        self._index = None if device is None else device_index(device)
        self._size = size
        self._max_request = max_request
        self._usual_max_request = 0
        self._parameters = Parameters(
            size=size,
            block_size=block_size,
            flags=flags,
            timeout_s=timeout_s,
            dead_connection_timeout_s=dead_connection_timeout_s,
            config_flags=config,
            backend_identifier=_unique() if backend_identifier is None else backend_identifier,
        )
        self._sockets: list[sockets.socket] = []
        self._handles: list[NegotiatedHandle] = []
        self._attachment: Attachment | None = None
        self._finalizer: weakref.finalize[[Attachment, int], NBDDevice] | None = None
        self._process = 0
        self.socket = socket

    @classmethod
    def attach(
        cls,
        *handles: NegotiatedHandle,
        device: str | os.PathLike[str] | int | None = None,
        interface: Interface | str = Interface.NETLINK,
        timeout_s: int = DEFAULT_TIMEOUT_S,
        block_size: int | None = None,
        dead_connection_timeout_s: int = 0,
        destroy_on_disconnect: bool = False,
        disconnect_on_close: bool = False,
        backend_identifier: str | None = None,
    ) -> Self:
        """Hand the connections of handles to the kernel; size, flags, block and request sizes are what the server said.

        The handles have to be connected with `set_request_structured_replies(False)`: the kernel knows simple replies
        only. They belong to the device from now on, and are closed with it. Several have to lead to one export.

        Raises:
            UnsuitableConnection: the kernel cannot carry on one of them.
            DeviceError: the kernel refused. The handles stay the caller's.
        """
        if not handles:
            raise UsageError("attach() needs at least one handle")
        export = exports_agree([negotiated_export(handle) for handle in handles])
        made = cls(
            [handle.aio_get_fd() for handle in handles],
            device,
            interface=interface,
            size=export.size,
            block_size=export.block_size if block_size is None else block_size,
            flags=export.flags,
            timeout_s=timeout_s,
            max_request=export.max_request,
            dead_connection_timeout_s=dead_connection_timeout_s,
            destroy_on_disconnect=destroy_on_disconnect,
            disconnect_on_close=disconnect_on_close,
            backend_identifier=backend_identifier,
        )
        try:
            made.run_async()
        except BaseException:
            made.close()
            raise
        made._handles.extend(handles)
        return made

    @property
    def socket(self) -> sockets.socket | None:
        """The first connection. Setting one, or several, duplicates them; None drops them, and with them the device."""
        return self._sockets[0] if self._sockets else None

    @socket.setter
    def socket(self, connections: Connectable | Sequence[Connectable] | None) -> None:
        if connections is None:
            self.kill_async()
            return
        if self.attached:
            raise UsageError(f"{self.device} is attached: reconnect() replaces connections that died")
        several = connections if isinstance(connections, Sequence) else [connections]
        self._replace_sockets([duplicate(connection) for connection in several])

    @property
    def device(self) -> str | None:
        """The node, such as "/dev/nbd2"; None until it is chosen. Setting None has it chosen anew at the next run."""
        return None if self._index is None else device_path(self._index)

    @device.setter
    def device(self, device: str | os.PathLike[str] | int | None) -> None:
        self._while_detached("the device node")
        self._index = None if device is None else device_index(device)

    @property
    def attached(self) -> bool:
        """Whether the device is set up, by us. A device whose connections died can still be."""
        return self._attachment is not None and self._attachment.attached

    @property
    def size(self) -> int:
        """The size to be reached through the device: what was set, rounded down to whole blocks."""
        block_size = self._parameters.block_size or DEFAULT_BLOCK_SIZE
        return self._size // block_size * block_size  # the kernel would show the incomplete block

    def status(self) -> DeviceStatus:
        """Return what is known of the device now."""
        index, attachment = self._index, self._attachment
        return DeviceStatus(
            device=self.device,
            attached=self.attached,
            live_connections=0 if attachment is None else attachment.live_connections,
            size=0 if index is None else self._sysfs.size(index),
            pid=None if index is None else self._sysfs.pid(index),
            users=[] if index is None else self._sysfs.users(index),
        )

    def set_timeout(self, seconds: int) -> None:
        """Set after how many seconds without an answer a connection is given up; 0 is never."""
        self._change(Parameters(timeout_s=seconds))

    def set_blocksize(self, size: int) -> None:
        """Set the smallest unit of a request: 512, 1024, 2048 or 4096; the size is rounded down to a multiple."""
        unit = size or DEFAULT_BLOCK_SIZE
        self._change(Parameters(block_size=size, size=self._size // unit * unit))

    def set_blocks(self, count: int) -> None:
        """Set the size in blocks."""
        self.set_size(count * (self._parameters.block_size or DEFAULT_BLOCK_SIZE))

    def set_size(self, size: int) -> None:
        """Set the size in bytes, rounded down to a multiple of the block size."""
        block_size = self._parameters.block_size or DEFAULT_BLOCK_SIZE
        self._change(Parameters(size=size // block_size * block_size))
        self._size = size

    def set_flags(self, flags: TransmissionFlag) -> None:
        """Set what the export offers, as the server said it, before the device is attached."""
        self._while_detached("what the export offers")
        self._parameters = replace(self._parameters, flags=flags)

    def set_dead_connection_timeout(self, seconds: int) -> None:
        """Set how long requests wait for `reconnect` when the last connection has died (netlink)."""
        if self.interface is Interface.IOCTL:
            raise UsageError("over ioctl a device whose connection died cannot be reconnected: use netlink")
        self._change(Parameters(dead_connection_timeout_s=seconds))

    def clear_queue(self) -> None:
        """Fail what is in flight, which a detached device has nothing of: kernels since 4.x do it on their own."""
        if self.attached:
            raise UsageError(f"{self.device} is attached: its requests are failed when it is detached")

    def run_async(self) -> int:
        """Attach the device and return at once the id of the thread that the kernel holds responsible.

        Raises:
            DeviceError: the kernel refused.
        """
        self._while_detached("a running device")
        if not self._sockets:
            raise UsageError("there is no connection to attach: set `socket` first")
        settings = self._parameters
        check_setup(
            block_size=settings.block_size or DEFAULT_BLOCK_SIZE,
            flags=settings.flags or TransmissionFlag(0),
            connections=len(self._sockets),
        )
        parameters = replace(settings, size=self.size, sockets=[each.fileno() for each in self._sockets])
        attachment: Attachment
        if self.interface is Interface.NETLINK:
            attachment = NetlinkAttachment.start(parameters, self._index, self._sysfs)
        else:
            attachment = IoctlAttachment.start(parameters, self._index, self._sysfs)
        self._attachment = attachment
        self._index = attachment.index
        self._process = os.getpid()
        self._finalizer = weakref.finalize(self, _abandon, attachment, self._process)
        try:
            self._limit_requests()
        except BaseException:
            self.close()
            raise
        return attachment.pid or 0

    def run(self) -> None:
        """Attach the device, and return when it is detached by whomever, or its connections are lost."""
        self.run_async()
        try:
            self.wait()
        finally:
            self._stop(polite=True)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the device is detached by whomever, or its last connection lost for good; False at the timeout."""
        return self._attachment is None or self._attachment.wait(timeout_s)

    def reconnect(self, *connections: NegotiatedHandle | Connectable) -> None:
        """Give the device new connections in the places of those that died; what waited for one goes on (netlink).

        Raises:
            UnsuitableConnection: the kernel cannot carry on one of them, or it is to another export.
        """
        attachment = self._attachment
        if attachment is None or not attachment.attached:
            raise UsageError("the device is not attached: set `socket` and run_async()")
        handles = [each for each in connections if isinstance(each, NegotiatedHandle)]
        if handles:
            export = exports_agree([negotiated_export(handle) for handle in handles])
            if export.size != self._size:
                raise DeviceError(
                    f"the new connection is to an export of {export.size} bytes, the old one had {self._size}"
                )
        fresh = [duplicate(each.aio_get_fd() if isinstance(each, NegotiatedHandle) else each) for each in connections]
        try:
            attachment.reconfigure(Parameters(sockets=[each.fileno() for each in fresh]))
        except BaseException:
            for each in fresh:
                each.close()
            raise
        self._sockets += fresh
        self._handles += handles

    def disconnect(self) -> None:
        """Detach the device: the server is told, what is in flight fails. One that is not attached stays as it is.

        Raises:
            StillInUse: it is detached, but somebody (named) keeps it open or mounted: it cannot be used again yet.
        """
        self._stop(polite=True)

    def kill_async(self) -> None:
        """Detach the device without a word to the server.

        The connections are gone: set a new `socket` before the next run.
        """
        self._refuse_in_a_child()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(sockets.SHUT_RDWR)
        try:
            self._stop(polite=False)
        finally:
            self._replace_sockets([])

    def release(self) -> int:
        """Leave the device to the kernel when this object and this process end, and return its index (netlink)."""
        if self.interface is Interface.IOCTL:
            raise UsageError("over ioctl a device ends with the process that serves it: use netlink")
        if self._index is None or not self.attached:
            raise UsageError("the device is not attached")
        self._forget()
        self._replace_sockets([])
        return self._index

    def close(self) -> None:
        """Detach the device and close its connections and handles. Any number of times.

        In a process that the one which attached the device has forked, the device stays as it is.

        Raises:
            StillInUse: see `disconnect`.
        """
        if self._attachment is not None and self._process != os.getpid():
            self._attachment.forsake()  # an open node would keep the device in use
            self._forget()
            self._replace_sockets([])
            self._handles = []
            return
        try:
            self._stop(polite=True)
        finally:
            self._replace_sockets([])
            handles, self._handles = self._handles, []
            for handle in handles:
                handle.close()

    def _change(self, changed: Parameters) -> None:
        if self._attachment is not None and self._attachment.attached:
            self._attachment.reconfigure(changed)
        for name in ("block_size", "timeout_s", "dead_connection_timeout_s"):
            value = getattr(changed, name)
            if value is not None:
                self._parameters = replace(self._parameters, **{name: value})

    def _limit_requests(self) -> None:
        # The limit stays with the index, so the next user of it gets it back as it was.
        assert self._index is not None
        usual = self._sysfs.limit(self._index, "max_sectors_kb") * 1024
        if self._max_request and usual > self._max_request:
            self._sysfs.set_max_request(self._index, self._max_request)
            self._usual_max_request = usual

    def _stop(self, *, polite: bool) -> None:
        attachment = self._attachment
        if attachment is None:
            return
        self._refuse_in_a_child()
        self._forget()
        if self._usual_max_request and attachment.attached:
            with suppress(DeviceError):
                self._sysfs.set_max_request(attachment.index, self._usual_max_request)
        self._usual_max_request = 0
        attachment.stop(polite=polite, timeout_s=self.close_timeout_s)

    def _refuse_in_a_child(self) -> None:
        if self._attachment is not None and self._process != os.getpid():
            raise UsageError(
                f"{self.device} was attached by process {self._process}, which forked this one: do it there"
            )

    def _forget(self) -> None:
        self._attachment = None
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = None

    def _replace_sockets(self, fresh: list[sockets.socket]) -> None:
        old, self._sockets = self._sockets, fresh
        for each in old:
            each.close()

    def _while_detached(self, what: str) -> None:
        if self.attached:
            raise UsageError(f"{self.device} is attached: {what} can be set only when it is detached")
        if self._attachment is not None:
            self._stop(polite=False)  # it ended by itself; what is left of it is in the way

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.device or 'without a node'} {'attached' if self.attached else 'detached'}>"
        )


def _abandon(attachment: Attachment, process: int) -> None:
    if os.getpid() != process:
        return  # it is whose who forked us, and still needs it
    attachment.abandon()
    warnings.warn(f"{device_path(attachment.index)} was not detached: use `with`, or close()", ResourceWarning, 2)


def _unique() -> str:
    return f"nbdtest {os.getpid()} {wall_clock_s():.6f}"
