"""Which replies are legal for a request, given what was agreed on and what the disk holds.

Nothing is compared with one expected answer: chunks are sets of intervals, extents are sums, zero extents have to read
as zeroes. Verdicts are values that carry the id of the broken requirement; nothing here raises for a wrong reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from nbdtest.errors import PeerViolation
from nbdtest.model.disk import Disk
from nbdtest.model.situation import AnyRequest, Situation, objection
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
    Nothing,
    OffsetData,
    OffsetHole,
    ReplyFlag,
    ReplyType,
    SimpleReply,
    State,
    StatusFilter,
    StructuredReply,
    decode_chunk_payload,
)
from nbdtest.wire.limits import MAXIMUM_STRING

__all__ = ["Answer", "Chunk", "Verdict", "judge"]

Chunk: TypeAlias = StructuredReply | ExtendedReply

_CONTENT = {ReplyType.OFFSET_DATA, ReplyType.OFFSET_HOLE}
_STATUS = {ReplyType.BLOCK_STATUS, ReplyType.BLOCK_STATUS_EXT}
_LENGTHS = {
    ReplyType.NONE: "RPL-052",
    ReplyType.OFFSET_DATA: "RPL-060",
    ReplyType.OFFSET_HOLE: "RPL-065",
    ReplyType.BLOCK_STATUS: "RPL-080",
    ReplyType.BLOCK_STATUS_EXT: "EXT-055",
    ReplyType.ERROR: "RPL-107",
    ReplyType.ERROR_OFFSET: "RPL-108",
}
_WITH_PLACE = {Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS}
_ALLOCATION = "base:allocation"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a reply. `binding` is False for what the specification merely recommends otherwise."""

    requirement: str
    text: str
    binding: bool = True


class Answer(Protocol):
    """A reply as it came: `simple` with `data` for a READ, or `chunks` up to the one with DONE."""

    @property
    def simple(self) -> SimpleReply | None:
        """The simple reply, None if chunks came."""

    @property
    def data(self) -> bytes:
        """What followed the simple reply."""

    @property
    def chunks(self) -> Sequence[Chunk]:
        """The chunks in the order in which they came."""


def judge(
    request: AnyRequest, answer: Answer, situation: Situation, *, wanted: StatusFilter | None = None
) -> list[Verdict]:
    """Find everything that is wrong with `answer`; `wanted` is the payload of a BLOCK_STATUS that filters contexts."""
    reading = _Reading(request, situation, wanted)
    if answer.simple is not None:
        return list(reading.of_simple(answer.simple, answer.data))
    return list(reading.of_chunks(answer.chunks))


@dataclass(slots=True)
class _Reading:
    """One reply while it is being read."""

    request: AnyRequest
    situation: Situation
    wanted: StatusFilter | None
    errors: list[Errno] = field(default_factory=list)
    covered: list[tuple[int, int]] = field(default_factory=list)
    described: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.wanted.length if self.wanted is not None else self.request.length

    @property
    def end(self) -> int:
        return self.request.offset + self.length

    def of_simple(self, reply: SimpleReply, data: bytes) -> Iterator[Verdict]:
        if self.situation.extended:
            yield Verdict("EXT-009", "a simple reply was sent although extended headers were negotiated")
        elif self.situation.structured and self.request.type == Cmd.READ:
            yield Verdict("RPL-022", "READ got a simple reply although structured replies were negotiated")
        elif self.request.type == Cmd.BLOCK_STATUS and reply.error == Errno.OK:
            yield Verdict("META-009", "BLOCK_STATUS succeeded with a simple reply")
        yield from self._cookie(reply.cookie)
        if reply.error != Errno.OK:
            self.errors.append(reply.error)
        elif self.request.type == Cmd.READ:
            yield from self._bytes(self.request.offset, data)
            if len(data) != self.length:
                yield Verdict("RPL-016", f"{len(data)} bytes of data came, {self.length} were asked for")
        yield from self._outcome()

    def of_chunks(self, chunks: Sequence[Chunk]) -> Iterator[Verdict]:
        if not self.situation.structured and not self.situation.extended:
            yield Verdict("RPL-020", "a chunk was sent although structured replies were not negotiated")
        for number, chunk in enumerate(chunks):
            is_last = number == len(chunks) - 1
            yield from self._frame(chunk, is_last)
            try:
                payload = decode_chunk_payload(chunk.type, chunk.payload)
            except PeerViolation as problem:
                yield Verdict(_LENGTHS.get(chunk.type, "RPL-118"), str(problem))
                if chunk.type.is_error:
                    self.errors.append(Errno.EIO)  # whatever it says, the reply has failed
                continue
            yield from self._chunk(chunk, payload)
        yield from self._together(chunks)
        yield from self._outcome()

    def _frame(self, chunk: Chunk, is_last: bool) -> Iterator[Verdict]:
        yield from self._cookie(chunk.cookie)
        if isinstance(chunk, ExtendedReply) != isinstance(self.request, ExtendedRequest):
            yield Verdict("EXT-046", f"{type(chunk).__name__} answers {type(self.request).__name__}")
        if isinstance(chunk, ExtendedReply) and chunk.offset != self.request.offset:
            yield Verdict("EXT-011", f"the chunk echoes offset {chunk.offset} instead of {self.request.offset}")
        if strange := chunk.flags.beyond(ReplyFlag.DONE):
            yield Verdict("RPL-043", f"the reply flags {strange} are set")
        if (ReplyFlag.DONE in chunk.flags) != is_last:
            yield Verdict("RPL-041" if is_last else "RPL-040", f"DONE is wrong on {chunk.type}")
        if chunk.type == ReplyType.NONE and not is_last:
            yield Verdict("RPL-053", "NONE is not the last chunk")
        if not chunk.type.is_known:
            yield Verdict("RPL-071", f"{chunk.type} is no chunk type")
        if chunk.type in _CONTENT and self.request.type != Cmd.READ:
            yield Verdict("RPL-072", f"{chunk.type} answers {self.request.type}")
        if chunk.type in _STATUS and self.request.type != Cmd.BLOCK_STATUS:
            yield Verdict("RPL-118", f"{chunk.type} answers {self.request.type}")
        if chunk.type == ReplyType.BLOCK_STATUS and self.situation.extended:
            yield Verdict("EXT-061", "a 32-bit block status chunk was sent under extended headers")
        if chunk.type == ReplyType.BLOCK_STATUS_EXT and not self.situation.extended:
            yield Verdict("EXT-056", "a 64-bit block status chunk was sent without extended headers")

    def _chunk(self, chunk: Chunk, payload: Message) -> Iterator[Verdict]:
        match payload:
            case OffsetData(offset=offset, data=data):
                if not data:
                    yield Verdict("RPL-060", "an OFFSET_DATA chunk is empty")
                yield from self._content(offset, len(data), "RPL-062", "RPL-063")
                yield from self._bytes(offset, data)
            case OffsetHole(offset=offset, length=length):
                if not length:
                    yield Verdict("RPL-070", "an OFFSET_HOLE chunk is empty")
                yield from self._content(offset, length, "RPL-067", "RPL-068")
                if not _reads_as_zero(self.situation.disk, offset, length):
                    yield Verdict("RPL-066", f"[{offset}, {offset + length}) is called a hole but holds data")
            case ErrorChunk(error=error, message=message):
                yield from self._error(error, message, "RPL-106")
            case ErrorOffset(error=error, message=message, offset=offset):
                yield from self._error(error, message, "RPL-114")
                if not self.request.offset <= offset < max(self.end, self.request.offset + 1):
                    yield Verdict("RPL-109", f"the error is placed at {offset}, outside the request")
                if self.request.type not in _WITH_PLACE:
                    yield Verdict("RPL-113", f"{chunk.type} answers {self.request.type}")
            case BlockStatus(context_id=context, extents=extents) | BlockStatusExt(context_id=context, extents=extents):
                yield from self._status(context, extents)
            case Nothing():
                pass

    def _content(self, offset: int, length: int, outside: str, overlapping: str) -> Iterator[Verdict]:
        end = offset + length
        if offset < self.request.offset or end > self.end:
            yield Verdict(outside, f"the chunk [{offset}, {end}) lies outside [{self.request.offset}, {self.end})")
        if any(offset < other_end and start < end for start, other_end in self.covered):
            yield Verdict(overlapping, f"the chunk [{offset}, {end}) overlaps an earlier one")
        self.covered.append((offset, end))

    def _bytes(self, offset: int, data: bytes) -> Iterator[Verdict]:
        disk = self.situation.disk
        if disk is None or not data or offset + len(data) > disk.size:
            return
        expected = bytes(disk.read(offset, len(data)))
        if data != expected:
            at = next(at for at in range(len(data)) if data[at] != expected[at])
            yield Verdict("CMD-005", f"byte {offset + at} is 0x{data[at]:02x}, the disk holds 0x{expected[at]:02x}")

    def _error(self, error: Errno, message: str, zero: str) -> Iterator[Verdict]:
        if error == Errno.OK:
            yield Verdict(zero, "an error chunk has the error 0")
            error = Errno.EIO
        if len(message.encode("utf-8", "surrogateescape")) > MAXIMUM_STRING:
            yield Verdict("RPL-105", "an error message is longer than 4096 bytes")
        self.errors.append(error)

    def _status(self, context: int, extents: Sequence[Extent]) -> Iterator[Verdict]:
        if context in self.described:
            yield Verdict("RPL-081", f"context {context} is described twice")
        self.described.append(context)
        if context not in self.situation.contexts.values():
            yield Verdict("RPL-081", f"context {context} was not selected")
        elif self.wanted is not None and context not in self.wanted.context_ids:
            yield Verdict("EXT-063", f"context {context} was filtered out")
        if not extents:
            yield Verdict("RPL-080", "a block status chunk has no extents")
        if any(extent.length == 0 for extent in extents):
            yield Verdict("RPL-083", "an extent is empty")
        if CmdFlag.REQ_ONE in self.request.flags:
            if len(extents) > 1:
                yield Verdict("RPL-084", f"REQ_ONE got {len(extents)} extents")
            elif extents and extents[0].length > self.length:
                yield Verdict("RPL-085", f"REQ_ONE got an extent of {extents[0].length} bytes for {self.length}")
        elif sum(extent.length for extent in extents[:-1]) >= self.length:
            yield Verdict("RPL-086", "all extents but the last reach the end of the request already")
        if context == self.situation.contexts.get(_ALLOCATION):
            yield from self._allocation(extents)

    def _allocation(self, extents: Sequence[Extent]) -> Iterator[Verdict]:
        at = self.request.offset
        for extent in extents:
            if extent.status >> 32:
                yield Verdict("EXT-062", f"the status 0x{extent.status:x} has more than 32 bits")
            if strange := extent.status & 0xFFFF_FFFF & ~int(State.HOLE | State.ZERO):
                yield Verdict("META-040", f"status bits 0x{strange:x} are set", binding=False)
            if extent.status & State.ZERO and not _reads_as_zero(self.situation.disk, at, extent.length):
                yield Verdict("META-036", f"[{at}, {at + extent.length}) is called zero but holds data")
            at += extent.length

    def _together(self, chunks: Sequence[Chunk]) -> Iterator[Verdict]:
        content = sum(chunk.type in _CONTENT for chunk in chunks)
        plain = sum(chunk.type == ReplyType.ERROR for chunk in chunks)
        if CmdFlag.DF in self.request.flags and content > 1:
            yield Verdict("CMD-050", f"a DF read got {content} content chunks")
        if plain > 1:
            yield Verdict("RPL-104", f"{plain} error chunks without offset came", binding=False)
        if self.errors:
            return
        if self.request.type == Cmd.READ and (missing := self._missing()):
            yield Verdict("CMD-031", f"{missing} of {self.length} bytes are not covered, and there is no error")
        if self.request.type == Cmd.BLOCK_STATUS:
            needed = set(self.situation.contexts.values() if self.wanted is None else self.wanted.context_ids)
            if lacking := needed - set(self.described):
                yield Verdict("CMD-143", f"the contexts {sorted(lacking)} are not described")

    def _missing(self) -> int:
        missing, at = 0, self.request.offset
        for start, end in sorted(self.covered):
            missing += max(min(start, self.end) - at, 0)
            at = max(at, end)
        return missing + max(self.end - at, 0)

    def _cookie(self, cookie: int) -> Iterator[Verdict]:
        if cookie != self.request.cookie:
            yield Verdict("RPL-005", f"the cookie is 0x{cookie:x} instead of 0x{self.request.cookie:x}")

    def _outcome(self) -> Iterator[Verdict]:
        """Judge success, or which error it was."""
        against = objection(self.request, self.situation, wanted=self.wanted)
        if not self.errors:
            if against is not None and against.requirement and (against.must_fail or _should_fail(against.requirement)):
                yield Verdict(against.requirement, f"it succeeded although {against.text}", binding=against.must_fail)
            return
        error = self.errors[0]
        if not error.is_known:
            yield Verdict("ERR-001", f"{error} is no error of the protocol")
        elif error == Errno.ENOTSUP and CmdFlag.FAST_ZERO not in self.request.flags:
            yield Verdict("ERR-028", "ENOTSUP is for FAST_ZERO alone", binding=False)
        elif against is not None and error not in against.preferred | against.acceptable | {Errno.EIO, Errno.ESHUTDOWN}:
            wanted = ", ".join(sorted(map(str, against.preferred)))
            yield Verdict(against.requirement, f"{error} instead of {wanted}: {against.text}", binding=False)


def _should_fail(requirement: str) -> bool:
    return requirement in ("SIZE-040", "ERR-029", "ERR-030", "META-008")


def _reads_as_zero(disk: Disk | None, offset: int, length: int) -> bool:
    if disk is None:
        return True
    length = min(length, disk.size - offset)
    while length > 0:
        count = min(length, 1 << 20)
        if any(disk.read(offset, count)):
            return False
        offset += count
        length -= count
    return True
