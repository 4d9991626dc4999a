"""One message on its way out: the frame, what stands in it, bulk data that is never copied, and damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nbdtest.errors import PeerViolation, UsageError
from nbdtest.fakeserver.damage import Mangle, damaged
from nbdtest.wire import (
    ExtendedReply,
    ExtendedReplyHeader,
    Message,
    OptionReply,
    StructuredReply,
    StructuredReplyHeader,
    decode_chunk_payload,
    decode_option_reply_data,
    dump,
    shorten,
)
from nbdtest.wire.layout import Readable

__all__ = ["Outgoing"]

_INNER = "inner_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """`message` (None: bytes only) and `tail`, the bytes after it: the data of a READ."""

    message: Message | None = None
    tail: Sequence[Readable] = ()
    damage: tuple[Mangle, ...] = ()
    """From the innermost on."""

    def whole(self) -> Outgoing:
        """Take a chunk's payload out of the tail into the message, where rules can see it."""
        match self.message:
            case StructuredReplyHeader(flags=flags, type=type_, cookie=cookie):
                reply: Message = StructuredReply(flags=flags, type=type_, cookie=cookie, payload=b"".join(self.tail))
            case ExtendedReplyHeader(flags=flags, type=type_, cookie=cookie, offset=offset):
                payload = b"".join(self.tail)
                reply = ExtendedReply(flags=flags, type=type_, cookie=cookie, offset=offset, payload=payload)
            case _:
                return self
        return replace(self, message=reply, tail=())

    def pieces(self) -> list[Readable]:
        """Give the bytes, in pieces.

        Raises:
            UsageError: the damage names a field that the message does not have.
        """
        if self.damage:
            encoded = self.whole()._with_fields(dict(field for each in self.damage for field in each.fields))
            for each in self.damage:
                encoded = damaged(encoded, each)
            return [encoded]
        if self.message is None:
            return list(self.tail)
        return [self.message.encode(), *self.tail]

    def summary(self) -> str:
        """Describe the message in one line."""
        if self.message is None:
            line = f"raw {shorten(b''.join(self.tail))}"
        else:
            line = dump(self.message)
            if self.tail:
                line += f" + {sum(len(piece) for piece in self.tail)} bytes"
        return f"{line} (mangled)" if self.damage else line

    def _with_fields(self, fields: dict[str, int | bytes]) -> bytes:
        tail = b"".join(self.tail)
        if self.message is None:
            return tail
        frame = {name: value for name, value in fields.items() if name in self.message.LAYOUT.by_name}
        rest = {name.removeprefix(_INNER): value for name, value in fields.items() if name not in frame}
        body = _body(self.message) if rest else None
        within = body.LAYOUT.by_name if body is not None else {}
        if unknown := [name for name in fields if name not in frame and name.removeprefix(_INNER) not in within]:
            parts = [each for each in (self.message, body) if each is not None]
            known = "; ".join(f"{type(each).__name__} has {', '.join(each.LAYOUT.by_name)}" for each in parts)
            raise UsageError(f"mangle() names {', '.join(unknown)}: {known}")
        if body is None:
            return self.message.encode(**frame, **rest) + tail
        slot = "payload" if isinstance(self.message, StructuredReply | ExtendedReply) else "data"
        return replace(self.message, **{slot: body.encode(**rest)}).encode(**frame) + tail


def _body(message: Message) -> Message | None:
    try:
        match message:
            case StructuredReply(type=type_, payload=payload) | ExtendedReply(type=type_, payload=payload):
                return decode_chunk_payload(type_, payload)
            case OptionReply():
                return decode_option_reply_data(message)
    except PeerViolation:
        pass  # a payload made broken on purpose has no fields
    return None
