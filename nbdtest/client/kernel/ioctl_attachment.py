"""A device that is attached over ioctl: a thread of this process lends itself to the kernel as its service loop.

This module keeps the order that the driver needs: claim first, set up, serve, and clear only what was claimed here.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from contextlib import suppress

from nbdtest.client.kernel.failures import DeviceBusy, DeviceError
from nbdtest.client.kernel.ioctl import NBDIoctl
from nbdtest.client.kernel.netlink import Parameters
from nbdtest.client.kernel.release import wait_until_free
from nbdtest.client.kernel.sysfs import SECTOR, Sysfs, device_path

__all__ = ["IoctlAttachment"]

POLL_S = 0.005


class IoctlAttachment:
    """The device from the claim to its release. Made by `start`."""

    def __init__(self, index: int, node: NBDIoctl, sysfs: Sysfs, parameters: Parameters) -> None:
        self.index = index
        self._node = node
        self._sysfs = sysfs
        self._parameters = parameters
        self._ended = threading.Event()
        self._abandoned = threading.Event()
        self._failure: DeviceError | None = None
        self._thread = threading.Thread(target=self._serve, name=f"{node.path} service loop", daemon=True)

    @classmethod
    def start(cls, parameters: Parameters, index: int | None, sysfs: Sysfs) -> IoctlAttachment:
        """Claim the device, or the first free one, set it up and begin to serve it.

        Raises:
            DeviceError: the kernel refused, or there is no free device.
        """
        chosen, node = _claim(index, parameters.sockets[0], sysfs)
        attachment = cls(chosen, node, sysfs, parameters)
        try:
            for descriptor in parameters.sockets[1:]:
                node.set_socket(descriptor)
            attachment._set_up(parameters)
        except BaseException:
            node.close()  # which gives the claim back
            raise
        attachment._begin()
        return attachment

    @property
    def attached(self) -> bool:
        """Whether the service loop runs."""
        return not self._ended.is_set()

    @property
    def live_connections(self) -> int:
        """The number of connections as far as is known here: the loop ends when the last one dies."""
        return len(self._parameters.sockets) if self.attached else 0

    @property
    def pid(self) -> int | None:
        """The thread that serves the device."""
        return self._sysfs.pid(self.index)

    def reconfigure(self, parameters: Parameters) -> None:
        """Change size, block size or timeout of the running device.

        Raises:
            DeviceError: that cannot be changed over ioctl.
        """
        if parameters.sockets:
            raise DeviceError("over ioctl a device cannot be given new connections: detach it, or use netlink")
        self._set_up(parameters)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until the service loop has ended, whatever ended it; False at the timeout."""
        return self._ended.wait(timeout_s)

    def stop(self, *, polite: bool, timeout_s: float) -> None:
        """End the service loop, if polite by a disconnect request, and give the device back.

        Raises:
            StillInUse: somebody else keeps it open, and with that our setup alive.
        """
        if polite and self.attached:
            with suppress(DeviceError):  # the loop may have ended this very moment
                self._node.disconnect()
            self._ended.wait(timeout_s / 2)
        if self.attached:
            with suppress(DeviceError):
                self._node.clear_socket()  # a server that does not close its end does not keep us
        self._ended.wait()
        self._thread.join()
        self._node.close()
        wait_until_free(self.index, self._sysfs, timeout_s, lambda: self._sysfs.pid(self.index) is not None)
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        """Drop the connections without waiting for anything; the service loop closes the node when it ends."""
        self._abandoned.set()
        with suppress(DeviceError):
            if self.attached:
                self._node.clear_socket()
        if not self.attached:
            self._node.close()

    def forsake(self) -> None:
        """Close a forked process's copy of the node; the device stays as it is."""
        self._node.close()

    def _set_up(self, parameters: Parameters) -> None:
        if parameters.block_size is not None:
            self._node.set_block_size(parameters.block_size)
        if parameters.size is not None:
            self._node.set_size(parameters.size)
        if parameters.flags is not None:
            self._node.set_flags(parameters.flags)
        if parameters.timeout_s is not None:
            self._node.set_timeout(parameters.timeout_s)

    def _begin(self) -> None:
        # The kernel shows the thread first and sets the size a moment later.
        size = (self._parameters.size or 0) // SECTOR * SECTOR
        self._thread.start()
        while self._sysfs.pid(self.index) is None or self._sysfs.size(self.index) != size:
            if self._ended.wait(POLL_S):
                self._thread.join()
                if self._failure is not None:
                    self._node.close()
                    raise self._failure
                return  # it ended already: the server was gone

    def _serve(self) -> None:
        # A signal that is delivered to this thread would end the loop without a word to the server.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._node.do_it()
        except DeviceError as failure:
            self._failure = failure
        finally:
            with suppress(DeviceError):
                self._node.clear_socket()  # what was in flight stays blocked otherwise
            self._ended.set()
            if self._abandoned.is_set():
                self._node.close()


def _claim(index: int | None, descriptor: int, sysfs: Sysfs) -> tuple[int, NBDIoctl]:
    """Open a device and give it its first connection: of all requests the only one that tells whether it was free."""
    candidates: Iterable[int] = sysfs.indexes() if index is None else (index,)
    for candidate in candidates:
        path = device_path(candidate)
        if sysfs.pid(candidate) is not None:
            if index is None:
                continue
            raise DeviceBusy(
                f"{path} is set up already, by process {sysfs.pid(candidate)}: detach it, or take another one"
            )
        node = NBDIoctl(path)
        try:
            node.set_socket(descriptor)
        except DeviceBusy:
            node.close()
            if index is not None:
                raise
        except BaseException:
            node.close()
            raise
        else:
            return candidate, node
    if not sysfs.indexes():
        raise sysfs.no_such_device(device_path(0))
    raise DeviceBusy("every NBD device is in use: modprobe nbd nbds_max=N makes more, and netlink makes them on demand")
