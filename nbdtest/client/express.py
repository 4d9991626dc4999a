"""The express lane: complete replies of the ordinary kind, taken out of the inbox in one tight loop.

It accepts only what needs no thought: a read answered by one data chunk that covers it, a command answered by success.
Everything else, and everything incomplete, is left where it is for `replies`, so that leaving the express lane out
changes nothing but the time taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdtest.client.headers import EXTENDED_DATA, SIMPLE, STRUCTURED_DATA
from nbdtest.wire import (
    EXTENDED_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Cmd,
    ReplyFlag,
    ReplyType,
)

if TYPE_CHECKING:
    from nbdtest.client.engine import Engine

__all__ = ["LARGE_READ", "Express"]

_READ = Cmd.READ.value
_DISC = Cmd.DISC.value
_DONE_DATA = (
    ReplyFlag.DONE.value << 16 | ReplyType.OFFSET_DATA.value
)  # flags and type, where a simple reply has its error

LARGE_READ = 1 << 17  # from here on a reply is not gathered in the staging buffer


class Express:
    """The loop, bound to its engine."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take_replies(self) -> None:
        """Take replies as long as they are complete and ordinary."""
        engine = self._engine
        inbox, in_flight = engine.inbox, engine.in_flight
        buffer, view = inbox.buffer, inbox.view
        structured, extended = engine.structured, engine.extended
        simple = SIMPLE
        while inbox.tail - inbox.head >= 16 and in_flight:
            head = inbox.head
            magic, word, cookie = simple.unpack_from(buffer, head)
            command = in_flight.get(cookie)
            if command is None or command.error or command.chunk is not None or command.type == _DISC:
                return
            if command.type == _READ:
                count = command.count
                if magic == STRUCTURED_REPLY_MAGIC and structured and not extended and word == _DONE_DATA:
                    start = head + 28
                    if inbox.tail - start < 0:
                        return
                    _, _, _, _, length, offset = STRUCTURED_DATA.unpack_from(buffer, head)
                elif magic == EXTENDED_REPLY_MAGIC and extended and word == _DONE_DATA:
                    start = head + 40
                    if inbox.tail - start < 0:
                        return
                    _, _, _, _, offset, length, offset_of_data = EXTENDED_DATA.unpack_from(buffer, head)
                    if offset != offset_of_data:
                        return
                elif magic == SIMPLE_REPLY_MAGIC and not structured and not word:
                    start = head + 16
                    length, offset = count + 8, command.offset
                else:
                    return
                end = start + count
                if (
                    end > inbox.tail
                    or length != count + 8
                    or offset != command.offset
                    or count >= LARGE_READ
                    or command.arrived is not None
                ):
                    return
                command.view[:] = view[start:end]  # type: ignore[index]  # a read has a buffer
                command.whole = True
                inbox.head = end
            elif magic == SIMPLE_REPLY_MAGIC and not word and not extended:
                inbox.head = head + 16
            else:
                return
            engine.chunks_received += 1
            del in_flight[cookie]
            if command.completion is None:
                engine.done[cookie] = command
            else:
                engine.conclude(command)
                if engine.over:
                    return
