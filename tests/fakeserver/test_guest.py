"""Handshakes from memory: a guest's session is, byte for byte and note for note, what an engine's would be."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdtest.fakeserver import Engine, Export, FakeServer, Moment, close, error, pass_through, raw
from nbdtest.fakeserver.rules import Trigger, Where
from nbdtest.wire import ClientFlags, Cmd, Errno, InfoRequest, MetaContextRequest, Opt, Option, Request
from tests.fakeserver.wire_client import WireClient

SILENCE_S = 0.1
PATIENCE_S = 20.0
GO = Option(option=Opt.GO, data=InfoRequest(name="disk").encode()).encode()
DISC = Request(type=Cmd.DISC, cookie=1).encode()
BASE = MetaContextRequest(name="disk", queries=("base:allocation",)).encode()
DIALOGUES = {
    "disc": [ClientFlags().encode(), GO, DISC],
    "structured": [ClientFlags().encode() + Option(option=Opt.STRUCTURED_REPLY).encode(), GO, DISC],
    "contexts": [
        ClientFlags().encode(),
        Option(option=Opt.EXTENDED_HEADERS).encode(),
        Option(option=Opt.SET_META_CONTEXT, data=BASE).encode(),
        GO,
    ],
    "abort": [ClientFlags().encode(), Option(option=Opt.LIST).encode(), Option(option=Opt.ABORT).encode()],
    "export name": [ClientFlags().encode(), Option(option=Opt.EXPORT_NAME, data=b"disk").encode(), DISC],
    "unknown export": [ClientFlags().encode(), Option(option=Opt.EXPORT_NAME, data=b"?").encode()],
    "reading": [ClientFlags().encode(), GO, Request(type=Cmd.READ, cookie=1, length=4).encode(), DISC],
    "read and leave at once": [ClientFlags().encode(), GO, Request(type=Cmd.FLUSH, cookie=1).encode() + DISC],
    "no flags": [],
    "flags nobody offered": [ClientFlags().encode(flags=77)],
    "garbage": [ClientFlags().encode(), b"?" * 16],
    "violation": [
        ClientFlags().encode(),
        Option(option=Opt.LIST, data=b"x").encode(),
        Option(option=Opt.ABORT).encode(),
    ],
}


def server() -> FakeServer:
    return FakeServer(Export("disk", size=4096), tolerate=["*"])


def listener(to: FakeServer) -> WireClient:
    made = socket.socket(socket.AF_UNIX)
    made.connect(to.path)
    return WireClient(made)


def pair(to: FakeServer) -> WireClient:
    return WireClient(to.connect())


class Answer(NamedTuple):
    data: bytes
    is_last: bool
    """Whether the server hung up behind it."""


def hold(client: WireClient, dialogue: list[bytes], expected: list[Answer] | None = None) -> list[Answer]:
    """Say the parts, each after the answer to the one before.

    The first time, silence tells where an answer ends; later, the answers `expected` do.
    """
    client.socket.settimeout(SILENCE_S if expected is None else PATIENCE_S)
    answers = []
    for number, said in enumerate([b"", *dialogue]):
        data, is_last = b"", False
        with contextlib.suppress(TimeoutError, BrokenPipeError):
            client.say(said)
            while not is_last and (expected is None or Answer(data, is_last) != expected[number]):
                more = client.socket.recv(4096)
                data += more
                is_last = not more
        answers.append(Answer(data, is_last))
        if is_last:
            break
    client.socket.close()
    return answers


def told(of: FakeServer, connection: int) -> list[tuple[str, bytes]]:
    return [
        (record.summary, record.data)
        for record in of.journal.transcript()
        if record.connection == connection and record.summary != "FIN"
    ]


@pytest.mark.parametrize("dialogue", DIALOGUES.values(), ids=DIALOGUES)
def test_the_second_time_is_as_the_first_and_as_without_memory(dialogue: list[bytes]) -> None:
    with server() as fake:
        first = hold(listener(fake), dialogue)
        assert [hold(connect(fake), dialogue, first) for connect in (listener, pair)] == [first, first]
        fake.stop()
        assert told(fake, 1) == told(fake, 2) == told(fake, 3)
        violations = [str(noted.violation) for noted in fake.journal.violations]
        assert violations == violations[: len(violations) // 3] * 3


@settings(max_examples=20)
@given(st.sampled_from(list(DIALOGUES)), st.lists(st.integers(1, 30), max_size=8))
def test_pieces_make_no_difference(name: str, cuts: list[int]) -> None:
    whole = b"".join(DIALOGUES[name])
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(whole[at : at + cut])
        at += cut
    with server() as fake:
        assert monologue(listener(fake), [*pieces, whole[at:]]) == monologue(listener(fake), [whole])


def monologue(client: WireClient, pieces: list[bytes]) -> bytes:
    """Say everything without listening, and give what came back."""
    with client:
        with contextlib.suppress(OSError):  # the server may have hung up meanwhile
            for piece in pieces:
                client.say(piece)
            client.socket.shutdown(socket.SHUT_WR)
        return client.rest()


@pytest.mark.parametrize(
    "change",
    [
        lambda fake: fake.on(Opt.GO).reply(close()),
        lambda fake: fake.on(Moment.CLIENT_FLAGS).reply(close()),
        lambda fake: fake.configure(exports=()),
    ],
    ids=["option", "moment", "settings"],
)
def test_what_changes_the_handshake_ends_the_memory(change: Callable[[FakeServer], object]) -> None:
    with server() as fake:
        listener(fake).open("disk").leave()
        waiting = listener(fake)
        change(fake)
        with listener(fake) as client:
            client.greet_and_go("disk")
            assert not client.rest().endswith(bytes([0, 0, 0, 1, 0, 0, 0, 0]))
        waiting.socket.close()
        for rule in fake.rules.unused():
            rule.counted.fired = 1


def test_a_resized_disk_has_its_new_size() -> None:
    with server() as fake:
        listener(fake).open("disk").leave()
        fake.disk.resize(8192)
        client = listener(fake).open("disk")
        assert client.read(8000, 192) == bytes(192)
        client.leave()


@pytest.mark.parametrize(
    ("trigger", "where"),
    [
        (Moment.CONNECT, None),
        (Moment.GREETING, {"requests": 0}),
        (Moment.CLIENT_FLAGS, lambda message: message == ClientFlags()),
        (Opt.GO, {"name": "disk"}),
        (Moment.TRANSMISSION, None),
        (Cmd.DISC, {"cookie": 1}),
    ],
    ids=["connect", "greeting", "client flags", "option", "transmission", "disc"],
)
def test_a_rule_for_the_third_time_acts_on_guests_then(trigger: Trigger, where: Where) -> None:
    with server() as fake:
        rule = fake.on(trigger, nth=3, where=where).reply(raw(b"third"), close())
        later = fake.on(trigger, nth=100).reply(close())
        for number in (1, 2):
            listener(fake).open("disk").leave()
            assert (rule.fired, later.counted.seen) == (0, {None: number})
        assert monologue(listener(fake), DIALOGUES["disc"]).endswith(b"third")
        assert (rule.fired, later.counted.seen) == (1, {None: 3})
        listener(fake).open("disk").leave()
        assert (rule.fired, later.counted.seen) == (1, {None: 4})
        later.counted.fired = 1


def test_rules_that_wait_leave_the_memory_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def visit() -> None:
        with listener(fake) as client:
            client.take(18)
            client.say(ClientFlags(), GO)  # in one piece, or the memory could not know it again
            client.take(52)
            client.say(DISC)
            client.rest()

    with server() as fake:
        waiting = fake.on(Opt.GO, nth=100).reply(close())
        visit()
        monkeypatch.delattr(Engine, "start")  # nobody needs an engine now
        monkeypatch.delattr(Engine, "receive")
        visit()
        assert waiting.counted.seen == {None: 2}
        waiting.counted.fired = 1


def test_a_rule_for_a_command_acts_on_guests_too() -> None:
    with server() as fake:
        fake.on(Cmd.READ, nth=2).reply(error(Errno.EIO))
        fake.on(Cmd.FLUSH).reply(pass_through())
        for expected in (Errno.OK, Errno.EIO):
            client = listener(fake).open("disk")
            client.request(Cmd.READ, 0, 4)
            assert client.reply()[0].error == expected
            client.take(4 if expected == Errno.OK else 0)
            client.request(Cmd.FLUSH)
            client.reply()
            client.leave()
