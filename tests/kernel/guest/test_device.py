"""NBDDevice over both interfaces: every method, on devices whose server answers correctly."""

from __future__ import annotations

import gc
import threading
import warnings

import pytest

from nbdtest.client.kernel import (
    DeviceBusy,
    Interface,
    NBDDevice,
    NBDNetlink,
    StillInUse,
)
from nbdtest.client.kernel.sysfs import Sysfs
from nbdtest.errors import UsageError
from nbdtest.wire.numbers import Cmd, CmdFlag, TransmissionFlag
from tests.kernel.guest.device_io import Worker
from tests.kernel.guest.transmission import ALL_FLAGS, TransmissionServer
from tests.kernel.waiting import until

MIB = 1 << 20


@pytest.fixture(params=list(Interface), ids=lambda interface: str(interface.value))
def interface(request: pytest.FixtureRequest) -> Interface:
    chosen: Interface = request.param
    return chosen


@pytest.fixture
def device(interface: Interface, node: str, server: TransmissionServer) -> NBDDevice:
    """A device that is set up for the server and not attached."""
    return NBDDevice(server.unix(), node, interface=interface, size=MIB, flags=ALL_FLAGS, timeout_s=5)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_reads_and_writes_reach_the_server(kind: str, interface: Interface, node: str, io: Worker) -> None:
    with TransmissionServer() as server:
        server.data[512:517] = b"hello"
        connection = server.unix() if kind == "unix" else server.tcp()
        with NBDDevice(connection, node, interface=interface, size=MIB, flags=ALL_FLAGS) as device:
            device.run_async()
            assert io("read", node, 512, 512)[:5] == b"hello"
            io("write", node, 8192, b"\xa5" * 4096)
        assert server.data[8192:12288] == b"\xa5" * 4096


def test_the_commands_are_the_flags_of_the_export(
    device: NBDDevice, node: str, server: TransmissionServer, io: Worker
) -> None:
    with device:
        device.run_async()
        io("sizes", node)  # the first open looks for partitions
        server.forget()
        io("write", node, 0, b"a" * 512, True)
        io("write_and_sync", node, 4096, b"b" * 4096)
        io("discard", node, 8192, 4096)
    writes = server.of(Cmd.WRITE)
    assert writes[0].flags == CmdFlag.FUA
    assert [(request.offset, request.length) for request in writes] == [(0, 512), (4096, 4096)]
    assert server.of(Cmd.FLUSH)
    assert [(request.offset, request.length) for request in server.of(Cmd.TRIM)] == [(8192, 4096)]


def test_an_export_that_cannot_flush_or_trim_is_not_asked_to(
    device: NBDDevice, node: str, server: TransmissionServer, io: Worker
) -> None:
    device.set_flags(TransmissionFlag.HAS_FLAGS)
    with device:
        device.run_async()
        io("write_and_sync", node, 0, b"a" * 4096)
        with pytest.raises(OSError, match="not supported"):
            io("discard", node, 0, 4096)
    assert not server.of(Cmd.FLUSH)
    assert not server.of(Cmd.TRIM)


def test_a_read_only_export_is_a_read_only_device(device: NBDDevice, node: str, io: Worker) -> None:
    device.set_flags(TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY)
    with device:
        device.run_async()
        assert io("sizes", node) == (MIB, 512, True)
        with pytest.raises(PermissionError):
            io("write", node, 0, bytes(512))


@pytest.mark.parametrize(
    ("block_size", "size", "reachable"),
    [
        (512, MIB, MIB),
        (512, MIB - 1, MIB - 512),
        (1024, MIB - 512, MIB - 1024),
        (4096, 1_000_000, 999_424),
        (4096, 4095, 0),
    ],
)
def test_the_size_is_rounded_down_to_whole_blocks(
    block_size: int, size: int, reachable: int, device: NBDDevice, node: str, io: Worker
) -> None:
    device.set_size(size)
    device.set_blocksize(block_size)
    with device:
        device.run_async()
        assert io("sizes", node) == (reachable, block_size, False)
        assert device.size == device.status().size == reachable


def test_a_device_larger_than_a_signed_long_of_sectors_keeps_its_size(device: NBDDevice, node: str, io: Worker) -> None:
    device.set_size((1 << 62) + 512)
    with device:
        device.run_async()
        assert io("sizes", node)[0] == (1 << 62) + 512


def test_blocks_are_counted_in_the_block_size(device: NBDDevice, node: str, io: Worker) -> None:
    device.set_blocksize(2048)
    device.set_blocks(100)
    with device:
        device.run_async()
        assert io("sizes", node)[:2] == (204_800, 2048)


def test_size_and_timeout_can_be_changed_while_attached(device: NBDDevice, node: str, io: Worker) -> None:
    with device:
        device.run_async()
        device.set_size(MIB // 2)
        device.set_timeout(7)
        assert io("sizes", node)[0] == MIB // 2
        device.set_size(MIB - 512)
        assert io("sizes", node)[0] == MIB - 512
        device.set_blocksize(4096)
        assert io("sizes", node)[:2] == (MIB - 4096, 4096)


@pytest.mark.parametrize("block_size", [256, 511, 8192])
def test_an_impossible_block_size_is_refused_and_the_connection_is_still_good(
    block_size: int, device: NBDDevice, node: str, io: Worker
) -> None:
    device.set_blocksize(block_size)
    with device:
        with pytest.raises(UsageError, match=f"a block size of {block_size}: the kernel takes 512, 1024, 2048, 4096"):
            device.run_async()
        assert device.status().pid is None
        device.set_blocksize(512)
        device.run_async()
        assert io("read", node, 0, 512) == bytes(512)


def test_disconnect_tells_the_server_and_frees_the_device(device: NBDDevice, server: TransmissionServer) -> None:
    with device:
        device.run_async()
        assert device.status().attached
        device.disconnect()
        assert not device.status().attached
        server.wait_for(Cmd.DISC)
        assert device.status().pid is None
        device.disconnect()


def test_a_device_can_be_attached_again(device: NBDDevice, node: str, server: TransmissionServer, io: Worker) -> None:
    with device:
        for content in (b"one", b"two"):
            device.socket = server.unix()
            device.run_async()
            server.data[:3] = content
            assert io("read", node, 0, 512)[:3] == content
            device.disconnect()


def test_kill_async_ends_the_connection_without_a_disconnect_request(
    device: NBDDevice, server: TransmissionServer
) -> None:
    with device:
        device.run_async()
        device.kill_async()
        assert not device.attached
        assert device.socket is None
        with pytest.raises(UsageError, match="no connection"):
            device.run_async()
    server.close()
    assert not server.of(Cmd.DISC)


def test_no_socket_drops_the_device(device: NBDDevice) -> None:
    with device:
        device.run_async()
        device.socket = None
        assert not device.attached


def test_run_returns_when_somebody_disconnects(
    device: NBDDevice, server: TransmissionServer, io: Worker, netlink: NBDNetlink
) -> None:
    running = threading.Thread(target=device.run)
    running.start()
    io_node = device.device
    assert io_node is not None
    until(lambda: device.attached, "the device is attached")
    netlink.disconnect(int(io_node[len("/dev/nbd") :]))
    running.join(10)
    assert not running.is_alive()
    assert not device.attached
    device.close()


def test_run_returns_when_the_server_closes(device: NBDDevice, server: TransmissionServer) -> None:
    running = threading.Thread(target=device.run)
    running.start()
    until(lambda: device.attached, "the device is attached")
    server.close()
    running.join(10)
    assert not running.is_alive()
    assert not device.attached
    device.close()


def test_run_async_returns_who_is_responsible(device: NBDDevice) -> None:
    with device:
        pid = device.run_async()
        assert pid == device.status().pid
        if device.interface is Interface.NETLINK:
            assert pid == threading.get_native_id()
        else:
            assert pid in {thread.native_id for thread in threading.enumerate()}


def test_clear_queue_is_for_detached_devices(device: NBDDevice) -> None:
    with device:
        device.clear_queue()
        device.run_async()
        with pytest.raises(UsageError, match="attached"):
            device.clear_queue()


def test_settings_that_need_a_detached_device_say_so(device: NBDDevice, server: TransmissionServer) -> None:
    with device:
        device.run_async()
        with pytest.raises(UsageError, match="reconnect"):
            device.socket = server.unix()
        with pytest.raises(UsageError, match="detached"):
            device.device = None
        with pytest.raises(UsageError, match="detached"):
            device.set_flags(ALL_FLAGS)
        with pytest.raises(UsageError, match="attached"):
            device.run_async()


def test_a_node_is_found_when_none_is_named(interface: Interface, server: TransmissionServer, io: Worker) -> None:
    with NBDDevice(server.unix(), interface=interface, size=MIB, flags=ALL_FLAGS) as device:
        assert device.status().device is None
        device.run_async()
        io("read", device.device, 0, 512)
        with NBDDevice(server.unix(), interface=interface, size=MIB, flags=ALL_FLAGS) as other:
            other.run_async()
            assert other.device not in (None, device.device)


def test_a_device_in_use_is_busy_and_stays_unharmed(
    interface: Interface, device: NBDDevice, node: str, server: TransmissionServer, io: Worker
) -> None:
    with device:
        device.run_async()
        for second in Interface:
            with NBDDevice(server.unix(), node, interface=second, size=512) as intruder, pytest.raises(DeviceBusy):
                intruder.run_async()
        assert io("sizes", node)[0] == MIB
        io("read", node, 0, 512)


def test_a_device_held_open_is_named_with_its_holder(
    device: NBDDevice, node: str, server: TransmissionServer, io: Worker
) -> None:
    device.close_timeout_s = 0.2
    with device:
        device.run_async()
        io("hold", node)
        assert any("open in process" in user for user in device.status().users)
        with pytest.raises(StillInUse, match=rf"{node} .*open in process \d+ \(python"):
            device.disconnect()
        io("let_go", node)
        device.disconnect()
    assert Sysfs().pid(int(node[len("/dev/nbd") :])) is None


def test_a_forgotten_device_is_detached_with_its_object(
    interface: Interface, node: str, server: TransmissionServer
) -> None:
    device = NBDDevice(server.unix(), node, interface=interface, size=MIB)
    device.run_async()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del device
        gc.collect()
    index = int(node[len("/dev/nbd") :])
    until(lambda: Sysfs().pid(index) is None, "the device is free")
