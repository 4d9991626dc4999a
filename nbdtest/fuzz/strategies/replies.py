"""Strategies for structured replies: every legal way to answer a READ or a BLOCK_STATUS, and illegal answers to a READ
sorted by what is wrong."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from hypothesis import strategies as st

from nbdtest.fuzz.strategies.codec import numbers
from nbdtest.wire import (
    BlockStatus,
    Errno,
    ErrorChunk,
    ErrorOffset,
    Extent,
    OffsetData,
    OffsetHole,
    ReplyFlag,
    ReplyType,
    State,
    StructuredReply,
)

__all__ = [
    "Fault",
    "Reply",
    "error_replies",
    "faulty_read_replies",
    "interleaved",
    "read_replies",
    "status_replies",
]

Reply = tuple[StructuredReply, ...]
"""All chunks with which one request is answered, in their order."""


class Fault(enum.StrEnum):
    """What is wrong with a reply to a READ. Each breaks a MUST of the server."""

    BEFORE_THE_REQUEST = "a content chunk begins before the request"
    BEHIND_THE_REQUEST = "a content chunk reaches behind the request"
    SENT_TWICE = "two content chunks overlap"
    MISSING = "DONE comes before all bytes do"
    DATA_WITHOUT_OFFSET = "a data chunk is too short for its offset"
    HOLE_TOO_LONG = "a hole chunk has surplus bytes"
    HOLE_TOO_SHORT = "a hole chunk is cut off"
    NONE_WITH_PAYLOAD = "a NONE chunk has a payload"
    NONE_WITHOUT_DONE = "a NONE chunk is not the last"
    UNKNOWN_CONTENT = "a chunk has a type that nobody assigned and that is no error"
    STATUS_FOR_READ = "a READ is answered by block status"
    ERROR_CUT_OFF = "an error chunk is too short for an error"
    ERROR_TEXT_TOO_LONG = "an error's text is longer than the chunk"
    ERROR_WITHOUT_NUMBER = "an error chunk says 0"


def read_replies(
    content: bytes, offset: int, cookie: int, *, fragment: bool = True, fewest_chunks: int = 1
) -> st.SearchStrategy[Reply]:
    """Generate the legal replies to a READ of `content` at `offset`, at least one byte.

    Content is cut anywhere and arrives in any order; zeroes may come as holes; DONE is on the last content chunk or on
    a NONE chunk of its own. Without `fragment` (CMD_FLAG_DF was sent) there is one content chunk.
    """

    @st.composite
    def reply(draw: st.DrawFn) -> Reply:
        last = len(content)
        cuts = (
            draw(st.sets(st.integers(1, last - 1), min_size=min(fewest_chunks, last) - 1, max_size=6))
            if (fragment and last > 1)
            else set()
        )
        starts = [0, *sorted(cuts)]
        chunks = []
        for start, end in zip(starts, [*starts[1:], last], strict=True):
            part = content[start:end]
            hole = not any(part) and draw(st.booleans())
            chunks.append(
                _chunk(cookie, ReplyType.OFFSET_HOLE, OffsetHole(offset=offset + start, length=len(part)).encode())
                if hole
                else _chunk(cookie, ReplyType.OFFSET_DATA, OffsetData(offset=offset + start, data=part).encode())
            )
        return _ended(draw, draw(st.permutations(chunks)), cookie)

    return reply()


def status_replies(
    contexts: Sequence[int], length: int, cookie: int, *, beyond: int = 0, one: bool = False
) -> st.SearchStrategy[Reply]:
    """Generate the legal replies to a BLOCK_STATUS of `length` bytes, at least one, in the contexts with these ids.

    Each context is described once, in any order, by extents from the beginning of the range, which may end before it
    does. The last one may go on for up to `beyond` bytes behind the range. With `one` (CMD_FLAG_REQ_ONE was sent) there
    is a single extent in each, within the range.
    """

    @st.composite
    def described(draw: st.DrawFn, context: int) -> StructuredReply:
        if one:
            lengths = [draw(st.integers(1, length))]
        else:
            most = min(5, length) - 1
            cuts = sorted(draw(st.sets(st.integers(1, length - 1), max_size=most))) if most else []
            end = draw(st.integers((cuts[-1] if cuts else 0) + 1, length + beyond))
            edges = [0, *cuts, end]
            lengths = [last - first for first, last in itertools.pairwise(edges)]
        extents = tuple(Extent(each, draw(numbers(4, State))) for each in lengths)
        payload = BlockStatus(context_id=context, extents=extents).encode()
        return _chunk(cookie, ReplyType.BLOCK_STATUS, payload)

    @st.composite
    def reply(draw: st.DrawFn) -> Reply:
        return _ended(draw, [draw(described(context)) for context in draw(st.permutations(list(contexts)))], cookie)

    return reply()


def error_replies(offset: int, length: int, cookie: int) -> st.SearchStrategy[Reply]:
    """Generate legal error replies to a command on [offset, offset + length)."""

    @st.composite
    def reply(draw: st.DrawFn) -> Reply:
        errors = []
        for _ in range(draw(st.integers(1, 3))):
            errno = draw(st.sampled_from([each for each in Errno if each]))
            text = draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
            if length and draw(st.booleans()):
                at = offset + draw(st.integers(0, length - 1))
                payload = ErrorOffset(error=errno, message=text, offset=at).encode()
                errors.append(_chunk(cookie, ReplyType.ERROR_OFFSET, payload))
            else:
                errors.append(_chunk(cookie, ReplyType.ERROR, ErrorChunk(error=errno, message=text).encode()))
        return _ended(draw, errors, cookie)

    return reply()


def faulty_read_replies(content: bytes, offset: int, cookie: int, fault: Fault) -> st.SearchStrategy[Reply]:
    """Generate replies to a READ of `content` at `offset` that are legal but for one `fault`; at least 2 bytes."""

    @st.composite
    def reply(draw: st.DrawFn) -> Reply:
        good = list(draw(read_replies(content, offset, cookie, fewest_chunks=2)))
        return tuple(_FAULTS[fault](draw, good, content, offset))

    return reply()


@st.composite
def interleaved(draw: st.DrawFn, *replies: Reply) -> Reply:
    """Generate the orders in which the chunks of several replies may arrive: each reply keeps its own."""
    waiting = [list(reply) for reply in replies if reply]
    merged = []
    while waiting:
        chosen = draw(st.sampled_from(waiting))
        merged.append(chosen.pop(0))
        if not chosen:
            waiting = [reply for reply in waiting if reply]
    return tuple(merged)


def _chunk(cookie: int, kind: ReplyType, payload: bytes = b"", *, done: bool = False) -> StructuredReply:
    return StructuredReply(flags=ReplyFlag.DONE if done else ReplyFlag(0), type=kind, cookie=cookie, payload=payload)


def _ended(draw: st.DrawFn, chunks: list[StructuredReply], cookie: int) -> Reply:
    if draw(st.booleans()):
        return (*chunks, _chunk(cookie, ReplyType.NONE, done=True))
    return (*chunks[:-1], replace(chunks[-1], flags=ReplyFlag.DONE))


_Make = Callable[[st.DrawFn, list[StructuredReply], bytes, int], list[StructuredReply]]


def _inserted(make: Callable[[st.DrawFn, int, bytes, int], StructuredReply]) -> _Make:
    """Put a chunk that must not be there somewhere in front of the last one."""

    def fault(draw: st.DrawFn, good: list[StructuredReply], content: bytes, offset: int) -> list[StructuredReply]:
        at = draw(st.integers(0, len(good) - 1))
        return [*good[:at], make(draw, good[0].cookie, content, offset), *good[at:]]

    return fault


def _raw(kind: ReplyType, payload: bytes) -> _Make:
    return _inserted(lambda draw, cookie, content, offset: _chunk(cookie, kind, payload))


def _before(draw: st.DrawFn, cookie: int, content: bytes, offset: int) -> StructuredReply:
    early = draw(st.integers(1, max(1, min(offset, 4096))))
    return _chunk(cookie, ReplyType.OFFSET_DATA, OffsetData(offset=max(0, offset - early), data=b"\xee").encode())


def _behind(draw: st.DrawFn, cookie: int, content: bytes, offset: int) -> StructuredReply:
    start = draw(st.integers(1, len(content)))
    surplus = draw(st.integers(1, 64))
    data = content[start:] + b"\xee" * surplus
    return _chunk(cookie, ReplyType.OFFSET_DATA, OffsetData(offset=offset + start, data=data).encode())


def _content(good: list[StructuredReply]) -> list[int]:
    return [at for at, chunk in enumerate(good) if chunk.type != ReplyType.NONE]


def _twice(draw: st.DrawFn, good: list[StructuredReply], content: bytes, offset: int) -> list[StructuredReply]:
    at = draw(st.sampled_from(_content(good)))
    return [replace(good[at], flags=ReplyFlag(0)), *good]


def _missing(draw: st.DrawFn, good: list[StructuredReply], content: bytes, offset: int) -> list[StructuredReply]:
    at = draw(st.sampled_from(_content(good)))
    left = [chunk for number, chunk in enumerate(good) if number != at]
    return [*left[:-1], replace(left[-1], flags=ReplyFlag.DONE)]


_FAULTS: dict[Fault, _Make] = {
    Fault.BEFORE_THE_REQUEST: _inserted(_before),
    Fault.BEHIND_THE_REQUEST: _inserted(_behind),
    Fault.SENT_TWICE: _twice,
    Fault.MISSING: _missing,
    Fault.DATA_WITHOUT_OFFSET: _raw(ReplyType.OFFSET_DATA, bytes(7)),
    Fault.HOLE_TOO_LONG: _inserted(
        lambda draw, cookie, content, offset: _chunk(
            cookie, ReplyType.OFFSET_HOLE, OffsetHole(offset=offset, length=1).encode() + b"\0"
        )
    ),
    Fault.HOLE_TOO_SHORT: _raw(ReplyType.OFFSET_HOLE, bytes(11)),
    Fault.NONE_WITH_PAYLOAD: _raw(ReplyType.NONE, b"\0"),
    Fault.NONE_WITHOUT_DONE: _raw(ReplyType.NONE, b""),
    Fault.UNKNOWN_CONTENT: _raw(ReplyType(3), b"what is this"),
    Fault.STATUS_FOR_READ: _raw(ReplyType.BLOCK_STATUS, bytes(12)),
    Fault.ERROR_CUT_OFF: _raw(ReplyType.ERROR, bytes(3)),
    Fault.ERROR_TEXT_TOO_LONG: _raw(ReplyType.ERROR, b"\0\0\0\x05" + b"\0\x09" + b"text"),
    Fault.ERROR_WITHOUT_NUMBER: _raw(ReplyType.ERROR, b"\0\0\0\0" + b"\0\0"),
}
