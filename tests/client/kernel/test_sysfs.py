"""What is read from /sys and /proc, in directories made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbdtest.client.kernel.failures import DeviceError, NoModule
from nbdtest.client.kernel.sysfs import Progress, Sysfs, device_index


class Machine:
    """A /sys and a /proc that the test fills."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/block").mkdir(parents=True)
        (root / "proc/self").mkdir(parents=True)
        self.sysfs = Sysfs(str(root / "sys"), str(root / "proc"))

    def device(self, index: int, **files: str) -> Path:
        directory = self.root / "sys/block" / f"nbd{index}"
        (directory / "queue").mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name.replace("__", "/")).write_text(text)
        return directory

    def process(self, pid: int, name: str, *opened: str) -> None:
        directory = self.root / "proc" / str(pid)
        (directory / "fd").mkdir(parents=True)
        (directory / "comm").write_text(f"{name}\n")
        for number, target in enumerate(opened):
            (directory / "fd" / str(number)).symlink_to(target)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("device", ["/dev/nbd12", "nbd12", 12])
def test_a_device_is_named_by_path_name_or_number(device: str | int) -> None:
    assert device_index(device) == 12


@pytest.mark.parametrize("device", ["/dev/sda", "/dev/nbd", "/dev/nbd1p1", "/tmp/nbd1", ""])
def test_other_paths_are_no_devices(device: str) -> None:
    with pytest.raises(DeviceError, match="no NBD device"):
        device_index(device)


def test_devices_are_listed_in_numeric_order(machine: Machine) -> None:
    for index in (10, 2, 0):
        machine.device(index)
    (machine.root / "sys/block/sda").mkdir()
    assert machine.sysfs.indexes() == [0, 2, 10]


def test_the_first_device_without_a_pid_is_unused(machine: Machine) -> None:
    machine.device(0, pid="123\n")
    assert machine.sysfs.unused() is None
    machine.device(1)
    assert machine.sysfs.unused() == 1
    assert machine.sysfs.pid(0) == 123
    assert machine.sysfs.pid(1) is None


def test_the_size_is_in_sectors_of_512_bytes(machine: Machine) -> None:
    machine.device(0, size="2048\n")
    assert machine.sysfs.size(0) == 1 << 20
    assert machine.sysfs.size(1) == 0


def test_progress_adds_what_was_completed(machine: Machine) -> None:
    stat = "   10 0 80 3   20 0 160 4   0 5 6   7 0 8 9   11 2\n"
    machine.device(0, stat=stat, inflight="       1        2\n")
    assert machine.sysfs.progress(0) == Progress(in_flight=3, completed=10 + 20 + 7 + 11)
    assert machine.sysfs.progress(1) is None


def test_older_kernels_count_no_discards_or_flushes(machine: Machine) -> None:
    machine.device(0, stat="10 0 80 3 20 0 160 4 0 5 6\n", inflight="0 0\n")
    assert machine.sysfs.progress(0) == Progress(in_flight=0, completed=30)


def test_users_are_named(machine: Machine) -> None:
    holders = machine.device(3) / "nbd3p1/holders"
    (holders / "dm-0").mkdir(parents=True)
    mounts = "/dev/nbd3 /mnt/disk ext4 rw 0 0\n/dev/nbd33 /other ext4 rw 0 0\n/dev/sda1 / ext4 rw 0 0\n"
    (machine.root / "proc/self/mounts").write_text(mounts)
    (machine.root / "proc/swaps").write_text("Filename Type Size\n/dev/nbd3p2 partition 1\n")
    machine.process(40, "dd", "/dev/null", "/dev/nbd3")
    machine.process(41, "cat", "/dev/nbd30")
    assert machine.sysfs.users(3) == [
        "mounted at /mnt/disk",
        "swap on /dev/nbd3p2",
        "part of dm-0",
        "open in process 40 (dd)",
    ]


def test_swap_on_another_device_is_not_ours(machine: Machine) -> None:
    machine.device(3)
    (machine.root / "proc/swaps").write_text("Filename Type Size\n/dev/nbd33 partition 1\n")
    assert machine.sysfs.users(3) == []


def test_a_request_limit_is_written_in_kilobytes(machine: Machine) -> None:
    queue = machine.device(0, queue__max_sectors_kb="1280\n") / "queue"
    assert machine.sysfs.limit(0, "max_sectors_kb") == 1280
    machine.sysfs.set_max_request(0, 65536)
    assert (queue / "max_sectors_kb").read_text() == "64"


def test_a_request_limit_that_is_refused_is_an_error(machine: Machine) -> None:
    with pytest.raises(DeviceError, match="/dev/nbd7 cannot be limited to requests of 4096 bytes"):
        machine.sysfs.set_max_request(7, 4096)


def test_a_missing_node_is_a_missing_module_or_a_missing_device(machine: Machine) -> None:
    assert isinstance(machine.sysfs.no_such_device("/dev/nbd7"), NoModule)
    (machine.root / "sys/module/nbd").mkdir(parents=True)
    machine.device(0)
    failure = machine.sysfs.no_such_device("/dev/nbd7")
    assert type(failure) is DeviceError
    assert str(failure) == "there is no /dev/nbd7; of NBD devices there are: nbd0"
