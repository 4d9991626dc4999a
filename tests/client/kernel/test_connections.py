"""Which sockets and handles are refused before the kernel sees them."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from dataclasses import dataclass, replace

import pytest

from nbdtest.client.kernel.connections import Export, check_setup, duplicate, exports_agree, negotiated_export
from nbdtest.client.kernel.failures import UnsuitableConnection
from nbdtest.errors import UsageError
from nbdtest.net.sockets import connect, listen, stream_pair
from nbdtest.wire.numbers import TransmissionFlag


@dataclass(slots=True, kw_only=True)
class Handle:
    """A handle after its handshake."""

    ready: bool = True
    in_flight: int = 0
    tls: bool = False
    structured: bool = False
    extended: bool = False
    block_sizes: tuple[int, int, int] = (0, 0, 0)
    offers: frozenset[str] = frozenset()

    def aio_get_fd(self) -> int:
        return -1

    def aio_is_ready(self) -> bool:
        return self.ready

    def aio_in_flight(self) -> int:
        return self.in_flight

    def get_tls_negotiated(self) -> bool:
        return self.tls

    def get_structured_replies_negotiated(self) -> bool:
        return self.structured

    def get_extended_headers_negotiated(self) -> bool:
        return self.extended

    def get_size(self) -> int:
        return 1 << 20

    def get_block_size(self, size_type: int) -> int:
        return self.block_sizes[size_type]

    def is_read_only(self) -> bool:
        return "read_only" in self.offers

    def is_rotational(self) -> bool:
        return "rotational" in self.offers

    def can_flush(self) -> bool:
        return "flush" in self.offers

    def can_fua(self) -> bool:
        return "fua" in self.offers

    def can_trim(self) -> bool:
        return "trim" in self.offers

    def can_zero(self) -> bool:
        return "zero" in self.offers

    def can_multi_conn(self) -> bool:
        return "multi_conn" in self.offers

    def close(self) -> None:
        pass


def test_connected_tcp_and_unix_streams_are_duplicated() -> None:
    one, other = stream_pair()
    with one, other, duplicate(one) as copy, duplicate(one.fileno()) as second:
        assert len({one.fileno(), copy.fileno(), second.fileno()}) == 3
        assert not os.get_inheritable(copy.fileno())
    with listen() as listener, connect(listener.address) as client, duplicate(client) as copy:
        assert copy.family == socket.AF_INET


def test_a_listening_socket_is_refused() -> None:
    with listen() as listener, pytest.raises(UnsuitableConnection, match="listens"):
        duplicate(listener.fileno())


def test_a_socket_without_a_peer_is_refused() -> None:
    with socket.socket() as unconnected, pytest.raises(UnsuitableConnection, match="not connected"):
        duplicate(unconnected)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET], ids=["datagram", "seqpacket"])
def test_sockets_that_are_no_streams_are_refused(kind: int) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other, pytest.raises(UnsuitableConnection, match="stream"):
        duplicate(one)


def test_vsock_is_refused_with_a_way_out() -> None:
    try:
        made = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this kernel has no vsock")
    with made, pytest.raises(UnsuitableConnection, match="vsock: copy between"):
        duplicate(made)


def test_netlink_and_pipes_and_closed_descriptors_are_refused() -> None:
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as other,
        pytest.raises(UnsuitableConnection, match="family"),
    ):
        duplicate(other)
    reading, writing = os.pipe()
    try:
        with pytest.raises(UnsuitableConnection, match="no socket"):
            duplicate(reading)
    finally:
        os.close(reading)
        os.close(writing)
    with pytest.raises(UnsuitableConnection, match="closed") as caught:
        duplicate(reading)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (Handle(ready=False), "handshake finished"),
        (Handle(in_flight=2), "2 requests"),
        (Handle(tls=True), "TLS"),
        (Handle(structured=True), r"set_request_structured_replies\(False\)"),
        (Handle(structured=True, extended=True), r"set_request_extended_headers\(False\)"),
        (Handle(block_sizes=(65536, 65536, 1 << 25)), "smallest request is 65536"),
        (Handle(block_sizes=(1, 512, 2048)), "largest request is 2048"),
    ],
    ids=["not-ready", "in-flight", "tls", "structured", "extended", "minimum", "maximum"],
)
def test_a_handle_that_the_kernel_cannot_go_on_with_is_refused(handle: Handle, reason: str) -> None:
    with pytest.raises(UnsuitableConnection, match=reason):
        negotiated_export(handle)


def test_the_export_is_what_the_server_said() -> None:
    offers = frozenset({"read_only", "rotational", "flush", "fua", "trim", "zero", "multi_conn"})
    handle = Handle(block_sizes=(1024, 4096, 1 << 20), offers=offers)
    assert negotiated_export(handle) == Export(
        size=1 << 20, flags=TransmissionFlag(0x17F), block_size=1024, max_request=1 << 20
    )


def test_a_server_without_wishes_gets_blocks_of_512_and_only_the_flags_that_it_set() -> None:
    handle = Handle(block_sizes=(1, 4096, 0))
    assert negotiated_export(handle) == Export(size=1 << 20, flags=TransmissionFlag.HAS_FLAGS, block_size=512)


def test_connections_of_one_device_have_to_lead_to_the_same_export() -> None:
    one = Export(size=512, flags=TransmissionFlag.HAS_FLAGS | TransmissionFlag.CAN_MULTI_CONN)
    assert exports_agree([one, one]) == one
    with pytest.raises(UnsuitableConnection, match="these differ"):
        exports_agree([one, replace(one, size=1024)])


def test_several_connections_need_the_server_s_promise() -> None:
    check_setup(block_size=512, flags=TransmissionFlag.HAS_FLAGS, connections=1)
    check_setup(block_size=512, flags=TransmissionFlag.CAN_MULTI_CONN, connections=2)
    with pytest.raises(UnsuitableConnection, match="CAN_MULTI_CONN"):
        check_setup(block_size=512, flags=TransmissionFlag.HAS_FLAGS, connections=2)


@pytest.mark.parametrize("block_size", [0, 256, 511, 513, mmap.PAGESIZE * 2])
def test_block_sizes_are_powers_of_two_up_to_the_page(block_size: int) -> None:
    with pytest.raises(UsageError, match="the kernel takes 512, 1024"):
        check_setup(block_size=block_size, flags=TransmissionFlag.HAS_FLAGS, connections=1)
