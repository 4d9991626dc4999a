"""Sends many commands at once and sorts what comes back by command, fast: this is where a fuzzer spends its time.

It judges nothing but what makes the rest of the stream unreadable.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from nbdtest.errors import Disconnected, TimedOut
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.problem import Kind, Problem, Trouble
from nbdtest.fuzz.script import Mode
from nbdtest.net.clock import Deadline, monotonic_s
from nbdtest.net.stream import SocketStream, Stream
from nbdtest.wire import (
    EXTENDED_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Cmd,
    ExtendedReplyHeader,
    ReplyType,
    SimpleReply,
    StructuredReplyHeader,
)

__all__ = ["Accepts", "Answer", "Exchange", "Log"]

Accepts: TypeAlias = Callable[[Command, memoryview | None], bool]
"""Whether success, with the data of a READ, is all there is to say about a command."""

Log: TypeAlias = list[tuple[float, bool, bytes]]
"""When, whether it was sent or else received, and what."""

_LONGEST_CHUNK = 16 << 20
_MOST_CHUNKS = 1 << 14
_BUFFER = 1 << 18
_SIMPLE = SimpleReply.LAYOUT.front
_STRUCTURED = StructuredReplyHeader.LAYOUT.front
_EXTENDED = ExtendedReplyHeader.LAYOUT.front
_MAGIC = struct.Struct(">I")
_DONE = 1
_READ, _BLOCK_STATUS = Cmd.READ, Cmd.BLOCK_STATUS

_HEAD = struct.Struct(">QQ")
"""How every reply begins: magic, what sort of reply it is, and the cookie."""
_DATA_HEAD = _DONE << 16 | ReplyType.OFFSET_DATA
_SUCCESS = SIMPLE_REPLY_MAGIC << 32
_HEAD_OF_DATA = {
    Mode.SIMPLE: _SUCCESS,
    Mode.STRUCTURED: STRUCTURED_REPLY_MAGIC << 32 | _DATA_HEAD,
    Mode.EXTENDED: EXTENDED_REPLY_MAGIC << 32 | _DATA_HEAD,
}
_REST_OF_DATA = {
    Mode.SIMPLE: struct.Struct(""),
    Mode.STRUCTURED: struct.Struct(">IQ"),
    Mode.EXTENDED: struct.Struct(">QQQ"),
}
"""What is between that and the data of a READ that succeeds in one piece."""


class Answer:
    """What came for one command: a simple reply (`error`, `data`), or `chunks` of (flags, type, payload)."""

    __slots__ = ("chunks", "data", "error", "offsets_differ")

    def __init__(self) -> None:
        self.error: int | None = None
        self.data = b""
        self.chunks: list[tuple[int, int, bytes]] = []
        self.offsets_differ = False
        """Whether an extended chunk does not echo the request's offset."""

    @property
    def simple(self) -> bool:
        """Whether it is a simple reply."""
        return self.error is not None


class Exchange:
    """A connection in transmission."""

    def __init__(self, stream: Stream, mode: Mode, *, timeout_s: float, leftover: bytes = b"") -> None:
        self.stream = stream
        self.mode = mode
        self.timeout_s = timeout_s
        self._next_cookie = 1
        self._waiting: dict[int, Command] = {}
        self._answers: dict[int, tuple[Command, Answer]] = {}
        self._buffer = bytearray(leftover)
        self._start = 0
        self._end = len(leftover)
        self._socket = stream.raw_socket if isinstance(stream, SocketStream) else None
        self._prepared = False
        self.log: Log | None = None
        """When set, what was sent and received is kept here."""

    def post(self, commands: Sequence[Command]) -> None:
        """Send `commands` in one go; their answers have to be collected before the next ones are sent.

        Raises:
            Trouble: the connection ended, or the server stopped reading.
        """
        first = self._next_cookie
        self._next_cookie = first + len(commands)
        self._waiting = dict(enumerate(commands, first))
        self._answers = {}
        extended = self.mode is Mode.EXTENDED
        requests = [command.encode(cookie, extended=extended) for cookie, command in self._waiting.items()]
        if self.log is not None:
            now = monotonic_s()
            self.log += [(now, True, request) for request in requests]
        self._send(b"".join(requests))

    def collect(self, accepts: Accepts) -> list[tuple[Command, Answer]]:
        """Wait for all answers, and return those that are more than an accepted success, in the order of the commands.

        `accepts` is asked about each success that came in one piece, with the data of a READ; what it says no to is
        among those that are returned.

        Raises:
            Trouble: the stream is out of step, or the connection ended, or nothing came in time.
        """
        waiting = self._waiting
        while waiting:
            self._take_successes(accepts)
            if waiting and not self._take_message():
                self._receive()
        return [self._answers[cookie] for cookie in sorted(self._answers)]

    def send(self, data: bytes) -> None:
        """Send bytes as they are.

        Raises:
            Trouble: the connection ended, or the server stopped reading.
        """
        if self.log is not None:
            self.log.append((monotonic_s(), True, data))
        self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            self.stream.send_all(data, deadline=Deadline(self.timeout_s))
        except Disconnected:
            raise Trouble(Problem(kind=Kind.HUNG_UP, rule="the connection ends while requests are sent")) from None
        except TimedOut:
            raise Trouble(Problem(kind=Kind.HANG, rule="the server stops reading")) from None

    @property
    def surplus(self) -> bytes:
        """What has been received and belongs to no command."""
        return bytes(self._buffer[self._start : self._end])

    def _receive(self) -> None:
        if self._start:
            rest = self._buffer[self._start : self._end]
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        if self._end == len(self._buffer):
            # Not in place: views of what was received may still be about.
            self._buffer = self._buffer + bytes(max(_BUFFER, len(self._buffer)))
        view = memoryview(self._buffer)[self._end :]
        try:
            count = self._receive_into(view, len(self._waiting) * _SIMPLE.size - self._end)
        except (Disconnected, TimedOut) as error:
            about = self._oldest.name
            if isinstance(error, TimedOut):
                problem = Problem(kind=Kind.HANG, rule="it is not answered in time", about=about)
            else:
                how = "resets" if error.reset else "closes"
                rule = f"the server {how} the connection instead of answering"
                problem = Problem(kind=Kind.HUNG_UP, rule=rule, about=about)
            raise Trouble(problem) from None
        if self.log is not None:
            self.log.append((monotonic_s(), False, bytes(self._buffer[self._end : self._end + count])))
        self._end += count

    @property
    def _oldest(self) -> Command:
        """The first command that is not answered yet."""
        return self._waiting[min(self._waiting)]

    def _receive_into(self, view: memoryview, least: int) -> int:
        """Receive what is there, but at least `least` bytes, which have to come: one wake-up for many short replies."""
        if self._socket is None:
            return self.stream.receive_into(view, Deadline(self.timeout_s))
        if not self._prepared:
            self._socket.setblocking(True)
            limit = struct.pack("@ll", int(self.timeout_s), int(self.timeout_s % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._prepared = True
        try:
            count = 0
            if 1 < least < len(view):
                count = self._socket.recv_into(view, least, socket.MSG_WAITALL)
                if count == least:
                    with suppress(BlockingIOError):
                        count += self._socket.recv_into(view[count:], 0, socket.MSG_DONTWAIT)
            else:
                count = self._socket.recv_into(view)
        except BlockingIOError:
            raise TimedOut("nothing came") from None
        except OSError as error:
            raise Disconnected(str(error), reset=isinstance(error, ConnectionResetError)) from None
        if not count:
            raise Disconnected("the connection was closed")
        return count

    def _take_successes(self, accepts: Accepts) -> None:
        """Take successes that came in one piece out of the buffer, up to anything else; most replies are such."""
        buffer, at, end, waiting = self._buffer, self._start, self._end, self._waiting
        chunked, compact = self.mode is not Mode.SIMPLE, self.mode is not Mode.EXTENDED
        head_of_data, rest_of_data = _HEAD_OF_DATA[self.mode], _REST_OF_DATA[self.mode]
        view = memoryview(buffer)
        while end - at >= _HEAD.size:
            head, cookie = _HEAD.unpack_from(buffer, at)
            command = waiting.get(cookie)
            if command is None or cookie in self._answers:
                break
            data = None
            after = at + _HEAD.size
            if command.type is _READ:
                after += rest_of_data.size
                start, after = after, after + command.length
                if head != head_of_data or after > end:
                    break
                if chunked:
                    expected = command.length + 8, command.offset
                    if rest_of_data.unpack_from(buffer, at + _HEAD.size) != (
                        expected if compact else (command.offset, *expected)
                    ):
                        break
                data = view[start:after]
            elif head != _SUCCESS or not compact or command.type is _BLOCK_STATUS:
                break
            if not accepts(command, data):
                break
            del waiting[cookie]
            at = after
        self._start = at

    def _take_message(self) -> bool:
        """Take one message of any kind out of the buffer; False if there is no whole one."""
        buffer, at, end = self._buffer, self._start, self._end
        if end - at < _HEAD.size:
            return False
        extended = self.mode is Mode.EXTENDED
        (magic,) = _MAGIC.unpack_from(buffer, at)
        if magic == SIMPLE_REPLY_MAGIC and not extended:
            _, error, cookie = _SIMPLE.unpack_from(buffer, at)
            return self._take_simple(cookie, error, at + _SIMPLE.size)
        if magic == STRUCTURED_REPLY_MAGIC and self.mode is Mode.STRUCTURED:
            if end - at < _STRUCTURED.size:
                return False
            _, flags, kind, cookie, length = _STRUCTURED.unpack_from(buffer, at)
            return self._take_chunk(cookie, flags, kind, None, at + _STRUCTURED.size, length)
        if magic == EXTENDED_REPLY_MAGIC and extended:
            if end - at < _EXTENDED.size:
                return False
            _, flags, kind, cookie, offset, length = _EXTENDED.unpack_from(buffer, at)
            return self._take_chunk(cookie, flags, kind, offset, at + _EXTENDED.size, length)
        detail = bytes(buffer[at : at + _HEAD.size]).hex(" ")
        rule = "what comes is no reply"
        raise Trouble(
            Problem(kind=Kind.OUT_OF_STEP, rule=rule, about=self._oldest.name, requirement="RPL-001", detail=detail)
        )

    def _take_simple(self, cookie: int, error: int, start: int) -> bool:
        """Take a simple reply whose header was read; False if its data is not all there."""
        command = self._command_of(cookie)
        after = start + (command.length if command.type is _READ and not error else 0)
        if self._end < after:
            return False
        if cookie in self._answers:
            raise self._out_of_step("a simple reply comes between the chunks of a structured one", command)
        answer = self._answer_of(cookie)
        answer.error = error
        answer.data = bytes(self._buffer[start:after])
        del self._waiting[cookie]
        self._start = after
        return True

    def _take_chunk(self, cookie: int, flags: int, kind: int, offset: int | None, start: int, length: int) -> bool:
        """Take a chunk whose header was read, with the offset it echoes; False if its payload is not all there."""
        command = self._command_of(cookie)
        if length > _LONGEST_CHUNK:
            raise self._out_of_step("a chunk is absurdly long", command, f"{length} bytes")
        if self._end - start < length:
            return False
        answer = self._answer_of(cookie)
        answer.chunks.append((flags, kind, bytes(self._buffer[start : start + length])))
        answer.offsets_differ |= offset is not None and offset != command.offset
        if flags & _DONE:
            del self._waiting[cookie]
        elif len(answer.chunks) > _MOST_CHUNKS:
            raise self._out_of_step("a reply has no end", command)
        self._start = start + length
        return True

    def _command_of(self, cookie: int) -> Command:
        command = self._waiting.get(cookie)
        if command is None:
            rule = "a reply has a cookie that no open request has"
            raise Trouble(Problem(kind=Kind.OUT_OF_STEP, rule=rule, requirement="RPL-005", detail=f"0x{cookie:x}"))
        return command

    def _answer_of(self, cookie: int) -> Answer:
        """What has been kept of the answer so far."""
        return self._answers.setdefault(cookie, (self._waiting[cookie], Answer()))[1]

    @staticmethod
    def _out_of_step(rule: str, command: Command, detail: str = "") -> Trouble:
        return Trouble(Problem(kind=Kind.OUT_OF_STEP, rule=rule, about=command.name, detail=detail))
