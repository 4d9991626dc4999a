"""The fast lane: one ordinary command with nothing else on its way, in two system calls and a comparison.

The reply that an honest server will send is known when the request is: it is packed beforehand and compared as a whole,
which checks magic, flags, type, cookie, length and offset at once. A read is received straight into its buffer.
Whatever comes out differently, be it an error, a hole or the end of the connection, is handed over to the engine with
every byte that was received, so that the lane needs no rules of its own; leaving it out changes nothing but the time
taken.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import AbstractContextManager

from nbdtest.client.channel import Channel
from nbdtest.client.commands import Command
from nbdtest.client.engine import Engine
from nbdtest.client.errors import Failure
from nbdtest.client.headers import (
    EXTENDED,
    EXTENDED_DATA,
    EXTENDED_REQUEST,
    REQUEST,
    SIMPLE,
    STRUCTURED,
    STRUCTURED_DATA,
)
from nbdtest.client.settings import MAX_REQUEST_SIZE
from nbdtest.client.states import READY
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
_NONE = ReplyType.NONE.value
_DONE = ReplyFlag.DONE.value
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
MORE_THAN_A_REPLY = 64  # bytes of a reply without data, and a few more to notice what does not belong there


class Begun(Exception):
    """A command that did not stay in the lane: the engine has it, and somebody has to wait for it."""

    def __init__(self, command: Command) -> None:
        super().__init__(command)
        self.command = command


class FastLane:
    """The lane of one connection, good as long as the handle's settings stay as they are."""

    __slots__ = (
        "_engine",
        "_extended",
        "_fd",
        "_header",
        "_inbox",
        "_largest_write",
        "_lock",
        "_misaligned",
        "_orders",
        "_recv",
        "_recv_into",
        "_send",
        "_sendmsg",
        "_size",
        "_structured",
        "_writable",
        "_write_flags",
    )

    def __init__(self, engine: Engine, channel: Channel, lock: AbstractContextManager[object]) -> None:
        self._engine = engine
        self._inbox = engine.inbox
        self._lock = lock
        connected = channel.socket
        self._fd = connected.fileno()
        self._send = connected.send
        self._sendmsg = connected.sendmsg
        self._recv = connected.recv
        self._recv_into = connected.recv_into
        self._extended = engine.extended
        self._structured = engine.structured
        export = engine.export
        self._size = export.size
        self._misaligned = export.minimum - 1 if export.minimum else 0
        self._largest_write = min(MAX_REQUEST_SIZE, export.payload_maximum)
        self._writable = not export.flags & TransmissionFlag.READ_ONLY.value
        self._write_flags = CmdFlag.PAYLOAD_LEN.value if engine.extended else 0
        self._orders = frozenset(
            command
            for command, (wanted, unwanted) in _ORDERS.items()
            if export.flags & wanted and not export.flags & unwanted
        )
        self._header = bytearray(
            EXTENDED_DATA.size if self._extended else STRUCTURED_DATA.size if self._structured else SIMPLE.size
        )

    def read(self, count: int, offset: int) -> bytearray | None:
        """Read, or return None if that is not for the lane.

        Raises:
            Begun: the reply is not the ordinary one.
        """
        if not 0 < count <= MAX_REQUEST_SIZE:
            return None
        buffer = bytearray(count)
        return buffer if self._read(buffer, count, offset) else None

    def read_into(self, view: memoryview, offset: int) -> bool:
        """Read into `view`, or return False if that is not for the lane.

        Raises:
            Begun: the reply is not the ordinary one.
        """
        count = len(view)
        return 0 < count <= MAX_REQUEST_SIZE and self._read(view, count, offset)

    def write(self, data: memoryview, offset: int) -> bool:
        """Write, or return False if that is not for the lane.

        Raises:
            Begun: the reply is not the ordinary one.
        """
        count = len(data)
        if not 0 < count <= self._largest_write or not self._writable:
            return False
        return self._order(_WRITE, self._write_flags, count, offset, data)

    def order(self, type_: int, count: int, offset: int) -> bool:
        """Send a command without data in either direction, or return False if that is not for the lane.

        Raises:
            Begun: the reply is not the ordinary one.
        """
        if type_ not in self._orders or not (0 < count <= NARROW_LIMIT or type_ == _FLUSH):
            return False
        return self._order(type_, 0, count, offset, None)

    def _is_free(self, count: int, offset: int) -> bool:
        """Whether the range is a plain one, and the connection has nothing else to do."""
        engine, inbox = self._engine, self._inbox
        return not (
            offset < 0
            or offset + count > self._size
            or (offset | count) & self._misaligned
            or engine.resting is not READY
            or engine.in_flight
            or engine.queue
            or engine.outgoing
            or engine.running
            or engine.mid_message
            or engine.disconnecting
            or inbox.head != inbox.tail
        )

    def _read(self, buffer: bytearray | memoryview, count: int, offset: int) -> bool:
        with self._lock:
            if not self._is_free(count, offset):
                return False
            engine, header = self._engine, self._header
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
            sent = got = 0
            failure: Failure | None = None
            try:
                sent = self._send(request, _NOSIGNAL)
                got = os.readv(self._fd, (header, buffer))
                total = len(header) + count
                if got < total:
                    got = self._read_on(header, expected, buffer, got, total)
                if got == total and header == expected:
                    engine.bytes_sent += sent
                    engine.chunks_sent += 1
                    engine.bytes_received += got
                    engine.chunks_received += 1
                    return True
            except OSError as error:
                failure = Failure.of_os("recv" if sent else "send", error)
            except BaseException:
                self._give_up()
                raise
            view = memoryview(buffer)
            received = bytes(header[:got]) + view[: max(0, got - len(header))]
            self._hand_over(Command(_READ, offset, count, 0, view), cookie, sent, received, failure)
            return False

    def _read_on(self, header: bytearray, expected: bytes, buffer: bytearray | memoryview, got: int, total: int) -> int:
        """Receive the rest of a reply as long as it is the ordinary one, and return how much there is of it."""
        size = len(expected)
        while got < total and header[:got] == expected[:got]:
            if got < size:
                more = os.readv(self._fd, (memoryview(header)[got:], buffer))
            else:
                more = self._recv_into(memoryview(buffer)[got - size :], 0, _WAITALL)
            if not more:
                break
            got += more
        return got

    def _order(self, type_: int, flags: int, count: int, offset: int, payload: memoryview | None) -> bool:
        with self._lock:
            if not self._is_free(count, offset):
                return False
            engine = self._engine
            cookie = engine.next_cookie
            engine.next_cookie = cookie + 1
            if self._extended:
                request = EXTENDED_REQUEST.pack(EXTENDED_REQUEST_MAGIC, flags, type_, cookie, offset, count)
                expected = EXTENDED.pack(EXTENDED_REPLY_MAGIC, _DONE, _NONE, cookie, offset, 0)
            else:
                request = REQUEST.pack(REQUEST_MAGIC, flags, type_, cookie, offset, count)
                expected = SIMPLE.pack(SIMPLE_REPLY_MAGIC, 0, cookie)
            total = len(request)
            sent = 0
            received = b""
            failure: Failure | None = None
            try:
                if payload is None:
                    sent = self._send(request, _NOSIGNAL)
                else:
                    total += count
                    if count < COPY_BELOW:
                        sent = self._send(request + payload, _NOSIGNAL)
                    else:
                        sent = self._sendmsg((request, payload), (), _NOSIGNAL)
                if sent == total:
                    received = self._recv(MORE_THAN_A_REPLY)
                    if received == expected or self._is_empty_chunk(received, cookie):
                        engine.bytes_sent += sent
                        engine.chunks_sent += 1
                        engine.bytes_received += len(received)
                        engine.chunks_received += 1
                        return True
            except OSError as error:
                failure = Failure.of_os("recv" if sent else "send", error)
            except BaseException:
                self._give_up()
                raise
            self._hand_over(Command(type_, offset, count, flags, payload), cookie, sent, received, failure)
            return False

    def _is_empty_chunk(self, received: bytes, cookie: int) -> bool:
        """Whether this is success in the form of a structured reply, which a server may prefer to a simple one."""
        if not self._structured or self._extended:
            return False
        return received == STRUCTURED.pack(STRUCTURED_REPLY_MAGIC, _DONE, _NONE, cookie, 0)

    def _hand_over(self, command: Command, cookie: int, sent: int, received: bytes, failure: Failure | None) -> None:
        self._engine.resume(command, cookie, sent, received)
        if failure is not None:
            self._engine.die(failure)
        raise Begun(command)

    def _give_up(self) -> None:
        # What the interrupted system call had done is not known, so the stream has no known position any more.
        self._engine.die(Failure("interrupted while waiting for a reply", errno.EINTR))
