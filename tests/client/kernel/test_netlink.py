"""The NBD family's commands, over a channel that stands in for the kernel."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable

import pytest

from nbdtest.client.kernel import genetlink
from nbdtest.client.kernel.failures import DeviceBusy, DeviceError, NoModule, NotPermitted
from nbdtest.client.kernel.genetlink import Family
from nbdtest.client.kernel.netlink import ConfigFlag, NBDNetlink, NetlinkChannel, Parameters
from nbdtest.wire.numbers import TransmissionFlag

FAMILY = 0x1D


class FakeChannel(NetlinkChannel):
    """Answers every request with `answer`, or refuses with `error`; keeps what was asked."""

    def __init__(self, *, answer: bytes = b"", error: int = 0, has_family: bool = True) -> None:
        self.answer = answer
        self.error = error
        self.has_family = has_family
        self.asked: list[tuple[int, bytes]] = []
        self.joined: list[int] = []
        self.closed = False
        self.datagrams: list[bytes | int] = []
        self._pair = socket.socketpair()

    def fileno(self) -> int:
        return self._pair[0].fileno()

    def family(self, name: str) -> Family:
        assert name == "nbd"
        if not self.has_family:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Family(id=FAMILY, groups={"nbd_mc_group": 6})

    def ask(self, family: int, command: int, payload: bytes) -> bytes:
        assert family == FAMILY
        self.asked.append((command, payload))
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self.answer

    def join(self, group: int) -> None:
        self.joined.append(group)

    def receive(self) -> bytes:
        if not self.datagrams:
            raise BlockingIOError
        datagram = self.datagrams.pop(0)
        if isinstance(datagram, int):
            raise OSError(datagram, os.strerror(datagram))
        return datagram

    def close(self) -> None:
        self.closed = True
        for each in self._pair:
            each.close()


def over(channel: FakeChannel) -> NBDNetlink:
    return NBDNetlink(open_channel=lambda: channel)


def test_a_kernel_without_the_family_is_a_missing_module() -> None:
    channel = FakeChannel(has_family=False)
    with pytest.raises(NoModule, match="modprobe nbd"):
        over(channel)
    assert channel.closed


def test_connect_sends_every_parameter_and_returns_the_index() -> None:
    channel = FakeChannel(answer=genetlink.u32(1, 5))
    parameters = Parameters(
        size=1 << 40,
        block_size=4096,
        timeout_s=30,
        dead_connection_timeout_s=60,
        flags=TransmissionFlag.HAS_FLAGS | TransmissionFlag.CAN_MULTI_CONN,
        config_flags=ConfigFlag.DESTROY_ON_DISCONNECT | ConfigFlag.DISCONNECT_ON_CLOSE,
        backend_identifier="mine",
        sockets=[7, 8],
    )
    with over(channel) as netlink:
        assert netlink.connect(parameters) == 5
    ((command, payload),) = channel.asked
    assert command == 1
    assert dict(genetlink.attributes(payload)) == {
        2: _u64(1 << 40),
        3: _u64(4096),
        4: _u64(30),
        5: _u64(0x101),
        6: _u64(3),
        7: genetlink.nest(1, genetlink.u32(1, 7)) + genetlink.nest(1, genetlink.u32(1, 8)),
        8: _u64(60),
        10: b"mine\0",
    }


def test_what_is_not_given_is_not_sent() -> None:
    assert Parameters().encode() == b""
    assert dict(genetlink.attributes(Parameters(size=0, timeout_s=0).encode())) == {2: _u64(0), 4: _u64(0)}


def test_a_chosen_index_goes_first() -> None:
    channel = FakeChannel(answer=genetlink.u32(1, 3))
    with over(channel) as netlink:
        netlink.connect(Parameters(size=512), 3)
        netlink.reconfigure(3, Parameters(size=1024))
        netlink.disconnect(3)
    assert channel.asked == [
        (1, genetlink.u32(1, 3) + genetlink.u64(2, 512)),
        (3, genetlink.u32(1, 3) + genetlink.u64(2, 1024)),
        (2, genetlink.u32(1, 3)),
    ]


def test_status_says_which_devices_are_set_up() -> None:
    def device(index: int, connected: bool) -> bytes:
        return genetlink.nest(1, genetlink.u32(1, index), genetlink.attribute(2, bytes([connected])))

    with over(FakeChannel(answer=genetlink.nest(9, device(0, False), device(1, True)))) as netlink:
        assert netlink.status() == {0: False, 1: True}


def test_status_of_a_device_that_does_not_exist_is_empty() -> None:
    with over(FakeChannel(error=errno.EINVAL)) as netlink:
        assert netlink.status(99) == {}
        with pytest.raises(DeviceError):
            netlink.status()


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.EPERM, NotPermitted, "CAP_SYS_ADMIN"),
        (errno.EBUSY, DeviceBusy, "somebody else"),
        (errno.EINVAL, DeviceError, "Invalid argument"),
        (errno.ENOMEM, DeviceError, "no memory"),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_a_refusal_is_explained(number: int, kind: type[DeviceError], advice: str) -> None:
    with over(FakeChannel(error=number)) as netlink:
        calls: list[Callable[[], object]] = [
            lambda: netlink.connect(Parameters(), 3),
            lambda: netlink.disconnect(3),
            lambda: netlink.reconfigure(3, Parameters()),
        ]
        for call in calls:
            with pytest.raises(kind, match=rf"/dev/nbd3: .*{advice}") as caught:
                call()
            assert caught.value.errno == number


def test_events_name_the_device_once_for_each_lost_connection() -> None:
    channel = FakeChannel()
    with over(channel) as netlink:
        events = netlink.events()
        assert channel.joined == [6]
        died = genetlink.encode(FAMILY, 4, genetlink.u32(1, 3), sequence=0)
        other_command = genetlink.encode(FAMILY, 5, genetlink.u32(1, 4), sequence=0)
        other_family = genetlink.encode(FAMILY + 1, 4, genetlink.u32(1, 5), sequence=0)
        channel.datagrams = [died + died, other_command, errno.ENOBUFS, other_family, died]
        assert events.wait() == [3, 3, 3]
        assert events.wait() == []


def _u64(value: int) -> bytes:
    return value.to_bytes(8, sys.byteorder)
