"""Damaged streams, by the thousand: our client and our fake server end in a documented state, and hold little memory.

`-m nightly` plays a million for each side.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from nbdtest.client import states
from nbdtest.client.engine import Engine as Client
from nbdtest.client.settings import Settings as ClientSettings
from nbdtest.fakeserver.engine import Engine as Server
from nbdtest.fakeserver.export import Export, Settings
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.rules import RuleBook
from nbdtest.fuzz.commands import Command as Asked
from nbdtest.fuzz.strategies import pattern
from nbdtest.model import MemoryDisk
from nbdtest.wire import Cmd
from tests.pairs.link import Link
from tests.pairs.test_sessions import Watched, WatchedExtended, watch

SIZE = 1 << 16
MODES = {"simple": (False, False), "structured": (True, False), "extended": (True, True)}
MAGIC_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
ASKED = (
    Asked(type=Cmd.READ, length=600),
    Asked(type=Cmd.WRITE, offset=512, length=40, seed=3),
    Asked(type=Cmd.BLOCK_STATUS, length=SIZE),
    Asked(type=Cmd.FLUSH),
    Asked(type=Cmd.READ, offset=SIZE - 512, length=512),
)


def settings(structured: bool, extended: bool) -> Settings:
    disk = MemoryDisk(SIZE, pattern(1, 300))
    return Settings(exports=(Export(disk=disk),), structured_replies=structured, extended_headers=extended)


def recorded(structured: bool, extended: bool) -> tuple[bytes, bytes]:
    """What client and server say in an ordinary session."""
    link = Link(server=settings(structured, extended), meta_contexts=["base:allocation"])
    heard = bytearray()
    take = link.server.data_to_send

    def overheard(now: float) -> list[bytes]:
        pieces = [bytes(piece) for piece in take(now)]
        heard.extend(b"".join(pieces))
        return pieces

    link.server.data_to_send = overheard  # type: ignore[method-assign,assignment]  # listens, changes nothing
    link.connect()
    asked = [each for each in ASKED if structured or each.type != Cmd.BLOCK_STATUS]
    link.do(*(watch(link, each).command for each in asked))
    return bytes(link.sent_by_client), bytes(heard)


def damaged(stream: bytes, chance: random.Random) -> bytes:
    """The stream with a few bytes changed, put in, taken out or replaced by numbers at which arithmetic goes wrong."""
    data = bytearray(stream)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                del data[at : at + chance.randrange(1, 9)]
            case 3:
                del data[at:]
            case 4:
                width = chance.choice((1, 2, 4, 8))
                number = chance.choice(MAGIC_NUMBERS) % (1 << 8 * width)
                data[at : at + width] = number.to_bytes(width, "big")
            case 5:
                start = chance.randrange(len(data) + 1)
                data[at:at] = data[start : start + chance.randrange(64)]
    return bytes(data)


def survives_as_client(stream: bytes, mode: str, chance: random.Random) -> list[int]:
    """Give a client what a server says in this mode, piece by piece; return how the commands ended that it sent."""
    wanted = ClientSettings("damaged", meta_contexts=["base:allocation"])
    client = Client(wanted)
    watched: list[Watched] = []
    client.start()
    at = 0
    while not client.over:
        if client.has_output:
            client.sent(sum(map(len, client.output())))
            continue
        if client.state is states.READY and not watched:
            asked = [each for each in ASKED if client.structured or each.type != Cmd.BLOCK_STATUS]
            watched = [(WatchedExtended if client.extended else Watched)(each) for each in asked]
            for each in watched:
                client.submit(each.command)
            continue
        space = client.receive_space()
        # No reply must come before its command has been sent.
        pieces = (1, 7, 64, 1 << 20) if watched else (1, 7)
        count = min(len(space), len(stream) - at, chance.choice(pieces))
        if not count:
            client.received_end()
            break
        space[:count] = stream[at : at + count]
        at += count
        client.received(count)
    assert client.over
    assert all(len(each.ends) == 1 for each in watched)
    return [each.ends[0] for each in watched]


def survives_as_server(stream: bytes, mode: str, chance: random.Random) -> list[str]:
    """Give a server of this mode what a client says, piece by piece; return the rules that it saw broken."""
    journal = Journal(records=8)
    server = Server(settings(*MODES[mode]), RuleBook(), journal)
    server.start(0.0)
    at = 0
    while at < len(stream) and server.end is None:
        count = chance.choice((1, 7, 64, 1 << 20))
        server.receive(stream[at : at + count], 0.0)
        server.data_to_send(0.0)
        at += count
    server.receive_end(0.0)
    while server.data_to_send(0.0):
        pass
    assert server.end is not None
    assert journal.problems == []
    return [noted.violation.requirement for noted in journal.violations]


Survives = Callable[[bytes, str, random.Random], object]


def streams(side: int, seed: int, count: int) -> Iterator[tuple[bytes, str, random.Random]]:
    originals = {mode: recorded(*agreed)[side] for mode, agreed in MODES.items()}
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        mode = chance.choice(list(originals))
        yield damaged(originals[mode], chance), mode, chance


both = pytest.mark.parametrize(
    ("side", "survives"), [(1, survives_as_client), (0, survives_as_server)], ids=["client", "server"]
)


@both
def test_damaged_streams_end_in_a_documented_state(side: int, survives: Survives) -> None:
    for each in streams(side, 1, 1500):
        survives(*each)


@both
def test_damaged_streams_leave_no_memory_behind(side: int, survives: Survives) -> None:
    for each in streams(side, 2, 100):
        survives(*each)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for each in streams(side, 3, 300):
        survives(*each)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 1 << 20
    assert peak - before < 8 << 20


HASTY = {"OPT-017", "TERM-042"}
"""What a client does that says everything at once and leaves: it waits for no answer, and sends no DISC."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(4))
def test_an_undamaged_stream_is_understood(mode: str, seed: int) -> None:
    said, heard = recorded(*MODES[mode])
    assert survives_as_client(heard, mode, random.Random(seed)) == [0] * (4 if mode == "simple" else 5)
    assert set(survives_as_server(said, mode, random.Random(seed))) <= HASTY


def test_damage_reaches_transmission_as_well_as_the_handshake() -> None:
    ends = [survives_as_client(*each) for each in streams(1, 5, 300)]
    assert sum(any(row) and not all(row) for row in ends) > 40
    broken = [set(survives_as_server(*each)) - HASTY for each in streams(0, 5, 300)]
    assert sum(any(rule.startswith(("OPT", "CONV")) for rule in rules) for rules in broken) > 20
    assert sum(any(rule.startswith(("CMD", "EXT", "RPL", "TERM")) for rule in rules) for rules in broken) > 20


@pytest.mark.nightly
@both
def test_a_million_damaged_streams(side: int, survives: Survives) -> None:
    for each in streams(side, 4, 1_000_000):
        survives(*each)
