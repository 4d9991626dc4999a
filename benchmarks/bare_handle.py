"""A handle that makes the system calls of an exchange and nothing else: the floor that a client in Python stands on.

It has a few of libnbd's calls for one honest server on a Unix socket, and checks nothing.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable
from ctypes import c_int
from typing import Any

from nbdtest.client import Buffer
from nbdtest.wire import (
    REQUEST_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    InfoRequest,
    MetaContextRequest,
    NewstyleGreeting,
    Opt,
    Option,
    OptionReply,
    Rep,
    Request,
)

__all__ = ["NBD", "PollingNBD"]

REQUEST = struct.Struct(">IHHQQI")
READ_REPLY = struct.Struct(">IHHQIQ")
SIMPLE_REPLY = struct.Struct(">I4xQ")
STATUS_REPLY = struct.Struct(">IHHQIIII")
READ, WRITE, FLUSH, BLOCK_STATUS = 0, 1, 3, 7

GREETING = NewstyleGreeting.wire_size()
STRUCTURED = (3).to_bytes(4, "big") + Option(option=Opt.STRUCTURED_REPLY).encode()
CONTEXT = Option(
    option=Opt.SET_META_CONTEXT, data=MetaContextRequest(name="", queries=("base:allocation",)).encode()
).encode()
GO = Option(option=Opt.GO, data=InfoRequest(name="").encode()).encode()
DISC = Request(type=2, cookie=1).encode()
ACK = {option: OptionReply(option=option, type=Rep.ACK).encode() for option in Opt}


class NBD:
    """One connection: one request at a time, or several at once."""

    polls = False

    def __init__(self) -> None:
        self._with_context = False

    def add_meta_context(self, name: str) -> None:
        self._with_context = True

    def connect_unix(self, path: str) -> None:
        self._path = path
        self._socket = connected = socket.socket(socket.AF_UNIX)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        connected.connect(path)
        self._send, self._recv, self._recv_into = connected.send, connected.recv, connected.recv_into
        self._fd = connected.fileno()
        connected.recv(GREETING, socket.MSG_WAITALL)
        self._ask(STRUCTURED, Opt.STRUCTURED_REPLY)
        if self._with_context:
            self._ask(CONTEXT, Opt.SET_META_CONTEXT)
        self._ask(GO, Opt.GO)
        poller = select.poll()
        poller.register(connected, select.POLLIN)
        self._poll = poller.poll
        self._cookie = 1
        self._requests = bytearray()
        self._waiting: dict[int, tuple[memoryview, Callable[..., Any]]] = {}
        self._replies = memoryview(bytearray(1 << 18))
        self._kept = 0

    def _ask(self, option: bytes, number: Opt) -> None:
        self._send(option)
        answer = b""
        while not answer.endswith(ACK[number]):
            answer += self._recv(1 << 14)

    def get_uri(self) -> str:
        return f"nbd+unix:///?socket={self._path}"

    def pread(self, count: int, offset: int) -> bytearray:
        header, buffer = bytearray(READ_REPLY.size), bytearray(count)
        self._send(REQUEST.pack(REQUEST_MAGIC, 0, READ, self._cookie, offset, count))
        if self.polls:
            self._poll()
        got = os.readv(self._fd, (header, buffer))
        while got < READ_REPLY.size + count:
            got += self._recv_into(memoryview(buffer)[got - READ_REPLY.size :], 0, socket.MSG_WAITALL)
        return buffer

    def pwrite(self, data: bytes, offset: int) -> None:
        self._send(REQUEST.pack(REQUEST_MAGIC, 0, WRITE, self._cookie, offset, len(data)) + data)
        if self.polls:
            self._poll()
        self._recv(64)

    def flush(self) -> None:
        self._send(REQUEST.pack(REQUEST_MAGIC, 0, FLUSH, self._cookie, 0, 0))
        if self.polls:
            self._poll()
        self._recv(64)

    def block_status(self, count: int, offset: int, extent: Callable[..., Any]) -> None:
        self._send(REQUEST.pack(REQUEST_MAGIC, 0, BLOCK_STATUS, self._cookie, offset, count))
        if self.polls:
            self._poll()
        reply = self._recv(64)
        while len(reply) < STATUS_REPLY.size:
            reply += self._recv(64)
        extent("base:allocation", offset, list(STATUS_REPLY.unpack(reply)[-2:]), None)

    def aio_pread(self, buffer: Buffer, offset: int, completion: Callable[..., Any]) -> int:
        view = memoryview(buffer.to_buffer())
        self._cookie = cookie = self._cookie + 1
        self._waiting[cookie] = view, completion
        self._requests += REQUEST.pack(REQUEST_MAGIC, 0, READ, cookie, offset, len(view))
        return cookie

    def aio_pwrite(self, buffer: Buffer, offset: int, completion: Callable[..., Any]) -> int:
        data = buffer.to_buffer()
        self._cookie = cookie = self._cookie + 1
        self._waiting[cookie] = memoryview(b""), completion
        self._requests += REQUEST.pack(REQUEST_MAGIC, 0, WRITE, cookie, offset, len(data))
        self._requests += data
        return cookie

    def poll(self, timeout: int) -> None:
        """Send what was asked for, wait, and take every whole reply that came; with `timeout` -1."""
        if self._requests:
            self._socket.sendall(self._requests)
            self._requests = bytearray()
        waiting, replies, at = self._waiting, self._replies, 0
        end = self._kept + self._recv_into(replies[self._kept :])
        while end - at >= SIMPLE_REPLY.size:
            magic, cookie = SIMPLE_REPLY.unpack_from(replies, at)
            view, completion = waiting[cookie]
            data = at + (READ_REPLY.size if magic == STRUCTURED_REPLY_MAGIC else SIMPLE_REPLY.size)
            if (after := data + len(view)) > end:
                break
            if view:
                view[:] = replies[data:after]
            at = after
            del waiting[cookie]
            completion(c_int(0))
        self._kept = end - at
        replies[: self._kept] = bytes(replies[at:end])

    def shutdown(self) -> None:
        self._send(DISC)
        self._socket.shutdown(socket.SHUT_WR)
        while self._recv(64):
            pass
        self._socket.close()


class PollingNBD(NBD):
    """The same, which waits for a reply before it receives."""

    polls = True
