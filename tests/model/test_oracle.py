"""The oracle: every kind of wrong reply gets its verdict, and what honest servers do differently gets none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from nbdtest.model import MemoryDisk, Situation, judge
from nbdtest.model.oracle import Chunk
from nbdtest.model.situation import AnyRequest
from nbdtest.wire import (
    BlockStatus,
    BlockStatusExt,
    Cmd,
    CmdFlag,
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
    StatusFilter,
    StructuredReply,
    TransmissionFlag,
)

DISK = MemoryDisk(8192, b"d" * 4096)
EVERYTHING = TransmissionFlag(0x0DED)
TYPES = {
    OffsetData: ReplyType.OFFSET_DATA,
    OffsetHole: ReplyType.OFFSET_HOLE,
    ErrorChunk: ReplyType.ERROR,
    ErrorOffset: ReplyType.ERROR_OFFSET,
    BlockStatus: ReplyType.BLOCK_STATUS,
    BlockStatusExt: ReplyType.BLOCK_STATUS_EXT,
}
BOTH = {"base:allocation": 1, "x-test:y": 2}


@dataclass(frozen=True)
class Came:
    """A reply as it came."""

    simple: SimpleReply | None = None
    data: bytes = b""
    chunks: tuple[Chunk, ...] = ()


def situation(**facts: object) -> Situation:
    return Situation(**({"size": 8192, "flags": EVERYTHING, "disk": DISK} | facts))  # type: ignore[arg-type]  # fields


def simple(error: Errno = Errno.OK, data: bytes = b"", cookie: int = 7) -> Came:
    return Came(simple=SimpleReply(error=error, cookie=cookie), data=data)


def chunk(payload: Message | bytes, *, type_: int | None = None, flags: int = 0, cookie: int = 7) -> StructuredReply:
    kind = ReplyType(TYPES[type(payload)] if type_ is None else type_)
    data = payload if isinstance(payload, bytes) else payload.encode()
    return StructuredReply(flags=ReplyFlag(flags), type=kind, cookie=cookie, payload=data)


def reply(*payloads: Message | bytes | StructuredReply) -> Came:
    """Chunks with DONE on the last."""
    made = [each if isinstance(each, StructuredReply) else chunk(each) for each in payloads]
    last = made[-1]
    done = StructuredReply(flags=last.flags | ReplyFlag.DONE, type=last.type, cookie=last.cookie, payload=last.payload)
    return Came(chunks=(*made[:-1], done))


def extended(payload: Message | bytes, *, offset: int = 0, type_: int | None = None) -> Came:
    made = chunk(payload, type_=type_)
    wide = ExtendedReply(flags=ReplyFlag.DONE, type=made.type, cookie=7, offset=offset, payload=made.payload)
    return Came(chunks=(wide,))


def read(offset: int = 0, length: int = 8192, flags: int = 0) -> Request:
    return Request(type=Cmd.READ, cookie=7, offset=offset, length=length, flags=CmdFlag(flags))


def status(length: int = 8192, flags: int = 0) -> Request:
    return Request(type=Cmd.BLOCK_STATUS, cookie=7, length=length, flags=CmdFlag(flags))


def data(offset: int, length: int) -> OffsetData:
    return OffsetData(offset=offset, data=DISK.read(offset, length))


def hole(offset: int, length: int) -> OffsetHole:
    return OffsetHole(offset=offset, length=length)


def described(*extents: tuple[int, int], context: int = 1) -> BlockStatus:
    return BlockStatus(context_id=context, extents=tuple(Extent(*each) for each in extents))


def write(**fields: object) -> Request:
    return Request(**({"type": Cmd.WRITE, "cookie": 7, "length": 512} | fields))  # type: ignore[arg-type]  # fields


NONE = chunk(b"", type_=ReplyType.NONE)
S = situation(structured=True)
M = situation(structured=True, contexts={"base:allocation": 1})
X = situation(extended=True, contexts={"base:allocation": 1})
PLAIN = situation()
READ_ONLY = situation(flags=TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY)

Case = tuple[AnyRequest, Came, Situation]
LEGAL: dict[str, Case] = {
    "simple read": (read(), simple(data=DISK.read(0, 8192)), PLAIN),
    "one chunk": (read(), reply(data(0, 8192)), S),
    "chunks in any order": (read(), reply(hole(4096, 4096), data(0, 4096)), S),
    "done on a none chunk": (read(), reply(data(0, 8192), NONE), S),
    "data called data though zero": (read(), reply(data(0, 4096), data(4096, 4096)), S),
    "error in the middle": (read(), reply(data(0, 512), ErrorOffset(error=Errno.EIO, offset=512)), S),
    "simple error of a write": (write(), simple(Errno.EIO), S),
    "status 0 everywhere": (status(), reply(described((8192, 0))), M),
    "status cut short": (status(), reply(described((512, 0))), M),
    "last extent beyond the request": (status(512), reply(described((100, 0), (8092, 0))), M),
    "simple error of block status": (status(), simple(Errno.EINVAL), M),
    "past the end refused either way": (write(offset=8192), simple(Errno.EINVAL), PLAIN),
    "past the end refused": (write(offset=8192), simple(Errno.ENOSPC), PLAIN),
    "misaligned served": (read(1, 1), simple(data=b"d"), situation(minimum=512)),
    "fast zero refused": (
        Request(type=Cmd.WRITE_ZEROES, cookie=7, length=512, flags=CmdFlag.FAST_ZERO),
        simple(Errno.ENOTSUP),
        PLAIN,
    ),
    "unknown error chunk": (read(), reply(ErrorChunk(error=Errno.EIO), NONE), S),
    "extended": (ExtendedRequest(type=Cmd.FLUSH, cookie=7), extended(b"", type_=ReplyType.NONE), X),
    "empty read": (read(0, 0), reply(NONE), S),
}

BROKEN: dict[str, list[Case]] = {
    "RPL-005": [
        (read(), simple(data=DISK.read(0, 8192), cookie=8), PLAIN),
        (read(), reply(chunk(data(0, 8192), cookie=9)), S),
    ],
    "RPL-016": [(read(), simple(data=b"d"), PLAIN)],
    "CMD-005": [(read(0, 1), simple(data=b"x"), PLAIN), (read(0, 1), reply(OffsetData(offset=0, data=b"x")), S)],
    "RPL-022": [(read(), simple(data=DISK.read(0, 8192)), S), (read(8192, 1), simple(Errno.EINVAL), S)],
    "META-009": [(status(), simple(), M)],
    "EXT-009": [(ExtendedRequest(type=Cmd.FLUSH, cookie=7), simple(), X)],
    "RPL-020": [(read(), reply(data(0, 8192)), PLAIN)],
    "RPL-040": [(read(), reply(chunk(data(0, 8192), flags=1), NONE), S)],
    "RPL-041": [(read(), Came(chunks=(chunk(data(0, 8192)),)), S)],
    "RPL-043": [(read(), reply(chunk(data(0, 8192), flags=4)), S)],
    "RPL-052": [(read(), reply(data(0, 8192), chunk(b"x", type_=0)), S)],
    "RPL-053": [(read(), reply(NONE, data(0, 8192)), S)],
    "RPL-060": [
        (read(), reply(chunk(bytes(7), type_=1)), S),
        (read(), reply(OffsetData(offset=0, data=b""), data(0, 8192)), S),
    ],
    "RPL-062": [(read(0, 512), reply(data(0, 1024)), S)],
    "RPL-063": [(read(), reply(data(0, 8192), data(0, 512)), S)],
    "RPL-065": [(read(), reply(chunk(bytes(13), type_=2)), S)],
    "RPL-066": [(read(), reply(hole(0, 8192)), S)],
    "RPL-067": [(read(4096, 512), reply(hole(4096, 1024)), S)],
    "RPL-068": [(read(), reply(data(0, 8192), hole(4096, 512)), S)],
    "RPL-070": [(read(), reply(data(0, 8192), hole(4096, 0)), S)],
    "RPL-071": [(read(), reply(data(0, 8192), chunk(b"", type_=0x77)), S)],
    "RPL-072": [(write(), reply(data(0, 512)), S)],
    "RPL-080": [(status(), reply(chunk(bytes(4), type_=5)), M), (status(), reply(chunk(bytes(9), type_=5)), M)],
    "RPL-081": [
        (status(), reply(described((1, 0)), described((1, 0))), M),
        (status(), reply(described((1, 0)), described((1, 0), context=3)), M),
    ],
    "RPL-083": [(status(), reply(described((0, 0), (8192, 0))), M)],
    "RPL-084": [(status(flags=CmdFlag.REQ_ONE), reply(described((1, 0), (1, 3))), M)],
    "RPL-085": [(status(512, CmdFlag.REQ_ONE), reply(described((1024, 0))), M)],
    "RPL-086": [(status(512), reply(described((512, 0), (512, 3))), M)],
    "META-036": [(status(), reply(described((8192, 2))), M)],
    "META-040": [(status(), reply(described((8192, 4))), M)],
    "CMD-143": [(status(), reply(described((8192, 0))), situation(structured=True, contexts=BOTH))],
    "RPL-105": [(read(), reply(ErrorChunk(error=Errno.EIO, message="m" * 4097)), S)],
    "RPL-106": [(read(), reply(ErrorChunk(error=Errno.OK)), S)],
    "RPL-107": [(read(), reply(chunk(ErrorChunk(error=Errno.EIO).encode(message_length=9), type_=0x8001)), S)],
    "RPL-108": [(read(), reply(chunk(ErrorChunk(error=Errno.EIO).encode(), type_=0x8002)), S)],
    "RPL-109": [(read(0, 512), reply(ErrorOffset(error=Errno.EIO, offset=512)), S)],
    "RPL-113": [(Request(type=Cmd.FLUSH, cookie=7), reply(ErrorOffset(error=Errno.EIO, offset=0)), S)],
    "RPL-114": [(read(), reply(ErrorOffset(error=Errno.OK, offset=0)), S)],
    "RPL-104": [(read(), reply(ErrorChunk(error=Errno.EIO), ErrorChunk(error=Errno.EIO)), S)],
    "CMD-031": [(read(), reply(data(0, 512), data(1024, 7168)), S), (read(), reply(NONE), S)],
    "CMD-050": [(read(flags=CmdFlag.DF), reply(data(0, 4096), hole(4096, 4096)), S)],
    "EXT-011": [(ExtendedRequest(type=Cmd.FLUSH, cookie=7), extended(b"", type_=0, offset=1), X)],
    "EXT-046": [(ExtendedRequest(type=Cmd.FLUSH, cookie=7), reply(NONE), X)],
    "EXT-055": [(ExtendedRequest(type=Cmd.BLOCK_STATUS, cookie=7, length=1), extended(bytes(9), type_=6), X)],
    "EXT-056": [(status(), reply(BlockStatusExt(context_id=1, extents=(Extent(8192, 0),))), M)],
    "EXT-061": [(ExtendedRequest(type=Cmd.BLOCK_STATUS, cookie=7, length=8192), extended(described((8192, 0))), X)],
    "EXT-062": [
        (
            ExtendedRequest(type=Cmd.BLOCK_STATUS, cookie=7, length=8192),
            extended(BlockStatusExt(context_id=1, extents=(Extent(8192, 1 << 40),))),
            X,
        )
    ],
    "FLAG-012": [(write(), simple(), READ_ONLY), (write(), simple(Errno.ENOSPC), READ_ONLY)],
    "SIZE-040": [(write(offset=8192), simple(), PLAIN), (read(8192, 1), simple(Errno.EPERM), PLAIN)],
    "ERR-001": [(write(), simple(Errno(14)), PLAIN)],
    "ERR-028": [(write(), simple(Errno.ENOTSUP), PLAIN)],
    "ERR-029": [(Request(type=Cmd(99), cookie=7), simple(), PLAIN)],
    "ERR-030": [(write(flags=CmdFlag.DF), simple(), PLAIN)],
    "META-008": [(status(), reply(NONE), S)],
}


@pytest.mark.parametrize(("request_", "came", "facts"), LEGAL.values(), ids=LEGAL)
def test_legal_replies(request_: Request, came: Came, facts: Situation) -> None:
    assert judge(request_, came, facts) == []


@pytest.mark.parametrize(
    ("requirement", "request_", "came", "facts"),
    [(requirement, *case) for requirement, cases in BROKEN.items() for case in cases],
)
def test_broken_replies(requirement: str, request_: Request, came: Came, facts: Situation) -> None:
    assert requirement in [verdict.requirement for verdict in judge(request_, came, facts)]


def test_a_filter_narrows_what_is_expected() -> None:
    both = situation(extended=True, contexts=BOTH)
    asked = ExtendedRequest(type=Cmd.BLOCK_STATUS, cookie=7, length=12, flags=CmdFlag.PAYLOAD_LEN)
    one = extended(BlockStatusExt(context_id=2, extents=(Extent(8192, 0),)))
    assert judge(asked, one, both, wanted=StatusFilter(length=8192, context_ids=(2,))) == []
    found = judge(asked, one, both, wanted=StatusFilter(length=8192, context_ids=(1,)))
    assert [verdict.requirement for verdict in found] == ["EXT-063", "CMD-143"]


def test_unknown_contents_are_not_judged() -> None:
    assert judge(read(0, 4), simple(data=b"what"), situation(disk=None)) == []


def test_a_should_is_not_binding() -> None:
    (verdict,) = judge(read(8192, 1), simple(Errno.EPERM), PLAIN)
    assert not verdict.binding
