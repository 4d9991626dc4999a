"""The transmission phase as a tester drives it: any request, and replies matched by cookie, read without judging them.

Only what would make the rest of the stream unreadable is a complaint here: a magic that is none, a cookie that nobody
sent, a chunk of absurd length.
"""

from __future__ import annotations

from collections.abc import Iterable

from nbdtest.conformance.peer import Peer
from nbdtest.conformance.replies import AnyRequest, Chunk, Reply
from nbdtest.conformance.verdict import Complaint, Hangup
from nbdtest.wire import (
    EXTENDED_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Cmd,
    CmdFlag,
    Errno,
    ExtendedReply,
    ExtendedReplyHeader,
    ExtendedRequest,
    InfoBlockSize,
    ReplyFlag,
    Request,
    SimpleReply,
    StructuredReply,
    StructuredReplyHeader,
    TransmissionFlag,
    dump,
)

__all__ = ["DATA_OF_READ", "Session"]

DATA_OF_READ = "the data of the READ"
"""What a simple reply that said success still owes: a server that cannot keep the promise has to hang up (CMD-014)."""

_LONGEST_CHUNK = 80 << 20
_MOST_CHUNKS = 1 << 16
_DESCRIBED = 1 << 12


class Session:
    """A connection in transmission.

    `mode` is what was negotiated: "simple", "structured" or "extended" replies; `unit` is a length that every legal
    request may have.
    """

    def __init__(
        self,
        peer: Peer,
        *,
        size: int,
        flags: TransmissionFlag,
        mode: str = "simple",
        contexts: dict[str, int] | None = None,
        block_size: InfoBlockSize | None = None,
        unit: int = 512,
    ) -> None:
        self.peer = peer
        self.size = size
        self.flags = flags
        self.mode = mode
        self.contexts = contexts or {}
        self.block_size = block_size
        self.unit = unit
        self._next_cookie = 1
        self._pending: dict[int, AnyRequest] = {}
        self._begun: dict[int, list[Chunk]] = {}
        self._arrived: dict[int, Reply] = {}
        self._refused_read = False

    def send(
        self,
        type: int,
        offset: int = 0,
        length: int = 0,
        *,
        flags: int = 0,
        payload: bytes = b"",
        cookie: int | None = None,
    ) -> int:
        """Send a request and what follows it, without waiting, and return its cookie.

        Under extended headers a payload sets PAYLOAD_LEN and `length` is then the payload's; so does every WRITE.
        """
        if cookie is None:
            cookie, self._next_cookie = self._next_cookie, self._next_cookie + 1
        request: AnyRequest
        if self.mode == "extended":
            with_payload = flags | CmdFlag.PAYLOAD_LEN if payload or type == Cmd.WRITE else flags
            request = ExtendedRequest(
                flags=CmdFlag(with_payload),
                type=Cmd(type),
                cookie=cookie,
                offset=offset,
                length=len(payload) if payload else length,
            )
        else:
            request = Request(flags=CmdFlag(flags), type=Cmd(type), cookie=cookie, offset=offset, length=length)
        self._pending[cookie] = request
        try:
            if payload:
                self.peer.send(request.encode() + payload, summary=f"{dump(request)} and {len(payload)} bytes")
            else:
                self.peer.send(request)
        except Hangup as hangup:
            raise self._allowed(hangup) from None
        return cookie

    def receive(self, cookie: int) -> Reply:
        """Receive the reply to this cookie; replies to others that come first are kept for their turn.

        Raises:
            Complaint: it did not come, or something came that cannot be read on from.
        """
        while cookie not in self._arrived:
            self._receive_message(f"a reply to {self._pending[cookie].type}")
        return self._arrived.pop(cookie)

    def receive_all(self, cookies: Iterable[int]) -> list[Reply]:
        """Receive the replies to these cookies, in whatever order they come."""
        return [self.receive(cookie) for cookie in cookies]

    def command(self, type: int, offset: int = 0, length: int = 0, *, flags: int = 0, payload: bytes = b"") -> Reply:
        """Send a request and receive its reply."""
        return self.receive(self.send(type, offset, length, flags=flags, payload=payload))

    def read(self, offset: int, length: int, *, flags: int = 0) -> Reply:
        """READ."""
        return self.command(Cmd.READ, offset, length, flags=flags)

    def write(self, offset: int, data: bytes, *, flags: int = 0) -> Reply:
        """WRITE."""
        return self.command(Cmd.WRITE, offset, len(data), flags=flags, payload=data)

    def flush(self, *, flags: int = 0) -> Reply:
        """FLUSH."""
        return self.command(Cmd.FLUSH, flags=flags)

    def block_status(self, offset: int, length: int, *, flags: int = 0) -> Reply:
        """BLOCK_STATUS."""
        return self.command(Cmd.BLOCK_STATUS, offset, length, flags=flags)

    def disconnect(self) -> None:
        """Send DISC; nothing answers it."""
        self._pending.pop(self.send(Cmd.DISC))

    def _receive_message(self, wanted: str) -> None:
        try:
            magic = self.peer.receive_bytes(4, wanted=wanted)
        except Hangup as hangup:
            raise self._allowed(hangup) from None
        self._refused_read = False
        match int.from_bytes(magic, "big"):
            case numbers if numbers == SIMPLE_REPLY_MAGIC:
                self._receive_simple(magic)
            case numbers if numbers == STRUCTURED_REPLY_MAGIC:
                self._receive_structured(magic)
            case numbers if numbers == EXTENDED_REPLY_MAGIC and self.mode == "extended":
                self._receive_extended(magic)
            case _:
                self.peer.note(magic, "no reply magic")
                raise Complaint(f"a message that begins with {magic.hex(' ')}", wanted, requirement="RPL-001")

    def _receive_simple(self, magic: bytes) -> None:
        data = magic + self.peer.receive_bytes(12, wanted="the rest of a simple reply")
        reply = SimpleReply.decode(data)
        self.peer.note(data, dump(reply))
        request = self._request_of(reply.cookie)
        body = b""
        if request.type == Cmd.READ and reply.error == Errno.OK:
            body = self.peer.receive_bytes(request.length, wanted=DATA_OF_READ)
            self.peer.note(body, f"{len(body)} bytes of data")
        del self._pending[reply.cookie]
        self._refused_read = self.mode == "simple" and request.type == Cmd.READ and reply.error != Errno.OK
        self._arrived[reply.cookie] = Reply(request=request, simple=reply, data=body)

    def _receive_structured(self, magic: bytes) -> None:
        data = magic + self.peer.receive_bytes(16, wanted="the rest of a chunk's header")
        header = StructuredReplyHeader.decode(data)
        payload = self._receive_payload(data, header)
        chunk = StructuredReply(flags=header.flags, type=header.type, cookie=header.cookie, payload=payload)
        self.peer.note(data + payload, _describe(header, chunk))
        self._add_chunk(chunk)

    def _receive_extended(self, magic: bytes) -> None:
        data = magic + self.peer.receive_bytes(28, wanted="the rest of a chunk's header")
        header = ExtendedReplyHeader.decode(data)
        payload = self._receive_payload(data, header)
        chunk = ExtendedReply(
            flags=header.flags, type=header.type, cookie=header.cookie, offset=header.offset, payload=payload
        )
        self.peer.note(data + payload, _describe(header, chunk))
        self._add_chunk(chunk)

    def _receive_payload(self, data: bytes, header: StructuredReplyHeader | ExtendedReplyHeader) -> bytes:
        if header.length > _LONGEST_CHUNK:
            self.peer.note(data, dump(header))
            raise Complaint(f"a chunk of {header.length} bytes", f"at most {_LONGEST_CHUNK}", requirement="RPL-039")
        return self.peer.receive_bytes(header.length, wanted="the payload of a chunk") if header.length else b""

    def _add_chunk(self, chunk: Chunk) -> None:
        request = self._request_of(chunk.cookie)
        chunks = self._begun.setdefault(chunk.cookie, [])
        chunks.append(chunk)
        if len(chunks) > _MOST_CHUNKS:
            raise Complaint(f"more than {_MOST_CHUNKS} chunks in one reply", "the last one", requirement="RPL-027")
        if ReplyFlag.DONE in chunk.flags:
            del self._begun[chunk.cookie], self._pending[chunk.cookie]
            self._arrived[chunk.cookie] = Reply(request=request, chunks=tuple(chunks))

    def _allowed(self, hangup: Hangup) -> Hangup:
        """The hangup as one that CMD-012 allows and TERM-041 forbids, if it follows a simple error reply to READ."""
        if self._refused_read:
            hangup.requirement = "CMD-012"
        return hangup

    def _request_of(self, cookie: int) -> AnyRequest:
        request = self._pending.get(cookie)
        if request is None:
            sent = ", ".join(f"0x{known:x}" for known in self._pending) or "none"
            raise Complaint(f"a reply with cookie 0x{cookie:x}", f"one of {sent}", requirement="RPL-005")
        return request


def _describe(header: StructuredReplyHeader | ExtendedReplyHeader, chunk: Chunk) -> str:
    """One line for the transcript; what is in a long payload is not worth decoding for it."""
    return dump(chunk) if header.length <= _DESCRIBED else dump(header)
