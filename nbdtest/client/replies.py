"""Reading replies: one generator that takes message after message out of the inbox and hands results to their commands.

It yields whenever it needs more bytes. This is the careful reader that knows every rule; `express` takes the ordinary
replies off its hands. A reply that breaks a rule but leaves the stream in step fails its command with EPROTO; one that
may have lost step raises `Failure`.
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from ctypes import c_int
from typing import TYPE_CHECKING, TypeAlias

from nbdtest.client.commands import Command, clear, local_errno
from nbdtest.client.constants import READ_DATA, READ_ERROR, READ_HOLE
from nbdtest.client.errors import Failure
from nbdtest.client.express import take_ordinary_replies
from nbdtest.client.extents import cook_extents, count_is_consistent, status_length_fits
from nbdtest.client.headers import EXTENDED, HOLE, SIMPLE, STRUCTURED
from nbdtest.client.inbox import Inbox
from nbdtest.client.settings import MAX_REQUEST_SIZE
from nbdtest.wire import (
    EXTENDED_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Cmd,
    ReplyFlag,
    ReplyType,
)
from nbdtest.wire.limits import MAXIMUM_STRING

if TYPE_CHECKING:
    from nbdtest.client.engine import Engine

__all__ = ["Program", "collect", "read_replies", "take"]

Program: TypeAlias = Generator[None, None, None]

MAX_CHUNK = MAX_REQUEST_SIZE + 8
_READ = Cmd.READ.value
_BLOCK_STATUS = Cmd.BLOCK_STATUS.value
_DONE = ReplyFlag.DONE.value
_ERROR_OFFSET = ReplyType.ERROR_OFFSET.value


def take(inbox: Inbox, count: int) -> Generator[None, None, bytes]:
    """Wait for `count` bytes, not more than the inbox holds, and take them."""
    while len(inbox) < count:
        yield
    return inbox.take(count)


def collect(inbox: Inbox, count: int) -> Generator[None, None, bytearray]:
    """Wait for any number of bytes; memory grows with what has arrived, not with what was promised."""
    collected = bytearray()
    while True:
        here = min(count - len(collected), len(inbox))
        collected += inbox.view[inbox.head : inbox.head + here]
        inbox.skip(here)
        if len(collected) == count:
            return collected
        yield


def skip(inbox: Inbox, count: int) -> Program:
    """Throw away the next `count` bytes."""
    while True:
        count -= inbox.skip(count)
        if not count:
            return
        yield


def read_replies(engine: Engine) -> Program:
    """Read replies until the inbox is empty between two of them.

    Raises:
        Failure: what arrived cannot be told apart from what follows it; the connection is lost.
    """
    inbox = engine.inbox
    chunk_magic = EXTENDED_REPLY_MAGIC if engine.extended else STRUCTURED_REPLY_MAGIC
    while True:
        engine.mid_message = False
        while take_ordinary_replies(engine):
            yield
        if not len(inbox):
            return
        while len(inbox) < 4:
            yield
        magic = int.from_bytes(inbox.view[inbox.head : inbox.head + 4], "big")
        engine.mid_message = True
        if magic == SIMPLE_REPLY_MAGIC and not engine.extended:
            yield from _simple_reply(engine)
        elif magic == chunk_magic:
            yield from _chunk(engine)
        else:
            raise Failure(f"invalid or unexpected reply magic 0x{magic:x}")


def _simple_reply(engine: Engine) -> Program:
    _, number, cookie = SIMPLE.unpack((yield from take(engine.inbox, SIMPLE.size)))
    engine.chunks_received += 1
    command = engine.find(cookie)
    if command is None:
        if number or engine.structured:
            _unexpected_cookie(engine, cookie)
            return
        # Data may follow, if the server takes this for the reply to a read.
        raise Failure(
            f"no matching cookie {cookie} found for server reply, this is probably a server bug", errno.EPROTO
        )
    if command.type == _READ and engine.structured:
        engine.debug("server sent unexpected simple reply for read")
        command.fail(errno.EPROTO)
    command.fail(local_errno(number))
    if not number and command.type == _READ:
        yield from _data(engine, command, 0, command.count)
        _tell_chunk(engine, command, 0, command.count, READ_DATA)
    engine.finish(command)


def _chunk(engine: Engine) -> Program:
    if engine.extended:
        _, flags, kind, cookie, offset, length = EXTENDED.unpack((yield from take(engine.inbox, EXTENDED.size)))
    else:
        _, flags, kind, cookie, length = STRUCTURED.unpack((yield from take(engine.inbox, STRUCTURED.size)))
        offset = None
    engine.chunks_received += 1
    if length > MAX_CHUNK:
        raise Failure(f"invalid server reply length {length}")
    command = engine.find(cookie)
    if command is None:
        yield from skip(engine.inbox, length)
        _unexpected_cookie(engine, cookie)
        return
    if not engine.structured or offset not in (None, command.offset):
        yield from _resynchronise(engine, command, kind, length)
    elif kind == ReplyType.NONE:
        if length or not flags & _DONE:
            yield from _resynchronise(engine, command, kind, length)
    elif kind == ReplyType.OFFSET_DATA and command.type == _READ and length >= 8:
        yield from _offset_data(engine, command, length)
    elif kind == ReplyType.OFFSET_HOLE and command.type == _READ and length == HOLE.size:
        yield from _offset_hole(engine, command)
    elif kind in (ReplyType.BLOCK_STATUS, ReplyType.BLOCK_STATUS_EXT):
        yield from _block_status(engine, command, kind, length)
    elif kind & 0x8000 and length >= 4:
        yield from _error(engine, command, kind, length)
    else:
        yield from _resynchronise(engine, command, kind, length)
    if flags & _DONE:
        engine.finish(command)


def _resynchronise(engine: Engine, command: Command, kind: int, length: int, left: int | None = None) -> Program:
    """Skip a payload that makes no sense; the command fails, the connection goes on."""
    yield from skip(engine.inbox, length if left is None else left)
    engine.debug(
        f"unexpected reply type {kind} or payload length {length} for cookie {command.cookie} "
        f"and command {command.type}, this is probably a server bug"
    )
    command.fail(errno.EPROTO)


def _unexpected_cookie(engine: Engine, cookie: int) -> None:
    engine.debug(f"skipped reply for unexpected cookie {cookie}, this is probably a bug in the server")


def _check_bounds(command: Command, offset: int, length: int) -> None:
    end = command.offset + command.count
    if not (command.offset <= offset < end and offset + length <= end):
        raise Failure(
            f"range of structured reply is out of bounds, offset={offset}, cmd->offset={command.offset}, "
            f"length={length}, cmd->count={command.count}: this is likely to be a bug in the NBD server"
        )


def _data(engine: Engine, command: Command, start: int, end: int) -> Program:
    """Receive the next bytes where they belong in the command's buffer."""
    assert command.view is not None, "a read has a buffer"
    inbox = engine.inbox
    engine.lent_to = command
    inbox.lend(command.view[start:end])
    while inbox.lent_rest:
        yield
    engine.lent_to = None
    command.take_data(start, end)


def _tell_chunk(engine: Engine, command: Command, start: int, end: int, status: int, error: int | None = None) -> None:
    """Call the chunk callback, if there is one; it may make the command fail."""
    if command.chunk is None:
        return
    assert command.view is not None, "a read has a buffer"
    cell = c_int(command.error if error is None else error)
    part = command.view[start:end].toreadonly()
    if engine.call_back(command, command.chunk, part, command.offset + start, int(status), cell) == -1:
        command.fail(cell.value or errno.EPROTO)


def _offset_data(engine: Engine, command: Command, length: int) -> Program:
    offset = int.from_bytes((yield from take(engine.inbox, 8)), "big")
    # RPL-060: at least one byte is demanded; an empty chunk inside the request does no harm.
    _check_bounds(command, offset, length - 8)
    start = offset - command.offset
    end = start + length - 8
    yield from _data(engine, command, start, end)
    _tell_chunk(engine, command, start, end, READ_DATA)


def _offset_hole(engine: Engine, command: Command) -> Program:
    offset, length = HOLE.unpack((yield from take(engine.inbox, HOLE.size)))
    _check_bounds(command, offset, length)
    assert command.view is not None, "a read has a buffer"
    start = offset - command.offset
    end = start + length
    clear(command.view[start:end])
    command.take_data(start, end)
    _tell_chunk(engine, command, start, end, READ_HOLE)


def _error(engine: Engine, command: Command, kind: int, length: int) -> Program:
    inbox = engine.inbox
    number = int.from_bytes((yield from take(inbox, 4)), "big")
    left = length - 4
    size = 0
    if left >= 2:
        size = int.from_bytes((yield from take(inbox, 2)), "big")
        left -= 2
    if length < 6 or size > min(left, MAXIMUM_STRING):
        command.fail(local_errno(number))
        yield from _resynchronise(engine, command, kind, length, left)
        return
    message = yield from take(inbox, size)
    left -= size
    if message:
        engine.debug(f"structured error server message: {message.decode('utf-8', 'backslashreplace')}")
    at: int | None = None
    if kind == _ERROR_OFFSET and left == 8:
        at = int.from_bytes((yield from take(inbox, 8)), "big")
    elif left:
        engine.debug("ignoring unexpected slop after error message, the server may have a bug")
        yield from skip(inbox, left)
    error = local_errno(number)
    if not error:
        engine.debug("server forgot to set error; using EPROTO")
        error = errno.EPROTO
    if at is not None and command.type == _READ and command.offset <= at < command.offset + command.count:
        start = at - command.offset
        _tell_chunk(engine, command, start, start, READ_ERROR, error)
    command.fail(error)


def _block_status(engine: Engine, command: Command, kind: int, length: int) -> Program:
    wide = kind == ReplyType.BLOCK_STATUS_EXT
    known = engine.meta_valid and engine.contexts
    if command.type != _BLOCK_STATUS or command.extent is None or not known or not status_length_fits(wide, length):
        yield from _resynchronise(engine, command, kind, length)
        return
    if wide != engine.extended:
        engine.debug("wrong block status reply type detected, this is probably a server bug")
        command.fail(errno.EPROTO)
    payload = yield from collect(engine.inbox, length)
    if not count_is_consistent(wide, payload):
        yield from _resynchronise(engine, command, kind, length, 0)
        return
    context_id = int.from_bytes(payload[:4], "big")
    name = next((name for number, name in engine.contexts if number == context_id), None)
    if name is None:
        engine.debug(f"server sent unexpected meta context ID {context_id}")
        return
    room = max(0, engine.export.size - command.offset)
    entries, failure = cook_extents(payload, from_wide=wide, to_wide=command.wide, room=room)
    if failure:
        command.fail(failure)
    cell = c_int(command.error)
    if engine.call_back(command, command.extent, name, command.offset, entries, cell) == -1:
        command.fail(cell.value or errno.EPROTO)
