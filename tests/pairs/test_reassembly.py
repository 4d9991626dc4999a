"""Structured replies: whatever is legal is put together, whatever is not is noticed, callbacks see every byte once."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.client import states
from nbdtest.client.constants import READ_DATA, READ_HOLE
from nbdtest.fakeserver.export import Export
from nbdtest.fuzz.strategies import Command as Asked
from nbdtest.fuzz.strategies import (
    Fault,
    Reply,
    error_replies,
    faulty_read_replies,
    interleaved,
    read_replies,
    status_replies,
)
from nbdtest.model import MemoryDisk
from nbdtest.wire import (
    BlockStatus,
    Cmd,
    OffsetData,
    OffsetHole,
    ReplyFlag,
    ReplyType,
    StructuredReply,
    decode_chunk_payload,
)
from tests.pairs.link import Link, paces
from tests.pairs.test_sessions import Watched

SIZE = 1 << 16

contents = st.one_of(
    st.binary(min_size=2, max_size=300),
    st.lists(st.sampled_from([bytes(40), b"data" * 9]), min_size=1, max_size=6).map(b"".join),
)


def connected(pace: list[int]) -> Link:
    link = Link(Export(disk=MemoryDisk(SIZE)), pace=pace, request_extended_headers=False).connect()
    assert link.client.state is states.READY
    return link


def asks(link: Link, *reads: Watched) -> list[int]:
    """Send reads that the server never sees, and return their cookies."""
    cookies = []
    for read in reads:
        cookies.append(link.client.submit(read.command))
        while link.client.has_output:
            link.client.sent(sum(map(len, link.client.output())))
    return cookies


def encoded(reply: Reply) -> bytes:
    return b"".join(chunk.encode() for chunk in reply)


@given(data=st.data(), pace=paces(), parts=st.lists(contents, min_size=1, max_size=4))
def test_legal_replies_in_any_order_become_the_bytes_of_the_disk(
    data: st.DataObject, pace: list[int], parts: list[bytes]
) -> None:
    link = connected(pace)
    reads = [Watched(Asked(type=Cmd.READ, offset=1000 * n, length=len(part))) for n, part in enumerate(parts)]
    cookies = asks(link, *reads)
    replies = [
        data.draw(read_replies(part, 1000 * n, cookie))
        for n, (part, cookie) in enumerate(zip(parts, cookies, strict=True))
    ]
    link.feed(encoded(data.draw(interleaved(*replies))))
    assert link.client.state is states.READY
    for n, (read, part) in enumerate(zip(reads, parts, strict=True)):
        assert read.ends == [0]
        assert read.data == part
        at = 1000 * n
        for start, length in sorted(read.seen):
            assert start == at
            at += length
        assert at == 1000 * n + len(part)


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
@given(data=st.data(), pace=paces(), content=contents)
def test_an_illegal_reply_is_noticed(fault: Fault, data: st.DataObject, pace: list[int], content: bytes) -> None:
    link = connected(pace)
    read = Watched(Asked(type=Cmd.READ, offset=4096, length=len(content)))
    (cookie,) = asks(link, read)
    link.feed(encoded(data.draw(faulty_read_replies(content, 4096, cookie, fault))))
    if not link.client.over:
        assert link.client.state is states.READY
        assert link.client.in_flight == {}
    assert len(read.ends) == 1
    assert read.ends != [0]


@given(data=st.data(), pace=paces(), length=st.integers(1, 200))
def test_an_error_reply_fails_its_command_alone(data: st.DataObject, pace: list[int], length: int) -> None:
    link = connected(pace)
    first, second = (Watched(Asked(type=Cmd.READ, offset=n * 4096, length=length)) for n in (1, 2))
    cookies = asks(link, first, second)
    bad = data.draw(error_replies(4096, length, cookies[0]))
    good = data.draw(read_replies(b"x" * length, 8192, cookies[1]))
    link.feed(encoded(data.draw(interleaved(bad, good))))
    assert first.ends
    assert first.ends[0] not in (0, errno.EPROTO)
    assert second.ends == [0]
    assert second.data == b"x" * length


@given(data=st.data(), pace=paces(), length=st.integers(1, 4096))
def test_legal_status_replies_are_told_as_they_come(data: st.DataObject, pace: list[int], length: int) -> None:
    export = Export(disk=MemoryDisk(SIZE))
    link = Link(export, pace=pace, request_extended_headers=False, meta_contexts=["base:allocation"]).connect()
    ((context, _),) = link.client.contexts
    status = Watched(Asked(type=Cmd.BLOCK_STATUS, offset=0, length=length))
    read = Watched(Asked(type=Cmd.READ, offset=8192, length=9))
    cookies = asks(link, status, read)
    told = data.draw(status_replies([context], length, cookies[0], beyond=SIZE - length))
    link.feed(encoded(data.draw(interleaved(told, data.draw(read_replies(b"something", 8192, cookies[1]))))))
    assert link.client.state is states.READY
    assert (status.ends, read.ends, read.data) == ([0], [0], b"something")
    (described,) = [decode_chunk_payload(each.type, each.payload) for each in told if each.payload]
    assert isinstance(described, BlockStatus)
    assert status.extents == [number for extent in described.extents for number in (extent.length, extent.status)]


@given(data=st.data(), pace=paces(), content=contents)
def test_after_any_reply_the_buffer_holds_the_disk_or_zeroes_never_old_memory(
    data: st.DataObject, pace: list[int], content: bytes
) -> None:
    link = connected(pace)
    read = Watched(Asked(type=Cmd.READ, offset=4096, length=len(content)))
    (cookie,) = asks(link, read)
    whole = encoded(data.draw(read_replies(content, 4096, cookie)))
    link.feed(whole[: data.draw(st.integers(0, len(whole) - 1))])
    link.client.received_end()
    assert read.ends == [errno.ENOTCONN]
    assert all(got in (byte, 0) for got, byte in zip(read.data, content, strict=True))


def test_callbacks_tell_data_from_holes() -> None:
    kinds = []
    link = connected([1])
    read = Watched(Asked(type=Cmd.READ, offset=0, length=8))
    read.command.chunk = lambda part, at, kind, error: kinds.append((bytes(part), at, kind))
    (cookie,) = asks(link, read)
    hole = OffsetHole(offset=4, length=4).encode()
    data = OffsetData(offset=0, data=b"abcd").encode()
    link.feed(StructuredReply(type=ReplyType.OFFSET_HOLE, cookie=cookie, payload=hole).encode())
    link.feed(StructuredReply(flags=ReplyFlag.DONE, type=ReplyType.OFFSET_DATA, cookie=cookie, payload=data).encode())
    assert kinds == [(bytes(4), 4, READ_HOLE), (b"abcd", 0, READ_DATA)]
