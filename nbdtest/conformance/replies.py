"""A reply to one request, as it came: simple, or in chunks. What it says is worked out leniently; checks judge it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from nbdtest.errors import PeerViolation
from nbdtest.wire import (
    BlockStatus,
    BlockStatusExt,
    Errno,
    ErrorChunk,
    ErrorOffset,
    ExtendedReply,
    ExtendedRequest,
    Extent,
    Message,
    OffsetData,
    OffsetHole,
    ReplyFlag,
    ReplyType,
    Request,
    SimpleReply,
    StructuredReply,
    decode_chunk_payload,
)

__all__ = ["AnyRequest", "Chunk", "Content", "Reply"]

AnyRequest: TypeAlias = Request | ExtendedRequest
Chunk: TypeAlias = StructuredReply | ExtendedReply


@dataclass(frozen=True, slots=True)
class Content:
    """A stretch of the export that a chunk describes; `data` is None for a hole."""

    offset: int
    length: int
    data: bytes | None

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """All that came for one request: either `simple`, with `data` for a READ, or `chunks` up to DONE."""

    request: AnyRequest
    simple: SimpleReply | None = None
    data: bytes = b""
    chunks: tuple[Chunk, ...] = ()

    @property
    def kind(self) -> str:
        """Either "simple", "structured" or "extended"."""
        if self.simple is not None:
            return "simple"
        return "extended" if isinstance(self.chunks[0], ExtendedReply) else "structured"

    @property
    def error(self) -> Errno:
        """The first error, or OK."""
        if self.simple is not None:
            return self.simple.error
        for chunk in self.chunks:
            if chunk.type.is_error:
                return Errno(int.from_bytes(chunk.payload[:4], "big")) if len(chunk.payload) >= 4 else Errno.EIO
        return Errno.OK

    @property
    def succeeded(self) -> bool:
        """Whether it reports no error. A chunk of an error type counts even if its value is 0."""
        if self.simple is not None:
            return self.simple.error == Errno.OK
        return not any(chunk.type.is_error for chunk in self.chunks)

    def of_type(self, *types: ReplyType) -> tuple[Chunk, ...]:
        """The chunks of these types."""
        return tuple(chunk for chunk in self.chunks if chunk.type in types)

    def payloads(self, *types: ReplyType) -> Iterator[Message]:
        """The decoded payloads of the chunks of these types; malformed ones are left out."""
        for chunk in self.of_type(*types):
            try:
                yield decode_chunk_payload(chunk.type, chunk.payload)
            except PeerViolation:
                continue

    def content(self) -> tuple[Content, ...]:
        """The data and holes of a READ, in the order in which they came."""
        if self.simple is not None:
            return (Content(self.request.offset, len(self.data), self.data),) if self.data else ()
        found = []
        for payload in self.payloads(ReplyType.OFFSET_DATA, ReplyType.OFFSET_HOLE):
            match payload:
                case OffsetData(offset=offset, data=data):
                    found.append(Content(offset, len(data), data))
                case OffsetHole(offset=offset, length=length):
                    found.append(Content(offset, length, None))
        return tuple(found)

    def bytes_read(self) -> bytes:
        """The data of a READ put together; what no chunk describes, or what lies outside the request, is left out."""
        first, last = self.request.offset, self.request.offset + self.request.length
        whole = bytearray(self.request.length)
        covered = 0
        for part in sorted(self.content(), key=lambda part: part.offset):
            start, end = max(part.offset, first), min(part.end, last)
            if start >= end:
                continue
            covered = max(covered, end - first)
            if part.data is not None:
                whole[start - first : end - first] = part.data[start - part.offset : end - part.offset]
        return bytes(whole[:covered])

    def extents(self) -> dict[int, tuple[Extent, ...]]:
        """The extents of a BLOCK_STATUS by context id."""
        return {
            payload.context_id: payload.extents
            for payload in self.payloads(ReplyType.BLOCK_STATUS, ReplyType.BLOCK_STATUS_EXT)
            if isinstance(payload, BlockStatus | BlockStatusExt)
        }

    def errors(self) -> tuple[ErrorChunk | ErrorOffset, ...]:
        """The well-formed error chunks."""
        return tuple(
            payload
            for payload in self.payloads(ReplyType.ERROR, ReplyType.ERROR_OFFSET)
            if isinstance(payload, ErrorChunk | ErrorOffset)
        )

    def __str__(self) -> str:
        if self.simple is not None:
            return "success" if self.succeeded else f"error {self.error}"
        types = ", ".join(f"{chunk.type}{'+DONE' if ReplyFlag.DONE in chunk.flags else ''}" for chunk in self.chunks)
        return f"{'success' if self.succeeded else f'error {self.error}'} ({types})"
