"""Legal sessions over any link: both sides agree, the data is right, and a cut leaves nothing hanging."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.client import states
from nbdtest.client.commands import Command
from nbdtest.fakeserver import rules
from nbdtest.fakeserver.actions import Drip
from nbdtest.fakeserver.export import Export, Settings, Style
from nbdtest.fuzz.strategies import Command as Asked
from nbdtest.fuzz.strategies import exports, legal_commands, pattern
from nbdtest.model import MemoryDisk
from nbdtest.wire import Cmd, TransmissionFlag
from tests.pairs.link import Link, paces

CONTEXT = "base:allocation"

settings_of_servers = st.builds(
    Settings,
    style=st.sampled_from(Style),
    no_zeroes=st.booleans(),
    structured_replies=st.booleans(),
    extended_headers=st.booleans(),
    meta_contexts=st.booleans(),
    info_and_go=st.booleans(),
)


def with_export(settings: Settings, export: Export) -> Settings:
    fields = {name: getattr(settings, name) for name in Settings.__slots__}
    return Settings(**(fields | {"exports": (export,)}))


class Watched:
    """A command of the client, what it found, and how often it was told to be over."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.ends: list[int] = []
        self.extents: list[int] = []
        self.seen: list[tuple[int, int]] = []
        view: memoryview | None = None
        if asked.type == Cmd.WRITE:
            view = memoryview(asked.data)
        elif asked.type == Cmd.READ:
            view = memoryview(bytearray(b"\xee" * asked.length))
        self.command = Command(
            asked.type,
            asked.offset,
            asked.length,
            flags=asked.flags | (0x20 if asked.type == Cmd.WRITE and self.extended else 0),
            view=view,
            completion=lambda error: self.ends.append(error.value),
            chunk=(lambda part, at, *_: self.seen.append((at, len(part)))) if asked.type == Cmd.READ else None,
            extent=(lambda name, at, entries, _: self.extents.extend(entries))
            if asked.type == Cmd.BLOCK_STATUS
            else None,
        )

    extended = False

    @property
    def data(self) -> bytes:
        assert self.command.view is not None
        return bytes(self.command.view)


class WatchedExtended(Watched):
    """The same under extended headers, where a WRITE says that it has a payload."""

    extended = True


def watch(link: Link, asked: Asked) -> Watched:
    return (WatchedExtended if link.client.extended else Watched)(asked)


def apply(disk: MemoryDisk, asked: Asked) -> bytes:
    """Do to `disk` what the command demands, and return what a READ has to find."""
    match asked.type:
        case Cmd.WRITE:
            disk.write(asked.offset, asked.data)
        case Cmd.WRITE_ZEROES:
            disk.zero(asked.offset, asked.length)
        case Cmd.TRIM:
            disk.trim(asked.offset, asked.length)
        case Cmd.READ:
            return bytes(disk.read(asked.offset, asked.length))
    return b""


CHANGING = (Cmd.WRITE, Cmd.WRITE_ZEROES, Cmd.TRIM)


def conflict(one: Asked, other: Asked) -> bool:
    """Whether the outcome depends on which of two commands is carried out first."""
    overlap = one.offset < other.offset + other.length and other.offset < one.offset + one.length
    return overlap and (one.type in CHANGING or other.type in CHANGING)


def copy_of(export: Export) -> MemoryDisk:
    size = export.disk.size
    return MemoryDisk(size, bytes(export.disk.read(0, size)))


@given(data=st.data(), export=exports(), settings=settings_of_servers, pace=paces())
def test_any_legal_session_reads_what_was_written(
    data: st.DataObject, export: Export, settings: Settings, pace: list[int]
) -> None:
    link = Link(server=with_export(settings, export), pace=pace, meta_contexts=[CONTEXT]).connect()
    hold_session(link, export, data)


def hold_session(link: Link, export: Export, data: st.DataObject) -> None:
    """Do what `data` says on a connected link to `export`, and hold what is read against what was written."""
    assert link.client.state is states.READY, link.log
    assert link.client.export.size == export.disk.size
    shadow = copy_of(export)
    flags = TransmissionFlag(link.client.export.flags)
    contexts = bool(link.client.contexts)
    asked = data.draw(
        st.lists(legal_commands(export.disk.size, flags, minimum=export.limits.minimum, contexts=contexts), max_size=8)
        if export.disk.size or flags & TransmissionFlag.SEND_FLUSH
        else st.just([])
    )
    watched = [watch(link, each) for each in asked]
    expected = []
    for number, each in enumerate(watched):
        if any(conflict(each.asked, earlier.asked) for earlier in watched[:number] if not earlier.ends):
            link.run()  # what is in flight together has no order
        link.client.submit(each.command)
        expected.append(apply(shadow, each.asked))
    link.run()
    for each, found in zip(watched, expected, strict=True):
        fast = each.asked.type == Cmd.WRITE_ZEROES and each.asked.flags & 0x10
        assert each.ends in ([0], [errno.ENOTSUP] if fast else [0]), each.asked
        if each.asked.type == Cmd.READ:
            assert each.data == found
            assert sum(length for _, length in each.seen) == len(found)
        if each.asked.type == Cmd.BLOCK_STATUS:
            assert sum(each.extents[::2]) >= 1
    assert link.journal.violations == []
    assert link.journal.problems == []
    assert bytes(export.disk.read(0, shadow.size)) == bytes(shadow.read(0, shadow.size))


@given(data=st.data(), pace=paces(), structured=st.booleans(), extended=st.booleans())
def test_a_cut_anywhere_ends_every_command_exactly_once(
    data: st.DataObject, pace: list[int], structured: bool, extended: bool
) -> None:
    content = pattern(3, 8192)
    settings = Settings(
        exports=(Export(disk=MemoryDisk(8192, content)),), structured_replies=structured, extended_headers=extended
    )
    cut = data.draw(st.integers(0, 4000), label="cut after")
    link = Link(server=settings, pace=pace, cut_after=cut, meta_contexts=[CONTEXT]).connect()
    if not link.client.over:
        flags = TransmissionFlag(link.client.export.flags)
        asked = data.draw(st.lists(legal_commands(8192, flags), min_size=1, max_size=6))
        asked = [each for at, each in enumerate(asked) if not any(conflict(each, other) for other in asked[:at])]
        watched = [watch(link, each) for each in asked]
        shadow = MemoryDisk(8192, content)
        expected = [apply(shadow, each) for each in asked]
        link.do(*(each.command for each in watched))
        if not link.client.over:
            link.client.close()
        for each, found in zip(watched, expected, strict=True):
            assert len(each.ends) == 1
            if each.ends == [0] and each.asked.type == Cmd.READ:
                assert each.data == found
    assert link.client.over or link.client.state is states.READY
    assert link.journal.problems == []


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
def test_a_dripping_server_is_understood(structured: bool) -> None:
    book = rules.RuleBook()
    book.on(rules.Moment.CONNECT).reply(Drip(every_s=0.0)).pass_through()
    content = pattern(9, 4096)
    settings = Settings(exports=(Export(disk=MemoryDisk(4096, content)),), structured_replies=structured)
    link = Link(server=settings, rules=book, pace=[1]).connect()
    read = Watched(Asked(type=Cmd.READ, length=4096))
    link.do(read.command)
    assert read.ends == [0]
    assert read.data == content
