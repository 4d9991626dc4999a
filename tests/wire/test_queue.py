"""The queue hands out bytes in order, refuses what it does not have, and gives memory back."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.errors import PeerViolation
from nbdtest.wire import (
    ByteQueue,
    ExtendedReply,
    Message,
    MetaContextRequest,
    Option,
    OptionReply,
    StructuredReply,
    Truncated,
)


@given(st.lists(st.one_of(st.binary(max_size=300), st.integers(0, 300)), max_size=60))
def test_bytes_leave_in_the_order_they_came(steps: list[bytes | int]) -> None:
    queue = ByteQueue()
    expected = b""
    for step in steps:
        if isinstance(step, bytes):
            queue.append(step)
            expected += step
        elif step <= len(expected):
            assert queue.peek(step) == expected[:step]
            assert queue.take(step) == expected[:step]
            expected = expected[step:]
        else:
            with pytest.raises(Truncated, match=f"{step} bytes wanted, {len(expected)} queued"):
                queue.take(step)
        assert len(queue) == len(expected)
    assert queue.take_all() == expected


def test_peek_looks_further_in() -> None:
    queue = ByteQueue(b"0123456789")
    queue.take(2)
    assert queue.peek(3, at=4) == b"678"
    with pytest.raises(Truncated, match="9 bytes wanted, 8 queued"):
        queue.peek(5, at=4)


@pytest.mark.parametrize(("room", "moved"), [(0, b""), (3, b"abc"), (9, b"abcdef")])
def test_take_into_moves_what_fits(room: int, moved: bytes) -> None:
    queue = ByteQueue(b"abcdef")
    buffer = bytearray(room)
    assert queue.take_into(memoryview(buffer)) == len(moved)
    assert bytes(buffer).rstrip(b"\0") == moved
    assert queue.take_all() == b"abcdef"[len(moved) :]


def test_a_long_stream_through_a_short_queue_keeps_little_memory() -> None:
    queue = ByteQueue()
    piece = bytes(1 << 16)
    tracemalloc.start()
    for _ in range(200):
        queue.append(piece)
        queue.append(b"x")
        queue.take(1 << 16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(queue) == 200
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("cls", "front"),
    [
        (Option, b"IHAVEOPT" + b"\x00\x00\x00\x07" + b"\xff\xff\xff\xff"),
        (OptionReply, b"\x00\x03\xe8\x89\x04\x55\x65\xa9" + b"\x00\x00\x00\x07\x00\x00\x00\x03" + b"\xff\xff\xff\xff"),
        (StructuredReply, b"\x66\x8e\x33\xef" + b"\x00\x01\x00\x01" + bytes(8) + b"\xff\xff\xff\xff"),
        (ExtendedReply, b"\x6e\x8a\x27\x8c" + b"\x00\x01\x00\x01" + bytes(16) + b"\xff\xff\xff\xff\xff\xff\xff\xff"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_announced_length_over_the_limit_is_a_violation_and_costs_nothing(cls: type[Message], front: bytes) -> None:
    queue = ByteQueue(front)
    tracemalloc.start()
    with pytest.raises(PeerViolation, match=f"{cls.__name__}: [0-9]+ bytes announced, at most 67108864 accepted"):
        cls.take(queue)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16
    assert len(queue) == len(front)


def test_a_higher_limit_waits_and_costs_nothing() -> None:
    queue = ByteQueue(b"IHAVEOPT" + b"\x00\x00\x00\x07" + b"\xff\xff\xff\xff" + b"beginning")
    tracemalloc.start()
    assert Option.take(queue, limit=1 << 33) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16


def test_a_count_that_cannot_be_true_ends_at_the_limit() -> None:
    queue = ByteQueue(b"\x00\x00\x00\x00" + b"\xff\xff\xff\xff" + bytes(4) * 300)
    assert MetaContextRequest.take(queue) is None
    with pytest.raises(PeerViolation, match="MetaContextRequest: longer than 1000 bytes"):
        MetaContextRequest.take(queue, limit=1000)
