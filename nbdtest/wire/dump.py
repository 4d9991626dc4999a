"""Messages and bytes as one line for people. The line is not parsed by anything."""

from __future__ import annotations

import json
from typing import Any

from nbdtest.errors import PeerViolation
from nbdtest.wire.chunks import Extent, decode_chunk_payload
from nbdtest.wire.handshake import Option, OptionReply
from nbdtest.wire.layout import Message
from nbdtest.wire.options import decode_option_data, decode_option_reply_data
from nbdtest.wire.transmission import ExtendedReply, StructuredReply

__all__ = ["dump", "hexdump", "shorten"]

_HEX_FIELDS = {"cookie", "nbd_magic", "style_magic"}
_MAX_ITEMS = 8
_MAX_BYTES = 16
_MAX_CHARACTERS = 100


def dump(message: Message) -> str:
    """Describe `message` in one line; a frame is followed by what its data say.

    >>> dump(SimpleReply(cookie=1))
    'SimpleReply error=OK cookie=0x1'
    """
    inner = _inner(message)
    skipped = {"data", "payload"} if inner else set()
    fields = [
        f"{name}={_value(name, getattr(message, name))}" for name in message.LAYOUT.field_names if name not in skipped
    ]
    line = " ".join([type(message).__name__, *fields])
    return f"{line} | {inner}" if inner else line


def shorten(data: bytes | bytearray | memoryview, keep: int = _MAX_BYTES) -> str:
    """Give the first `keep` bytes in hexadecimal and the length."""
    head = bytes(data[:keep]).hex(" ")
    if len(data) <= keep:
        return head or "(empty)"
    return f"{head} … ({len(data)} bytes)"


def hexdump(data: bytes | bytearray | memoryview, *, limit: int = 256, indent: str = "") -> str:
    """Give `data` in rows of 16 bytes: position, hexadecimal, ASCII; at most `limit` bytes of it."""
    rows = []
    for at in range(0, min(len(data), limit), 16):
        row = bytes(data[at : min(at + 16, limit)])
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        rows.append(f"{indent}{at:04x}  {row.hex(' '):<47}  {text}")
    if len(data) > limit:
        rows.append(f"{indent}… {len(data) - limit} more bytes")
    return "\n".join(rows)


def _inner(message: Message) -> str:
    try:
        match message:
            case Option(data=data) if data:
                return dump(decode_option_data(message))
            case OptionReply(data=data) if data:
                return dump(decode_option_reply_data(message))
            case StructuredReply(type=type_, payload=payload) | ExtendedReply(type=type_, payload=payload) if payload:
                return dump(decode_chunk_payload(type_, payload))
    except PeerViolation as violation:
        return f"malformed: {violation}"
    return ""


def _value(name: str, value: Any) -> str:
    match value:
        case bytes():
            return "zeroes" if len(value) > _MAX_BYTES and not any(value) else shorten(value)
        case str() if len(value) > _MAX_CHARACTERS:
            return f"{json.dumps(value[:_MAX_CHARACTERS], ensure_ascii=True)}… ({len(value)} characters)"
        case str():
            return json.dumps(value, ensure_ascii=True)
        case Extent():
            return f"{value.length}:0x{value.status:x}"
        case tuple():
            shown = [_value(name, item) for item in value[:_MAX_ITEMS]]
            more = [f"… {len(value)} in all"] if len(value) > _MAX_ITEMS else []
            return f"[{', '.join(shown + more)}]"
        case int() if name in _HEX_FIELDS:
            return f"0x{value:x}"
    return str(value)
