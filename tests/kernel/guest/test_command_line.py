"""`nbdtest attach` and `nbdtest detach`, as a user types them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdtest.client.kernel.sysfs import Sysfs
from nbdtest.fakeserver import Export, FakeServer
from nbdtest.model import MemoryDisk
from nbdtest.net.addresses import UnixAddress
from nbdtest.wire.numbers import Cmd
from tests.kernel.guest.device_io import Worker
from tests.kernel.waiting import until

MIB = 1 << 20


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(Export(disk=MemoryDisk(MIB)), Export("other", disk=MemoryDisk(2 * MIB))) as server:
        yield server


@pytest.fixture
def path(index: int) -> str:
    return f"/dev/nbd{index}"


def nbdtest(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nbdtest", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def guards_of(path: str) -> list[int]:
    """Find the watchdog processes of a device."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "nbdtest.client.kernel.watchdog" in words and path in words:
            found.append(int(process.name))
    return found


def test_attach_prints_the_device_and_detach_frees_it(path: str, fake: FakeServer, io: Worker) -> None:
    fake.disk.write(0, b"hello")
    done = nbdtest("attach", fake.uri, path, "--timeout", "5")
    assert (done.stdout, done.stderr, done.returncode) == (f"{path}\n", "", 0)
    assert io("read", path, 0, 512)[:5] == b"hello"
    assert len(guards_of(path)) == 1
    done = nbdtest("detach", path)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert Sysfs().pid(int(path[len("/dev/nbd") :])) is None
    until(lambda: not guards_of(path), "the watchdog has ended with its device")


def test_without_a_name_the_kernel_chooses_the_device(fake: FakeServer, io: Worker) -> None:
    done = nbdtest("attach", fake.uri_of("other"), "--no-watchdog", "--block-size", "4096", "--connections", "2")
    path = done.stdout.strip()
    assert io("sizes", path) == (2 * MIB, 4096, False)
    assert not guards_of(path)
    assert nbdtest("detach", path).returncode == 0


def test_detach_says_what_it_could_not_do_and_does_the_rest(path: str, fake: FakeServer) -> None:
    assert nbdtest("attach", fake.uri, path, "--no-watchdog").returncode == 0
    done = nbdtest("detach", "/dev/nbd0", path, "/dev/nbd4095")
    assert done.returncode == 2
    free, missing = done.stderr.splitlines()
    assert free == "nbdtest: /dev/nbd0 is not attached"
    assert missing.startswith("nbdtest: there is no /dev/nbd4095; of NBD devices there are: nbd0, ")
    assert Sysfs().pid(int(path[len("/dev/nbd") :])) is None


@pytest.mark.parametrize("options", [["--foreground"], ["--ioctl"]], ids=["foreground", "ioctl"])
def test_in_the_foreground_the_device_ends_with_the_command(
    options: list[str], node: str, fake: FakeServer, io: Worker
) -> None:
    command = [sys.executable, "-m", "nbdtest", "attach", fake.uri, node, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{node}\n"
        assert io("read", node, 0, 512) == bytes(512)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert (said, process.returncode) == (f"detaching {node}\n", 0)
    assert Sysfs().pid(int(node[len("/dev/nbd") :])) is None
    until(lambda: not guards_of(node), "the watchdog has ended with its device")


def test_a_killed_command_in_the_foreground_leaves_no_device(path: str, fake: FakeServer) -> None:
    command = [sys.executable, "-m", "nbdtest", "attach", fake.uri, path, "--foreground"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    until(lambda: Sysfs().pid(int(path[len("/dev/nbd") :])) is None, "the device is free")


def test_a_stalling_server_loses_its_device(path: str, fake: FakeServer, io: Worker) -> None:
    assert nbdtest("attach", fake.uri, path, "--timeout", "0", "--stall", "0.5").returncode == 0
    io("sizes", path)
    fake.on(Cmd.READ).reply()
    with pytest.raises(OSError, match="Input/output error"):
        io("read", path, 65536, 4096)
    until(lambda: Sysfs().pid(int(path[len("/dev/nbd") :])) is None, "the device is free")


def test_a_server_that_comes_back_gets_its_device_back(path: str, tmp_path: Path, io: Worker) -> None:
    address = UnixAddress(str(tmp_path / "socket"))
    uri = f"nbd+unix:///?socket={address.path}"
    with FakeServer(size=MIB) as first:
        first.listen(address)
        assert nbdtest("attach", uri, path, "--reconnect", "60").returncode == 0
        io("sizes", path)
    io.start("read", path, 65536, 4096)
    assert not io.finished(0.3)
    with FakeServer(size=MIB) as second:
        second.disk.write(65536, b"back")
        second.listen(address)
        assert io.result()[:4] == b"back"
        assert nbdtest("detach", path).returncode == 0
