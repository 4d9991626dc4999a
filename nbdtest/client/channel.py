"""Connected sockets that never wait: bytes in, bytes out, in clear or through TLS.

What the bytes mean is not known here.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from nbdtest.client.errors import Failure, TLSError
from nbdtest.errors import Disconnected, TransportError
from nbdtest.net.tls import PIECE, TLSClosed, TLSContext, TLSPipe

__all__ = ["Channel", "Piece", "TLSChannel", "Wire"]

Piece: TypeAlias = bytes | bytearray | memoryview

MOST_PIECES = 64  # in one system call
CIPHERTEXT = 1 << 18  # bytes received at a time under TLS
RECORD = 1 << 14  # the most plaintext that comes in one piece
_DONTWAIT = socket.MSG_DONTWAIT
_SENDING = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Wire(NamedTuple):
    """The calls of a blocking socket that the fast lane makes, and nothing else of it."""

    send: Callable[[Piece, int], int]
    sendmsg: Callable[[Sequence[Piece], Sequence[Any], int], int]
    recv: Callable[[int], bytes]
    recv_into: Callable[[memoryview, int, int], int]
    readv: Callable[[tuple[bytearray | memoryview, bytearray | memoryview]], int]
    poll: Callable[[], object]
    """Wait until something has come, or do nothing where `readv` and `recv` wait just as well."""


class Channel:
    """A connected stream socket, in blocking mode: here it is used without waiting, by the fast lane with waiting."""

    plain = True
    """Whether the socket carries the bytes as they are: a short receive has emptied it."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        connected.setblocking(True)
        self._receive_into = connected.recv_into
        self._send = connected.send

    def fileno(self) -> int:
        """The descriptor, for polling."""
        return self.socket.fileno()

    @property
    def wants_to_send(self) -> bool:
        """Whether bytes of this channel's own are waiting to be sent."""
        return False

    @property
    def holds_bytes(self) -> bool:
        """Whether there may be bytes to receive that have left the socket already: it will not tell of them."""
        return False

    def receive_into(self, space: memoryview) -> int | None:
        """Receive what is there: a number of bytes, 0 at the end of the connection, None if nothing has come.

        Raises:
            Failure: the connection is broken.
        """
        try:
            return self._receive_into(space, 0, _DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Failure.of_os("recv", error) from None

    def receive_waiting(self, space: memoryview, *, whole: bool) -> int:
        """Receive something, or `whole`: all that fits; 0 at the end of the connection. This waits.

        Raises:
            Failure: the connection is broken.
        """
        try:
            return self._receive_into(space, 0, socket.MSG_WAITALL if whole else 0)
        except OSError as error:
            raise Failure.of_os("recv", error) from None

    def send(self, pieces: deque[bytearray | memoryview]) -> int | None:
        """Send as much as the socket takes and return how many bytes of `pieces` that were; None if it takes nothing.

        Raises:
            Failure: the connection is broken.
        """
        try:
            if len(pieces) == 1:
                return self._send(pieces[0], _SENDING)
            return self.socket.sendmsg(list(islice(pieces, MOST_PIECES)), (), _SENDING)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Failure.of_os("send", error) from None

    def wire(self) -> Wire:
        """The socket's own calls, for the fast lane."""
        connected = self.socket
        poller = select.poll()
        poller.register(connected, select.POLLIN)
        readv = partial(os.readv, connected.fileno())
        return Wire(connected.send, connected.sendmsg, connected.recv, connected.recv_into, readv, poller.poll)

    def half_close(self) -> None:
        """Tell the server that nothing follows."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Release the socket."""
        with suppress(OSError):
            self.socket.close()


class TLSChannel(Channel):
    """The same through TLS. `handshake` has to be called until it is complete."""

    plain = False

    def __init__(self, connected: socket.socket, context: TLSContext) -> None:
        super().__init__(connected)
        self.pipe = TLSPipe(context)
        self._ciphertext = memoryview(bytearray(CIPHERTEXT))
        self._unsent = b""
        self._closing = False
        self._process = os.getpid()
        self._deaf = False  # the server does not take anything any more

    @property
    def wants_to_send(self) -> bool:
        return bool(self._unsent) or self.pipe.pending_to_send > 0

    @property
    def holds_bytes(self) -> bool:
        return not self.pipe.is_dry

    def handshake(self) -> bool:
        """Go on with the handshake and say whether it is complete.

        Raises:
            Failure: it failed; the server has been told why as far as the socket took it.
        """
        try:
            while not self.pipe.handshake():
                self._push()
                if not self._pull(_DONTWAIT):
                    return False
        except TransportError as error:
            self._push()
            raise Failure(str(error)) from error
        self._push()
        return True

    def receive_into(self, space: memoryview) -> int | None:
        return self._receive(space, _DONTWAIT)

    def receive_waiting(self, space: memoryview, *, whole: bool) -> int:
        return self._receive(space, 0) or 0

    def _receive(self, space: memoryview, flags: int) -> int | None:
        pipe = self.pipe
        try:
            while True:
                if not pipe.is_dry:
                    if count := pipe.read_into(space):
                        return count
                    self._push()  # if the peer wants an answer to what was no data, it must not wait for it
                if not self._pull(flags):
                    return None
        except Disconnected as error:
            # After DISC a missing close_notify is no error. A server that leaves without a word may have refused us.
            if self._closing or (isinstance(error, TLSClosed) and not self.pipe.silent):
                return 0
            raise Failure(f"recv: {error}") from error
        except TransportError as error:
            self._push()
            raise Failure(f"recv: {error}") from error

    def send(self, pieces: deque[bytearray | memoryview]) -> int | None:
        if not self._push():
            return None
        count = 0
        for piece in pieces:
            for at in range(0, len(piece), PIECE):
                part = memoryview(piece)[at : at + PIECE]
                try:
                    self.pipe.write(part)
                except TransportError as error:
                    raise Failure(f"send: {error}") from error
                count += len(part)
                # What is encrypted counts as sent; no more is encrypted before it is gone.
                if not self._push():
                    return count
        return count

    def half_close(self) -> None:
        self._closing = True
        with suppress(TransportError, Failure):
            self.pipe.close_notify()
            self._push()
        super().half_close()

    def close(self) -> None:
        if not self._closing and os.getpid() == self._process:  # a forked child must not speak for its parent
            self.half_close()
        super().close()

    def wire(self) -> Wire:
        """The same calls through TLS: they wait, and what goes wrong with TLS is a TLSError."""

        pipe, plaintext = self.pipe, memoryview(bytearray(RECORD))
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)

        def recv(limit: int) -> bytes:
            buffer = bytearray(limit)
            count = self._wait_for_some(memoryview(buffer))
            return bytes(buffer[:count])

        def recv_into(view: memoryview, _count: int, flags: int) -> int:
            have = self._wait_for_some(view)
            while have and have < len(view) and flags & socket.MSG_WAITALL:
                if not (more := self._wait_for_some(view[have:])):
                    break
                have += more
            return have

        def readv(buffers: tuple[bytearray | memoryview, bytearray | memoryview]) -> int:
            header, rest = buffers
            size, total = len(header), len(header) + len(rest)
            if total > RECORD:
                have = self._wait_for_some(memoryview(header))
                if have == size:
                    with suppress(TransportError):  # whoever asks for more is told
                        have += pipe.read_into(rest)
                return have
            have = self._wait_for_some(plaintext[:total])  # copying is cheaper than asking OpenSSL twice
            header[:have] = plaintext[: min(have, size)]
            if have > size:
                rest[: have - size] = plaintext[size:have]
            return have

        def send(data: Piece, _flags: int) -> int:
            try:
                pipe.write(data)
            except TransportError as error:
                raise TLSError(str(error)) from error
            self._send_ciphertext(pipe.to_send())
            return len(data)

        def sendmsg(pieces: Sequence[Piece], _ancillary: Sequence[Any], _flags: int) -> int:
            try:
                for ciphertext in pipe.encrypt(*pieces):
                    self._send_ciphertext(ciphertext)
            except TransportError as error:
                raise TLSError(str(error)) from error
            return sum(map(len, pieces))

        def poll() -> None:
            if pipe.is_dry:
                poller.poll()

        return Wire(send, sendmsg, recv, recv_into, readv, poll)

    def _wait_for_some(self, view: memoryview) -> int:
        """Receive at least one byte, however long that takes; 0 when the server has closed TLS."""
        pipe, ciphertext = self.pipe, self._ciphertext
        try:
            while True:
                if not pipe.is_dry:
                    if count := pipe.read_into(view):
                        return count
                    self._send_ciphertext(pipe.to_send())
                if got := self._receive_into(ciphertext):
                    pipe.feed(ciphertext[:got])
                else:
                    pipe.feed_eof()
        except TLSClosed:
            return 0
        except TransportError as error:
            raise TLSError(str(error)) from error

    def _send_ciphertext(self, ciphertext: bytes) -> None:
        """Send all of it, however long that takes; nothing when the server does not listen any more."""
        if self._unsent:
            ciphertext, self._unsent = self._unsent + ciphertext, b""
        sent = 0
        try:
            while sent < len(ciphertext) and not self._deaf:
                sent += self._send(memoryview(ciphertext)[sent:] if sent else ciphertext, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            self._deaf = True  # what there is to be received says why

    def push(self) -> None:
        """Send what is waiting to be sent, as far as the socket takes it."""
        self._push()

    def _push(self) -> bool:
        """Send ciphertext; False if some is left.

        When the server does not listen any more the ciphertext is dropped: what there is to be received says why, be it
        an alert or the end of the connection.
        """
        while not self._deaf:
            self._unsent = self._unsent or self.pipe.to_send()
            if not self._unsent:
                return True
            try:
                count = self._send(self._unsent, _SENDING)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                self._deaf = True
                break
            except OSError as error:
                raise Failure.of_os("send", error) from None
            self._unsent = self._unsent[count:]
        self.pipe.to_send()
        self._unsent = b""
        return True

    def _pull(self, flags: int) -> bool:
        """Receive ciphertext; False if none has come, and the flags say not to wait."""
        try:
            count = self._receive_into(self._ciphertext, 0, flags)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self.pipe.feed_eof(reset=True)
            return True
        except OSError as error:
            raise Failure.of_os("recv", error) from None
        if count:
            self.pipe.feed(self._ciphertext[:count])
        else:
            self.pipe.feed_eof()
        return True
