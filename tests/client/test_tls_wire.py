"""Channels through TLS, and the fast lane's calls on them: they wait, give what has come, and never ask for more than
that.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from nbdtest.client.channel import RECORD, TLSChannel, Wire
from nbdtest.fixtures.pki import PKIMaterial
from nbdtest.net.tls import TLSPipe, client_context, server_context

HEADER = 28
SIZES = [1, 4096, RECORD - HEADER, RECORD, 60_000]


class Server:
    """The far end of a channel, without a thread: what it sends waits in the socket."""

    def __init__(self, pipe: TLSPipe, connected: socket.socket) -> None:
        self.pipe = pipe
        self.socket = connected
        connected.setblocking(False)

    def receive(self) -> None:
        with suppress(BlockingIOError):
            self.pipe.feed(self.socket.recv(1 << 16))

    def send(self, data: bytes) -> None:
        self.pipe.write(data)
        self.push()

    def end(self) -> None:
        self.pipe.close_notify()
        self.push()
        self.socket.shutdown(socket.SHUT_WR)

    def push(self) -> None:
        self.socket.sendall(self.pipe.to_send())


@pytest.fixture
def link(nbd_pki: PKIMaterial) -> Iterator[tuple[TLSChannel, Server]]:
    near, far = socket.socketpair()
    channel = TLSChannel(near, client_context(nbd_pki.client()))
    server = Server(TLSPipe(server_context(nbd_pki.server())), far)
    while not channel.handshake():
        server.receive()
        server.pipe.handshake()
        server.push()
    server.receive()
    assert server.pipe.handshake()
    server.push()
    yield channel, server
    channel.close()
    far.close()


@pytest.fixture
def ends(link: tuple[TLSChannel, Server]) -> tuple[Wire, Server]:
    channel, server = link
    return channel.wire(), server


@pytest.mark.parametrize("size", SIZES)
def test_header_and_data_come_where_they_belong(ends: tuple[Wire, Server], size: int) -> None:
    wire, server = ends
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    server.send(b"h" * HEADER + data)
    header, buffer = bytearray(HEADER), bytearray(size)
    got = wire.readv((header, buffer))
    assert header == b"h" * HEADER
    if got < HEADER + size:
        got += wire.recv_into(memoryview(buffer)[got - HEADER :], 0, socket.MSG_WAITALL)
    assert got == HEADER + size
    assert buffer == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sent", [20, HEADER], ids=["less", "header"])
def test_a_reply_without_data_is_given_as_it_is(ends: tuple[Wire, Server], size: int, sent: int) -> None:
    wire, server = ends
    server.send(b"e" * sent)
    header, buffer = bytearray(HEADER), bytearray(size)
    assert wire.readv((header, buffer)) == sent
    assert header[:sent] == b"e" * sent
    assert len(header) == HEADER
    assert buffer == bytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_the_end_comes_after_what_was_sent(ends: tuple[Wire, Server], size: int) -> None:
    wire, server = ends
    server.send(b"e" * HEADER)
    server.end()
    assert wire.readv((bytearray(HEADER), bytearray(size))) == HEADER
    assert wire.recv(64) == b""


def test_polling_does_not_wait_for_what_has_left_the_socket(ends: tuple[Wire, Server]) -> None:
    wire, server = ends
    server.send(b"first second")
    assert wire.recv(6) == b"first "
    wire.poll()
    assert wire.recv(64) == b"second"
    server.send(b"third")
    wire.poll()
    assert wire.recv(64) == b"third"


def test_waiting_gives_what_has_come(link: tuple[TLSChannel, Server]) -> None:
    channel, server = link
    space = memoryview(bytearray(64))
    for words in (b"first", b"second"):
        server.send(words)
        assert channel.receive_waiting(space, whole=False) == len(words)
        assert space[: len(words)] == words
        assert not channel.holds_bytes
    server.end()
    assert channel.receive_waiting(space, whole=False) == 0


@pytest.mark.parametrize(
    "receive",
    [
        pytest.param(lambda channel, space: channel.receive_waiting(space, whole=False), id="engine"),
        pytest.param(lambda channel, space: channel.wire().recv_into(space, 0, 0), id="lane"),
    ],
)
def test_what_tls_itself_has_to_answer_is_sent_before_waiting(
    link: tuple[TLSChannel, Server], receive: Callable[[TLSChannel, memoryview], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a renegotiation: something came that was no data, and the server waits for the answer."""
    channel, server = link
    decrypt = channel.pipe.read_into

    def something_else(buffer: bytearray | memoryview) -> int:
        monkeypatch.setattr(channel.pipe, "read_into", decrypt)
        channel.pipe.write(b"answer")
        server.send(b"data")
        return 0

    monkeypatch.setattr(channel.pipe, "read_into", something_else)
    channel.pipe.is_dry = False
    space = memoryview(bytearray(64))
    assert receive(channel, space) == 4
    server.receive()
    received = bytearray(64)
    assert received[: server.pipe.read_into(received)] == b"answer"
