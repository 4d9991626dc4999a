"""What commands look like on the wire, what is refused before anything is sent, and block status."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ctypes import c_int

import pytest

from nbdtest.client import (
    CMD_FLAG_DF,
    CMD_FLAG_FAST_ZERO,
    CMD_FLAG_FUA,
    CMD_FLAG_NO_HOLE,
    CMD_FLAG_PAYLOAD_LEN,
    CMD_FLAG_REQ_ONE,
    NBD,
    STRICT_ALIGN,
    STRICT_AUTO_FLAG,
    STRICT_BOUNDS,
    STRICT_COMMANDS,
    STRICT_FLAGS,
    STRICT_MASK,
    STRICT_PAYLOAD,
    STRICT_ZERO_SIZE,
    Error,
    StatusExtent,
)
from nbdtest.wire import (
    BlockStatus,
    BlockStatusExt,
    Cmd,
    CmdFlag,
    Errno,
    ErrorChunk,
    ExtendedRequest,
    Extent,
    ReplyFlag,
    ReplyType,
    Request,
    SimpleReply,
    StatusFilter,
    TransmissionFlag,
)
from tests.client.prepared import ALL_FLAGS, Prepared, chunk, data_chunk, done, error_chunk

Call = Callable[[NBD], object]
EXT = TransmissionFlag.BLOCK_STATUS_PAYLOAD | ALL_FLAGS
BASE = (7, "base:allocation")
OTHER = (9, "x-other:context")


def ok(cookie: int = 1) -> bytes:
    return SimpleReply(cookie=cookie).encode()


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        (lambda h: h.flush(), Request(type=Cmd.FLUSH, cookie=1)),
        (lambda h: h.trim(512, 1024), Request(type=Cmd.TRIM, cookie=1, offset=1024, length=512)),
        (lambda h: h.trim(512, 0, CMD_FLAG_FUA), Request(flags=CmdFlag.FUA, type=Cmd.TRIM, cookie=1, length=512)),
        (lambda h: h.zero(512, 1024), Request(type=Cmd.WRITE_ZEROES, cookie=1, offset=1024, length=512)),
        (
            lambda h: h.zero(1, 2, CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO),
            Request(flags=CmdFlag.NO_HOLE | CmdFlag.FAST_ZERO, type=Cmd.WRITE_ZEROES, cookie=1, offset=2, length=1),
        ),
        (lambda h: h.cache(512, 1024), Request(type=Cmd.CACHE, cookie=1, offset=1024, length=512)),
        (lambda h: h.pwrite(b"", 0), None),
        (
            lambda h: h.raw_command(99, 1, 2, 0x40),
            Request(flags=CmdFlag(0x40), type=Cmd(99), cookie=1, offset=1, length=2),
        ),
    ],
)
@pytest.mark.parametrize("limited", [False, True], ids=["lane", "engine"])
def test_request_on_the_wire(prepared: Prepared, call: Call, request_: Request | None, limited: bool) -> None:
    h = prepared.connect()
    h.set_timeout(60 if limited else None)
    if request_ is None:
        with pytest.raises(Error, match="count cannot be 0"):
            call(h)
        assert prepared.sent() == b""
        return
    prepared.answer(ok())
    call(h)
    assert prepared.sent() == request_.encode()


@pytest.mark.parametrize("size", [1, 65535, 65536, 100_000])
@pytest.mark.parametrize("limited", [False, True], ids=["lane", "engine"])
def test_write_sends_header_and_data(prepared: Prepared, size: int, limited: bool) -> None:
    h = prepared.connect()
    h.set_timeout(60 if limited else None)
    prepared.answer(ok())
    data = bytes(range(256)) * (size // 256 + 1)
    h.pwrite(data[:size], 5)
    request = Request(type=Cmd.WRITE, cookie=1, offset=5, length=size)
    assert prepared.sent() == request.encode() + data[:size]
    assert (h.stats_bytes_sent(), h.stats_chunks_sent()) == (h.stats_bytes_sent(), 4)


def test_extended_requests(prepared: Prepared) -> None:
    h = prepared.connect(extended=True, size=1 << 50)
    none = chunk(1, ReplyType.NONE, offset=1 << 40)
    prepared.answer(none)
    h.zero(1 << 45, 1 << 40)
    request = ExtendedRequest(type=Cmd.WRITE_ZEROES, cookie=1, offset=1 << 40, length=1 << 45)
    assert prepared.sent() == request.encode()
    prepared.answer(chunk(2, ReplyType.NONE, offset=3))
    h.pwrite(b"abc", 3)
    request = ExtendedRequest(flags=CmdFlag.PAYLOAD_LEN, type=Cmd.WRITE, cookie=2, offset=3, length=3)
    assert prepared.sent() == request.encode() + b"abc"


def test_structured_success_is_as_good_as_a_simple_one(prepared: Prepared) -> None:
    h = prepared.connect()
    for answer in (done(1), ok(2)):
        prepared.answer(answer)
        h.flush()
    assert h.aio_is_ready()
    assert h.aio_in_flight() == 0


@pytest.mark.parametrize("reply", [SimpleReply(error=Errno.ENOSPC, cookie=1).encode(), error_chunk(1, Errno.ENOSPC)])
def test_a_failed_command_is_named(prepared: Prepared, reply: bytes) -> None:
    h = prepared.connect()
    prepared.answer(reply)
    with pytest.raises(Error) as caught:
        h.zero(512, 0)
    assert caught.value.args == (
        "nbd_zero: write-zeroes: command failed: No space left on device",
        errno.ENOSPC,
    )


def without(*flags: TransmissionFlag) -> int:
    return int(ALL_FLAGS) & ~sum(flags)


RO = TransmissionFlag.READ_ONLY


@pytest.mark.parametrize(
    ("flags", "call", "number", "text"),
    [
        (ALL_FLAGS | RO, lambda h: h.pwrite(b"x", 0), errno.EPERM, "server does not support write operations"),
        (ALL_FLAGS | RO, lambda h: h.trim(1, 0), errno.EPERM, "server does not support write operations"),
        (ALL_FLAGS | RO, lambda h: h.zero(1, 0), errno.EPERM, "server does not support write operations"),
        (1, lambda h: h.flush(), errno.EINVAL, "server does not support flush operations"),
        (1 | RO, lambda h: h.trim(1, 0), errno.EINVAL, "server does not support trim operations"),
        (1, lambda h: h.zero(1, 0), errno.EINVAL, "server does not support zero operations"),
        (1, lambda h: h.cache(1, 0), errno.EINVAL, "server does not support cache operations"),
        (1, lambda h: h.pwrite(b"x", 0, CMD_FLAG_FUA), errno.EINVAL, "server does not support the FUA flag"),
        (
            without(TransmissionFlag.SEND_FAST_ZERO),
            lambda h: h.zero(1, 0, CMD_FLAG_FAST_ZERO),
            errno.EINVAL,
            "server does not support the fast zero flag",
        ),
        (
            without(TransmissionFlag.SEND_DF),
            lambda h: h.pread_structured(1, 0, print, CMD_FLAG_DF),
            errno.EINVAL,
            "server does not support the DF flag",
        ),
        (ALL_FLAGS, lambda h: h.pread(0, 0), errno.EINVAL, "count cannot be 0"),
        (ALL_FLAGS, lambda h: h.trim(0, 0), errno.EINVAL, "count cannot be 0"),
        (ALL_FLAGS, lambda h: h.pread(1, 1 << 20), errno.EINVAL, "request out of bounds"),
        (ALL_FLAGS, lambda h: h.pread(1, -1), errno.EINVAL, "request out of bounds"),
        (ALL_FLAGS, lambda h: h.pwrite(b"xx", (1 << 20) - 1), errno.ENOSPC, "request out of bounds"),
        (ALL_FLAGS, lambda h: h.zero(1 << 40, 0), errno.ENOSPC, "request out of bounds"),
        (ALL_FLAGS, lambda h: h.cache(1 << 21, 0), errno.EINVAL, "request out of bounds"),
        (ALL_FLAGS, lambda h: h.pread(1, 0, 0x40), errno.EINVAL, "flags: invalid value for flag: 0x40"),
        (ALL_FLAGS, lambda h: h.flush(CMD_FLAG_FUA), errno.EINVAL, "flags: invalid value for flag: 0x1"),
        (ALL_FLAGS, lambda h: h.shutdown(1), errno.EINVAL, "flags: invalid value for flag: 0x1"),
        (ALL_FLAGS, lambda h: h.block_status(1, 0, print), errno.ENOTSUP, "did not negotiate any metadata contexts"),
        (
            ALL_FLAGS,
            lambda h: h.pwrite(b"x", 0, CMD_FLAG_PAYLOAD_LEN),  # which is set as the connection needs it
            0,
            "",
        ),
    ],
)
def test_strict_mode_refuses_before_sending(prepared: Prepared, flags: int, call: Call, number: int, text: str) -> None:
    h = prepared.connect(flags=flags)
    before = h.stats_bytes_sent(), h.stats_chunks_sent()
    if not text:
        prepared.answer(ok())
        call(h)
        return
    with pytest.raises(Error) as caught:
        call(h)
    assert caught.value.errnum == number
    assert text in caught.value.string
    assert (h.stats_bytes_sent(), h.stats_chunks_sent()) == before
    assert prepared.sent() == b""


def test_alignment(prepared: Prepared) -> None:
    h = prepared.connect(blocks=(512, 4096, 65536))
    for call in (lambda: h.pread(1, 0), lambda: h.pread(512, 1), lambda: h.zero(513, 0)):
        with pytest.raises(Error, match="request is unaligned"):
            call()
    prepared.answer(data_chunk(1, 0, bytes(512)))
    h.pread(512, 0)


def test_sizes(prepared: Prepared) -> None:
    h = prepared.connect(size=1 << 62, blocks=(1, 4096, 2 << 20))
    with pytest.raises(Error, match="maximum payload size is 2097152: Numerical result out of range"):
        h.pwrite(bytes((2 << 20) + 1), 0)
    with pytest.raises(Error, match="maximum request size is 67108864"):
        h.pread((64 << 20) + 1, 0)
    with pytest.raises(Error, match="maximum request size is 4294967295"):
        h.trim(1 << 32, 0)


@pytest.mark.parametrize(
    ("bit", "call", "sent"),
    [
        (STRICT_COMMANDS, lambda h: h.zero(1, 0), Request(type=Cmd.WRITE_ZEROES, cookie=1, length=1)),
        (STRICT_FLAGS, lambda h: h.flush(0x140), Request(flags=CmdFlag(0x140), type=Cmd.FLUSH, cookie=1)),
        (STRICT_BOUNDS, lambda h: h.trim(1, 1 << 60), Request(type=Cmd.TRIM, cookie=1, offset=1 << 60, length=1)),
        (STRICT_ZERO_SIZE, lambda h: h.trim(0, 0), Request(type=Cmd.TRIM, cookie=1)),
        (STRICT_ALIGN, lambda h: h.trim(1, 1), Request(type=Cmd.TRIM, cookie=1, offset=1, length=1)),
    ],
)
def test_each_part_of_strict_mode_can_be_switched_off(prepared: Prepared, bit: int, call: Call, sent: Request) -> None:
    flags = without(TransmissionFlag.SEND_WRITE_ZEROES) if bit == STRICT_COMMANDS else ALL_FLAGS
    h = prepared.connect(flags=flags, blocks=(512, 4096, 65536) if bit == STRICT_ALIGN else None)
    with pytest.raises(Error):
        call(h)
    h.set_strict_mode(STRICT_MASK & ~bit)
    prepared.answer(ok())
    call(h)
    assert prepared.sent() == sent.encode()


def test_payload_flag_by_hand(prepared: Prepared) -> None:
    h = prepared.connect()
    h.set_strict_mode(STRICT_MASK & ~STRICT_AUTO_FLAG)
    with pytest.raises(Error, match="incorrect setting for PAYLOAD_LEN flag"):
        h.pwrite(b"x", 0, CMD_FLAG_PAYLOAD_LEN)


def test_a_write_beyond_the_payload_limit_by_permission(prepared: Prepared) -> None:
    h = prepared.connect(size=1 << 30, blocks=(1, 512, 1 << 20))
    h.set_strict_mode(STRICT_MASK & ~STRICT_PAYLOAD)
    h.set_timeout(0.05)
    with pytest.raises(Error) as caught:  # it is sent, as far as the socket takes it
        h.pwrite(bytes((1 << 20) + 1), 0)
    assert caught.value.errno == "ETIMEDOUT"
    assert prepared.sent().startswith(Request(type=Cmd.WRITE, cookie=1, length=(1 << 20) + 1).encode())


# ---- block status


def status(cookie: int, number: int, *extents: tuple[int, int], flags: ReplyFlag = ReplyFlag.DONE) -> bytes:
    payload = BlockStatus(context_id=number, extents=tuple(Extent(*extent) for extent in extents)).encode()
    return chunk(cookie, ReplyType.BLOCK_STATUS, payload, flags=flags)


def wide_status(cookie: int, number: int, *extents: tuple[int, int], offset: int = 0) -> bytes:
    payload = BlockStatusExt(context_id=number, extents=tuple(Extent(*extent) for extent in extents)).encode()
    return chunk(cookie, ReplyType.BLOCK_STATUS_EXT, payload, offset=offset)


@pytest.mark.parametrize("limited", [False, True], ids=["lane", "engine"])
def test_block_status_in_both_forms(prepared: Prepared, limited: bool) -> None:
    h = prepared.connect(contexts=[BASE])
    h.set_timeout(60 if limited else None)
    told: list[tuple[object, ...]] = []
    prepared.answer(status(1, 7, (512, 0), (1024, 3)))
    h.block_status(4096, 512, lambda *arguments: told.append(arguments[:3]))
    prepared.answer(status(2, 7, (512, 0), (1024, 3)))
    h.block_status_64(4096, 512, lambda *arguments: told.append(arguments[:3]))
    assert told == [
        ("base:allocation", 512, [512, 0, 1024, 3]),
        ("base:allocation", 512, [(512, 0), (1024, 3)]),
    ]
    assert prepared.sent() == b"".join(
        Request(type=Cmd.BLOCK_STATUS, cookie=cookie, offset=512, length=4096).encode() for cookie in (1, 2)
    )


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("size", [1, 16, 20, 24, 31, 33, 40, 55, 1000])
def test_a_block_status_that_comes_in_pieces_is_understood(prepared: Prepared, size: int, extended: bool) -> None:
    status_of = wide_status if extended else status
    failed = chunk(2, ReplyType.ERROR, ErrorChunk(error=Errno.EIO).encode(), offset=0 if extended else None)
    h = prepared.connect(contexts=[BASE], extended=extended)
    h.set_timeout(None)
    lane = h._lane
    assert lane is not None
    recv = lane._recv
    lane._recv = lambda limit: recv(min(limit, size))
    told: list[object] = []
    prepared.answer(status_of(1, 7, (512, 0), (1024, 3)))
    h.block_status(4096, 0, lambda *arguments: told.append(arguments[2]))
    prepared.answer(failed)
    with pytest.raises(Error, match="block-status: command failed: Input/output error"):
        h.block_status(4096, 0, lambda *arguments: told.append(arguments[2]))
    prepared.answer(status_of(3, 7, (4096, 1)))
    h.block_status(4096, 0, lambda *arguments: told.append(arguments[2]))
    assert told == [[512, 0, 1024, 3], [4096, 1]]


def test_each_context_is_told(prepared: Prepared) -> None:
    h = prepared.connect(contexts=[BASE, OTHER])
    told: list[tuple[object, ...]] = []
    prepared.answer(
        status(1, 9, (512, 1), flags=ReplyFlag(0)),
        status(1, 1234, (512, 1), flags=ReplyFlag(0)),  # a context that nobody selected
        status(1, 7, (4096, 0)),
    )
    h.block_status(4096, 0, lambda *arguments: told.append(arguments[:3]), CMD_FLAG_REQ_ONE)
    assert told == [("x-other:context", 0, [512, 1]), ("base:allocation", 0, [4096, 0])]


@pytest.mark.parametrize("limited", [False, True], ids=["lane", "engine"])
@pytest.mark.parametrize(
    ("extents", "told", "number"),
    [
        ([(0, 0)], [0, 0], errno.EPROTO),
        ([(512, 0), (0, 1), (512, 2)], [512, 0], 0),
        ([(2 << 20, 5)], [1 << 20, 5], errno.EPROTO),
        ([(1 << 19, 0), (1 << 20, 1)], [1 << 19, 0, 1 << 19, 1], errno.EPROTO),
        ([(512, 0xFFFF_FFFF)], [512, 0xFFFF_FFFF], 0),
    ],
    ids=["no-progress", "ends-at-zero", "too-long", "second-too-long", "all-bits"],
)
def test_odd_extents(
    prepared: Prepared, extents: list[tuple[int, int]], told: list[int], number: int, limited: bool
) -> None:
    h = prepared.connect(contexts=[BASE])
    h.set_timeout(60 if limited else None)
    prepared.answer(status(1, 7, *extents))
    seen: list[tuple[list[int], int]] = []

    def extent(context: str, offset: int, entries: list[int], error: c_int) -> None:
        seen.append((entries, error.value))

    if number:
        with pytest.raises(Error) as caught:
            h.block_status(4096, 0, extent)
        assert caught.value.errnum == number
    else:
        h.block_status(4096, 0, extent)
    assert seen == [(told, number)]


def test_wide_extents_for_a_narrow_callback(prepared: Prepared) -> None:
    h = prepared.connect(extended=True, size=1 << 60, contexts=[BASE])
    told: list[list[int]] = []
    prepared.answer(wide_status(1, 7, (1 << 40, 1), (512, 0)))
    h.block_status(1 << 40, 0, lambda *arguments: told.append(arguments[2]))
    prepared.answer(wide_status(2, 7, (512, 1), (512, 1 << 32)))
    h.block_status(1 << 40, 0, lambda *arguments: told.append(arguments[2]))
    assert told == [[(1 << 32) - (64 << 20), 1], [512, 1]]
    prepared.answer(wide_status(3, 7, (512, 1 << 32)))
    with pytest.raises(Error) as caught:
        h.block_status(1 << 40, 0, lambda *arguments: None)
    assert caught.value.errnum == errno.EOVERFLOW


def test_wide_extents_for_a_wide_callback(prepared: Prepared) -> None:
    h = prepared.connect(extended=True, size=1 << 60, contexts=[BASE])
    told: list[list[tuple[int, int]]] = []
    prepared.answer(wide_status(1, 7, (1 << 40, 1 << 63), (512, 0)))
    h.block_status_64(1 << 41, 0, lambda *arguments: told.append(arguments[2]))
    assert told == [[(1 << 40, 1 << 63), (512, 0)]]


@pytest.mark.parametrize("limited", [False, True], ids=["lane", "engine"])
@pytest.mark.parametrize(
    ("extents", "narrow", "wide"),
    [
        ([(512, 0), (1024, 3)], ([512, 0, 1024, 3], 0), ([(512, 0), (1024, 3)], 0)),
        ([(1 << 33, 1), (512, 0)], ([(1 << 32) - (64 << 20), 1], 0), ([(1 << 33, 1), (512, 0)], 0)),
        ([(512, 0), (0, 1)], ([512, 0], 0), ([(512, 0)], 0)),
        ([(0, 1)], ([0, 1], errno.EPROTO), ([(0, 1)], errno.EPROTO)),
        ([(1 << 61, 1)], ([(1 << 32) - (64 << 20), 1], 0), ([(1 << 60, 1)], errno.EPROTO)),
    ],
    ids=["short", "long", "empty-last", "empty", "beyond"],
)
def test_wide_extents_for_either_callback(
    prepared: Prepared,
    extents: list[tuple[int, int]],
    narrow: tuple[list[int], int],
    wide: tuple[list[tuple[int, int]], int],
    limited: bool,
) -> None:
    h = prepared.connect(extended=True, size=1 << 60, contexts=[BASE])
    h.set_timeout(60 if limited else None)
    told: list[tuple[object, int]] = []

    def tell(context: str, offset: int, entries: object, error: c_int) -> None:
        told.append((entries, error.value))

    for cookie, (ask, expected) in enumerate(((h.block_status, narrow), (h.block_status_64, wide)), start=1):
        prepared.answer(wide_status(cookie, 7, *extents))
        if expected[1]:
            with pytest.raises(Error) as caught:
                ask(4096, 0, tell)
            assert caught.value.errnum == expected[1]
        else:
            ask(4096, 0, tell)
        assert told.pop() == expected


@pytest.mark.parametrize("limited", [False, True], ids=["lane", "engine"])
def test_a_wrong_count_of_extents_is_a_violation(prepared: Prepared, limited: bool) -> None:
    h = prepared.connect(extended=True, size=1 << 60, contexts=[BASE])
    h.set_timeout(60 if limited else None)
    payload = BlockStatusExt(context_id=7, extents=(Extent(512, 0),)).encode(extent_count=2)
    prepared.answer(chunk(1, ReplyType.BLOCK_STATUS_EXT, payload, offset=0))
    with pytest.raises(Error) as caught:
        h.block_status_64(512, 0, lambda *_: None)
    assert caught.value.errnum == errno.EPROTO
    assert h.aio_is_ready()


def test_a_reply_for_another_offset_is_a_violation(prepared: Prepared) -> None:
    h = prepared.connect(extended=True, size=1 << 60, contexts=[BASE])
    prepared.answer(wide_status(1, 7, (512, 0), offset=1))
    with pytest.raises(Error) as caught:
        h.block_status_64(512, 0, lambda *_: None)
    assert caught.value.errnum == errno.EPROTO


def test_filter(prepared: Prepared) -> None:
    h = prepared.connect(extended=True, size=1 << 60, contexts=[BASE, OTHER], flags=EXT)
    told: list[tuple[object, ...]] = []
    prepared.answer(wide_status(1, 9, (512, 1)))
    h.block_status_filter(1 << 40, 0, ["x-other:context"], lambda *arguments: told.append(arguments[:3]))
    assert told == [("x-other:context", 0, [(512, 1)])]
    payload = StatusFilter(length=1 << 40, context_ids=(9,)).encode()
    request = ExtendedRequest(flags=CmdFlag.PAYLOAD_LEN, type=Cmd.BLOCK_STATUS, cookie=1, length=len(payload))
    assert prepared.sent() == request.encode() + payload
    with pytest.raises(Error, match="context x-none not negotiated"):
        h.block_status_filter(512, 0, ["x-none"], print)


def test_filter_needs_extended_headers(prepared: Prepared) -> None:
    h = prepared.connect(contexts=[BASE])
    with pytest.raises(Error, match="server does not support extended headers"):
        h.block_status_filter(512, 0, [BASE[1]], print)


def test_filter_needs_the_servers_offer(prepared: Prepared) -> None:
    h = prepared.connect(extended=True, contexts=[BASE])
    with pytest.raises(Error, match="server does not support the block status payload flag"):
        h.block_status_filter(512, 0, [BASE[1]], print)


def test_extents_asks_until_it_knows_all(prepared: Prepared) -> None:
    h = prepared.connect(contexts=[BASE])
    prepared.answer(status(1, 7, (512, 0), (512, 3)))
    extents = h.iterate_extents(4096, 0)
    assert [next(extents), next(extents)] == [StatusExtent(0, 512, 0), StatusExtent(512, 512, 3)]
    prepared.answer(status(2, 7, (1 << 19, 0)))
    assert list(extents) == [StatusExtent(1024, 3072, 0)]
    assert prepared.sent().endswith(Request(type=Cmd.BLOCK_STATUS, cookie=2, offset=1024, length=3072).encode())
    prepared.answer(status(3, 7, (1 << 20, 3)))
    assert h.extents(4096, 0) == [StatusExtent(0, 4096, 3)]


@pytest.mark.parametrize("limited", [False, True], ids=["lane", "engine"])
def test_an_extent_callback_can_make_the_call_fail(prepared: Prepared, limited: bool) -> None:
    h = prepared.connect(contexts=[BASE])
    h.set_timeout(60 if limited else None)

    def refuse(context: str, offset: int, entries: list[int], error: c_int) -> int:
        error.value = errno.ERANGE
        return -1

    def broken(*_: object) -> None:
        raise LookupError

    prepared.answer(status(1, 7, (512, 0)))
    with pytest.raises(Error) as caught:
        h.block_status(512, 0, refuse)
    assert caught.value.errnum == errno.ERANGE
    prepared.answer(status(2, 7, (512, 0)))
    with pytest.raises(Error) as caught:
        h.block_status(512, 0, broken)
    assert isinstance(caught.value.__cause__, LookupError)


# ---- several buffers


def test_several_buffers_are_sent_and_filled_at_once(prepared: Prepared) -> None:
    h = prepared.connect()
    prepared.answer(ok(1), ok(2))
    h.pwritev([b"one", b"three"], 10)
    first = Request(type=Cmd.WRITE, cookie=1, offset=10, length=3).encode() + b"one"
    assert prepared.sent() == first + Request(type=Cmd.WRITE, cookie=2, offset=13, length=5).encode() + b"three"
    buffers = [bytearray(2), bytearray(2)]
    prepared.answer(data_chunk(4, 2, b"cd"), data_chunk(3, 0, b"ab"))
    h.preadv(buffers, 0)
    assert buffers == [b"ab", b"cd"]


NONSENSE = b"nonsense"


@pytest.mark.parametrize("limit_s", [None, 30.0], ids=["fast lane", "engine"])
@pytest.mark.parametrize("split", [False, True], ids=["together", "later"])
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda h: h.flush(), id="flush"),
        pytest.param(lambda h: h.pwrite(b"data", 0), id="write"),
        pytest.param(lambda h: h.pwritev([b"data"], 0), id="writes"),
    ],
)
def test_what_follows_a_complete_reply_does_not_change_its_meaning(
    prepared: Prepared, call: Callable[[NBD], object], split: bool, limit_s: float | None
) -> None:
    h = prepared.connect()
    prepared.answer(SimpleReply(cookie=1).encode())
    h.flush()
    h.set_timeout(limit_s)
    reply = SimpleReply(cookie=2).encode()
    prepared.answer(reply if split else reply + NONSENSE)
    assert call(h) is None
    if split:
        prepared.answer(NONSENSE)
    prepared.end()
    with pytest.raises(Error):
        h.flush()
    assert h.aio_is_dead()


def test_a_reply_that_breaks_off_says_why(prepared: Prepared) -> None:
    h = prepared.connect()
    prepared.answer(SimpleReply(cookie=1).encode()[:10])
    prepared.end()
    with pytest.raises(Error, match="nbd_flush: recv: server disconnected unexpectedly"):
        h.flush()
