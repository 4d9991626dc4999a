"""A guard for a device whose server may stop answering: it detaches the device before a reader hangs on it for ever.

It runs in a process of its own, since the one to be saved may be stuck, and then cannot even be killed. The driver's
timeout does not help when a server stalls in the middle of a payload, nor when no timeout is set. The guard looks at
/sys: requests in flight, and none completed for too long. It never opens the device.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import syslog
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Self

from nbdtest.client.kernel.device import NBDDevice
from nbdtest.client.kernel.failures import DeviceError
from nbdtest.client.kernel.netlink import NBDNetlink, Parameters
from nbdtest.client.kernel.sysfs import Progress, Sysfs, device_index, device_path
from nbdtest.errors import NBDTestError
from nbdtest.net.clock import Deadline, monotonic_s

__all__ = ["Ending", "Guard", "StallDetector", "Target", "Watchdog", "start"]

TICK_S = 0.5
RETRY_S = 1.0
DONE = b"."
READY = b"ready\n"


class StallDetector:
    """Tells from snapshots of a device's requests when they do not get on any more."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._completed: int | None = None
        self._since = 0.0

    def stalled(self, progress: Progress, now_s: float) -> bool:
        """Whether requests have been in flight for the limit, and none was completed."""
        if not progress.in_flight or progress.completed != self._completed:
            self._completed = progress.completed
            self._since = now_s
        return now_s - self._since >= self.limit_s

    def forgive(self, now_s: float) -> None:
        """Begin to count anew, for requests that have a reason to wait."""
        self._since = now_s


class Ending(Enum):
    """Why a device is guarded no longer."""

    DETACHED = "it was detached"
    STALLED = "the server stopped answering: detached"
    LOST = "its connections are lost: detached"
    ORPHANED = "its owner ended: detached"
    RELEASED = "its owner needs no guard any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The device to guard: `backend_identifier` and `pid` tell whether it is still the same one."""

    index: int
    pid: int | None
    backend_identifier: str
    connections: int


class Watchdog:
    """The guard's loop.

    Args:
        stall_s: how long requests may be in flight without one being completed.
        reconnect: makes a new connection and returns its descriptor; None gives up when the last connection dies.
        reconnect_s: how long the driver lets requests wait for that.
        owner: a descriptor that ends when the owner does, and on which it may say before that no guard is needed.
    """

    def __init__(
        self,
        target: Target,
        *,
        stall_s: float,
        reconnect: Callable[[], int] | None = None,
        reconnect_s: float = 0.0,
        owner: int | None = None,
        netlink: NBDNetlink | None = None,
        sysfs: Sysfs | None = None,
    ) -> None:
        self._target = target
        self._detector = StallDetector(stall_s)
        self._reconnect = reconnect
        self._reconnect_s = reconnect_s
        self._owner = owner
        self._netlink = netlink or NBDNetlink()
        self._sysfs = sysfs or Sysfs()
        self._events = self._netlink.events()
        self._live = target.connections
        self._given_up: Deadline | None = None

    def run(self, ready: Callable[[], None] = lambda: None) -> Ending:
        """Guard the device until there is nothing left to guard; `ready` is called once the guard is in place."""
        ready()
        while True:
            ending = self._ending()
            if ending is not None:
                break
            self._wait()
        if ending not in (Ending.DETACHED, Ending.RELEASED):
            self._netlink.disconnect(self._target.index)
        return ending

    def close(self) -> None:
        """Release the sockets; the device stays as it is."""
        self._events.close()
        self._netlink.close()

    def _ending(self) -> Ending | None:
        if not self._attached():
            return Ending.DETACHED
        owner = self._owner_says()
        if owner is not None:
            return owner
        now = monotonic_s()
        progress = self._sysfs.progress(self._target.index)
        if self._live == 0:
            self._detector.forgive(now)
            return self._try_to_reconnect()
        if progress is not None and self._detector.stalled(progress, now):
            return Ending.STALLED
        return None

    def _attached(self) -> bool:
        return (
            self._sysfs.pid(self._target.index) == self._target.pid
            and self._sysfs.backend_identifier(self._target.index) == self._target.backend_identifier
        )

    def _owner_says(self) -> Ending | None:
        if self._owner is None or not select.select([self._owner], [], [], 0)[0]:
            return None
        return Ending.RELEASED if os.read(self._owner, 1) == DONE else Ending.ORPHANED

    def _try_to_reconnect(self) -> Ending | None:
        if self._given_up is None:
            self._given_up = Deadline(self._reconnect_s if self._reconnect else 0)
        if self._reconnect is None or self._given_up.expired:
            return Ending.LOST
        try:
            descriptor = self._reconnect()
            try:
                again = Parameters(sockets=[descriptor], backend_identifier=self._target.backend_identifier or None)
                self._netlink.reconfigure(self._target.index, again)
            finally:
                os.close(descriptor)
        except (NBDTestError, OSError) as error:
            syslog.syslog(f"{device_path(self._target.index)}: no new connection yet: {error}")
            return None
        self._live += 1
        self._given_up = None
        return None

    def _wait(self) -> None:
        tick = RETRY_S if self._live == 0 else min(TICK_S, self._detector.limit_s / 4)
        self._live -= self._events.wait(tick, also=self._owner).count(self._target.index)


class Guard:
    """A watchdog in a process of its own, which also detaches the device when this process dies.

    with NBDDevice.attach(handle) as device, Guard(device, stall_s=60):
        ...
    """

    def __init__(self, device: NBDDevice, *, stall_s: float) -> None:
        status = device.status()
        if status.device is None or not status.attached:
            raise DeviceError("only an attached device can be guarded")
        self._process = start(status.device, stall_s=stall_s, connections=status.live_connections, owned=True)

    def close(self) -> None:
        """End the guard; the device stays as it is. Any number of times."""
        stdin = self._process.stdin
        if stdin is not None and not stdin.closed:
            try:
                stdin.write(DONE)
                stdin.close()
            except BrokenPipeError:
                pass  # it has ended already, since the device has
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(
    device: str,
    *,
    stall_s: float,
    connections: int = 1,
    owned: bool = False,
    uri: str | None = None,
    reconnect_s: float = 0.0,
) -> subprocess.Popen[bytes]:
    """Start the guard of an attached device, and return when it is in place.

    An owned guard ends the device when this process ends; any other outlives it. Neither is one of those processes that
    `nbdtest.net` clears up after us: to be there afterwards is what it is for.

    Raises:
        DeviceError: it did not start.
    """
    command = [sys.executable, "-m", __name__, device, "--stall", str(stall_s), "--connections", str(connections)]
    if owned:
        command.append("--owned")
    if uri is not None:
        command += ["--reconnect", uri, "--reconnect-limit", str(reconnect_s)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if owned else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if not owned else None,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        if said.readline() != READY:
            status = process.wait()
            if process.stdin is not None:
                process.stdin.close()
            raise DeviceError(f"the watchdog of {device} did not start (status {status})")
    return process


def main(argv: Sequence[str] | None = None) -> int:
    """Guard a device until it is detached; what happens is told to syslog."""
    parser = argparse.ArgumentParser(prog="nbdtest-watchdog", description=main.__doc__)
    parser.add_argument("device")
    parser.add_argument("--stall", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--owned", action="store_true", help="end the device when stdin ends")
    parser.add_argument("--reconnect", metavar="URI")
    parser.add_argument("--reconnect-limit", type=float, default=0.0, metavar="SECONDS")
    wanted = parser.parse_args(argv)
    syslog.openlog("nbdtest", syslog.LOG_PID)
    if wanted.reconnect is None:  # a URI may name a socket relative to where we were started
        os.chdir("/")  # or nobody could unmount that
    sysfs = Sysfs()
    index = device_index(wanted.device)
    target = Target(
        index=index,
        pid=sysfs.pid(index),
        backend_identifier=sysfs.backend_identifier(index),
        connections=wanted.connections,
    )
    watchdog = Watchdog(
        target,
        stall_s=wanted.stall,
        reconnect=None if wanted.reconnect is None else _reconnecting(wanted.reconnect, sysfs.size(index)),
        reconnect_s=wanted.reconnect_limit,
        owner=sys.stdin.fileno() if wanted.owned else None,
        sysfs=sysfs,
    )
    try:
        ending = watchdog.run(_say_ready)
    finally:
        watchdog.close()
    syslog.syslog(f"{device_path(index)}: {ending.value}")
    return 0


def _reconnecting(uri: str, size: int) -> Callable[[], int]:
    from nbdtest.client.kernel.handles import reconnected  # the whole client, which other guards start faster without

    return lambda: reconnected(uri, size)


def _say_ready() -> None:
    # Afterwards stdout is nowhere: whoever started us closes its end, and may be gone.
    os.write(1, READY)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
