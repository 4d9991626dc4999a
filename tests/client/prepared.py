"""A server whose bytes are all there before they are asked for.

The client's requests are known in advance, cookies included, so the answers can wait in the socket: no thread, no
timing, and every byte under the test's control.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from nbdtest.client import NBD
from nbdtest.wire import (
    Errno,
    ErrorChunk,
    ExtendedReply,
    HandshakeFlag,
    InfoBlockSize,
    InfoExport,
    Message,
    MetaContext,
    NewstyleGreeting,
    OffsetData,
    OffsetHole,
    Opt,
    OptionReply,
    Rep,
    ReplyFlag,
    ReplyType,
    StructuredReply,
    TransmissionFlag,
)

__all__ = ["ALL_FLAGS", "Prepared", "ack", "chunk", "data_chunk", "done", "error_chunk", "handshake", "hole_chunk"]

ALL_FLAGS = TransmissionFlag(0x0DFF & ~TransmissionFlag.READ_ONLY)
DONE = ReplyFlag.DONE


def ack(option: Opt) -> bytes:
    """The server agrees."""
    return OptionReply(option=option, type=Rep.ACK).encode()


def refuse(option: Opt, error: Rep = Rep.ERR_UNSUP, text: str = "") -> bytes:
    """The server does not agree."""
    return OptionReply(option=option, type=error, data=text.encode()).encode()


def handshake(
    *,
    size: int = 1 << 20,
    flags: int = ALL_FLAGS,
    structured: bool = True,
    extended: bool = False,
    contexts: Sequence[tuple[int, str]] = (),
    blocks: tuple[int, int, int] | None = None,
) -> bytes:
    """The server's side of a whole handshake by OPT_GO."""
    parts = [NewstyleGreeting(flags=HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES).encode()]
    parts.append(ack(Opt.EXTENDED_HEADERS) if extended else refuse(Opt.EXTENDED_HEADERS))
    if not extended:
        parts.append(ack(Opt.STRUCTURED_REPLY) if structured else refuse(Opt.STRUCTURED_REPLY))
    if contexts:
        for number, name in contexts:
            data = MetaContext(id=number, name=name).encode()
            parts.append(OptionReply(option=Opt.SET_META_CONTEXT, type=Rep.META_CONTEXT, data=data).encode())
        parts.append(ack(Opt.SET_META_CONTEXT))
    parts.append(go_info(InfoExport(size=size, flags=TransmissionFlag(flags))))
    if blocks is not None:
        parts.append(go_info(InfoBlockSize(minimum=blocks[0], preferred=blocks[1], maximum=blocks[2])))
    parts.append(ack(Opt.GO))
    return b"".join(parts)


def go_info(info: Message) -> bytes:
    """One piece of information in the answer to OPT_GO."""
    return OptionReply(option=Opt.GO, type=Rep.INFO, data=info.encode()).encode()


def chunk(
    cookie: int, kind: ReplyType, payload: bytes = b"", *, flags: ReplyFlag = DONE, offset: int | None = None
) -> bytes:
    """A chunk of a structured reply, or of an extended one if the request's `offset` is given."""
    if offset is None:
        return StructuredReply(flags=flags, type=kind, cookie=cookie, payload=payload).encode()
    return ExtendedReply(flags=flags, type=kind, cookie=cookie, offset=offset, payload=payload).encode()


def data_chunk(cookie: int, offset: int, data: bytes, *, flags: ReplyFlag = DONE) -> bytes:
    """Data of a read."""
    return chunk(cookie, ReplyType.OFFSET_DATA, OffsetData(offset=offset, data=data).encode(), flags=flags)


def hole_chunk(cookie: int, offset: int, length: int, *, flags: ReplyFlag = DONE) -> bytes:
    """A hole in a read."""
    return chunk(cookie, ReplyType.OFFSET_HOLE, OffsetHole(offset=offset, length=length).encode(), flags=flags)


def error_chunk(cookie: int, error: Errno, text: str = "", *, flags: ReplyFlag = DONE) -> bytes:
    """The failure of a command."""
    return chunk(cookie, ReplyType.ERROR, ErrorChunk(error=error, message=text).encode(), flags=flags)


def done(cookie: int) -> bytes:
    """The end of a structured reply."""
    return chunk(cookie, ReplyType.NONE)


class Prepared:
    """A handle and the far end of its socket."""

    def __init__(self, handle: NBD | None = None) -> None:
        self.handle = handle or NBD()
        self._near, self.far = socket.socketpair()
        self.far.setblocking(False)

    def connect(self, **server: object) -> NBD:
        """Connect the handle to a server that answers as `handshake` does, and forget what the client said."""
        contexts = server.get("contexts", ())
        for _, name in contexts:  # type: ignore[attr-defined]  # as handshake() takes them
            self.handle.add_meta_context(name)
        self.far.sendall(handshake(**server))  # type: ignore[arg-type]  # the tests name the arguments
        self.handle.connect_socket(self._near)
        self.sent()
        return self.handle

    def begin(self, *parts: bytes) -> NBD:
        """Let the handle begin the handshake with a server that says `parts`."""
        self.answer(*parts)
        self.handle.connect_socket(self._near)
        return self.handle

    def answer(self, *parts: bytes) -> None:
        """Have bytes ready for the client."""
        for part in parts:
            self.far.sendall(part)

    def end(self) -> None:
        """Have the end of the connection ready."""
        self.far.shutdown(socket.SHUT_WR)

    def sent(self) -> bytes:
        """What the client has sent since this was asked last."""
        found = b""
        while True:
            try:
                part = self.far.recv(1 << 20)
            except BlockingIOError:
                return found
            if not part:
                return found
            found += part

    def close(self) -> None:
        """Release both ends."""
        self.far.close()
        self._near.close()
        if not self.handle._closed:
            self.handle.close()
