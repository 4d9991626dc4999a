"""NBDDevice before it is attached, which needs no kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from nbdtest.client.kernel import DeviceError, Interface, NBDDevice, UnsuitableConnection
from nbdtest.errors import UsageError


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def test_settings_are_kept_until_the_device_is_attached(connection: socket.socket) -> None:
    with NBDDevice(connection, "/dev/nbd7", block_size=4096) as device:
        device.set_size(1_000_000)
        assert (device.device, device.size, device.attached) == ("/dev/nbd7", 999_424, False)
        device.set_blocksize(512)
        assert device.size == 999_936
        device.set_blocks(3)
        assert device.size == 1536
        device.device = None
        assert device.status().device is None


def test_the_socket_is_duplicated_and_the_original_stays(connection: socket.socket) -> None:
    with NBDDevice(connection) as device:
        assert device.socket is not None
        assert device.socket.fileno() != connection.fileno()
    connection.send(b"still there")


def test_setting_no_socket_drops_it(connection: socket.socket) -> None:
    with NBDDevice(connection) as device:
        device.socket = None
        with pytest.raises(UsageError, match="no connection"):
            device.run_async()


def test_an_unsuitable_socket_is_refused_when_it_is_set(connection: socket.socket) -> None:
    with NBDDevice(connection) as device, socket.socket() as unconnected:
        with pytest.raises(UnsuitableConnection):
            device.socket = unconnected
        assert device.socket is not None


@pytest.mark.parametrize(
    "setting",
    [
        {"dead_connection_timeout_s": 5},
        {"destroy_on_disconnect": True},
        {"disconnect_on_close": True},
        {"backend_identifier": "mine"},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_what_only_netlink_can_do_is_refused_for_ioctl(setting: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="use netlink"):
        NBDDevice(interface=Interface.IOCTL, **setting)  # type: ignore[arg-type]  # one of several types


def test_another_node_is_no_nbd_device() -> None:
    with pytest.raises(DeviceError, match="'/dev/sda' is no NBD device"):
        NBDDevice(device="/dev/sda")


@pytest.mark.parametrize(
    "setting",
    [{"size": -1}, {"size": 1 << 63}, {"timeout_s": -1}, {"timeout_s": 4_294_968}, {"timeout_s": 1.5}],
    ids=str,
)
def test_a_number_that_the_kernel_would_not_take_as_meant_is_refused(setting: dict[str, object]) -> None:
    (name,) = setting
    with pytest.raises(UsageError, match=rf"{name} is a whole number from 0 to \d+, not "):
        NBDDevice(**setting)  # type: ignore[arg-type]  # a wrong one


def test_a_refused_setting_leaves_the_old_one() -> None:
    with NBDDevice(size=4096) as device:
        with pytest.raises(UsageError):
            device.set_size(-512)
        with pytest.raises(UsageError):
            device.set_blocksize(-4096)
        assert device.size == 4096


@pytest.mark.parametrize("index", [-1, 1 << 20])
def test_no_number_is_too_odd_to_be_refused(index: int) -> None:
    with pytest.raises(DeviceError, match="is no NBD device"):
        NBDDevice(device=index)


def test_what_needs_an_attached_device_says_so(connection: socket.socket) -> None:
    with NBDDevice(connection) as device:
        with pytest.raises(UsageError, match="not attached"):
            device.reconnect(connection)
        with pytest.raises(UsageError, match="not attached"):
            device.release()
        device.disconnect()
        assert device.wait(0)


def test_attach_needs_a_handle() -> None:
    with pytest.raises(UsageError, match="at least one handle"):
        NBDDevice.attach()


def test_it_prints_as_what_it_is(connection: socket.socket) -> None:
    with NBDDevice(connection, 3) as device:
        assert repr(device) == "<NBDDevice /dev/nbd3 detached>"
    assert repr(NBDDevice()) == "<NBDDevice without a node detached>"
