"""The fast lane: one ordinary command with nothing else on its way, in two system calls and a comparison.

The reply that an honest server will send is known when the request is: it is packed beforehand and compared as a whole,
which checks magic, flags, type, cookie, length and offset at once. A read is received straight into its buffer.
Whatever comes out differently, be it an error, a hole or the end of the connection, is handed over to the engine with
every byte that was received, so that the lane needs no rules of its own; leaving it out changes nothing but the time
taken.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from ctypes import c_int
from typing import Any

from nbdtest.client.buffer import Buffer, BytesLike
from nbdtest.client.channel import Channel
from nbdtest.client.commands import Command, CompletionCallback, clear
from nbdtest.client.engine import BATCH_BYTES, Engine
from nbdtest.client.errors import Failure
from nbdtest.client.express import LARGE_READ
from nbdtest.client.extents import cook_extents
from nbdtest.client.headers import (
    EXTENDED,
    EXTENDED_DATA,
    EXTENDED_REQUEST,
    EXTENDED_STATUS,
    HOLE,
    REQUEST,
    SIMPLE,
    STATUS,
    STRUCTURED,
    STRUCTURED_DATA,
)
from nbdtest.client.pacing import Pacing
from nbdtest.client.settings import MAX_REQUEST_SIZE
from nbdtest.client.states import READY
from nbdtest.net.clock import monotonic_s
from nbdtest.wire import (
    EXTENDED_REPLY_MAGIC,
    EXTENDED_REQUEST_MAGIC,
    REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Cmd,
    CmdFlag,
    ReplyFlag,
    ReplyType,
    TransmissionFlag,
)

__all__ = ["Begun", "FastLane"]

_READ = Cmd.READ.value
_WRITE = Cmd.WRITE.value
_FLUSH = Cmd.FLUSH.value
_DATA = ReplyType.OFFSET_DATA.value
_HOLE = ReplyType.OFFSET_HOLE.value
_STATUS = ReplyType.BLOCK_STATUS.value
_STATUS_EXT = ReplyType.BLOCK_STATUS_EXT.value
_BLOCK_STATUS = Cmd.BLOCK_STATUS.value
_NONE = ReplyType.NONE.value
_DONE = ReplyFlag.DONE.value
_PAYLOAD_LEN = CmdFlag.PAYLOAD_LEN.value
_NOSIGNAL = socket.MSG_NOSIGNAL
_WAITALL = socket.MSG_WAITALL

# The commands without data: the transmission flag that they need, and the one that forbids them.
_ORDERS = {
    Cmd.FLUSH.value: (TransmissionFlag.SEND_FLUSH.value, 0),
    Cmd.TRIM.value: (TransmissionFlag.SEND_TRIM.value, TransmissionFlag.READ_ONLY.value),
    Cmd.CACHE.value: (TransmissionFlag.SEND_CACHE.value, 0),
    Cmd.WRITE_ZEROES.value: (TransmissionFlag.SEND_WRITE_ZEROES.value, TransmissionFlag.READ_ONLY.value),
}

NARROW_LIMIT = 0xFFFF_FFFF
COPY_BELOW = 1 << 16  # payloads up to here are joined to their header: cheaper than gathering two pieces
STATUS_REPLY = 1 << 13  # bytes of a block status reply, as long as it is short
MORE_THAN_A_REPLY = 64  # bytes of a reply without data, and a few more to notice what does not belong there


class Begun(Exception):
    """A command that did not stay in the lane: the engine has it, and somebody has to wait for it."""

    def __init__(self, command: Command) -> None:
        super().__init__(command)
        self.command = command


class FastLane:
    """The lane of one connection, good as long as the handle's settings stay as they are."""

    __slots__ = (
        "_context",
        "_engine",
        "_extended",
        "_header",
        "_inbox",
        "_least_status",
        "_lock",
        "_misaligned",
        "_most",
        "_order_pacing",
        "_poll",
        "_read_pacing",
        "_readv",
        "_recv",
        "_recv_into",
        "_send",
        "_sendmsg",
        "_size",
        "_structured",
        "_writable",
    )

    def __init__(self, engine: Engine, channel: Channel, lock: AbstractContextManager[object]) -> None:
        self._engine = engine
        self._inbox = engine.inbox
        self._lock = lock
        self._send, self._sendmsg, self._recv, self._recv_into, self._readv, self._poll = channel.wire()
        self._read_pacing = Pacing()
        self._order_pacing = Pacing()
        self._extended = engine.extended
        self._structured = engine.structured
        export = engine.export
        self._size = export.size
        self._misaligned = export.minimum - 1 if export.minimum else 0
        self._writable = not export.flags & TransmissionFlag.READ_ONLY.value
        # The commands that can be sent here without data in return, and the most bytes that each may be about.
        self._most = {
            command: NARROW_LIMIT
            for command, (wanted, unwanted) in _ORDERS.items()
            if export.flags & wanted and not export.flags & unwanted
        }
        if self._writable:
            self._most[_WRITE] = min(MAX_REQUEST_SIZE, export.payload_maximum)
        plain = engine.structured and engine.meta_valid and len(engine.contexts) == 1
        self._context = engine.contexts[0] if plain else None
        self._least_status = EXTENDED_STATUS.size + 16 if engine.extended else STATUS.size + 8  # one extent
        self._header = bytearray(
            EXTENDED_DATA.size if self._extended else STRUCTURED_DATA.size if self._structured else SIMPLE.size
        )

    def status(self, extent: Callable[..., Any], wide: bool, count: int, offset: int) -> bool:
        """Ask for the status of a range, or return False if that is not for the lane.

        Raises:
            Begun: the reply is not the ordinary one, or the callback was not content.
        """
        with self._lock:
            engine = self._engine
            if not 0 < count <= NARROW_LIMIT or self._context is None:
                return False
            if not 0 <= offset <= self._size - count or (offset | count) & self._misaligned:
                return False
            if not (engine.calm or self._is_free()):
                return False
            cookie = engine.next_cookie
            engine.next_cookie = cookie + 1
            if self._extended:
                request = EXTENDED_REQUEST.pack(EXTENDED_REQUEST_MAGIC, 0, _BLOCK_STATUS, cookie, offset, count)
            else:
                request = REQUEST.pack(REQUEST_MAGIC, 0, _BLOCK_STATUS, cookie, offset, count)
            pacing = self._order_pacing
            trying = cookie >= pacing.tries_from
            sent = 0
            received = b""
            failure: Failure | None = None
            engine.running, engine.calm = True, False  # for signal handlers, which are to leave this handle alone
            try:
                began = monotonic_s() if trying else 0.0
                sent = self._send(request, _NOSIGNAL)
                if pacing.polls:
                    self._poll()
                received = self._recv(STATUS_REPLY)
                if len(received) < self._least_status:
                    received = self._status_on(received, cookie, offset)
                if trying:
                    pacing.took(monotonic_s() - began, cookie)
            except OSError as error:
                failure = self._failure("recv" if sent else "send", error)
            except BaseException:
                self._give_up()
                raise
            finally:
                engine.running = False
            number, name = self._context
            if not self._is_status(received, cookie, offset, number):
                command = Command.block_status(offset, count, 0, extent, wide=wide)
                self._hand_over(command, sent, received, failure)
            engine.bytes_sent += sent
            engine.chunks_sent += 1
            engine.bytes_received += len(received)
            engine.chunks_received += 1
            wide_reply = self._extended
            payload = received[EXTENDED.size if wide_reply else STRUCTURED.size :]
            entries, problem = cook_extents(payload, from_wide=wide_reply, to_wide=wide, room=self._size - offset)
            raised: BaseException | None = None
            answer: object = 0
            cell = c_int(problem)
            engine.running = True
            try:
                answer = extent(name, offset, entries, cell)
            except BaseException as error:  # noqa: BLE001 - kept where those of all callbacks are kept
                raised = error
            finally:
                engine.running = False
                engine.calm = True  # a callback can give the connection nothing to do
            if problem or raised is not None or answer == -1:
                command = Command.block_status(offset, count, 0, extent, wide=wide)
                if raised is not None:
                    engine.callback_raised(command, raised)
                command.cookie = cookie
                command.error = problem or cell.value or errno.EPROTO
                engine.done[cookie] = command
                raise Begun(command)
            return True

    def _is_status(self, received: bytes, cookie: int, offset: int, context: int) -> bool:
        """Whether this is the ordinary reply: one chunk with extents in the one context, and nothing after it."""
        size = len(received)
        if size < self._least_status:
            return False
        if self._extended:
            length, count = size - EXTENDED.size, (size - EXTENDED_STATUS.size) // 16
            return size == EXTENDED_STATUS.size + 16 * count and received.startswith(
                EXTENDED_STATUS.pack(EXTENDED_REPLY_MAGIC, _DONE, _STATUS_EXT, cookie, offset, length, context, count)
            )
        return size % 8 == 0 and received.startswith(
            STATUS.pack(STRUCTURED_REPLY_MAGIC, _DONE, _STATUS, cookie, size - STRUCTURED.size, context)
        )

    def _status_on(self, received: bytes, cookie: int, offset: int) -> bytes:
        """Receive the rest of a block status reply that came in pieces, as long as it is the ordinary one."""
        if self._extended:
            header = EXTENDED.pack(EXTENDED_REPLY_MAGIC, _DONE, _STATUS_EXT, cookie, offset, 0)
            start = header[:-8]
        else:
            header = STRUCTURED.pack(STRUCTURED_REPLY_MAGIC, _DONE, _STATUS, cookie, 0)
            start = header[:-4]
        while len(received) >= len(header) and received.startswith(start):
            length = int.from_bytes(received[len(start) : len(header)], "big")
            missing = len(header) + length - len(received)
            if not 0 < missing < STATUS_REPLY:
                break
            if not (more := self._recv(missing)):
                break
            received += more
        return received

    def submit_read(self, buffer: Any, offset: int, completion: CompletionCallback | None) -> int:
        """Send a read into `buffer` together with others, and return its cookie, or 0 if that is not for the lane."""
        memory = buffer._o if type(buffer) is Buffer else buffer
        if type(memory) is not bytearray or not (completion is None or callable(completion)):
            return 0
        count = len(memory)
        with self._lock:
            engine = self._engine
            tail = engine.tail
            if (
                not 0 < count < LARGE_READ
                or not 0 <= offset <= self._size - count
                or (offset | count) & self._misaligned
                or engine.resting is not READY
                or not engine.in_flight
                or engine.running
                or engine.disconnecting
                or len(tail) >= BATCH_BYTES
            ):
                return 0
            command = Command(_READ, offset, count, 0, memoryview(memory), completion)
            cookie = command.cookie = engine.next_cookie
            engine.next_cookie = cookie + 1
            engine.in_flight[cookie] = command
            engine.chunks_sent += 1
            if self._extended:
                tail += EXTENDED_REQUEST.pack(EXTENDED_REQUEST_MAGIC, 0, _READ, cookie, offset, count)
            else:
                tail += REQUEST.pack(REQUEST_MAGIC, 0, _READ, cookie, offset, count)
        if memory is not buffer:
            buffer._init = True
        return cookie

    def submit_write(self, buffer: Any, offset: int, completion: CompletionCallback | None) -> int:
        """Send a write of `buffer` together with others, and return its cookie, or 0 if that is not for the lane."""
        memory = buffer._o if type(buffer) is Buffer else buffer
        if type(memory) not in (bytearray, bytes) or not (completion is None or callable(completion)):
            return 0
        count = len(memory)
        with self._lock:
            engine = self._engine
            tail = engine.tail
            if (
                not 0 < count < COPY_BELOW
                or not 0 <= offset <= self._size - count
                or (offset | count) & self._misaligned
                or not self._writable
                or engine.resting is not READY
                or not engine.in_flight
                or engine.running
                or engine.disconnecting
                or len(tail) >= BATCH_BYTES
            ):
                return 0
            flags = _PAYLOAD_LEN if self._extended else 0
            command = Command(_WRITE, offset, count, flags, memoryview(memory), completion)
            cookie = command.cookie = engine.next_cookie
            engine.next_cookie = cookie + 1
            engine.in_flight[cookie] = command
            engine.chunks_sent += 1
            if self._extended:
                tail += EXTENDED_REQUEST.pack(EXTENDED_REQUEST_MAGIC, flags, _WRITE, cookie, offset, count)
            else:
                tail += REQUEST.pack(REQUEST_MAGIC, flags, _WRITE, cookie, offset, count)
            tail += memory
        if memory is not buffer:
            buffer._init = True
        return cookie

    def _is_free(self) -> bool:
        """Whether the connection has nothing else to do; noted with the engine, which forgets it when it gets
        something.
        """
        engine = self._engine
        free = not (
            engine.resting is not READY
            or engine.in_flight
            or engine.tail
            or engine.outgoing
            or engine.running
            or engine.mid_message
            or engine.disconnecting
            or len(self._inbox)
        )
        engine.calm = free
        return free

    def read(self, buffer: bytearray | memoryview, count: int, offset: int) -> bool:
        """Read `count` bytes, as many as `buffer` has, or return False if that is not for the lane.

        Raises:
            Begun: the reply is not the ordinary one.
        """
        if not 0 < count <= MAX_REQUEST_SIZE:
            return False
        with self._lock:
            engine, header = self._engine, self._header
            if not 0 <= offset <= self._size - count or (offset | count) & self._misaligned:
                return False
            if not (engine.calm or self._is_free()):
                return False
            cookie = engine.next_cookie
            engine.next_cookie = cookie + 1
            if self._extended:
                request = EXTENDED_REQUEST.pack(EXTENDED_REQUEST_MAGIC, 0, _READ, cookie, offset, count)
                expected = EXTENDED_DATA.pack(EXTENDED_REPLY_MAGIC, _DONE, _DATA, cookie, offset, count + 8, offset)
            else:
                request = REQUEST.pack(REQUEST_MAGIC, 0, _READ, cookie, offset, count)
                if self._structured:
                    expected = STRUCTURED_DATA.pack(STRUCTURED_REPLY_MAGIC, _DONE, _DATA, cookie, count + 8, offset)
                else:
                    expected = SIMPLE.pack(SIMPLE_REPLY_MAGIC, 0, cookie)
            pacing = self._read_pacing
            trying = cookie >= pacing.tries_from
            sent = got = 0
            failure: Failure | None = None
            engine.running, engine.calm = True, False  # for signal handlers, which are to leave this handle alone
            try:
                began = monotonic_s() if trying else 0.0
                sent = self._send(request, _NOSIGNAL)
                if pacing.polls:
                    self._poll()
                got = self._readv((header, buffer))
                total = len(header) + count
                if got < total:
                    got = self._read_on(header, expected, buffer, got, total)
                if got == total and header == expected:
                    if trying:
                        pacing.took(monotonic_s() - began, cookie)
                    engine.bytes_sent += sent
                    engine.chunks_sent += 1
                    engine.bytes_received += got
                    engine.chunks_received += 1
                    engine.calm = True
                    return True
            except OSError as error:
                failure = self._failure("recv" if sent else "send", error)
            except BaseException:
                self._give_up()
                raise
            finally:
                engine.running = False
            if self._is_hole(header, buffer, got, cookie, offset):
                return True
            view = memoryview(buffer)
            received = bytes(header[:got]) + view[: max(0, got - len(header))]
            self._hand_over(Command(_READ, offset, count, 0, view), sent, received, failure)
            return False

    def _is_hole(self, header: bytearray, buffer: bytearray | memoryview, got: int, cookie: int, offset: int) -> bool:
        """Whether the reply is the other ordinary one, a hole as large as the request, which is then zeroes."""
        if got != STRUCTURED_DATA.size + 4 or not self._structured or self._extended:
            return False
        if header != STRUCTURED_DATA.pack(STRUCTURED_REPLY_MAGIC, _DONE, _HOLE, cookie, HOLE.size, offset):
            return False
        if len(buffer) < 4 or int.from_bytes(buffer[:4], "big") != len(buffer):
            return False
        clear(memoryview(buffer))
        engine = self._engine
        engine.bytes_sent += REQUEST.size
        engine.chunks_sent += 1
        engine.bytes_received += got
        engine.chunks_received += 1
        return True

    def _read_on(self, header: bytearray, expected: bytes, buffer: bytearray | memoryview, got: int, total: int) -> int:
        """Receive the rest of a reply as long as it is the ordinary one, and return how much there is of it."""
        size = len(expected)
        while got < total and header[:got] == expected[:got]:
            if got < size:
                more = self._readv((memoryview(header)[got:], buffer))
            else:
                more = self._recv_into(memoryview(buffer)[got - size :], 0, _WAITALL)
            if not more:
                break
            got += more
        return got

    def order(self, type_: int, count: int, offset: int, payload: BytesLike | None = None) -> bool:
        """Send a command that brings no data back, a write with `count` bytes of `payload`; or return False if that is
        not for the lane.

        Raises:
            Begun: the reply is not the ordinary one.
        """
        if not (count <= self._most.get(type_, -1) and (count > 0 or type_ == _FLUSH)):
            return False
        with self._lock:
            engine = self._engine
            if not 0 <= offset <= self._size - count or (offset | count) & self._misaligned:
                return False
            if not (engine.calm or self._is_free()):
                return False
            cookie = engine.next_cookie
            engine.next_cookie = cookie + 1
            flags = 0
            if self._extended:
                flags = _PAYLOAD_LEN if payload is not None else 0
                request = EXTENDED_REQUEST.pack(EXTENDED_REQUEST_MAGIC, flags, type_, cookie, offset, count)
                expected = EXTENDED.pack(EXTENDED_REPLY_MAGIC, _DONE, _NONE, cookie, offset, 0)
            else:
                request = REQUEST.pack(REQUEST_MAGIC, 0, type_, cookie, offset, count)
                expected = SIMPLE.pack(SIMPLE_REPLY_MAGIC, 0, cookie)
            total = len(request)
            pacing = self._order_pacing
            trying = cookie >= pacing.tries_from
            sent = 0
            received = b""
            failure: Failure | None = None
            engine.running, engine.calm = True, False  # for signal handlers, which are to leave this handle alone
            try:
                began = monotonic_s() if trying else 0.0
                if payload is None:
                    sent = self._send(request, _NOSIGNAL)
                else:
                    total += count
                    if count < COPY_BELOW:
                        sent = self._send(request + payload, _NOSIGNAL)
                    else:
                        sent = self._sendmsg((request, payload), (), _NOSIGNAL)
                if sent == total:
                    if pacing.polls:
                        self._poll()
                    received = self._recv(MORE_THAN_A_REPLY)
                    if received == expected or self._is_empty_chunk(received, cookie):
                        if trying:
                            pacing.took(monotonic_s() - began, cookie)
                        engine.bytes_sent += sent
                        engine.chunks_sent += 1
                        engine.bytes_received += len(received)
                        engine.chunks_received += 1
                        engine.calm = True
                        return True
            except OSError as error:
                failure = self._failure("recv" if sent else "send", error)
            except BaseException:
                self._give_up()
                raise
            finally:
                engine.running = False
            view = None if payload is None else memoryview(payload)
            self._hand_over(Command(type_, offset, count, flags, view), sent, received, failure)
            return False

    def _is_empty_chunk(self, received: bytes, cookie: int) -> bool:
        """Whether this is success in the form of a structured reply, which a server may prefer to a simple one."""
        if not self._structured or self._extended:
            return False
        return received == STRUCTURED.pack(STRUCTURED_REPLY_MAGIC, _DONE, _NONE, cookie, 0)

    def _hand_over(self, command: Command, sent: int, received: bytes, failure: Failure | None) -> None:
        self._engine.next_cookie -= 1  # it keeps the cookie under which it was sent
        self._engine.resume(command, sent, received)
        if failure is not None:
            self._engine.die(failure)
        raise Begun(command)

    def _failure(self, what: str, error: OSError) -> Failure:
        try:
            return Failure.of_os(what, error)
        except OSError:
            self._give_up()
            raise

    def _give_up(self) -> None:
        # What the interrupted system call had done is not known, so the stream has no known position any more.
        self._engine.die(Failure("interrupted while waiting for a reply", errno.EINTR))
