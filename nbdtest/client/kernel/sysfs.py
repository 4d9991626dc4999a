"""What /sys and /proc tell of NBD devices: which exist, which are in use and by whom, how their requests get on.

Reading only, but for the request size. Nothing here opens a device: that alone would keep it in use.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nbdtest.client.kernel.failures import NO_MODULE, DeviceError, NoModule

__all__ = [
    "SECTOR",
    "Progress",
    "Sysfs",
    "device_index",
    "device_path",
]

SECTOR = 512
LAST_INDEX = (1 << 20) - 1  # each device takes at least one of so many minor numbers
_DEVICE = re.compile(r"(?:/dev/)?nbd([0-9]+)")


def device_path(index: int) -> str:
    """Return the node of a device."""
    return f"/dev/nbd{index}"


def device_index(device: str | os.PathLike[str] | int) -> int:
    """Return the number of a device given as "/dev/nbd3", "nbd3" or 3.

    Raises:
        DeviceError: it is no whole NBD device.
    """
    name = device_path(device) if isinstance(device, int) else os.fspath(device)
    found = _DEVICE.fullmatch(name)
    if found is None or int(found[1]) > LAST_INDEX:
        raise DeviceError(
            f"{name!r} is no NBD device: /dev/nbd0, /dev/nbd1 ... /dev/nbd{LAST_INDEX} are", errno=errno.ENOTBLK
        )
    return int(found[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a device's requests get on: how many wait for an answer now, and how many were answered in all."""

    in_flight: int
    completed: int


class Sysfs:
    """The directories, which a test can replace."""

    def __init__(self, sys: str = "/sys", proc: str = "/proc") -> None:
        self._sys = Path(sys)
        self._proc = Path(proc)

    def indexes(self) -> list[int]:
        """Return the devices that exist, in order."""
        names = (path.name for path in (self._sys / "block").glob("nbd*"))
        return sorted(int(found[1]) for name in names if (found := _DEVICE.fullmatch(name)))

    def pid(self, index: int) -> int | None:
        """Return the thread that set the device up, None if it is free.

        Over netlink that is who asked for it, and may have ended since; over ioctl it is who serves it.
        """
        text = self._read(index, "pid")
        return int(text) if text else None

    def size(self, index: int) -> int:
        """Return the device's size in bytes, 0 when it is not set up."""
        return int(self._read(index, "size") or 0) * SECTOR

    def backend_identifier(self, index: int) -> str:
        """Return what the device was given to recognise its server by, "" if nothing."""
        return self._read(index, "backend")

    def unused(self) -> int | None:
        """Return the first device that nobody has set up, None if there is none. Another process may be quicker."""
        return next((index for index in self.indexes() if self.pid(index) is None), None)

    def progress(self, index: int) -> Progress | None:
        """Return how the device's requests get on, None when the device is gone."""
        in_flight, completed = self._read(index, "inflight").split(), self._read(index, "stat").split()
        if not in_flight or not completed:
            return None
        # Documentation/block/stat.rst: reads, writes, discards and flushes that were completed.
        counters = [int(completed[column]) for column in (0, 4, 11, 15) if column < len(completed)]
        return Progress(in_flight=sum(map(int, in_flight)), completed=sum(counters))

    def limit(self, index: int, name: str) -> int:
        """Return a limit of the device's queue, such as "write_zeroes_max_bytes"; 0 when there is none."""
        return int(self._read(index, f"queue/{name}") or 0)

    def set_max_request(self, index: int, size: int) -> None:
        """Let no request of the device transfer more than `size` bytes.

        Raises:
            DeviceError: the kernel refused.
        """
        try:
            (self._block(index) / "queue/max_sectors_kb").write_text(str(size // 1024))
        except OSError as error:
            message = f"{device_path(index)} cannot be limited to requests of {size} bytes: {error.strerror}"
            raise DeviceError(message, errno=error.errno or 0) from error

    def users(self, index: int) -> list[str]:
        """Say who keeps the device in use: mounts, swap, other devices, processes; what we may not see is left out."""
        name = f"nbd{index}"
        mine = re.compile(rf"/dev/{name}(p\d+)?")
        users = [
            f"mounted at {fields[1]}"
            for fields in map(str.split, self._lines("self/mounts"))
            if mine.fullmatch(fields[0])
        ]
        users += [f"swap on {line.split()[0]}" for line in self._lines("swaps") if mine.fullmatch(line.split()[0])]
        for holders in self._block(index).glob("**/holders"):
            users += [f"part of {holder.name}" for holder in holders.iterdir()]
        for process in sorted(self._proc.glob("[0-9]*")):
            if any(mine.fullmatch(target) for target in _open_files(process)):
                users.append(f"open in process {process.name} ({_command(process)})")
        return users

    def no_such_device(self, path: str) -> DeviceError:
        """Say why a device node is missing."""
        if not (self._sys / "module/nbd").exists():
            return NoModule(f"there is no {path}: {NO_MODULE}", errno=errno.ENOENT)
        existing = ", ".join(f"nbd{index}" for index in self.indexes()) or "none"
        return DeviceError(f"there is no {path}; of NBD devices there are: {existing}", errno=errno.ENOENT)

    def _block(self, index: int) -> Path:
        return self._sys / "block" / f"nbd{index}"

    def _read(self, index: int, name: str) -> str:
        try:
            return (self._block(index) / name).read_text().strip()
        except OSError:
            return ""

    def _lines(self, name: str) -> list[str]:
        try:
            return (self._proc / name).read_text(errors="replace").splitlines()
        except OSError:
            return []


def _open_files(process: Path) -> list[str]:
    targets = []
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                targets.append(os.readlink(link))
    return targets


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
