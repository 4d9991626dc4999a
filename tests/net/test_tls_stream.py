"""TLS on a blocking stream keeps the promises of every stream."""

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from nbdtest.errors import Disconnected, TimedOut
from nbdtest.fixtures.pki import PKIMaterial, PSKMaterial
from nbdtest.net.clock import Deadline
from nbdtest.net.sockets import stream_pair
from nbdtest.net.stream import Arrival, SocketStream
from nbdtest.net.tls import (
    HandshakeFailed,
    TLSBroken,
    TLSClosed,
    TLSContext,
    TLSStream,
    TLSTruncated,
    client_context,
    server_context,
    start_tls,
)

T = TypeVar("T")


class Meanwhile:
    """Something done in a thread; `result` waits for it and raises what it raised."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._outcome: list[T] = []
        self._error: list[BaseException] = []

        def run() -> None:
            try:
                self._outcome.append(work())
            except BaseException as error:  # noqa: BLE001  # raised again in the test
                self._error.append(error)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def result(self) -> T:
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._error:
            raise self._error[0]
        return self._outcome[0]


Pair = tuple[TLSStream, TLSStream]


@pytest.fixture(params=["x509", "psk"])
def contexts(
    request: pytest.FixtureRequest, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial
) -> tuple[TLSContext, TLSContext]:
    if request.param == "psk":
        return client_context(nbd_psk.client()), server_context(nbd_psk.server())
    return client_context(nbd_pki.client(hostname="localhost")), server_context(nbd_pki.server())


@pytest.fixture
def lower() -> Iterator[tuple[SocketStream, SocketStream]]:
    ours, theirs = stream_pair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def pair(contexts: tuple[TLSContext, TLSContext], lower: tuple[SocketStream, SocketStream]) -> Iterator[Pair]:
    server = Meanwhile(lambda: start_tls(lower[1], contexts[1]))
    client = start_tls(lower[0], contexts[0])
    with client, server.result() as accepted:
        yield client, accepted


def test_a_message_is_received_exactly(pair: Pair) -> None:
    client, server = pair
    client.send_all(b"IHAVEOPT", b"\0\0\0\3", b"", b"\0\0\0\0")
    assert server.receive_exact(8) == b"IHAVEOPT"
    assert server.receive_exact(8) == b"\0\0\0\3\0\0\0\0"
    server.send_all(b"reply")
    assert client.receive_some() == b"reply"


def test_more_than_the_sockets_hold(pair: Pair) -> None:
    client, server = pair
    payload = bytes(range(256)) * 20_000
    sending = Meanwhile(lambda: client.send_all(b"header", payload))
    assert server.receive_exact(6) == b"header"
    assert server.receive_exact(len(payload)) == payload
    sending.result()


def test_nothing_arrives_on_a_silent_session(pair: Pair) -> None:
    client, server = pair
    assert client.nothing_arrives(0.01)
    with pytest.raises(TimedOut, match=r"nothing arrived in 0\.01 s"):
        server.receive_some(deadline=Deadline(0.01))


def test_arrival_sees_what_is_decrypted_already_and_leaves_it(pair: Pair) -> None:
    client, server = pair
    server.send_all(b"a" * 100)
    assert client.arrival(10) is Arrival.BYTES
    assert client.receive_exact(10) == b"a" * 10
    assert client.arrival(0) is Arrival.BYTES
    assert client.receive_exact(90) == b"a" * 90
    assert client.arrival(0) is Arrival.NOTHING


def test_arrival_is_not_fooled_by_half_a_record(pair: Pair) -> None:
    client, server = pair
    server.pipe.write(b"reply")
    record = server.pipe.to_send()
    server.lower.send_all(record[:-1])
    assert client.arrival(0.01) is Arrival.NOTHING
    server.lower.send_all(record[-1:])
    assert client.arrival(10) is Arrival.BYTES


def test_close_says_goodbye(pair: Pair) -> None:
    client, server = pair
    server.send_all(b"last")
    server.close()
    assert client.receive_exact(4) == b"last"
    assert client.arrival(10) is Arrival.END
    with pytest.raises(TLSClosed):
        client.receive_some()
    assert issubclass(TLSClosed, Disconnected)


def test_cut_says_none(pair: Pair) -> None:
    client, server = pair
    server.send_all(b"last")
    server.cut()
    assert client.receive_exact(4) == b"last"
    with pytest.raises(TLSTruncated):
        client.receive_some()


def test_half_close_leaves_our_ears_open(pair: Pair) -> None:
    client, server = pair
    client.half_close()
    assert server.receive_to_end() == b""
    server.send_all(b"answer")
    server.close()
    assert client.receive_to_end() == b"answer"


def test_the_end_names_what_was_expected(pair: Pair) -> None:
    client, server = pair
    server.send_all(b"1234")
    server.close()
    with pytest.raises(Disconnected, match="16 bytes of a reply header were expected and 4 bytes arrived: 31 32 33 34"):
        client.receive_exact(16, what="a reply header")


def test_closing_twice_is_harmless(pair: Pair) -> None:
    client, server = pair
    server.close()
    server.close()
    client.receive_to_end()
    client.close()
    client.close()


def test_closing_does_not_wait_for_a_peer_that_does_not_read(pair: Pair) -> None:
    client, _ = pair
    with pytest.raises(TimedOut):
        client.send_all(bytes(1 << 22), deadline=Deadline(0.05))
    client.close()


def test_interrupt_wakes_a_reader(pair: Pair) -> None:
    client, _ = pair
    reading = Meanwhile(client.receive_some)
    client.interrupt()
    with pytest.raises(Disconnected):
        reading.result()


def test_plaintext_inside_the_session_is_a_failure_not_an_end(pair: Pair) -> None:
    client, server = pair
    server.lower.send_all(bytes(40))
    with pytest.raises(TLSBroken, match="not TLS"):
        client.arrival(10)


def test_a_failed_handshake_tells_both_sides(
    lower: tuple[SocketStream, SocketStream], nbd_pki: PKIMaterial, nbd_psk: PSKMaterial
) -> None:
    server = Meanwhile(lambda: start_tls(lower[1], server_context(nbd_pki.server())))
    with pytest.raises(HandshakeFailed, match="the server's certificate is refused: Hostname mismatch"):
        start_tls(lower[0], client_context(nbd_pki.client(hostname="elsewhere.example")))
    with pytest.raises(HandshakeFailed, match="the client refused TLS: bad certificate"):
        server.result()
    assert lower[0].fileno() >= 0


def test_a_peer_that_closes_in_the_handshake(
    contexts: tuple[TLSContext, TLSContext], lower: tuple[SocketStream, SocketStream]
) -> None:
    lower[1].half_close()
    with pytest.raises(HandshakeFailed, match="the server closed the connection in the TLS handshake, before it sent"):
        start_tls(lower[0], contexts[0])


def test_a_peer_that_is_silent_in_the_handshake(
    contexts: tuple[TLSContext, TLSContext], lower: tuple[SocketStream, SocketStream]
) -> None:
    with pytest.raises(TimedOut, match="the server's part of the TLS handshake was expected"):
        start_tls(lower[0], contexts[0], Deadline(0.01))
    with pytest.raises(TimedOut, match="the client's part of the TLS handshake was expected"):
        start_tls(lower[0], contexts[1], Deadline(0.01))
