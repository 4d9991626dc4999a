"""The strategies generate what they promise: legal is legal, and a fault is exactly that fault."""

import json
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from nbdtest.errors import PeerViolation
from nbdtest.fakeserver.actions import ACTIONS, action_from_json, action_to_json
from nbdtest.fakeserver.export import Export
from nbdtest.fakeserver.rules import RuleBook
from nbdtest.fuzz import strategies
from nbdtest.fuzz.strategies import Command, Fault, Misbehaviour, Reply
from nbdtest.wire import (
    BlockStatus,
    Cmd,
    CmdFlag,
    Extent,
    Message,
    OffsetData,
    OffsetHole,
    Opt,
    Option,
    ReplyFlag,
    ReplyType,
    Request,
    TransmissionFlag,
    decode_chunk_payload,
    decode_option_data,
)
from nbdtest.wire.layout import Count, Integer, Items, Layout, Length, Rest, Text

SIZE = 1 << 20
ALL = TransmissionFlag(0x1FFF) & ~TransmissionFlag.READ_ONLY
quick = settings(max_examples=200)


def test_a_message_declared_anywhere_is_generated() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Novelty(Message):
        number: int
        text: str
        extents: tuple[Extent, ...]
        rest: bytes = field(default=b"")
        LAYOUT: ClassVar = Layout(
            Integer("number", 2),
            Length("text_length", 1, of="text"),
            Text("text"),
            Count("extent_count", 1, of="extents"),
            Items("extents", Layout(Integer("length", 4), Integer("status", 4)), Extent),
            Rest("rest"),
        )

    @given(strategies.messages(Novelty))
    def round_trip(message: Novelty) -> None:
        assert Novelty.decode(message.encode()) == message

    round_trip()


def test_fields_can_be_held() -> None:
    @given(strategies.messages(Request, type=Cmd.READ, length=st.integers(1, 9)))
    def held(request: Request) -> None:
        assert request.type is Cmd.READ
        assert 1 <= request.length <= 9

    held()


@pytest.mark.parametrize("value", [Cmd.RESIZE, Cmd(0xFFFF), Cmd(0x8000)], ids=str)
def test_assigned_and_extreme_numbers_are_found(value: Cmd) -> None:
    assert find(strategies.numbers(2, Cmd), lambda found: found == value) == value


@given(st.data(), st.sampled_from([1, 512, 4096]), st.sampled_from([ALL, ALL | TransmissionFlag.READ_ONLY, ALL & 1]))
@quick
def test_legal_commands_obey_the_export(data: st.DataObject, minimum: int, flags: TransmissionFlag) -> None:
    flags = TransmissionFlag(flags)
    command = data.draw(strategies.legal_commands(SIZE, flags, minimum=minimum, maximum=8192, contexts=True))
    if command.type == Cmd.FLUSH:
        assert (command.offset, command.length) == (0, 0)
    else:
        assert command.offset % minimum == command.length % minimum == 0
        assert 0 < command.length <= SIZE - command.offset
    if flags & TransmissionFlag.READ_ONLY:
        assert command.type not in (Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES)
    if not flags & TransmissionFlag.SEND_FUA:
        assert not command.flags & CmdFlag.FUA
    assert len(command.data) == (command.length if command.type == Cmd.WRITE else 0)
    assert max(len(command.data), command.length if command.type == Cmd.READ else 0) <= 8192


def test_an_export_without_bytes_takes_flush_alone() -> None:
    @given(strategies.legal_commands(0, ALL))
    def only_flush(command: Command) -> None:
        assert command.type == Cmd.FLUSH

    only_flush()


def test_commands_stand_on_every_boundary() -> None:
    seen: set[int] = set()
    ends: set[int] = set()

    @given(strategies.commands(SIZE))
    @settings(max_examples=1500, database=None, derandomize=True)
    def look(command: Command) -> None:
        seen.add(command.offset)
        ends.add(command.end - SIZE)

    look()
    assert {0, 1, 512, SIZE - 1, SIZE, SIZE + 1, 1 << 32, 1 << 63, (1 << 64) - 1} <= seen
    assert {-1, 0, 1, 511, 512} <= ends


@given(strategies.commands(SIZE), st.booleans())
def test_any_command_keeps_the_stream_in_step(command: Command, extended: bool) -> None:
    sent = command.encode(7, extended=extended)
    assert len(sent) == (32 if extended else 28) + (command.length if command.type == Cmd.WRITE else 0)


contents = st.one_of(st.binary(min_size=2, max_size=40), st.binary(max_size=9).map(lambda data: data + bytes(30)))


def covered(reply: Reply) -> list[tuple[int, bytes]]:
    parts = []
    for chunk in reply:
        match decode_chunk_payload(chunk.type, chunk.payload):
            case OffsetData(offset=at, data=data):
                parts.append((at, data))
            case OffsetHole(offset=at, length=length):
                parts.append((at, bytes(length)))
    return sorted(parts)


def dones(reply: Reply) -> list[bool]:
    return [bool(chunk.flags & ReplyFlag.DONE) for chunk in reply]


@given(st.data(), contents, st.integers(0, 1 << 40), st.booleans())
@quick
def test_a_legal_reply_covers_every_byte_once(data: st.DataObject, content: bytes, at: int, fragment: bool) -> None:
    reply = data.draw(strategies.read_replies(content, at, 3, fragment=fragment))
    expected = at
    for start, part in covered(reply):
        assert start == expected
        assert part == content[start - at : start - at + len(part)]
        assert part
        expected += len(part)
    assert expected == at + len(content)
    assert dones(reply) == [False] * (len(reply) - 1) + [True]
    assert fragment or len(covered(reply)) == 1


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
@given(data=st.data(), content=contents, at=st.integers(4096, 1 << 40))
def test_a_faulty_reply_is_not_legal(fault: Fault, data: st.DataObject, content: bytes, at: int) -> None:
    reply = data.draw(strategies.faulty_read_replies(content, at, 3, fault))
    assert {chunk.cookie for chunk in reply} == {3}
    assert not is_legal(reply, content, at)
    assert dones(reply).count(True) == 1
    assert dones(reply)[-1]


def is_legal(reply: Reply, content: bytes, at: int) -> bool:
    try:
        parts = covered(reply)
    except PeerViolation:
        return False
    known = {ReplyType.NONE, ReplyType.OFFSET_DATA, ReplyType.OFFSET_HOLE}
    return (
        all(chunk.type in known for chunk in reply)
        and all(chunk.flags for chunk in reply if chunk.type == ReplyType.NONE)
        and b"".join(part for _, part in parts) == content
        and [start for start, _ in parts] == [at + sum(len(part) for _, part in parts[:n]) for n in range(len(parts))]
    )


@given(st.data(), st.integers(0, 1 << 40), st.integers(1, 100))
def test_an_error_reply_is_legal_and_says_an_error(data: st.DataObject, offset: int, length: int) -> None:
    reply = data.draw(strategies.error_replies(offset, length, 3))
    assert any(chunk.type.is_error for chunk in reply)
    for chunk in reply:
        decode_chunk_payload(chunk.type, chunk.payload)
    assert dones(reply) == [False] * (len(reply) - 1) + [True]


@given(st.data(), st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True), st.integers(1, 100), st.booleans())
@quick
def test_a_status_reply_describes_every_context_once(
    data: st.DataObject, contexts: list[int], length: int, one: bool
) -> None:
    reply = data.draw(strategies.status_replies(contexts, length, 3, beyond=20, one=one))
    assert dones(reply) == [False] * (len(reply) - 1) + [True]
    described = [decode_chunk_payload(chunk.type, chunk.payload) for chunk in reply if chunk.payload]
    statuses = [each for each in described if isinstance(each, BlockStatus)]
    assert sorted(each.context_id for each in statuses) == sorted(contexts)
    for each in statuses:
        lengths = [extent.length for extent in each.extents]
        assert all(lengths)
        assert sum(lengths[:-1]) < length
        assert sum(lengths) <= (length if one else length + 20)
        assert len(lengths) == 1 or not one


@given(st.data())
def test_interleaved_replies_keep_their_own_order(data: st.DataObject) -> None:
    first = data.draw(strategies.read_replies(b"abcdef", 0, 1))
    second = data.draw(strategies.read_replies(b"ghijkl", 100, 2))
    mixed = data.draw(strategies.interleaved(first, second))
    assert tuple(chunk for chunk in mixed if chunk.cookie == 1) == first
    assert tuple(chunk for chunk in mixed if chunk.cookie == 2) == second


@given(strategies.legal_dialogues(("", "disk")))
def test_a_legal_dialogue_ends_with_go_and_has_no_malformed_option(dialogue: tuple[Option, ...]) -> None:
    for option in dialogue:
        decode_option_data(option)
    numbers = [option.option for option in dialogue]
    assert numbers[-1] == Opt.GO
    assert numbers.count(Opt.STRUCTURED_REPLY) <= 1
    if Opt.SET_META_CONTEXT in numbers:
        assert Opt.STRUCTURED_REPLY in numbers[: numbers.index(Opt.SET_META_CONTEXT)]


def test_options_are_also_malformed_and_unknown() -> None:
    def malformed(option: Option) -> bool:
        try:
            decode_option_data(option)
        except PeerViolation:
            return True
        return False

    assert malformed(find(strategies.options(), malformed))
    assert not find(strategies.options(), lambda option: not option.option.is_known).option.is_known


@given(strategies.exports())
def test_exports_obey_the_size_rules(export: Export) -> None:
    assert export.limits.problem() == ""
    assert export.disk.size % export.limits.minimum == 0


@pytest.mark.parametrize("name", sorted(ACTIONS.keys() - {"mangle"}))
@given(data=st.data())
@settings(max_examples=20)
def test_actions_of_every_class_are_generated_and_saved(name: str, data: st.DataObject) -> None:
    action = data.draw(strategies.actions(ACTIONS[name]))
    assert action_from_json(json.loads(json.dumps(action_to_json(action)))) == action


@given(strategies.misbehaviours())
def test_misbehaviour_becomes_a_rule(misbehaviour: Misbehaviour) -> None:
    book = RuleBook()
    misbehaviour.install(book)
    assert [rule.trigger for rule in book.rules] == [misbehaviour.trigger]
    assert book.rules[0].plan == misbehaviour.reply
