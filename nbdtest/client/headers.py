"""The headers of fixed size as `struct.Struct`s, for the places where every microsecond counts.

Their layouts are declared once, by the messages of `nbdtest.wire`. The last four are a chunk's header together with
what begins its payload: the offset of OFFSET_DATA, the context id of BLOCK_STATUS, and of BLOCK_STATUS_EXT the number
of extents besides.
"""

from __future__ import annotations

import struct

from nbdtest.wire import (
    ExtendedReplyHeader,
    ExtendedRequest,
    GreetingStart,
    InfoBlockSize,
    InfoExport,
    Message,
    OffsetHole,
    OldstyleGreeting,
    OptionHeader,
    OptionReplyHeader,
    Request,
    SimpleReply,
    StructuredReplyHeader,
)

__all__ = [
    "EXTENDED",
    "EXTENDED_DATA",
    "EXTENDED_REQUEST",
    "EXTENDED_STATUS",
    "GREETING",
    "HOLE",
    "INFO_BLOCK_SIZE",
    "INFO_EXPORT",
    "OLDSTYLE",
    "OPTION",
    "OPTION_REPLY",
    "REQUEST",
    "SIMPLE",
    "STATUS",
    "STRUCTURED",
    "STRUCTURED_DATA",
]


def _fixed(message: type[Message]) -> struct.Struct:
    fixed = message.LAYOUT.fixed
    assert fixed is not None, f"{message.__name__} varies in size"
    return fixed


GREETING = _fixed(GreetingStart)
INFO_EXPORT = _fixed(InfoExport)
INFO_BLOCK_SIZE = _fixed(InfoBlockSize)
OPTION = _fixed(OptionHeader)
OPTION_REPLY = _fixed(OptionReplyHeader)
OLDSTYLE = _fixed(OldstyleGreeting)
REQUEST = _fixed(Request)
EXTENDED_REQUEST = _fixed(ExtendedRequest)
SIMPLE = _fixed(SimpleReply)
STRUCTURED = _fixed(StructuredReplyHeader)
EXTENDED = _fixed(ExtendedReplyHeader)
HOLE = _fixed(OffsetHole)
STRUCTURED_DATA = struct.Struct(STRUCTURED.format + "Q")
EXTENDED_DATA = struct.Struct(EXTENDED.format + "Q")
STATUS = struct.Struct(STRUCTURED.format + "I")
EXTENDED_STATUS = struct.Struct(EXTENDED.format + "II")
