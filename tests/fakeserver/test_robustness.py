"""Any bytes from any client, in any pieces: no exception, bounded memory, and everybody else is still served."""

from __future__ import annotations

import resource
import socket
import struct
import threading

from hypothesis import given
from hypothesis import strategies as st

from nbdtest.fakeserver import BlockSizes, Export, FakeServer, RuleBook, Style, TLSMode
from nbdtest.fakeserver.engine import HIGH_WATER
from nbdtest.fakeserver.outbox import End
from nbdtest.wire import (
    EXTENDED_REQUEST_MAGIC,
    OPTION_MAGIC,
    REQUEST_MAGIC,
    Cmd,
    ExtendedRequest,
    InfoRequest,
    MetaContextRequest,
    Opt,
    Option,
    OptionHeader,
    Request,
)
from tests.fakeserver.talk import Talk
from tests.fakeserver.wire_client import WireClient

small = st.integers(0, 40)
numbers = st.one_of(small, st.sampled_from([1 << 16, (1 << 20) - 1, 1 << 20, (1 << 32) - 1, (1 << 64) - 1]))
options = st.builds(
    lambda option, data, length: (
        struct.pack(">QII", OPTION_MAGIC, option, min(len(data) if length is None else length, 4096)) + data
    ),
    small,
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda name: InfoRequest(name=name).encode(), st.text(max_size=5)),
        st.builds(lambda *queries: MetaContextRequest(queries=queries).encode(), st.sampled_from(["base:", "x"])),
    ),
    st.one_of(st.none(), small),
)
requests = st.builds(
    lambda extended, flags, type_, cookie, offset, length, payload: (
        (
            struct.pack(">IHHQQQ", EXTENDED_REQUEST_MAGIC, flags, type_, cookie, offset, length)
            if extended
            else struct.pack(">IHHQQI", REQUEST_MAGIC, flags, type_, cookie, offset, length & 0xFFFF_FFFF)
        )
        + payload
    ),
    st.booleans(),
    st.integers(0, 0x80),
    small,
    small,
    numbers,
    numbers,
    st.binary(max_size=64),
)
noise = st.lists(st.one_of(options, requests, st.binary(max_size=50)), max_size=12)
pieces = st.lists(st.integers(1, 64), max_size=30)
styles = st.sampled_from(Style)
modes = st.sampled_from(TLSMode)


def feed(talk: Talk, data: bytes, sizes: list[int]) -> None:
    at = 0
    for size in sizes:
        talk.say(data[at : at + size])
        at += size
    talk.say(data[at:])


@given(noise, pieces, styles, modes)
def test_any_bytes_in_any_pieces_are_survived(said: list[bytes], sizes: list[int], style: Style, mode: TLSMode) -> None:
    talk = Talk(style=style, tls_mode=mode).start()
    feed(talk, b"\0\0\0\3" + b"".join(said), sizes)
    talk.hang_up()
    assert talk.journal.problems == []


@given(noise, pieces, st.booleans(), st.booleans())
def test_any_requests_are_survived(said: list[bytes], sizes: list[int], structured: bool, extended: bool) -> None:
    export = Export(size=1 << 20, block_sizes=BlockSizes(minimum=512, maximum=65536), can_resize=True)
    talk = Talk(export).open(structured=structured, extended=extended, contexts=("base:allocation",))
    feed(talk, b"".join(said), sizes)
    talk.hang_up()
    assert talk.journal.problems == []


@given(noise, pieces, st.booleans())
def test_how_bytes_are_cut_makes_no_difference(said: list[bytes], sizes: list[int], extended: bool) -> None:
    answers = []
    for cut in ([], sizes):
        talk = Talk().open(extended=extended)
        feed(talk, b"".join(said), cut)
        answers.append((bytes(talk.received), talk.violations, talk.end))
    assert answers[0] == answers[1]


class TestBoundedMemory:
    def test_a_long_option_is_skipped_piece_by_piece(self) -> None:
        talk = Talk().greeted()
        talk.say(OptionHeader(option=Opt(77), length=32 << 20))
        for _ in range(32):
            talk.say(bytes(1 << 20))
            assert talk.engine.wants_bytes
        assert [reply.option for reply in talk.option_replies()] == [77]

    def test_an_option_of_4_gib_ends_the_connection(self) -> None:
        for option in (Opt.EXPORT_NAME, Opt.GO, Opt.LIST, Opt(77)):
            talk = Talk().greeted()
            talk.say(OptionHeader(option=option, length=0xFFFF_FFFF))
            assert talk.end is End.FIN

    def test_a_known_option_with_too_much_data_is_refused_in_step(self) -> None:
        talk = Talk().greeted()
        talk.say(Option(option=Opt.GO, data=bytes(1 << 20)))
        assert [str(reply.type) for reply in talk.option_replies()] == ["REP_ERR_TOO_BIG"]
        talk.go()

    def test_a_payload_of_64_bits_ends_the_connection(self) -> None:
        talk = Talk().open(extended=True)
        talk.request(Cmd.TRIM, 0, (1 << 64) - 1, flags=1 << 5)
        assert talk.end is End.FIN

    def test_a_client_that_does_not_read_is_not_read_from(self) -> None:
        talk = Talk(size=1 << 20).open()
        engine = talk.engine
        for cookie in range(100):
            engine.receive(Request(type=Cmd.READ, cookie=cookie, length=1 << 20).encode(), 0.0)
        assert not engine.wants_bytes
        assert sum(len(piece) for piece in engine.data_to_send(0.0)) < HIGH_WATER + (2 << 20)

    def test_what_it_asked_for_comes_when_it_reads_again(self) -> None:
        talk = Talk(size=1 << 20).open()
        for cookie in range(100):
            talk.engine.receive(Request(type=Cmd.READ, cookie=cookie, length=1 << 20).encode(), 0.0)
        talk.say(b"")
        assert len(talk.received) == 100 * (16 + (1 << 20))

    def test_the_journal_forgets(self) -> None:
        talk = Talk().open()
        for _ in range(30_000):
            talk.engine.observer.event(1, 0.0, "something")
        assert len(talk.journal) == 20_000

    def test_violations_are_counted_no_further_than_is_useful(self) -> None:
        talk = Talk().open()
        for _ in range(1100):
            talk.engine.receive(Request(type=Cmd(99), cookie=1).encode(), 0.0)
        assert len(talk.journal.violations) == 1000


def connected(server: FakeServer) -> WireClient:
    return WireClient(server.connect())


def unix(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    return made


def test_a_thousand_idle_connections_hold_up_nobody() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with FakeServer(size=512) as server:
            idle = [unix(server.path) for _ in range(1000)]
            threads = threading.active_count()
            client = connected(server).open()
            assert client.read(0, 4) == bytes(4)
            client.leave()
            assert threading.active_count() == threads
            for each in idle:
                each.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_opened_and_dropped_leave_nothing() -> None:
    with FakeServer(size=512) as server:
        path = server.path
        for number in range(2000):
            client = unix(path)
            if number % 3 == 1:
                client.sendall(b"\0\0\0\3IHAVE")
            client.close()
        last = connected(server).open()
        last.leave()
        server.tolerate("TERM-010")


def test_running_out_of_descriptors_is_survived() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with FakeServer(size=512) as server:
        path = server.path
        client = connected(server).open()
        held: list[socket.socket] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.socket.fileno() + 40, hard))
        try:
            while True:
                held.append(unix(path))
        except OSError:
            pass
        finally:
            assert client.read(0, 4) == bytes(4)
            for each in held:
                each.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        again = WireClient(unix(path)).open()
        again.leave()
        client.leave()


def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    with FakeServer(size=1 << 20) as server:
        greedy, other = connected(server).open(), connected(server).open()
        for _ in range(64):
            greedy.request(Cmd.READ, 0, 1 << 20)
        assert other.read(0, 4) == bytes(4)
        other.leave()
        greedy.socket.close()
        server.tolerate("TERM-042")


def test_a_client_that_sends_half_a_message_holds_up_nobody() -> None:
    with FakeServer(size=1 << 20) as server:
        half, other = connected(server).open(), connected(server).open()
        half.say(ExtendedRequest(type=Cmd.READ, cookie=1).encode()[:5])
        assert other.read(0, 4) == bytes(4)
        other.leave()
        half.socket.close()
        server.tolerate("TERM-042")


def test_rules_may_be_made_while_many_are_served() -> None:
    with FakeServer(size=512) as server:
        stop = threading.Event()

        def makes_rules() -> None:
            while not stop.is_set():
                server.on(Cmd.CACHE, where={"offset": 1}).pass_through()
                if len(server.rules.rules) > 500:
                    server.rules.rules.clear()

        maker = threading.Thread(target=makes_rules)
        maker.start()
        clients = [connected(server).open() for _ in range(4)]
        for _ in range(100):
            for client in clients:
                assert client.read(0, 4) == bytes(4)
        stop.set()
        maker.join()
        server.rules.rules.clear()
        for client in clients:
            client.leave()


def test_a_rule_book_is_quick_when_it_is_empty() -> None:
    assert RuleBook().find(Cmd.READ, None, 1) is None
