"""What a read makes of every kind of reply, in the fast lane, through the engine, and one byte at a time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ctypes import c_int
from dataclasses import dataclass

import pytest

from nbdtest.client import NBD, Buffer, Error
from nbdtest.wire import Errno, ErrorOffset, ReplyFlag, ReplyType, SimpleReply, StructuredReply
from tests.client.prepared import Prepared, chunk, data_chunk, done, error_chunk, hole_chunk

MORE = ReplyFlag(0)
AT, COUNT = 4096, 16
DATA = bytes(range(1, COUNT + 1))
Read = Callable[[Prepared, list[bytes]], bytes]


def in_the_lane(prepared: Prepared, answers: list[bytes]) -> bytes:
    prepared.answer(*answers)
    return bytes(prepared.handle.pread(COUNT, AT))


def through_the_engine(prepared: Prepared, answers: list[bytes]) -> bytes:
    prepared.handle.set_timeout(60)  # a limited call is not for the lane
    return in_the_lane(prepared, answers)


def into_a_buffer(prepared: Prepared, answers: list[bytes]) -> bytes:
    prepared.answer(*answers)
    buffer = bytearray(b"\xee" * COUNT)
    try:
        prepared.handle.pread_into(buffer, AT)
    finally:
        buffer_of_failure[:] = buffer
    return bytes(buffer)


def byte_by_byte(prepared: Prepared, answers: list[bytes]) -> bytes:
    h, buffer = prepared.handle, Buffer(COUNT)
    cookie = h.aio_pread(buffer, AT)
    for byte in b"".join(answers):
        prepared.answer(bytes([byte]))
        if h.aio_get_direction():
            h.aio_notify_read()
    while not h.aio_command_completed(cookie):
        h.poll(0)
    return bytes(buffer.to_bytearray())


buffer_of_failure = bytearray()
READS: list[Read] = [in_the_lane, through_the_engine, into_a_buffer, byte_by_byte]


@dataclass(frozen=True)
class Good:
    answers: list[bytes]
    data: bytes = DATA
    structured: bool = True


@dataclass(frozen=True)
class Bad:
    answers: list[bytes]
    number: int
    usable: bool = True
    """Whether the connection goes on afterwards."""


GOOD = {
    "one-chunk": Good([data_chunk(1, AT, DATA)]),
    "one-chunk-and-done": Good([data_chunk(1, AT, DATA, flags=MORE), done(1)]),
    "hole": Good([hole_chunk(1, AT, COUNT)], bytes(COUNT)),
    "hole-then-data": Good([hole_chunk(1, AT, 4, flags=MORE), data_chunk(1, AT + 4, DATA[4:])], bytes(4) + DATA[4:]),
    "pieces-backwards": Good(
        [data_chunk(1, AT + 8, DATA[8:], flags=MORE), data_chunk(1, AT, DATA[:8], flags=MORE), done(1)]
    ),
    "every-byte-a-chunk": Good(
        [data_chunk(1, AT + at, DATA[at : at + 1], flags=MORE) for at in range(COUNT)] + [done(1)]
    ),
    "reply-to-nobody-first": Good([data_chunk(77, AT, b"nobody"), data_chunk(1, AT, DATA)]),
    "error-to-nobody-first": Good([SimpleReply(error=Errno.EIO, cookie=9).encode(), data_chunk(1, AT, DATA)]),
    "empty-chunk": Good([data_chunk(1, AT, b"", flags=MORE), data_chunk(1, AT, DATA)]),
    "unknown-reply-flag": Good([data_chunk(1, AT, DATA, flags=ReplyFlag(0x8001))]),
    "simple": Good([SimpleReply(cookie=1).encode() + DATA], structured=False),
}
BAD = {
    "error": Bad([error_chunk(1, Errno.EIO, "bad sector")], errno.EIO),
    "error-without-text": Bad([error_chunk(1, Errno.ENOSPC)], errno.ENOSPC),
    "error-at": Bad(
        [chunk(1, ReplyType.ERROR_OFFSET, ErrorOffset(error=Errno.EIO, message="", offset=AT + 3).encode())], errno.EIO
    ),
    "simple-error": Bad([SimpleReply(error=Errno.EPERM, cookie=1).encode()], errno.EPROTO),
    "unknown-errno": Bad([error_chunk(1, Errno(4242))], errno.EINVAL),
    "errno-zero": Bad([error_chunk(1, Errno.OK)], errno.EPROTO),
    "first-error-counts": Bad([error_chunk(1, Errno.EIO, flags=MORE), error_chunk(1, Errno.ENOMEM)], errno.EIO),
    "data-then-error": Bad([data_chunk(1, AT, DATA, flags=MORE), error_chunk(1, Errno.EIO)], errno.EIO),
    "error-payload-cut": Bad([chunk(1, ReplyType.ERROR, b"\0\0\0\5\0")], errno.EIO),
    "error-text-longer-than-chunk": Bad([chunk(1, ReplyType.ERROR, b"\0\0\0\5\0\x09abc")], errno.EIO),
    "error-payload-too-short": Bad([chunk(1, ReplyType.ERROR, b"\0\0\5")], errno.EPROTO),
    "nothing": Bad([done(1)], errno.EPROTO),
    "half": Bad([data_chunk(1, AT, DATA[:8])], errno.EPROTO),
    "gap": Bad([data_chunk(1, AT, DATA[:4], flags=MORE), data_chunk(1, AT + 8, DATA[8:])], errno.EPROTO),
    "twice": Bad([data_chunk(1, AT, DATA, flags=MORE), data_chunk(1, AT, DATA)], errno.EPROTO),
    "simple-success": Bad([SimpleReply(cookie=1).encode() + DATA], errno.EPROTO),
    "block-status": Bad([chunk(1, ReplyType.BLOCK_STATUS, bytes(12))], errno.EPROTO),
    "unknown-chunk": Bad([chunk(1, ReplyType(99), b"what is this")], errno.EPROTO),
    "none-with-payload": Bad([chunk(1, ReplyType.NONE, b"x")], errno.EPROTO),
    "hole-of-odd-size": Bad([chunk(1, ReplyType.OFFSET_HOLE, bytes(13))], errno.EPROTO),
    "data-without-offset": Bad([chunk(1, ReplyType.OFFSET_DATA, bytes(7))], errno.EPROTO),
    "before-the-request": Bad([data_chunk(1, AT - 1, DATA)], 0, usable=False),
    "after-the-request": Bad([data_chunk(1, AT + 1, DATA)], 0, usable=False),
    "hole-too-long": Bad([hole_chunk(1, AT, COUNT + 1)], 0, usable=False),
    "reply-of-4-GiB": Bad([data_chunk(1, AT, DATA)[:16] + b"\xff\xff\xff\xff"], 0, usable=False),
    "no-reply-magic": Bad([b"HTTP/1.1 400 Bad Request\r\n\r\n"], 0, usable=False),
    "extended-reply": Bad([chunk(1, ReplyType.OFFSET_DATA, bytes(24), offset=AT)], 0, usable=False),
}


@pytest.mark.parametrize("read", READS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_a_good_reply_is_the_data(prepared: Prepared, case: Good, read: Read) -> None:
    prepared.connect(structured=case.structured)
    assert read(prepared, case.answers) == case.data
    assert prepared.handle.aio_is_ready()


@pytest.mark.parametrize("read", READS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_reply_is_an_error(prepared: Prepared, case: Bad, read: Read) -> None:
    h = prepared.connect()
    with pytest.raises(Error) as caught:
        read(prepared, case.answers)
    assert caught.value.errnum == case.number
    assert h.aio_is_ready() == case.usable
    if case.usable:
        assert "read: command failed" in caught.value.string
        prepared.answer(data_chunk(2, 0, b"next"))
        assert h.pread(4, 0) == b"next"
    else:
        assert h.aio_is_dead()


def test_a_server_that_ends_the_connection_closes_it(prepared: Prepared) -> None:
    h = prepared.connect()
    prepared.end()
    with pytest.raises(Error) as caught:
        h.pread(16, 0)
    assert caught.value.string == "nbd_pread: read: command failed: Transport endpoint is not connected"
    assert h.connection_state().startswith("CLOSED: ")


def test_a_server_that_ends_the_connection_within_a_reply_kills_it(prepared: Prepared) -> None:
    h = prepared.connect()
    prepared.answer(data_chunk(1, 0, DATA)[:30])
    prepared.end()
    with pytest.raises(Error) as caught:
        h.pread(16, 0)
    assert caught.value.args == ("nbd_pread: recv: server disconnected unexpectedly", 0)
    assert h.aio_is_dead()


def test_what_the_server_did_not_send_is_zero(prepared: Prepared) -> None:
    h = prepared.connect()
    buffer = bytearray(b"\xee" * COUNT)
    prepared.answer(data_chunk(1, AT + 4, b"data", flags=MORE), error_chunk(1, Errno.EIO))
    with pytest.raises(Error):
        h.pread_into(buffer, AT)
    assert buffer == bytes(4) + b"data" + bytes(8)


def test_a_refused_read_leaves_a_buffer_of_zeroes(prepared: Prepared) -> None:
    h = prepared.connect()
    buffer = bytearray(b"\xee" * COUNT)
    with pytest.raises(Error):
        h.aio_pread(buffer, 1 << 40)
    assert buffer == bytes(COUNT)


def test_chunks_are_told_as_they_come(prepared: Prepared) -> None:
    h = prepared.connect()
    told: list[tuple[bytes, int, int, int]] = []

    def chunk_seen(part: memoryview, offset: int, status: int, error: c_int) -> int:
        assert part.readonly
        told.append((bytes(part), offset, status, error.value))
        return 0

    broken = chunk(1, ReplyType.ERROR_OFFSET, ErrorOffset(error=Errno.EIO, offset=AT + 8).encode(), flags=MORE)
    prepared.answer(
        data_chunk(1, AT, DATA[:4], flags=MORE),
        hole_chunk(1, AT + 4, 4, flags=MORE),
        broken,
        data_chunk(1, AT + 12, DATA[12:]),
    )
    with pytest.raises(Error) as caught:
        h.pread_structured(COUNT, AT, chunk_seen)
    assert caught.value.errnum == errno.EIO
    assert told == [
        (DATA[:4], AT, 1, 0),
        (bytes(4), AT + 4, 2, 0),
        (b"", AT + 8, 3, errno.EIO),
        (DATA[12:], AT + 12, 1, errno.EIO),
    ]


def test_a_chunk_callback_sees_into_the_buffer(prepared: Prepared) -> None:
    h = prepared.connect()
    kept: list[memoryview] = []
    prepared.answer(data_chunk(1, AT, DATA))
    data = h.pread_structured(COUNT, AT, lambda part, *_: kept.append(part))
    with pytest.raises(BufferError):
        data.pop()
    data[0] = 99
    assert kept[0][0] == 99
    kept.clear()
    data.pop()


@pytest.mark.parametrize(("set_to", "number"), [(0, errno.EPROTO), (errno.ERANGE, errno.ERANGE)])
def test_a_chunk_callback_can_make_the_read_fail(prepared: Prepared, set_to: int, number: int) -> None:
    h = prepared.connect()

    def no(part: memoryview, offset: int, status: int, error: c_int) -> int:
        error.value = set_to
        return -1

    prepared.answer(data_chunk(1, AT, DATA))
    with pytest.raises(Error) as caught:
        h.pread_structured(COUNT, AT, no)
    assert caught.value.errnum == number


def test_an_exception_in_a_callback_is_the_cause_of_the_error(prepared: Prepared) -> None:
    h = prepared.connect()

    def broken(*_: object) -> int:
        raise LookupError("nothing found")

    prepared.answer(data_chunk(1, AT, DATA))
    with pytest.raises(Error) as caught:
        h.pread_structured(COUNT, AT, broken)
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.errnum == errno.EPROTO


def test_an_assertion_in_a_callback_is_raised_itself(prepared: Prepared) -> None:
    h = prepared.connect()

    def check(*_: object) -> int:
        raise AssertionError("as it should not be")

    prepared.answer(data_chunk(1, AT, DATA))
    with pytest.raises(AssertionError, match="as it should not be"):
        h.pread_structured(COUNT, AT, check)
    prepared.answer(data_chunk(2, AT, DATA))
    assert h.pread(COUNT, AT) == DATA


def test_a_callback_cannot_call_its_handle(prepared: Prepared) -> None:
    h = prepared.connect()
    seen: list[Error] = []

    def nested(*_: object) -> int:
        assert not h.aio_is_dead()  # which only looks
        with pytest.raises(Error) as caught:
            h.get_size()
        seen.append(caught.value)
        return 0

    prepared.answer(data_chunk(1, AT, DATA))
    h.pread_structured(COUNT, AT, nested)
    assert [error.errnum for error in seen] == [errno.EDEADLK]


def test_a_claimed_giant_chunk_allocates_nothing(prepared: Prepared) -> None:
    h = prepared.connect(size=1 << 40)
    h.set_timeout(60)
    claim = StructuredReply(flags=ReplyFlag.DONE, type=ReplyType.BLOCK_STATUS, cookie=1).encode()[:16]
    prepared.answer(claim + (60 << 20).to_bytes(4, "big"))
    prepared.end()
    with pytest.raises(Error, match="disconnected unexpectedly"):
        h.pread(COUNT, AT)
    assert len(h._engine.inbox.buffer) <= 1 << 18


def test_a_large_reply_is_received_in_place(prepared: Prepared) -> None:
    size = 150_000
    h = prepared.connect()
    pattern = bytes(range(251)) * (size // 251 + 1)
    h.set_timeout(60)
    prepared.answer(data_chunk(1, 0, pattern[: size // 2], flags=MORE), hole_chunk(1, size // 2, size - size // 2))
    assert h.pread(size, 0) == pattern[: size // 2] + bytes(size - size // 2)
    assert len(h._engine.inbox.buffer) < 1 << 18


def test_a_reply_to_a_command_that_was_not_sent_is_a_reply_to_nobody(handle: NBD, prepared: Prepared) -> None:
    h = prepared.connect()
    prepared.answer(data_chunk(2, 0, b"too early"), data_chunk(1, 0, b"in time."))
    assert h.pread(8, 0) == b"in time."
    prepared.answer(data_chunk(2, 0, b"second.."))
    assert h.pread(8, 0) == b"second.."
