"""The byte stream, over TCP on both families and over Unix sockets."""

import array
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from nbdtest.errors import Disconnected, TimedOut, TransportError, UsageError
from nbdtest.net.addresses import TCPAddress
from nbdtest.net.clock import Deadline
from nbdtest.net.sockets import connect, listen, stream_pair
from nbdtest.net.stream import Arrival, SocketStream

NOW = Deadline(0)
Pair = tuple[SocketStream, SocketStream]
MakePair = Callable[[], Pair]


def tcp_pair(host: str) -> Pair:
    with listen(TCPAddress(host, 0)) as listener:
        return connect(listener.address), listener.accept(Deadline(5))


@pytest.fixture(params=["unix", "127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    one, other = stream_pair() if request.param == "unix" else tcp_pair(request.param)
    with one, other:
        yield one, other


@pytest.fixture
def tcp() -> Iterator[Pair]:
    one, other = tcp_pair("127.0.0.1")
    with one, other:
        yield one, other


@pytest.fixture
def unix() -> Iterator[Pair]:
    one, other = stream_pair()
    with one, other:
        yield one, other


def test_pieces_arrive_in_order_as_one_stream(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"NBD", bytearray(b"MA"), memoryview(b"GIC"), b"", array.array("H", [0x2121]).tobytes())
    assert other.receive_exact(10) == b"NBDMAGIC!!"


def test_a_view_of_wide_items_is_sent_as_its_bytes(pair: Pair) -> None:
    one, other = pair
    one.send_all(memoryview(array.array("I", [0x61616161, 0x62626262])))
    assert other.receive_exact(8) == b"aaaabbbb"


def test_sending_nothing_is_no_error(pair: Pair) -> None:
    one, other = pair
    one.send_all()
    one.send_all(b"", b"")
    assert other.nothing_arrives(0)


def test_more_pieces_than_one_system_call_takes(pair: Pair) -> None:
    one, other = pair
    one.send_all(*[b"%04d" % number for number in range(3000)])
    received = other.receive_exact(12_000)
    assert received[:8] == b"00000001"
    assert received[-4:] == b"2999"


def test_megabytes_pass_while_both_sides_are_at_work(pair: Pair) -> None:
    one, other = pair
    sent = bytes(range(256)) * (8 << 12)
    sender = threading.Thread(target=one.send_all, args=(sent[:1000], sent[1000:]))
    sender.start()
    received = bytearray(len(sent))
    other.fill(received)
    sender.join()
    assert received == sent


def test_receive_some_takes_what_is_there(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"abcdef")
    assert other.receive_some(4) == b"abcd"
    assert other.receive_some() == b"ef"


def test_receive_into_fills_the_start_of_the_buffer(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"xyz")
    buffer = bytearray(b"........")
    assert other.receive_into(memoryview(buffer)) == 3
    assert buffer == b"xyz....."


def test_nothing_to_receive_needs_no_connection(pair: Pair) -> None:
    one, other = pair
    one.close()
    assert other.receive_exact(0) == b""


def test_an_empty_buffer_is_the_callers_mistake(unix: Pair) -> None:
    one, other = unix
    one.send_all(b"x")
    with pytest.raises(UsageError, match="0 bytes"):
        other.receive_into(bytearray())


def test_silence_is_timed_out(pair: Pair) -> None:
    _, other = pair
    with pytest.raises(TimedOut, match=r"^nothing arrived in 0 s while a greeting was expected$") as caught:
        other.receive_some(deadline=NOW, what="a greeting")
    assert caught.value.received == b""


def test_the_streams_own_limit_counts_without_a_deadline(pair: Pair) -> None:
    _, other = pair
    other.timeout_s = 0.001
    with pytest.raises(TimedOut, match=r"0\.001 s"):
        other.receive_some()


def test_a_timeout_says_what_was_expected_and_what_had_arrived(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"\x00\x03\xe8\x89")
    with pytest.raises(
        TimedOut, match=r"20 bytes of an option reply were expected and 4 bytes arrived: 00 03 e8 89$"
    ) as caught:
        other.receive_exact(20, Deadline(0.05), what="an option reply")
    assert caught.value.received == b"\x00\x03\xe8\x89"


def test_only_the_beginning_of_what_had_arrived_is_shown(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"\xaa" * 1000)
    one.half_close()
    with pytest.raises(Disconnected, match=r"1000 bytes arrived:( aa){32} \.\.\.$") as caught:
        other.receive_exact(1001)
    assert caught.value.received == b"\xaa" * 1000


def test_a_fin_in_the_middle_of_a_message_is_a_disconnect(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"NBDM")
    one.close()
    with pytest.raises(Disconnected, match=r"^the peer closed the connection where 8 bytes were expected") as caught:
        other.receive_exact(8)
    assert caught.value.received == b"NBDM"
    assert not caught.value.reset


def test_a_rst_in_the_middle_of_a_message_is_a_reset(tcp: Pair) -> None:
    one, other = tcp
    one.send_all(b"NBDM")
    assert other.arrival(5) is Arrival.BYTES  # a reset may overtake bytes that are still on their way
    one.cut(rst=True)
    with pytest.raises(Disconnected, match=r"^the peer reset the connection where 8 bytes of a magic") as caught:
        other.receive_exact(8, what="a magic")
    assert caught.value.received == b"NBDM"
    assert caught.value.reset


def test_a_reset_that_was_watched_is_still_a_reset_when_received(tcp: Pair) -> None:
    one, other = tcp
    one.cut(rst=True)
    assert other.arrival(5) is Arrival.END
    with pytest.raises(Disconnected) as caught:
        other.receive_exact(1)
    assert caught.value.reset


def test_unread_bytes_do_not_turn_a_cut_into_a_reset(pair: Pair) -> None:
    one, other = pair
    other.send_all(b"never read")
    assert one.arrival(5) is Arrival.BYTES
    one.cut()
    with pytest.raises(Disconnected) as caught:
        other.receive_exact(1)
    assert not caught.value.reset


def test_a_unix_socket_cannot_reset_and_says_so(unix: Pair, tcp: Pair) -> None:
    assert not unix[0].can_reset
    assert tcp[0].can_reset
    unix[0].cut(rst=True)
    with pytest.raises(Disconnected) as caught:
        unix[1].receive_exact(1)
    assert not caught.value.reset


def test_sending_to_a_closed_unix_peer_is_a_disconnect(unix: Pair) -> None:
    one, other = unix
    other.close()
    with pytest.raises(Disconnected):
        one.send_all(b"x")


def test_sending_to_a_reset_connection_is_a_disconnect(tcp: Pair) -> None:
    one, other = tcp
    other.cut(rst=True)
    assert one.arrival(5) is Arrival.END
    with pytest.raises(Disconnected):
        one.send_all(b"x")


def test_a_peer_that_stops_reading_is_timed_out(pair: Pair) -> None:
    one, _ = pair
    with pytest.raises(TimedOut, match=r"^the peer stopped reading: [0-9]+ bytes could not be sent in 0 s$"):
        one.send_all(bytes(64 << 20), deadline=NOW)


def test_a_half_closed_stream_can_still_receive(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"question")
    one.half_close()
    assert other.receive_to_end() == b"question"
    other.send_all(b"answer")
    assert one.receive_exact(6) == b"answer"


def test_receive_to_end_takes_a_reset_as_an_end(tcp: Pair) -> None:
    one, other = tcp
    one.send_all(b"last words")
    assert other.arrival(5) is Arrival.BYTES
    one.cut(rst=True)
    assert other.receive_to_end() == b"last words"


def test_receive_to_end_reports_a_connection_that_stays_open(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"ab")
    with pytest.raises(
        TimedOut, match=r"^the connection is still open after 0.05 s and 2 bytes arrived: 61 62$"
    ) as caught:
        other.receive_to_end(deadline=Deadline(0.05))
    assert caught.value.received == b"ab"


def test_receive_to_end_gives_up_on_a_flood(pair: Pair) -> None:
    one, other = pair
    one.send_all(bytes(5000))
    with pytest.raises(TimedOut, match="more than 4999 bytes"):
        other.receive_to_end(4999)


def test_arrival_tells_silence_bytes_and_end_apart_and_takes_nothing(pair: Pair) -> None:
    one, other = pair
    assert other.arrival(0) is Arrival.NOTHING
    assert other.nothing_arrives(0)
    one.send_all(b"x")
    assert other.arrival(5) is Arrival.BYTES
    assert not other.nothing_arrives(5)
    assert other.receive_exact(1) == b"x"
    one.half_close()
    assert other.arrival(5) is Arrival.END
    assert not other.nothing_arrives(5)


def test_interrupt_wakes_a_thread_that_receives(pair: Pair) -> None:
    _, other = pair
    caught: list[BaseException] = []
    begun = threading.Event()

    def receive() -> None:
        begun.set()
        try:
            other.receive_exact(1, Deadline(None))
        except Disconnected as error:
            caught.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    begun.wait()
    other.interrupt()
    thread.join(5)
    assert len(caught) == 1


def test_use_after_close_is_a_transport_error(pair: Pair) -> None:
    one, _ = pair
    one.close()
    one.close()
    one.cut()
    one.half_close()
    one.interrupt()
    assert one.closed
    for call in (lambda: one.receive_exact(1), lambda: one.send_all(b"x"), lambda: one.arrival(0)):
        with pytest.raises(TransportError, match="this end of the connection is closed"):
            call()


def test_the_blocking_mode_of_the_socket_does_not_matter(unix: Pair) -> None:
    one, other = unix
    for mode in (True, False):
        other.raw_socket.setblocking(mode)
        one.send_all(b"x")
        assert other.receive_exact(1) == b"x"
        with pytest.raises(TimedOut):
            other.receive_exact(1, NOW)


def test_tcp_sends_small_messages_at_once(tcp: Pair) -> None:
    for end in tcp:
        assert end.raw_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_detached_socket_is_the_callers() -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(end) for end in stream_pair())
        raw = stack.enter_context(other.detach())
        assert other.closed
        one.send_all(b"x")
        assert raw.recv(1) == b"x"
