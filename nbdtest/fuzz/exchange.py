"""Sends many commands at once and sorts what comes back by command, fast: this is where a fuzzer spends its time.

It judges nothing but what makes the rest of the stream unreadable.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
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
    SimpleReply,
    StructuredReplyHeader,
)

__all__ = ["Answer", "Exchange", "Log"]

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
_READ = Cmd.READ


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
        self._buffer = bytearray(_BUFFER)
        self._start = 0
        self._end = len(leftover)
        self._buffer[: len(leftover)] = leftover
        self._socket = stream.raw_socket if isinstance(stream, SocketStream) else None
        if self._socket is not None:
            self._socket.setblocking(True)
            limit = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.log: Log | None = None
        """When set, what was sent and received is kept here."""

    def run(self, commands: Sequence[Command]) -> list[Answer]:
        """Send `commands` in one go and wait for all answers.

        Raises:
            Trouble: the stream is out of step, or the connection ended, or nothing came in time.
        """
        first = self._next_cookie
        self._next_cookie = first + len(commands)
        extended = self.mode is Mode.EXTENDED
        requests = [command.encode(first + at, extended=extended) for at, command in enumerate(commands)]
        if self.log is not None:
            now = monotonic_s()
            self.log += [(now, True, request) for request in requests]
        self._send(b"".join(requests))
        answers = [Answer() for _ in commands]
        waiting = set(range(len(commands)))
        while waiting:
            if not self._parse(commands, answers, first, waiting):
                self._receive(commands, waiting)
        return answers

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

    def _receive(self, commands: Sequence[Command], waiting: set[int]) -> None:
        if self._start:
            rest = self._buffer[self._start : self._end]
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        if self._end == len(self._buffer):
            self._buffer += bytes(len(self._buffer))
        view = memoryview(self._buffer)[self._end :]
        try:
            count = self._receive_into(view, len(waiting) * _SIMPLE.size - self._end)
        except (Disconnected, TimedOut) as error:
            about = commands[min(waiting)].name
            if isinstance(error, TimedOut):
                problem = Problem(kind=Kind.HANG, rule="it is not answered in time", about=about)
            else:
                how = "resets" if error.reset else "closes"
                rule = f"the server {how} the connection instead of answering"
                problem = Problem(kind=Kind.HUNG_UP, rule=rule, about=about)
            raise Trouble(problem) from None
        finally:
            view.release()
        if self.log is not None:
            self.log.append((monotonic_s(), False, bytes(self._buffer[self._end : self._end + count])))
        self._end += count

    def _receive_into(self, view: memoryview, least: int) -> int:
        """Receive what is there, but at least `least` bytes, which have to come: one wake-up for many short replies."""
        if self._socket is None:
            return self.stream.receive_into(view, Deadline(self.timeout_s))
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

    def _parse(self, commands: Sequence[Command], answers: list[Answer], first: int, waiting: set[int]) -> bool:
        """Take all whole messages out of the buffer; False if there is none."""
        buffer, at, end = self._buffer, self._start, self._end
        began = at
        extended = self.mode is Mode.EXTENDED
        while waiting and end - at >= 16:
            (magic,) = _MAGIC.unpack_from(buffer, at)
            if magic == SIMPLE_REPLY_MAGIC and not extended:
                _, error, cookie = _SIMPLE.unpack_from(buffer, at)
                number = cookie - first
                if number not in waiting:
                    raise self._stray(cookie)
                command = commands[number]
                length = command.length if command.type is _READ and not error else 0
                if end - at < 16 + length:
                    break
                answer = answers[number]
                if answer.chunks:
                    raise self._out_of_step("a simple reply comes between the chunks of a structured one", command)
                answer.error = error
                answer.data = bytes(buffer[at + 16 : at + 16 + length])
                waiting.discard(number)
                at += 16 + length
            elif magic == STRUCTURED_REPLY_MAGIC and self.mode is Mode.STRUCTURED:
                if end - at < 20:
                    break
                _, flags, kind, cookie, length = _STRUCTURED.unpack_from(buffer, at)
                if not self._chunk(commands, answers, waiting, cookie - first, flags, kind, at + 20, length):
                    break
                at += 20 + length
            elif magic == EXTENDED_REPLY_MAGIC and extended:
                if end - at < 32:
                    break
                _, flags, kind, cookie, offset, length = _EXTENDED.unpack_from(buffer, at)
                number = cookie - first
                if not self._chunk(commands, answers, waiting, number, flags, kind, at + 32, length):
                    break
                answers[number].offsets_differ |= offset != commands[number].offset
                at += 32 + length
            else:
                about = commands[min(waiting)].name
                detail = bytes(buffer[at : at + 16]).hex(" ")
                rule = "what comes is no reply"
                raise Trouble(
                    Problem(kind=Kind.OUT_OF_STEP, rule=rule, about=about, requirement="RPL-001", detail=detail)
                )
        self._start = at
        return at > began

    def _chunk(
        self,
        commands: Sequence[Command],
        answers: list[Answer],
        waiting: set[int],
        number: int,
        flags: int,
        kind: int,
        start: int,
        length: int,
    ) -> bool:
        """Take a chunk whose header was read; False if its payload is not all there."""
        if number not in waiting:
            raise self._stray(number + self._next_cookie - len(commands))
        if length > _LONGEST_CHUNK:
            raise self._out_of_step("a chunk is absurdly long", commands[number], f"{length} bytes")
        if self._end - start < length:
            return False
        answer = answers[number]
        answer.chunks.append((flags, kind, bytes(self._buffer[start : start + length])))
        if flags & _DONE:
            waiting.discard(number)
        elif len(answer.chunks) > _MOST_CHUNKS:
            raise self._out_of_step("a reply has no end", commands[number])
        return True

    @staticmethod
    def _stray(cookie: int) -> Trouble:
        rule = "a reply has a cookie that no open request has"
        detail = f"0x{cookie & (1 << 64) - 1:x}"
        return Trouble(Problem(kind=Kind.OUT_OF_STEP, rule=rule, requirement="RPL-005", detail=detail))

    @staticmethod
    def _out_of_step(rule: str, command: Command, detail: str = "") -> Trouble:
        return Trouble(Problem(kind=Kind.OUT_OF_STEP, rule=rule, about=command.name, detail=detail))
