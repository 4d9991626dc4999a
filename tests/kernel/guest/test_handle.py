"""Handing negotiated connections to the kernel: what the device takes from them, and which are refused."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdtest.client import NBD
from nbdtest.client.kernel import DeviceError, Interface, NBDDevice, UnsuitableConnection
from nbdtest.client.kernel.detach import detach
from nbdtest.client.kernel.handles import connected
from nbdtest.client.kernel.sysfs import Sysfs
from nbdtest.fakeserver import BlockSizes, Export, FakeServer
from nbdtest.model import MemoryDisk
from tests.kernel.guest.device_io import Worker
from tests.kernel.waiting import until

MIB = 1 << 20
NBDKIT = ["nbdkit", "-s", "--exit-with-parent", "memory", "16M"]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(size=MIB) as server:
        yield server


@pytest.fixture(params=list(Interface), ids=lambda interface: str(interface.value))
def interface(request: pytest.FixtureRequest) -> Interface:
    chosen: Interface = request.param
    return chosen


def test_a_handle_becomes_a_device(interface: Interface, node: str, fake: FakeServer, io: Worker) -> None:
    fake.disk.write(4096, b"hello")
    with NBDDevice.attach(connected(fake.uri), device=node, interface=interface) as device:
        assert device.device == node
        assert io("sizes", node) == (MIB, 512, False)
        assert io("read", node, 4096, 512)[:5] == b"hello"
        io("write", node, 8192, b"world" + bytes(507), True)
        io("discard", node, 65536, 65536)
    assert bytes(fake.disk.read(8192, 5)) == b"world"


def test_over_tcp_as_well(index: int, fake: FakeServer, io: Worker) -> None:
    with NBDDevice.attach(connected(fake.tcp_uri), device=index):
        assert io("read", f"/dev/nbd{index}", 0, 512) == bytes(512)


def test_structured_replies_are_refused_before_the_kernel_trips_over_them(index: int, fake: FakeServer) -> None:
    handle = NBD()
    handle.connect_uri(fake.uri)
    with pytest.raises(UnsuitableConnection, match=r"set_request_(structured_replies|extended_headers)\(False\)"):
        NBDDevice.attach(handle, device=index)
    assert handle.pread(512, 0) == bytes(512)
    handle.shutdown()
    handle.close()


def test_a_handle_that_is_not_connected_is_refused(index: int) -> None:
    handle = NBD()
    with pytest.raises(UnsuitableConnection, match="connected"):
        NBDDevice.attach(handle, device=index)
    handle.close()


def test_the_block_sizes_of_the_server_are_kept(index: int, io: Worker) -> None:
    sizes = BlockSizes(minimum=4096, preferred=4096, maximum=65536)
    with FakeServer(Export(disk=MemoryDisk(MIB + 512), block_sizes=sizes)) as fake:
        path = f"/dev/nbd{index}"
        usual = 0
        with NBDDevice.attach(connected(fake.uri), device=index):
            assert io("sizes", path)[:2] == (MIB, 4096)
            assert io("read", path, 0, MIB // 2) == bytes(MIB // 2)
            assert Sysfs().limit(index, "max_sectors_kb") == 64
            usual = Sysfs().limit(index, "max_hw_sectors_kb")
    assert Sysfs().limit(index, "max_sectors_kb") > 64
    assert usual > 64


def test_an_index_that_had_more_abilities_before_forgets_them(index: int, fake: FakeServer, io: Worker) -> None:
    # Linux 6.12 leaves the limits of an earlier connection on its index; an attached device has only its own.
    path = f"/dev/nbd{index}"
    with NBDDevice.attach(connected(fake.uri), device=index):
        io("zero_out", path, 0, 4096)
    with (
        FakeServer(Export(disk=MemoryDisk(MIB), can_zero=False, can_fast_zero=False)) as poor,
        NBDDevice.attach(connected(poor.uri), device=index),
    ):
        assert Sysfs().limit(index, "write_zeroes_max_bytes") == 0
        io("zero_out", path, 0, 4096)


def test_several_handles_become_one_device(index: int, fake: FakeServer, io: Worker) -> None:
    with NBDDevice.attach(connected(fake.uri), connected(fake.uri), device=index) as device:
        assert device.status().live_connections == 2
        assert io("read", f"/dev/nbd{index}", 0, 512) == bytes(512)


def test_a_handle_replaces_a_connection_that_died(index: int, fake: FakeServer, io: Worker) -> None:
    path = f"/dev/nbd{index}"
    with FakeServer(size=MIB) as first:
        device = NBDDevice.attach(connected(first.uri), device=index, dead_connection_timeout_s=30)
        io("sizes", path)
    with device:
        until(lambda: device.status().live_connections == 0, "the connection has died")
        fake.disk.write(0, b"second")
        device.reconnect(connected(fake.uri))
        assert io("read", path, 0, 512)[:6] == b"second"


def test_another_export_does_not_replace_a_connection(index: int, fake: FakeServer) -> None:
    with FakeServer(size=2 * MIB) as larger, NBDDevice.attach(connected(fake.uri), device=index) as device:
        handle = connected(larger.uri)
        with pytest.raises(DeviceError, match="an export of 2097152 bytes, the old one had 1048576"):
            device.reconnect(handle)
        handle.shutdown()
        handle.close()


@pytest.mark.parametrize("server", ["command", "activation"])
def test_a_server_that_the_handle_started_ends_with_the_device(server: str, index: int, io: Worker) -> None:
    handle = NBD()
    handle.set_request_structured_replies(False)
    if server == "command":
        handle.connect_command(NBDKIT)
    else:
        handle.connect_systemd_socket_activation(["nbdkit", "--exit-with-parent", "memory", "16M"])
    pid = handle.get_subprocess_pid()
    with NBDDevice.attach(handle, device=index):
        io("write", f"/dev/nbd{index}", 0, b"x" * 4096)
        assert io("read", f"/dev/nbd{index}", 0, 4096) == b"x" * 4096
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_libnbd_s_own_handles_are_taken_too(index: int) -> None:
    script = f"""
        import nbd
        from nbdtest.client.kernel import NBDDevice
        handle = nbd.NBD()
        handle.set_request_structured_replies(False)
        handle.connect_command({NBDKIT!r})
        with NBDDevice.attach(handle, device={index}) as device:
            print(device.status().size)
        """
    python = "/usr/bin/python3"
    if subprocess.run([python, "-c", "import nbd"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no libnbd (python3-libnbd)")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [python, "-c", textwrap.dedent(script)], cwd=root, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stdout == f"{16 * MIB}\n", done.stderr


def test_a_process_that_ends_without_a_word_leaves_no_device_behind(index: int, fake: FakeServer) -> None:
    script = f"""
        from nbdtest.client.kernel import NBDDevice
        from nbdtest.client.kernel.handles import connected
        device = NBDDevice.attach(connected({fake.uri!r}), device={index})
        assert device.attached
        """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], check=True, timeout=30)
    until(lambda: Sysfs().pid(index) is None, "the device is free")


def test_a_released_device_outlives_its_process(index: int, fake: FakeServer, io: Worker) -> None:
    script = f"""
        from nbdtest.client.kernel import NBDDevice
        from nbdtest.client.kernel.handles import connected
        NBDDevice.attach(connected({fake.uri!r}), device={index}).release()
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=30)
    assert io("read", f"/dev/nbd{index}", 0, 512) == bytes(512)
    with NBDDevice.attach(connected(fake.uri)) as other:
        assert other.device != f"/dev/nbd{index}"
    detach(index)


def test_without_the_privilege_the_error_names_it(node: str, fake: FakeServer) -> None:
    script = f"""
        import os
        from nbdtest.client.kernel import NBDDevice, NotPermitted
        from nbdtest.client.kernel.handles import connected
        handle = connected({fake.uri!r})
        os.setuid(65534)
        for interface in ("netlink", "ioctl"):
            try:
                NBDDevice.attach(handle, device={node!r}, interface=interface)
            except NotPermitted as error:
                print(error)
        handle.shutdown()
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    netlink, ioctl = done.stdout.splitlines()
    assert netlink.startswith(f"connecting {node}: Operation not permitted (EPERM)")
    assert ioctl.startswith(f"opening {node}: Permission denied (EACCES)")
    assert all("CAP_SYS_ADMIN" in line for line in (netlink, ioctl))
