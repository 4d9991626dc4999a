"""Every message against bytes that real peers sent: written, read, read in pieces, and shown."""

from collections.abc import Callable

import pytest

from nbdtest import wire
from nbdtest.errors import PeerViolation
from nbdtest.fuzz.strategies import message_classes
from nbdtest.wire import (
    ByteQueue,
    ExtendedReply,
    ExtendedReplyHeader,
    GreetingStart,
    Message,
    NewstyleGreeting,
    OldstyleGreeting,
    Option,
    OptionHeader,
    OptionReply,
    OptionReplyHeader,
    StructuredReply,
    StructuredReplyHeader,
    dump,
)
from tests.wire.golden import TABLE, Golden

FRONTS: dict[type[Message], type[Message]] = {
    NewstyleGreeting: GreetingStart,
    OldstyleGreeting: GreetingStart,
    Option: OptionHeader,
    OptionReply: OptionReplyHeader,
    StructuredReply: StructuredReplyHeader,
    ExtendedReply: ExtendedReplyHeader,
}
"""Frames whose first bytes can be read alone."""


def row_id(row: Golden) -> str:
    words = row.line.replace(" | ", " ").split(" ")
    return "-".join([row.source.split(":")[0].replace(" ", "-"), words[0], *(w.split("=")[-1] for w in words[1:3])])


def rows(wanted: Callable[[Golden], bool] = lambda row: True) -> pytest.MarkDecorator:
    chosen = [row for row in TABLE if wanted(row)]
    return pytest.mark.parametrize("row", chosen, ids=[row_id(row) for row in chosen])


def ends_itself(row: Golden) -> bool:
    return row.message.LAYOUT.ends_itself


def has_front(row: Golden) -> bool:
    return type(row.message) in FRONTS


@rows()
def test_encode_gives_the_bytes_of_the_peer(row: Golden) -> None:
    assert row.message.encode() == row.data


@rows()
def test_decode_gives_the_message(row: Golden) -> None:
    assert type(row.message).decode(row.data) == row.message


@pytest.mark.parametrize("container", [bytes, bytearray, memoryview])
def test_decode_takes_any_container_of_bytes(container: Callable[[bytes], bytes]) -> None:
    for row in TABLE:
        assert type(row.message).decode(container(row.data)) == row.message


@rows()
def test_dump_says_what_it_means_in_one_line(row: Golden) -> None:
    assert dump(row.message) == row.line


@rows()
def test_repr_is_python_that_makes_the_message_again(row: Golden) -> None:
    assert eval(repr(row.message), vars(wire).copy()) == row.message


@rows(ends_itself)
def test_arriving_byte_by_byte_it_is_complete_at_the_last_byte(row: Golden) -> None:
    queue = ByteQueue()
    for at in range(len(row.data)):
        assert type(row.message).take(queue) is None
        assert len(queue) == at
        queue.append(row.data[at : at + 1])
    assert type(row.message).take(queue) == row.message
    assert len(queue) == 0


@rows(ends_itself)
def test_bytes_after_it_stay_in_the_queue(row: Golden) -> None:
    queue = ByteQueue(row.data + b"\xff\x00next")
    assert type(row.message).take(queue) == row.message
    assert queue.take_all() == b"\xff\x00next"


@rows(ends_itself)
def test_decode_refuses_surplus_bytes(row: Golden) -> None:
    with pytest.raises(PeerViolation, match=r"1 surplus bytes: ff"):
        type(row.message).decode(row.data + b"\xff")


@rows(lambda row: ends_itself(row) and bool(row.data))
def test_decode_refuses_a_missing_byte(row: Golden) -> None:
    with pytest.raises(PeerViolation, match="too few"):
        type(row.message).decode(row.data[:-1])


@rows(has_front)
def test_its_header_can_be_read_alone(row: Golden) -> None:
    front = FRONTS[type(row.message)]
    header = front.decode(row.data[: front.wire_size()])
    assert header.encode() == row.data[: front.wire_size()]
    for name in set(front.LAYOUT.field_names) & set(row.message.LAYOUT.field_names):
        assert getattr(header, name) == getattr(row.message, name)
    if isinstance(header, OptionHeader | OptionReplyHeader | StructuredReplyHeader | ExtendedReplyHeader):
        assert header.length == len(row.data) - front.wire_size()


def test_every_message_class_has_a_row() -> None:
    covered = {type(row.message) for row in TABLE} | set(FRONTS.values())
    assert [cls.__name__ for cls in message_classes() if cls not in covered] == []
