"""The same messages in other pieces: what arrives in one read is chance, and no client may count on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_probe import Ending, probe_of
from nbdtest.fakeserver import Action, FakeServer, Moment, drip, pass_through, raw
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.wire import Cmd, ExtendedReply, Message, Opt, ReplyFlag, ReplyType, SimpleReply, StructuredReply

_EVERY_S = 0.0002
_SHORT = 2048
"""Replies that announce no more than so many bytes of data are sent byte by byte."""
_SLOW = 400
"""So many bytes of the reply to a READ travel alone: the header, the chunk's offset, and some of the data."""


def _drips_greeting(server: FakeServer) -> None:
    server.on(Moment.GREETING).reply(drip(every_s=_EVERY_S), pass_through())


def _drips_options(server: FakeServer) -> None:
    for option in Opt:
        server.on(option).reply(drip(every_s=_EVERY_S), pass_through())


def _drips_replies(server: FakeServer) -> None:
    for command in (Cmd.READ, Cmd.WRITE, Cmd.FLUSH, Cmd.TRIM, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS, Cmd.CACHE):
        server.on(command, where=lambda asked: asked.type != Cmd.READ or asked.length <= _SHORT).reply(
            drip(every_s=_EVERY_S), pass_through()
        )


GREETING = probe_of(
    "client-delivery.greeting-byte-by-byte",
    "The greeting may arrive byte by byte.",
    _drips_greeting,
    proves=["HS-009", "TERM-001"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[Ability.NEGOTIATES],
)
OPTIONS = probe_of(
    "client-delivery.option-replies-byte-by-byte",
    "Option replies may arrive byte by byte, and several in any pieces.",
    _drips_options,
    proves=["OPT-015", "CONV-007"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[Ability.NEGOTIATES],
)
REPLIES = probe_of(
    "client-delivery.replies-byte-by-byte",
    "Replies may arrive byte by byte.",
    _drips_replies,
    proves=["RPL-001"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[Ability.TRANSMITS],
    modes=["simple", "structured", "extended"],
)


def whole_reply(asked: Asked, content: bytes) -> bytes:
    """The bytes of a successful reply to a READ, framed as was negotiated."""
    payload = asked.offset.to_bytes(8, "big") + content
    reply: Message
    if asked.frames is Frames.SIMPLE:
        return SimpleReply(cookie=asked.cookie).encode() + content
    if asked.frames is Frames.STRUCTURED:
        reply = StructuredReply(flags=ReplyFlag.DONE, type=ReplyType.OFFSET_DATA, cookie=asked.cookie, payload=payload)
    else:
        reply = ExtendedReply(
            flags=ReplyFlag.DONE, type=ReplyType.OFFSET_DATA, cookie=asked.cookie, offset=asked.offset, payload=payload
        )
    return reply.encode()


def _in_pieces(server: FakeServer) -> None:
    def change(asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
        encoded = whole_reply(asked, bytes(server.disk.read(asked.offset, asked.length)))
        return [drip(every_s=_EVERY_S, first=_SLOW), raw(encoded)]

    server.on(Cmd.READ, nth=1).rewrite(change)


PIECES = probe_of(
    "client-delivery.data-byte-by-byte",
    "The header and the data of a reply to a READ may arrive byte by byte.",
    _in_pieces,
    proves=["RPL-001"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[Ability.READ],
    modes=["simple", "structured", "extended"],
)
