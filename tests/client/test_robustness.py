"""Whatever a server sends, in whatever state: a result, CLOSED or DEAD, the same however the bytes were split.

The properties hold for the engine, which has no socket and no clock. `nightly` runs look at many more examples.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from ctypes import c_int
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdtest.client import negotiation, replies, states
from nbdtest.client.commands import Command
from nbdtest.client.engine import Engine
from nbdtest.client.inbox import CAPACITY, WORTH_LENDING
from nbdtest.client.settings import Settings
from nbdtest.wire import (
    BlockStatus,
    BlockStatusExt,
    Cmd,
    Errno,
    Extent,
    InfoExport,
    MetaContext,
    OffsetData,
    OldstyleGreeting,
    Opt,
    OptionReply,
    Rep,
    ReplyFlag,
    ReplyType,
    ServerExport,
    SimpleReply,
)
from tests.client.prepared import (
    ALL_FLAGS,
    ack,
    chunk,
    data_chunk,
    done,
    error_chunk,
    go_info,
    handshake,
    hole_chunk,
    refuse,
)

BASE = (7, "base:allocation")


@dataclass
class Outcome:
    """What a test can see of a run."""

    state: str = ""
    failure: str = ""
    facts: object = None
    told: list[object] = field(default_factory=list)
    buffers: list[bytes | bytearray] = field(default_factory=list)
    ends: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Situation:
    """A state of the engine, and what an honest server says next."""

    begin: Callable[[Outcome], Engine]
    honest: bytes


def feed(engine: Engine, data: bytes, splits: list[int]) -> None:
    at = 0
    turn = 0
    while at < len(data) and not engine.over:
        drain(engine)
        space = engine.receive_space()
        count = min(splits[turn % len(splits)], len(data) - at, len(space))
        space[:count] = data[at : at + count]
        engine.received(count)
        at += count
        turn += 1
    drain(engine)


def drain(engine: Engine) -> None:
    while engine.has_output and not engine.over:
        engine.sent(sum(map(len, engine.output())))


def fresh(**settings: object) -> Engine:
    engine = Engine(Settings("test", **settings))  # type: ignore[arg-type]  # the situations name the fields
    engine.start()
    return engine


def negotiating() -> Engine:
    engine = fresh(opt_mode=True, request_extended_headers=False, request_structured_replies=False)
    feed(engine, handshake()[:18], [64])
    assert engine.state is states.NEGOTIATING
    return engine


def option(begin: Callable[[Engine, Outcome], negotiation.Dialogue], *honest: bytes) -> Situation:
    def reach(outcome: Outcome) -> Engine:
        engine = negotiating()
        engine.begin_option(begin(engine, outcome), lambda error: outcome.told.append(error.value))
        return engine

    return Situation(reach, b"".join(honest))


def transmitting(outcome: Outcome, **server: object) -> Engine:
    engine = fresh(meta_contexts=[BASE[1]])
    contexts = [BASE] if server.get("structured", True) else []
    feed(engine, handshake(contexts=contexts, **server), [1 << 20])  # type: ignore[arg-type]  # as the situations say
    if not server.get("structured", True):
        engine.meta_valid = True
    assert engine.state is states.READY
    outcome.ends.update({cookie: [] for cookie in range(1, 6)})

    def completion(cookie: int) -> Callable[[c_int], int]:
        def ended(error: c_int) -> int:
            outcome.ends[cookie].append(error.value)
            return 1

        return ended

    def tell(*what: object) -> int:
        outcome.told.append([bytes(item) if isinstance(item, memoryview) else item for item in what[:-1]])
        return 0

    commands = [
        Command(Cmd.READ, 0, 64, chunk=tell),
        Command(Cmd.READ, 4096, 20_000),
        Command(Cmd.WRITE, 0, 5, view=memoryview(b"write")),
        Command(Cmd.FLUSH, 0, 0),
        Command(Cmd.BLOCK_STATUS, 0, 1 << 20, extent=tell),
    ]
    for cookie, command in enumerate(commands, start=1):
        if command.type == Cmd.READ:
            buffer = bytearray(b"\xee" * command.count)
            command.view = memoryview(buffer)
            outcome.buffers.append(buffer)
        command.completion = completion(cookie)
        engine.submit(command)
    drain(engine)
    return engine


def extended_data(cookie: int, offset: int, data: bytes) -> bytes:
    payload = OffsetData(offset=offset, data=data).encode()
    return chunk(cookie, ReplyType.OFFSET_DATA, payload, offset=offset)


BIG = bytes(range(256)) * 79
STATUS = BlockStatus(context_id=7, extents=(Extent(4096, 0), Extent(8192, 3))).encode()
WIDE = BlockStatusExt(context_id=7, extents=(Extent(4096, 0), Extent(8192, 3))).encode()
MORE = ReplyFlag(0)
META = OptionReply(
    option=Opt.LIST_META_CONTEXT, type=Rep.META_CONTEXT, data=MetaContext(id=3, name="base:allocation").encode()
).encode()

SITUATIONS = {
    "greeting": Situation(lambda _: fresh(), handshake()),
    "greeting-contexts": Situation(
        lambda _: fresh(meta_contexts=[BASE[1]], full_info=True), handshake(contexts=[BASE])
    ),
    "greeting-extended": Situation(lambda _: fresh(), handshake(extended=True, blocks=(1, 512, 1 << 20))),
    "greeting-refused": Situation(lambda _: fresh(), handshake()[:18] + refuse(Opt.EXTENDED_HEADERS, text="no" * 2000)),
    "oldstyle": Situation(lambda _: fresh(), OldstyleGreeting(size=4096, flags=ALL_FLAGS).encode()),
    "export-name": Situation(lambda _: fresh(handshake_flags=0), handshake()[:18] + bytes(9) + b"\3" + bytes(124)),
    "tls": Situation(lambda _: fresh(tls=1), handshake()[:18] + refuse(Opt.STARTTLS) + handshake()[18:]),
    "starttls": option(lambda engine, _: negotiation.starttls(engine), ack(Opt.STARTTLS)),
    "structured": option(lambda engine, _: negotiation.structured_reply(engine), ack(Opt.STRUCTURED_REPLY)),
    "extended": option(lambda engine, _: negotiation.extended_headers(engine), ack(Opt.EXTENDED_HEADERS)),
    "list": option(
        lambda engine, outcome: negotiation.list_exports(engine, lambda *words: outcome.told.append(words)),
        *(
            OptionReply(option=Opt.LIST, type=Rep.SERVER, data=ServerExport(name=name).encode()).encode()
            for name in ("", "a", "b" * 300)
        ),
        ack(Opt.LIST),
    ),
    "list-meta": option(
        lambda engine, outcome: negotiation.list_meta_contexts(engine, ["base:"], outcome.told.append),
        META,
        ack(Opt.LIST_META_CONTEXT),
    ),
    "go": option(lambda engine, _: negotiation.go(engine), go_info(InfoExport(size=512, flags=ALL_FLAGS)), ack(Opt.GO)),
    "raw": option(
        lambda engine, outcome: negotiation.raw_option(engine, 99, b"x", lambda *reply: outcome.told.append(reply)),
        OptionReply(option=Opt(99), type=Rep(50), data=b"?").encode(),
        refuse(Opt(99)),
    ),
    "replies-simple": Situation(
        lambda outcome: transmitting(outcome, structured=False),
        b"".join(
            [
                SimpleReply(cookie=3).encode(),
                SimpleReply(cookie=1).encode() + BIG[:64],
                SimpleReply(error=Errno.EIO, cookie=4).encode(),
                SimpleReply(cookie=2).encode() + BIG[:20_000],
                SimpleReply(error=Errno.EINVAL, cookie=5).encode(),
            ]
        ),
    ),
    "replies-structured": Situation(
        transmitting,
        b"".join(
            [
                data_chunk(1, 0, BIG[:32], flags=MORE),
                data_chunk(2, 4096 + 10_000, BIG[:10_000], flags=MORE),
                hole_chunk(1, 32, 32),
                SimpleReply(cookie=3).encode(),
                error_chunk(4, Errno.EIO, "broken"),
                chunk(5, ReplyType.BLOCK_STATUS, STATUS, flags=MORE),
                done(5),
                data_chunk(2, 4096, BIG[:10_000]),
            ]
        ),
    ),
    "replies-ordinary": Situation(
        transmitting,
        b"".join(
            [
                SimpleReply(cookie=3).encode(),
                data_chunk(2, 4096, BIG[:20_000]),
                SimpleReply(cookie=4).encode(),
                data_chunk(1, 0, BIG[:64]),
                chunk(5, ReplyType.BLOCK_STATUS, STATUS),
            ]
        ),
    ),
    "replies-extended": Situation(
        lambda outcome: transmitting(outcome, extended=True),
        b"".join(
            [
                extended_data(1, 0, BIG[:64]),
                chunk(3, ReplyType.NONE, offset=0),
                chunk(5, ReplyType.BLOCK_STATUS_EXT, WIDE, offset=0),
                chunk(4, ReplyType.NONE, offset=0),
                extended_data(2, 4096, BIG[:20_000]),
            ]
        ),
    ),
}


def run(situation: Situation, data: bytes, splits: list[int]) -> Outcome:
    outcome = Outcome()
    engine = situation.begin(outcome)
    feed(engine, data, splits)
    outcome.state = engine.state.name
    outcome.failure = engine.failure.text if engine.failure else ""
    outcome.facts = (engine.export, engine.structured, engine.extended, list(engine.contexts), engine.meta_valid)
    assert len(engine.inbox.buffer) <= CAPACITY
    engine.received_end()
    assert engine.over, engine.state
    assert engine.in_flight == {}
    outcome.buffers = [bytes(buffer) for buffer in outcome.buffers]
    for cookie, ends in outcome.ends.items():
        assert len(ends) == 1, f"command {cookie} ended {len(ends)} times"
    return outcome


@st.composite
def damage(draw: st.DrawFn, honest: bytes) -> bytes:
    """An honest stream with some of it changed, or no honest stream at all."""
    data = bytearray(honest)
    kinds = st.sampled_from(["flip", "insert", "overwrite", "delete", "cut", "repeat", "noise"])
    for kind in draw(st.lists(kinds, max_size=4)):
        at = draw(st.integers(0, max(0, min(len(data), 2000) - 1)))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=40))
        elif kind == "overwrite":
            part = draw(
                st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\xff" * 8]))
            )
            data[at : at + len(part)] = part
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "cut":
            del data[at:]
        elif kind == "repeat":
            data += data[: min(at, 300)]
        else:
            data[at:] = draw(st.binary(max_size=200))
    return bytes(data)


SPLITS = st.lists(st.sampled_from([1, 2, 3, 7, 16, 20, 28, 31, 1000, 1 << 20]), min_size=1, max_size=6)


@pytest.mark.parametrize("name", SITUATIONS)
def test_an_honest_server_is_understood_however_it_is_split(name: str) -> None:
    situation = SITUATIONS[name]
    whole = run(situation, situation.honest, [1 << 20])
    assert whole.state != "DEAD"
    for size in (1, 7, 4096):
        assert run(situation, situation.honest, [size]) == whole


@pytest.mark.parametrize("name", SITUATIONS)
def test_any_bytes_end_well_and_the_same_however_they_are_split(name: str) -> None:
    situation = SITUATIONS[name]

    @given(damage(situation.honest), SPLITS)
    def check(data: bytes, splits: list[int]) -> None:
        assert run(situation, data, splits) == run(situation, data, [1 << 20])

    check()


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name.startswith("replies-")])
def test_the_express_lane_changes_no_outcome(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    situation = SITUATIONS[name]

    @given(damage(situation.honest), SPLITS)
    def check(data: bytes, splits: list[int]) -> None:
        express = run(situation, data, splits)
        with monkeypatch.context() as closed:
            closed.setattr(replies, "take_ordinary_replies", lambda engine: False)
            assert run(situation, data, splits) == express

    check()


@pytest.mark.parametrize(
    ("missing", "lent"), [(1, 0), (WORTH_LENDING - 1, 0), (WORTH_LENDING, WORTH_LENDING)], ids=["byte", "few", "many"]
)
def test_the_rest_of_a_reply_is_received_in_place_when_much_is_missing(missing: int, lent: int) -> None:
    outcome = Outcome()
    engine = transmitting(outcome)
    reply = data_chunk(2, 4096, BIG[:20_000])
    feed(engine, reply[:-missing], [1 << 20])
    assert engine.inbox.lent_rest == lent
    assert outcome.ends[2] == []
    feed(engine, reply[-missing:], [1 << 20])
    assert outcome.ends[2] == [0]
    assert outcome.buffers[1] == BIG[:20_000]


def test_under_tls_the_rest_of_a_reply_is_waited_for() -> None:
    outcome = Outcome()
    engine = transmitting(outcome)
    engine.tls_established()
    reply = data_chunk(2, 4096, BIG[:20_000])
    feed(engine, reply[:100], [1 << 20])
    assert engine.inbox.lent_rest == 0
    feed(engine, reply[100:], [1 << 20])
    assert outcome.ends[2] == [0]
    assert outcome.buffers[1] == BIG[:20_000]


@given(st.binary(max_size=400), st.sampled_from(sorted(SITUATIONS)))
def test_noise_ends_well(data: bytes, name: str) -> None:
    run(SITUATIONS[name], data, [1 << 20])


def test_very_many_streams_end_well() -> None:
    """Faster than Hypothesis, and without its shrinking: three thousand streams, or a million in a nightly run."""
    nightly = settings().max_examples >= 3000
    seed = random.SystemRandom().randrange(1 << 32) if nightly else 1
    chance = random.Random(seed)
    names = sorted(SITUATIONS)
    for number in range(1_000_000 if nightly else 3_000):
        situation = SITUATIONS[chance.choice(names)]
        data = bytearray(situation.honest)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[at] = chance.randrange(256)
            elif kind == 1:
                data[at:at] = chance.randbytes(chance.randrange(1, 30))
            elif kind == 2:
                del data[at : at + chance.randrange(1, 30)]
            else:
                data[at:] = chance.randbytes(chance.randrange(100))
            data = data or bytearray(1)
        try:
            run(situation, bytes(data), [chance.choice([1 << 20, 4096, 50])])
        except BaseException:
            print(f"stream {number} of seed {seed}: {data[:4096].hex()}")
            raise


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_beginning_of_an_honest_stream_ends_well(name: str) -> None:
    situation = SITUATIONS[name]
    for end in range(min(len(situation.honest), 300)):
        run(situation, situation.honest[:end], [1 << 20])


def test_what_was_not_received_is_not_left_in_a_buffer() -> None:
    outcome = run(SITUATIONS["replies-structured"], data_chunk(1, 8, b"data", flags=MORE), [1 << 20])
    assert outcome.buffers[0] == bytes(8) + b"data" + bytes(52)
    assert outcome.buffers[1] == bytes(20_000)
