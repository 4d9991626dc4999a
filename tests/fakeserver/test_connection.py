"""A connection between a socket and an engine: when TLS comes in between. No thread and no waiting."""

from __future__ import annotations

import socket
from typing import Self

from nbdtest.fakeserver import Action, Export, Journal, RuleBook, Settings, TLSMode, ack, drip, stall
from nbdtest.fakeserver.connection import Connection
from nbdtest.fakeserver.engine import Engine
from nbdtest.fixtures.pki import PSKMaterial
from nbdtest.net.stream import SocketStream
from nbdtest.net.tls import TLSPipe, client_context, server_context
from nbdtest.wire import ClientFlags, Opt, Option, OptionReply, Rep

ACK = OptionReply(option=Opt.STARTTLS, type=Rep.ACK).encode()
RECORD_OF_A_HANDSHAKE = b"\x16"


class Client:
    """The other end of the socket. What the server says is there as soon as it has been said."""

    def __init__(self, psk: PSKMaterial, *answer: Action) -> None:
        rules = RuleBook()
        rules.on(Opt.STARTTLS).reply(*answer)
        settings = Settings(exports=(Export(size=512),), tls_mode=TLSMode.SELECTIVE)
        ours, self.socket = socket.socketpair()
        self.connection = Connection(
            SocketStream(ours), Engine(settings, rules, Journal()), Journal(), tls=server_context(psk.server())
        )
        self.pipe = TLSPipe(client_context(psk.client()))
        self.connection.start()
        self.hears()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()
        self.socket.close()

    def say(self, *data: bytes) -> None:
        self.connection.take_in(b"".join(data))

    def hears(self) -> bytes:
        try:
            return self.socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    def hello(self) -> bytes:
        self.pipe.handshake()
        return self.pipe.to_send()


def starttls(client: Client) -> None:
    client.say(ClientFlags().encode(), Option(option=Opt.STARTTLS).encode())


def test_tls_follows_the_acknowledgement(nbd_psk: PSKMaterial) -> None:
    with Client(nbd_psk, ack()) as client:
        starttls(client)
        assert client.hears() == ACK
        client.say(client.hello())
        assert client.hears()[:1] == RECORD_OF_A_HANDSHAKE


def test_a_stall_after_the_acknowledgement_keeps_tls_back(nbd_psk: PSKMaterial) -> None:
    with Client(nbd_psk, ack(), stall()) as client:
        starttls(client)
        assert client.hears() == ACK
        client.say(client.hello())
        assert client.hears() == b""
        assert not client.connection.closed


def test_an_acknowledgement_that_drips_leaves_in_clear(nbd_psk: PSKMaterial) -> None:
    with Client(nbd_psk, drip(every_s=3600.0), ack()) as client:
        starttls(client)
        assert client.hears() == b""
        client.say(client.hello())
        assert client.hears() == b""
        assert client.connection.tls_layer is None
