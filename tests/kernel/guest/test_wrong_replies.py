"""What the kernel does when the server answers wrongly, late, partly or not at all; and that nobody is left hanging."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from nbdtest.client.kernel import DeviceError, Interface, LinkEvents, NBDDevice, NBDNetlink, Parameters
from nbdtest.wire.numbers import Cmd, Errno, ReplyFlag, ReplyType
from nbdtest.wire.transmission import Request, SimpleReply, StructuredReply
from tests.kernel.guest.device_io import Worker
from tests.kernel.guest.transmission import ALL_FLAGS, Peer, TransmissionServer

MIB = 1 << 20
TIMEOUT_S = 1  # of the driver, in whole seconds; it acts one to two and a half times as late
STALL_S = 0.5  # how long something is watched not to happen


@pytest.fixture
def events(netlink: NBDNetlink) -> Iterator[LinkEvents]:
    with netlink.events() as listening:
        yield listening


@pytest.fixture
def device(index: int, server: TransmissionServer, io: Worker) -> Iterator[NBDDevice]:
    """An attached device with one connection and the shortest timeout, whose partitions have been looked for."""
    with NBDDevice(server.unix(), index, size=MIB, flags=ALL_FLAGS, timeout_s=TIMEOUT_S) as attached:
        attached.run_async()
        io("sizes", f"/dev/nbd{index}")
        yield attached


@pytest.fixture
def path(index: int) -> str:
    return f"/dev/nbd{index}"


def reads(answer: Callable[[Peer, Request], None]) -> Callable[[Peer, Request], bool]:
    """Have READs answered by `answer`, and everything else correctly."""

    def chosen(peer: Peer, request: Request) -> bool:
        if request.type is not Cmd.READ:
            return False
        answer(peer, request)
        return True

    return chosen


def wrong_magic(peer: Peer, request: Request) -> None:
    peer.send(SimpleReply(cookie=request.cookie).encode(magic=0x12345678), bytes(request.length))


def structured(peer: Peer, request: Request) -> None:
    chunk = StructuredReply(flags=ReplyFlag.DONE, type=ReplyType.NONE, cookie=request.cookie)
    peer.send(chunk.encode())


def unknown_cookie(peer: Peer, request: Request) -> None:
    peer.send(SimpleReply(cookie=request.cookie ^ 0xFFFF).encode(), bytes(request.length))


def cut_short(peer: Peer, request: Request) -> None:
    peer.send(SimpleReply(cookie=request.cookie).encode()[:9])
    peer.cut()


def closed(peer: Peer, request: Request) -> None:
    peer.cut()


def error_with_data(peer: Peer, request: Request) -> None:
    peer.send(SimpleReply(cookie=request.cookie, error=Errno.EIO).encode(), bytes(request.length))


def half_a_header(peer: Peer, request: Request) -> None:
    peer.send(SimpleReply(cookie=request.cookie).encode()[:8])
    peer.hold()


def silence(peer: Peer, request: Request) -> None:
    peer.hold()


BROKEN = (wrong_magic, structured, unknown_cookie, cut_short, closed, error_with_data, half_a_header, silence)


def test_a_broken_reply_costs_the_connection_and_fails_the_reader(
    indexes: Iterator[int], io: Worker, events: LinkEvents
) -> None:
    names: dict[str, str] = {}
    with ExitStack() as stack:
        devices = []
        for answer in BROKEN:  # all at the same time: most of them take as long as the driver's timeout
            server = stack.enter_context(TransmissionServer())
            device = NBDDevice(server.unix(), next(indexes), size=MIB, flags=ALL_FLAGS, timeout_s=TIMEOUT_S)
            devices.append(stack.enter_context(device))
            device.run_async()
            assert device.device is not None
            names[device.device] = answer.__name__
            io("sizes", device.device)
            server.answer = reads(answer)
        failed = dict.fromkeys(names, errno.EIO)
        assert io("read_each", list(names), 65536, 4096) == failed, names
        lost = [names[f"/dev/nbd{index}"] for index in _collect(events, len(BROKEN))]
        assert sorted(lost) == sorted(names.values())
        assert [device.status().live_connections for device in devices] == [0] * len(BROKEN)
        assert all(device.wait(0) for device in devices)
        assert io("read_each", list(names), 65536, 4096) == failed


@pytest.mark.parametrize("error", [1, 5, 12, 22, 28, 75, 95, 108, 12345], ids=str)
def test_an_error_reply_fails_the_request_only(
    error: int, device: NBDDevice, path: str, server: TransmissionServer, io: Worker
) -> None:
    server.answer = reads(lambda peer, request: peer.fail(request, Errno(error)))
    with pytest.raises(OSError, match="Input/output error"):
        io("read", path, 65536, 4096)
    server.answer = lambda peer, request: False
    assert io("read", path, 65536, 4096) == bytes(4096)
    assert device.status().live_connections == 1


def test_a_second_reply_to_a_request_costs_the_connection(
    device: NBDDevice, path: str, server: TransmissionServer, io: Worker, events: LinkEvents
) -> None:
    def twice(peer: Peer, request: Request) -> None:
        peer.ok(request, bytes(request.length))
        peer.ok(request, bytes(request.length))

    server.answer = reads(twice)
    assert io("read", path, 65536, 4096) == bytes(4096)
    assert len(events.wait(5.0)) == 1
    assert device.status().live_connections == 0


def test_a_stall_in_mid_payload_outlives_every_timeout_and_detaching_frees_the_reader(
    make_node: Callable[[], str], io: Worker
) -> None:
    def half_the_payload(peer: Peer, request: Request) -> None:
        peer.send(SimpleReply(cookie=request.cookie).encode(), bytes(request.length // 2))
        peer.hold()

    with ExitStack() as stack:
        devices = {}
        for interface in Interface:
            server = stack.enter_context(TransmissionServer())
            path = make_node()
            device = NBDDevice(server.unix(), path, interface=interface, size=MIB, timeout_s=TIMEOUT_S)
            devices[path] = stack.enter_context(device)
            device.run_async()
            io("sizes", path)
            server.answer = reads(half_the_payload)
        io.start("read_each", list(devices), 65536, 4096)
        assert not io.finished(TIMEOUT_S * 3.5)
        for device in devices.values():
            device.kill_async()
        assert io.result(2.0) == dict.fromkeys(devices, errno.EIO)


def test_without_a_timeout_only_detaching_frees_the_reader(
    device: NBDDevice, path: str, server: TransmissionServer, io: Worker
) -> None:
    device.set_timeout(0)
    server.answer = reads(silence)
    io.start("read", path, 65536, 4096)
    server.wait_for(Cmd.READ)
    assert not io.finished(STALL_S)
    device.disconnect()
    with pytest.raises(OSError, match="Input/output error"):
        io.result(2.0)


def test_a_server_that_dies_frees_a_reader_without_a_timeout_over_ioctl(
    node: str, server: TransmissionServer, io: Worker
) -> None:
    with NBDDevice(server.unix(), node, interface=Interface.IOCTL, size=MIB, timeout_s=0) as device:
        device.run_async()
        io("sizes", node)
        server.answer = reads(closed)
        with pytest.raises(OSError, match="Input/output error"):
            io("read", node, 65536, 4096)


@pytest.mark.parametrize("interface", list(Interface), ids=lambda interface: str(interface.value))
def test_a_server_that_ignores_the_disconnect_request_does_not_keep_the_device(
    interface: Interface, node: str, server: TransmissionServer
) -> None:
    server.answer = lambda peer, request: request.type is Cmd.DISC
    with NBDDevice(server.unix(), node, interface=interface, size=MIB, close_timeout_s=1.0) as device:
        device.run_async()
        device.disconnect()
        assert not device.attached
    server.wait_for(Cmd.DISC)


@pytest.mark.parametrize("interface", list(Interface), ids=lambda interface: str(interface.value))
def test_a_dead_server_is_noticed_and_the_node_can_be_used_again(
    interface: Interface, node: str, server: TransmissionServer, io: Worker
) -> None:
    with NBDDevice(server.unix(), node, interface=interface, size=MIB, timeout_s=TIMEOUT_S) as device:
        device.run_async()
        server.close()
        assert device.wait(5.0)
    with (
        TransmissionServer() as next_server,
        NBDDevice(next_server.unix(), node, interface=interface, size=MIB) as device,
    ):
        device.run_async()
        assert io("read", node, 0, 512) == bytes(512)


def test_a_reader_that_waits_in_the_dead_connection_window_goes_on_after_a_reconnect(
    index: int, path: str, server: TransmissionServer, io: Worker, events: LinkEvents
) -> None:
    server.data[:3] = b"old"
    with NBDDevice(
        server.unix(), index, size=MIB, timeout_s=TIMEOUT_S, dead_connection_timeout_s=30, backend_identifier="same"
    ) as device:
        device.run_async()
        io("sizes", path)
        server.close()
        assert events.wait(5.0) == [index]
        io.start("read", path, 0, 512)
        assert not io.finished(STALL_S)
        assert not device.wait(0)
        with TransmissionServer() as successor:
            successor.data[:3] = b"new"
            device.reconnect(successor.tcp())
            assert io.result()[:3] == b"new"
            assert device.status().live_connections == 1
            device.disconnect()


def test_after_the_dead_connection_window_the_reader_fails(
    index: int, path: str, server: TransmissionServer, io: Worker
) -> None:
    with NBDDevice(server.unix(), index, size=MIB, timeout_s=TIMEOUT_S, dead_connection_timeout_s=1) as device:
        device.run_async()
        io("sizes", path)
        server.close()
        with pytest.raises(OSError, match="Input/output error"):
            io("read", path, 0, 512)
        assert device.wait(3.0)


def test_a_request_that_timed_out_is_sent_again_over_the_next_connection(
    index: int, path: str, server: TransmissionServer, io: Worker
) -> None:
    server.data[65536:65539] = b"yes"
    with NBDDevice([server.unix(), server.tcp()], index, size=MIB, flags=ALL_FLAGS, timeout_s=TIMEOUT_S) as device:
        device.run_async()
        io("sizes", path)
        server.answer = lambda peer, request: request.type is Cmd.READ and peer.number == first(server)
        assert io("read", path, 65536, 4096)[:3] == b"yes"
        same = [asked for asked in server.asked if asked.request.offset == 65536]
        assert len({asked.connection for asked in same}) == 2
        assert len({asked.request.cookie for asked in same}) == 2
        assert device.status().live_connections == 1


def _collect(events: LinkEvents, count: int) -> list[int]:
    """Wait until so many connections have died, and a moment for any more."""
    indexes: list[int] = []
    while len(indexes) < count and (fresh := events.wait(5.0)):
        indexes += fresh
    return indexes + events.wait(0.1)


def first(server: TransmissionServer) -> int:
    """The connection that the kernel uses as long as it lives: with one processor it is the same for every request."""
    return server.asked[0].connection


def test_the_second_connection_takes_over_when_the_first_dies(
    index: int, path: str, server: TransmissionServer, io: Worker, events: LinkEvents
) -> None:
    with NBDDevice([server.unix(), server.unix()], index, size=MIB, flags=ALL_FLAGS, timeout_s=TIMEOUT_S) as device:
        device.run_async()
        io("sizes", path)

        def only_the_second(peer: Peer, request: Request) -> bool:
            if peer.number == first(server):
                peer.cut()
                return True
            return False

        server.answer = only_the_second
        assert io("read", path, 65536, 4096) == bytes(4096)
        assert events.wait(2.0) == [index]
        device.reconnect(server.unix())
        assert device.status().live_connections == 2
        server.answer = lambda peer, request: False
        assert io("read", path, 65536, 4096) == bytes(4096)


def test_the_kernel_s_reason_is_quoted(index: int, server: TransmissionServer, netlink: NBDNetlink) -> None:
    sockets = [server.unix().fileno(), server.unix().fileno()]
    with pytest.raises(DeviceError, match=r"the kernel says .*multiple connections"):
        netlink.connect(Parameters(size=MIB, sockets=sockets), index)
