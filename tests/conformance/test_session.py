"""The raw peer and the session: what a tester sends, and how replies are read without being judged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nbdtest.conformance import Complaint, Hangup, NoAnswer
from nbdtest.conformance.peer import Peer
from nbdtest.conformance.replies import Content
from nbdtest.conformance.session import Session
from nbdtest.net.sockets import stream_pair
from nbdtest.net.stream import SocketStream
from nbdtest.wire import (
    Cmd,
    CmdFlag,
    Errno,
    ErrorChunk,
    ExtendedRequest,
    OffsetData,
    OffsetHole,
    ReplyFlag,
    ReplyType,
    Request,
    SimpleReply,
    StructuredReply,
    Transcript,
    TransmissionFlag,
)

DONE = ReplyFlag.DONE
MORE = ReplyFlag(0)
NO_FLAGS = TransmissionFlag(0)


@pytest.fixture
def ends() -> Iterator[tuple[Peer, SocketStream]]:
    ours, theirs = stream_pair()
    with ours, theirs:
        yield Peer(ours, Transcript(), timeout_s=0.1, quiet_s=0.01), theirs


def session_of(peer: Peer, mode: str = "structured") -> Session:
    return Session(peer, size=1 << 20, flags=NO_FLAGS, mode=mode)


def chunk(cookie: int, type: ReplyType, payload: bytes = b"", flags: ReplyFlag = MORE) -> bytes:
    return StructuredReply(flags=flags, type=type, cookie=cookie, payload=payload).encode()


def data_at(offset: int, data: bytes) -> bytes:
    return OffsetData(offset=offset, data=data).encode()


def test_replies_are_matched_by_cookie_in_any_order(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    session = session_of(peer, "simple")
    first, second = session.send(Cmd.FLUSH), session.send(Cmd.READ, 0, 4)
    server.send_all(SimpleReply(cookie=second).encode() + b"data", SimpleReply(cookie=first, error=Errno.EIO).encode())
    assert session.receive(first).error == Errno.EIO
    assert session.receive(second).bytes_read() == b"data"


def test_chunks_of_several_replies_may_interleave(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    session = session_of(peer)
    first, second = session.send(Cmd.READ, 0, 4), session.send(Cmd.READ, 8, 4)
    server.send_all(
        chunk(first, ReplyType.OFFSET_DATA, data_at(2, b"CD")),
        chunk(second, ReplyType.OFFSET_DATA, data_at(8, b"efgh"), DONE),
        chunk(first, ReplyType.OFFSET_DATA, data_at(0, b"AB"), DONE),
    )
    assert [reply.bytes_read() for reply in session.receive_all([first, second])] == [b"ABCD", b"efgh"]


def test_a_reply_is_put_together_from_what_lies_inside_the_request(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    session = session_of(peer)
    cookie = session.send(Cmd.READ, 4, 8)
    server.send_all(
        chunk(cookie, ReplyType.OFFSET_DATA, data_at(2, b"xxAB")),
        chunk(cookie, ReplyType.OFFSET_HOLE, OffsetHole(offset=6, length=2).encode()),
        chunk(cookie, ReplyType.OFFSET_DATA, data_at(10, b"YZ!!"), DONE),
    )
    reply = session.receive(cookie)
    assert reply.bytes_read() == b"AB\0\0\0\0YZ"
    assert reply.content() == (Content(2, 4, b"xxAB"), Content(6, 2, None), Content(10, 4, b"YZ!!"))
    assert reply.succeeded
    assert reply.kind == "structured"


def test_an_error_chunk_fails_the_reply_even_if_it_is_malformed(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    session = session_of(peer)
    cookies = [session.send(Cmd.READ, 0, 4) for _ in range(2)]
    error = ErrorChunk(error=Errno.EINVAL, message="no").encode()
    server.send_all(chunk(cookies[0], ReplyType.ERROR, error, DONE), chunk(cookies[1], ReplyType.ERROR, b"\0", DONE))
    told, malformed = session.receive_all(cookies)
    assert (told.error, told.succeeded, told.errors()[0].message) == (Errno.EINVAL, False, "no")
    assert (malformed.succeeded, malformed.errors()) == (False, ())


@pytest.mark.parametrize(
    ("sent", "complaint", "requirement"),
    [
        (SimpleReply(cookie=99).encode(), "a reply with cookie 0x63", "RPL-005"),
        (b"\xde\xad\xbe\xef", "a message that begins with de ad be ef", "RPL-001"),
        (chunk(1, ReplyType.NONE)[:16] + b"\xff\xff\xff\xff", "a chunk of 4294967295 bytes", "RPL-039"),
    ],
    ids=["a cookie nobody sent", "no magic", "a chunk of 4 GiB"],
)
def test_what_cannot_be_read_on_from_is_a_complaint(
    ends: tuple[Peer, SocketStream], sent: bytes, complaint: str, requirement: str
) -> None:
    peer, server = ends
    session = session_of(peer)
    cookie = session.send(Cmd.READ, 0, 4)
    server.send_all(sent)
    with pytest.raises(Complaint, match=complaint) as caught:
        session.receive(cookie)
    assert caught.value.requirement == requirement


def test_silence_and_an_end_are_told_apart(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    session = session_of(peer)
    cookie = session.send(Cmd.READ, 0, 4)
    with pytest.raises(NoAnswer, match=r"nothing came in 0\.1 s; a reply to CMD_READ was expected"):
        session.receive(cookie)
    server.close()
    with pytest.raises(Hangup, match=r"the server (reset|closed) the connection"):
        session.receive(cookie)


def test_a_hangup_is_tolerable_only_after_the_preparation(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    server.close()
    with pytest.raises(Hangup) as caught:
        peer.receive_bytes(1, wanted="something")
    assert not caught.value.tolerable
    peer.preparing = False
    with pytest.raises(Hangup) as caught:
        peer.receive_bytes(1, wanted="something")
    assert caught.value.tolerable


def test_what_is_held_back_leaves_in_one_piece(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    peer.hold()
    peer.send(b"one")
    peer.send(b"two")
    assert server.nothing_arrives(0.01)
    peer.release()
    assert server.receive_exact(6) == b"onetwo"
    assert [record.data for record in peer.transcript] == [b"one", b"two"]


def test_single_bytes_arrive_as_the_same_stream(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    peer.slowly = True
    peer.send(b"slowly")
    assert server.receive_exact(6) == b"slowly"


def test_every_write_under_extended_headers_has_payload_len(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    session_of(peer, "extended").send(Cmd.WRITE, 8, 4, payload=b"data")
    request = ExtendedRequest.decode(server.receive_exact(32))
    assert (request.flags, request.offset, request.length) == (CmdFlag.PAYLOAD_LEN, 8, 4)
    assert server.receive_exact(4) == b"data"


def test_a_compact_request_keeps_what_it_is_told(ends: tuple[Peer, SocketStream]) -> None:
    peer, server = ends
    session_of(peer).send(0x7FFF, 1 << 63, 5, flags=0x8000, cookie=7)
    request = Request.decode(server.receive_exact(28))
    assert (request.type, request.offset, request.length, request.flags, request.cookie) == (
        0x7FFF,
        1 << 63,
        5,
        0x8000,
        7,
    )
