"""The express lane: complete replies of the ordinary kind, taken out of the inbox in one tight loop.

It accepts only what needs no thought: a read answered by one data chunk that covers it, a command answered by success.
Everything else, and everything incomplete, is left where it is for `replies`, so that leaving the express lane out
changes nothing but the time taken.
"""

from __future__ import annotations

import struct
from ctypes import c_int
from typing import TYPE_CHECKING

from nbdtest.client.headers import SIMPLE
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

__all__ = ["LARGE_READ", "take_ordinary_replies"]

_READ = Cmd.READ.value
_DISC = Cmd.DISC.value
# Flags and type, where a simple reply has its error.
_DONE_DATA = ReplyFlag.DONE.value << 16 | ReplyType.OFFSET_DATA.value

LARGE_READ = 1 << 17  # from here on a reply is not gathered in the staging buffer


# All kinds of reply begin with magic, flags and type (or error), and cookie. After that comes, in a structured one with
# data, length and offset; in an extended one the request's offset, the length, and the offset of the data.
_HEAD = struct.Struct(">IIQIQ")
_EXTENDED_REST = struct.Struct(">QQQ")


def take_ordinary_replies(engine: Engine) -> bool:
    """Take replies as long as they are complete and ordinary.

    Returns:
        Whether what is left is an ordinary reply too, of which so little is missing that it is to be waited for.
    """
    inbox, in_flight, done = engine.inbox, engine.in_flight, engine.done
    buffer, view, tail, last_sent = inbox.buffer, inbox.view, inbox.tail, engine.last_sent
    structured, extended = engine.structured, engine.extended
    narrow = structured and not extended
    unpack, unpack_short = _HEAD.unpack_from, SIMPLE.unpack_from
    head = inbox.head
    while (left := tail - head) >= 16:
        if left >= 28:
            magic, word, cookie, length, offset = unpack(buffer, head)
        else:
            magic, word, cookie = unpack_short(buffer, head)
            length = offset = 0
        command = in_flight.get(cookie)
        if command is None or not command.ordinary or cookie > last_sent:
            return False
        kind = command.type
        if kind == _READ:
            count = command.count
            if word == _DONE_DATA and narrow and magic == STRUCTURED_REPLY_MAGIC:
                start = head + 28
            elif word == _DONE_DATA and extended and magic == EXTENDED_REPLY_MAGIC:
                start = head + 40
                if tail < start:
                    return False
                asked, length, offset = _EXTENDED_REST.unpack_from(buffer, head + 16)
                if asked != offset:
                    return False
            elif not word and magic == SIMPLE_REPLY_MAGIC and not structured:
                start = head + 16
                length, offset = count + 8, command.offset
            else:
                return False
            if length != count + 8 or offset != command.offset or count >= LARGE_READ:
                return False
            end = start + count
            if end > tail:
                return end - tail < inbox.worth_lending
            command.view[:] = view[start:end]  # type: ignore[index]  # a read has a buffer
            command.whole = True
            head = end
        elif not word and magic == SIMPLE_REPLY_MAGIC and not extended and kind != _DISC:
            head += 16
        else:
            return False
        inbox.head = head
        engine.chunks_received += 1
        del in_flight[cookie]
        completion = command.completion
        if completion is None:
            done[cookie] = command
            continue
        cell = c_int(0)
        answer: object
        try:
            answer = completion(cell)
        except BaseException as error:  # noqa: BLE001 - kept where those of all callbacks are kept
            answer = engine.callback_raised(command, error)
        if not (answer == 1 and isinstance(answer, int)):
            engine.conclude(command, answer, cell)
    return False
