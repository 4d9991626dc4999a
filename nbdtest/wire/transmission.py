"""Frames of the transmission phase: requests and replies, compact, simple, structured and extended.

What reply chunks and request payloads say is in `chunks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbdtest.wire import numbers
from nbdtest.wire.layout import Constant, Integer, Layout, Length, Message, Rest
from nbdtest.wire.numbers import Cmd, CmdFlag, Errno, ReplyFlag, ReplyType

__all__ = [
    "ExtendedReply",
    "ExtendedReplyHeader",
    "ExtendedRequest",
    "Request",
    "SimpleReply",
    "StructuredReply",
    "StructuredReplyHeader",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Message):
    """A compact request, 28 bytes; after a WRITE, `length` bytes of data follow. Spec: proto.md "Request message"."""

    flags: CmdFlag = CmdFlag(0)
    type: Cmd
    cookie: int
    offset: int = 0
    length: int = 0
    LAYOUT: ClassVar = Layout(
        Constant("magic", 4, numbers.REQUEST_MAGIC),
        Integer("flags", 2, CmdFlag),
        Integer("type", 2, Cmd),
        Integer("cookie", 8),
        Integer("offset", 8),
        Integer("length", 4),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedRequest(Message):
    """A request under extended headers, 32 bytes.

    `length` is the payload's length if CMD_FLAG_PAYLOAD_LEN is set, else the length of the effect.
    Spec: branch extension-ext-header, "Extended request".
    """

    flags: CmdFlag = CmdFlag(0)
    type: Cmd
    cookie: int
    offset: int = 0
    length: int = 0
    LAYOUT: ClassVar = Layout(
        Constant("magic", 4, numbers.EXTENDED_REQUEST_MAGIC),
        Integer("flags", 2, CmdFlag),
        Integer("type", 2, Cmd),
        Integer("cookie", 8),
        Integer("offset", 8),
        Integer("length", 8),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleReply(Message):
    """A simple reply, 16 bytes; after a successful READ the data follow. Spec: proto.md "Simple reply message"."""

    error: Errno = Errno.OK
    cookie: int
    LAYOUT: ClassVar = Layout(
        Constant("magic", 4, numbers.SIMPLE_REPLY_MAGIC), Integer("error", 4, Errno), Integer("cookie", 8)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredReplyHeader(Message):
    """The first 20 bytes of a structured reply chunk; `length` bytes of payload follow."""

    flags: ReplyFlag = ReplyFlag(0)
    type: ReplyType
    cookie: int
    length: int
    LAYOUT: ClassVar = Layout(
        Constant("magic", 4, numbers.STRUCTURED_REPLY_MAGIC),
        Integer("flags", 2, ReplyFlag),
        Integer("type", 2, ReplyType),
        Integer("cookie", 8),
        Integer("length", 4),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredReply(Message):
    """One chunk of a structured reply with its payload. Spec: proto.md "Structured reply chunk message"."""

    flags: ReplyFlag = ReplyFlag(0)
    type: ReplyType
    cookie: int
    payload: bytes = b""
    LAYOUT: ClassVar = Layout(
        Constant("magic", 4, numbers.STRUCTURED_REPLY_MAGIC),
        Integer("flags", 2, ReplyFlag),
        Integer("type", 2, ReplyType),
        Integer("cookie", 8),
        Length("length", 4, of="payload"),
        Rest("payload"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedReplyHeader(Message):
    """The first 32 bytes of an extended reply chunk: `offset` is the request's, `length` bytes of payload follow."""

    flags: ReplyFlag = ReplyFlag(0)
    type: ReplyType
    cookie: int
    offset: int = 0
    length: int
    LAYOUT: ClassVar = Layout(
        Constant("magic", 4, numbers.EXTENDED_REPLY_MAGIC),
        Integer("flags", 2, ReplyFlag),
        Integer("type", 2, ReplyType),
        Integer("cookie", 8),
        Integer("offset", 8),
        Integer("length", 8),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedReply(Message):
    """One chunk of an extended reply with its payload. Spec: branch extension-ext-header, "Extended reply chunk"."""

    flags: ReplyFlag = ReplyFlag(0)
    type: ReplyType
    cookie: int
    offset: int = 0
    payload: bytes = b""
    LAYOUT: ClassVar = Layout(
        Constant("magic", 4, numbers.EXTENDED_REPLY_MAGIC),
        Integer("flags", 2, ReplyFlag),
        Integer("type", 2, ReplyType),
        Integer("cookie", 8),
        Integer("offset", 8),
        Length("length", 8, of="payload"),
        Rest("payload"),
    )
