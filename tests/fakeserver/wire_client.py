"""A blocking client of few words, for tests of the serving threads and of scripts."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from nbdtest.wire import (
    ClientFlags,
    Cmd,
    InfoRequest,
    Message,
    NewstyleGreeting,
    Opt,
    Option,
    OptionReply,
    OptionReplyHeader,
    Rep,
    Request,
    SimpleReply,
)

__all__ = ["WireClient"]

GREETING = 18


class WireClient:
    """One connection with simple replies. Everything waits at most ten seconds."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        connected.settimeout(10)
        self._cookie = 0

    def take(self, count: int) -> bytes:
        """Receive exactly so many bytes, fewer only at the end of the connection."""
        data = b""
        while len(data) < count and (more := self.socket.recv(count - len(data))):
            data += more
        return data

    def rest(self) -> bytes:
        """Receive until the end of the connection."""
        data = b""
        try:
            while more := self.socket.recv(1 << 16):
                data += more
        except ConnectionResetError:
            pass
        return data

    def say(self, *messages: Message | bytes) -> None:
        self.socket.sendall(b"".join(each if isinstance(each, bytes) else each.encode() for each in messages))

    def greet(self) -> Self:
        NewstyleGreeting.decode(self.take(GREETING))
        self.say(ClientFlags())
        return self

    def option(self, option: Opt, data: bytes = b"") -> list[OptionReply]:
        self.say(Option(option=option, data=data))
        replies: list[OptionReply] = []
        while not replies or not (replies[-1].type == Rep.ACK or replies[-1].type.is_error):
            head = self.take(20)
            replies.append(OptionReply.decode(head + self.take(OptionReplyHeader.decode(head).length)))
        return replies

    def open(self, name: str = "") -> Self:
        """Go through the whole handshake."""
        self.greet()
        assert self.option(Opt.GO, InfoRequest(name=name).encode())[-1].type == Rep.ACK
        return self

    def greet_and_go(self, name: str) -> None:
        """Say all of a handshake, and wait for nothing."""
        self.say(ClientFlags(), Option(option=Opt.GO, data=InfoRequest(name=name).encode()))
        self.socket.shutdown(socket.SHUT_WR)

    def request(self, type_: Cmd, offset: int = 0, length: int = 0, payload: bytes = b"") -> int:
        self._cookie += 1
        header = Request(type=type_, cookie=self._cookie, offset=offset, length=length or len(payload))
        self.say(header, payload)
        return self._cookie

    def reply(self, data: int = 0) -> tuple[SimpleReply, bytes]:
        reply = SimpleReply.decode(self.take(16))
        return reply, self.take(data)

    def read(self, offset: int, length: int) -> bytes:
        self.request(Cmd.READ, offset, length)
        return self.reply(length)[1]

    def write(self, offset: int, data: bytes) -> None:
        self.request(Cmd.WRITE, offset, payload=data)
        self.reply()

    def leave(self) -> None:
        """Disconnect as the specification wants it."""
        self.request(Cmd.DISC)
        self.rest()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
