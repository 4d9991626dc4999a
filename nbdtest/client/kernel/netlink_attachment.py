"""A device that is attached over generic netlink: the kernel keeps it, no thread or process of ours serves it.

This module knows when such a device is still ours, when its connections are lost, and what to do so that a used index
behaves like a fresh one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from nbdtest.client.kernel.connections import duplicate
from nbdtest.client.kernel.failures import DeviceBusy, DeviceError
from nbdtest.client.kernel.netlink import ConfigFlag, LinkEvents, NBDNetlink, Parameters
from nbdtest.client.kernel.release import wait_until_free
from nbdtest.client.kernel.sysfs import Sysfs
from nbdtest.net.clock import Deadline
from nbdtest.net.sockets import stream_pair
from nbdtest.wire.numbers import TransmissionFlag

__all__ = ["NetlinkAttachment", "renew"]

TICK_S = 0.1  # how late an ended device is noticed that nobody told us of
RENEW_S = 2.0

STICKY = {
    TransmissionFlag.SEND_WRITE_ZEROES: "write_zeroes_max_bytes",
    TransmissionFlag.ROTATIONAL: "rotational",
}
"""Limits that Linux 6.12 does not take back when the next connection on the same index lacks the flag."""
SECTOR = 512


class NetlinkAttachment:
    """The device from its connection to its release. Made by `start`."""

    def __init__(
        self, index: int, netlink: NBDNetlink, events: LinkEvents, sysfs: Sysfs, parameters: Parameters
    ) -> None:
        self.index = index
        self._netlink = netlink
        self._events = events
        self._sysfs = sysfs
        self._parameters = parameters
        self._pid = sysfs.pid(index)
        self._dead = 0
        self._lost: Deadline | None = None

    @classmethod
    def start(cls, parameters: Parameters, index: int | None, sysfs: Sysfs) -> NetlinkAttachment:
        """Connect the device, or a free one that the kernel chooses.

        Raises:
            DeviceError: the kernel refused.
        """
        netlink = NBDNetlink()
        try:
            events = netlink.events()
            try:
                return cls(_connect(netlink, parameters, index, sysfs), netlink, events, sysfs, parameters)
            except BaseException:
                events.close()
                raise
        except BaseException:
            netlink.close()
            raise

    @property
    def attached(self) -> bool:
        """Whether the device is set up, and still by us."""
        if self._sysfs.pid(self.index) != self._pid or self._pid is None:
            return False
        ours = self._parameters.backend_identifier
        return not ours or self._sysfs.backend_identifier(self.index) in (
            "",
            ours,
        )  # kernels before 5.14 do not show it

    @property
    def live_connections(self) -> int:
        """The number of connections that have not died; the kernel tells of each that does."""
        self._take_news(0)
        return max(0, len(self._parameters.sockets) - self._dead) if self.attached else 0

    @property
    def pid(self) -> int | None:
        """The thread that connected the device."""
        return self._sysfs.pid(self.index)

    def reconfigure(self, parameters: Parameters) -> None:
        """Change the device; sockets take the places of dead connections."""
        self._take_news(0)
        self._netlink.reconfigure(
            self.index, replace(parameters, backend_identifier=self._parameters.backend_identifier)
        )
        self._dead = max(0, self._dead - len(parameters.sockets))
        if self._dead < len(self._parameters.sockets):
            self._lost = None
        if parameters.dead_connection_timeout_s is not None:
            self._parameters = replace(self._parameters, dead_connection_timeout_s=parameters.dead_connection_timeout_s)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until the device is disconnected, or its last connection has died and no new one came in time."""
        deadline = Deadline(timeout_s)
        while self.attached and not (self._lost is not None and self._lost.expired):
            if deadline.expired:
                return False
            self._take_news(min(TICK_S, deadline.remaining()))
        return True

    def stop(self, *, polite: bool, timeout_s: float) -> None:
        """Disconnect, and wait until the device is free.

        `polite` changes nothing: where our sockets were shut before, the disconnect request has nowhere to go.

        Raises:
            StillInUse: somebody keeps it open.
        """
        try:
            if self.attached:
                self._netlink.disconnect(self.index)
            wait_until_free(self.index, self._sysfs, timeout_s, lambda: self.attached)
        finally:
            self._events.close()
            self._netlink.close()

    def abandon(self) -> None:
        """Disconnect without waiting for anything."""
        with suppress(DeviceError, OSError):
            if self.attached:
                with NBDNetlink() as netlink:  # ours may be in the middle of a request
                    netlink.disconnect(self.index)

    def forsake(self) -> None:
        """Close our sockets; the device stays as it is."""
        self._events.close()
        self._netlink.close()

    def _take_news(self, timeout_s: float) -> None:
        self._dead += self._events.wait(timeout_s).count(self.index)
        if self._dead >= len(self._parameters.sockets) and self._lost is None:
            self._lost = Deadline(self._parameters.dead_connection_timeout_s or 0)


def renew(netlink: NBDNetlink, index: int, sysfs: Sysfs) -> None:
    """Have the kernel remove a free device; connecting its index makes a fresh one.

    A connection that is to be destroyed on disconnect does it, on which nothing is ever sent but that disconnect.

    Raises:
        DeviceError: it is in use.
    """
    ours, theirs = stream_pair()
    with ours, theirs, duplicate(ours) as connection:
        netlink.connect(
            Parameters(size=SECTOR, sockets=[connection.fileno()], config_flags=ConfigFlag.DESTROY_ON_DISCONNECT), index
        )
        netlink.disconnect(index)
    wait_until_free(index, sysfs, RENEW_S, lambda: index in sysfs.indexes())


def _connect(netlink: NBDNetlink, parameters: Parameters, index: int | None, sysfs: Sysfs) -> int:
    likely = sysfs.unused() if index is None else index
    if likely is not None and _stale(likely, parameters, sysfs):
        renew(netlink, likely, sysfs)
        try:
            return netlink.connect(parameters, likely)
        except DeviceBusy:
            if index is not None:
                raise
    return netlink.connect(parameters, index)


def _stale(index: int, parameters: Parameters, sysfs: Sysfs) -> bool:
    flags = parameters.flags or TransmissionFlag(0)
    return sysfs.pid(index) is None and any(
        flag not in flags and sysfs.limit(index, name) for flag, name in STICKY.items()
    )
