"""What holds for every message and every byte string, whatever they say."""

import contextlib
import pickle
from collections.abc import Callable
from copy import copy, deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest import wire
from nbdtest.errors import PeerViolation, UsageError
from nbdtest.fuzz.strategies import any_message, message_classes, messages
from nbdtest.wire import (
    ByteQueue,
    ExtendedReply,
    Message,
    Option,
    OptionReply,
    ReplyType,
    StructuredReply,
    decode_chunk_payload,
    decode_option_data,
    decode_option_reply_data,
    dump,
)
from tests.wire.golden import TABLE, Golden

every_class = pytest.mark.parametrize("cls", message_classes(), ids=lambda cls: cls.__name__)
every_class_that_ends_itself = pytest.mark.parametrize(
    "cls", [cls for cls in message_classes() if cls.LAYOUT.ends_itself], ids=lambda cls: cls.__name__
)
near_valid = st.sampled_from([row.data for row in TABLE]).flatmap(
    lambda data: st.tuples(st.integers(0, len(data)), st.binary(max_size=6), st.integers(0, 6)).map(
        lambda cut: data[: cut[0]] + cut[1] + data[cut[0] + cut[2] :]
    )
)
some_bytes = st.one_of(st.binary(max_size=200), near_valid)


@every_class
@given(data=st.data())
def test_a_message_survives_the_wire(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(cls))
    assert cls.decode(message.encode()) == message


@every_class
@given(data=st.data())
def test_a_message_survives_repr_pickle_and_copy(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(cls))
    assert eval(repr(message), vars(wire).copy()) == message
    assert pickle.loads(pickle.dumps(message)) == message
    assert copy(message) == message
    assert deepcopy(message) == message


@every_class
@given(data=some_bytes)
def test_decode_of_any_bytes_gives_those_bytes_back_or_a_violation(cls: type[Message], data: bytes) -> None:
    with contextlib.suppress(PeerViolation):
        assert cls.decode(data).encode() == data


@every_class_that_ends_itself
@given(data=some_bytes)
def test_take_of_any_bytes_gives_a_message_or_wants_more_or_finds_a_violation(cls: type[Message], data: bytes) -> None:
    queue = ByteQueue(data)
    try:
        message = cls.take(queue)
    except PeerViolation:
        assert queue.take_all() == data
    else:
        assert (b"" if message is None else message.encode()) + queue.take_all() == data


@given(some_bytes, st.sampled_from(ReplyType), st.sampled_from(wire.Opt), st.sampled_from(wire.Rep))
def test_data_of_any_frame_is_read_or_violates(
    data: bytes, chunk_type: ReplyType, option: wire.Opt, reply: wire.Rep
) -> None:
    readers: tuple[Callable[[], Message], ...] = (
        lambda: decode_chunk_payload(chunk_type, data),
        lambda: decode_option_data(Option(option=option, data=data)),
        lambda: decode_option_reply_data(OptionReply(option=option, type=reply, data=data)),
    )
    for read in readers:
        with contextlib.suppress(PeerViolation):
            assert read().encode() == data


@given(st.lists(any_message().filter(lambda message: message.LAYOUT.ends_itself and bool(message.encode()))), st.data())
def test_any_split_of_a_stream_gives_the_same_messages(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(message.encode() for message in sent)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    queue = ByteQueue()
    got: list[Message] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        queue.append(stream[start:end])
        while len(got) < len(sent) and (message := type(sent[len(got)]).take(queue)) is not None:
            got.append(message)
    assert got == sent
    assert len(queue) == 0


@given(any_message())
def test_dump_is_one_line_of_bounded_length_that_any_terminal_shows(message: Message) -> None:
    line = dump(message)
    assert line.isascii() or "…" in line
    assert "\n" not in line
    assert len(line) < 2000


@pytest.mark.parametrize("row", {type(row.message): row for row in TABLE}.values(), ids=lambda row: row.line.split()[0])
def test_every_slot_may_be_written_with_what_does_not_belong_there(row: Golden) -> None:
    for slot in row.message.LAYOUT.slots:
        assert row.message.encode(**{slot.name: b"\xee\xee"}).count(b"\xee\xee") == 1


@pytest.mark.parametrize("frame", [StructuredReply, ExtendedReply], ids=lambda cls: cls.__name__)
def test_a_frame_with_malformed_payload_is_dumped_with_the_reason(frame: type[Message]) -> None:
    message = frame(type=ReplyType.OFFSET_HOLE, cookie=1, payload=b"short")  # type: ignore[call-arg]  # both have them
    assert "malformed: OffsetHole: 5 bytes are too few: 73 68 6f 72 74" in dump(message)


def test_a_length_may_be_a_lie() -> None:
    lie = Option(option=wire.Opt.GO, data=b"abc").encode(length=0xFFFF_FFFF)
    assert lie[12:] == b"\xff\xff\xff\xff" + b"abc"


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (wire.Request(type=wire.Cmd.READ, cookie=1 << 64), "cookie is 18446744073709551616"),
        (wire.Request(type=wire.Cmd.READ, cookie=1, length=-1), "length is -1"),
        (wire.SimpleReply(error=wire.Errno(1 << 32), cookie=1), "error is"),
        (wire.ExportNameReplyPadded(size=1, flags=wire.TransmissionFlag(1), reserved=b"abc"), "reserved has 3 bytes"),
        (wire.ErrorChunk(error=wire.Errno.EIO, message="x" * 65536), "message_length is 65536"),
        (wire.ExportName(name="\ud800"), "name is not text"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_value_that_does_not_fit_names_its_field(message: Message, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        message.encode()


def test_an_override_of_nothing_names_what_there_is() -> None:
    with pytest.raises(UsageError, match="no slot cooky here; there are magic, error, cookie"):
        wire.SimpleReply(cookie=1).encode(cooky=2)


def test_bytes_cannot_be_replaced_by_a_number() -> None:
    with pytest.raises(UsageError, match="data holds bytes"):
        Option(option=wire.Opt.GO).encode(data=3)


@pytest.mark.parametrize(
    ("cls", "front", "complaint"),
    [
        (OptionReply, b"NBDMAGIC", "OptionReply: magic is 0x4e42444d41474943, 0x3e889045565a9 expected"),
        (OptionReply, b"NBDMAGIC" + b"\xff" * 12, "OptionReply: magic is"),
        (wire.Request, b"\x25\x60\x95\x14", "Request: magic is 0x25609514, 0x25609513 expected"),
    ],
    ids=["varying", "varying-and-too-long", "fixed"],
)
def test_a_wrong_magic_is_seen_before_the_rest_arrives(cls: type[Message], front: bytes, complaint: str) -> None:
    with pytest.raises(PeerViolation, match=complaint):
        cls.take(ByteQueue(front))


def test_a_message_without_an_end_cannot_be_taken() -> None:
    with pytest.raises(UsageError, match="ExportName does not say where it ends"):
        wire.ExportName.take(ByteQueue(b"name"))


def test_only_fixed_messages_have_a_size() -> None:
    assert wire.Request.wire_size() == 28
    with pytest.raises(UsageError, match="Option has no fixed size"):
        Option.wire_size()
