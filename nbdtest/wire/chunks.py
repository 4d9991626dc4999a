"""What stands in the payload of reply chunks, and of a BLOCK_STATUS request that filters its contexts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbdtest.wire.layout import Count, Integer, Items, Layout, Length, Message, Rest, Text
from nbdtest.wire.numbers import Errno, ReplyType
from nbdtest.wire.options import Nothing

__all__ = [
    "BlockStatus",
    "BlockStatusExt",
    "ErrorChunk",
    "ErrorOffset",
    "Extent",
    "OffsetData",
    "OffsetHole",
    "OtherChunk",
    "StatusFilter",
    "decode_chunk_payload",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetData(Message):
    """Payload of REPLY_TYPE_OFFSET_DATA: data of the export from the absolute `offset`."""

    offset: int
    data: bytes
    LAYOUT: ClassVar = Layout(Integer("offset", 8), Rest("data"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetHole(Message):
    """Payload of REPLY_TYPE_OFFSET_HOLE: `length` zero bytes from the absolute `offset`."""

    offset: int
    length: int
    LAYOUT: ClassVar = Layout(Integer("offset", 8), Integer("length", 4))


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of an export, `length` bytes long, with one `status` in a metadata context."""

    length: int
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStatus(Message):
    """Payload of REPLY_TYPE_BLOCK_STATUS: consecutive extents from the request's offset, 32-bit."""

    context_id: int
    extents: tuple[Extent, ...]
    LAYOUT: ClassVar = Layout(
        Integer("context_id", 4), Items("extents", Layout(Integer("length", 4), Integer("status", 4)), Extent)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStatusExt(Message):
    """Payload of REPLY_TYPE_BLOCK_STATUS_EXT: the same, 64-bit and counted. Spec: branch extension-ext-header."""

    context_id: int
    extents: tuple[Extent, ...]
    LAYOUT: ClassVar = Layout(
        Integer("context_id", 4),
        Count("extent_count", 4, of="extents"),
        Items("extents", Layout(Integer("length", 8), Integer("status", 8)), Extent),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorChunk(Message):
    """Payload of REPLY_TYPE_ERROR."""

    error: Errno
    message: str = ""
    LAYOUT: ClassVar = Layout(Integer("error", 4, Errno), Length("message_length", 2, of="message"), Text("message"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorOffset(Message):
    """Payload of REPLY_TYPE_ERROR_OFFSET: the error belongs to the absolute `offset`."""

    error: Errno
    message: str = ""
    offset: int
    LAYOUT: ClassVar = Layout(
        Integer("error", 4, Errno), Length("message_length", 2, of="message"), Text("message"), Integer("offset", 8)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFilter(Message):
    """Payload of a CMD_BLOCK_STATUS request with CMD_FLAG_PAYLOAD_LEN: the contexts wanted, for `length` bytes."""

    length: int
    context_ids: tuple[int, ...]
    LAYOUT: ClassVar = Layout(Integer("length", 8), Items("context_ids", Layout(Integer("context_id", 4))))


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherChunk(Message):
    """Payload of a chunk type that has no class of its own."""

    data: bytes
    LAYOUT: ClassVar = Layout(Rest("data"))


CHUNK_PAYLOADS: dict[ReplyType, type[Message]] = {
    ReplyType.NONE: Nothing,
    ReplyType.OFFSET_DATA: OffsetData,
    ReplyType.OFFSET_HOLE: OffsetHole,
    ReplyType.BLOCK_STATUS: BlockStatus,
    ReplyType.BLOCK_STATUS_EXT: BlockStatusExt,
    ReplyType.ERROR: ErrorChunk,
    ReplyType.ERROR_OFFSET: ErrorOffset,
}


def decode_chunk_payload(type: ReplyType, payload: bytes | bytearray | memoryview) -> Message:
    """Read a chunk's payload as its type demands.

    Raises:
        PeerViolation: the payload does not have the layout that the type demands.
    """
    return CHUNK_PAYLOADS.get(type, OtherChunk).decode(payload)
