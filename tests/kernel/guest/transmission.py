"""A server that starts where the kernel does: at the transmission phase, on the other end of a connected socket.

It answers correctly until a test replaces `answer`, keeps what it was asked, and never lets a thread survive `close`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from nbdtest.errors import TransportError
from nbdtest.net.sockets import connect, listen
from nbdtest.net.stream import SocketStream, Stream
from nbdtest.wire.numbers import Cmd, Errno, TransmissionFlag
from nbdtest.wire.transmission import Request, SimpleReply

WAIT_S = 10.0

ALL_FLAGS = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.CAN_MULTI_CONN
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that arrived, and on which connection (from 0)."""

    connection: int
    request: Request

    @property
    def short(self) -> tuple[str, int, int]:
        return (self.request.type.name, self.request.offset, self.request.length)


Answer = Callable[["Peer", Request], bool]
"""Answers a request itself and returns True, or leaves it to the server."""


class Peer:
    """One connection, as the server sees it."""

    def __init__(self, server: TransmissionServer, stream: Stream, number: int) -> None:
        self.server = server
        self.stream = stream
        self.number = number

    def send(self, *pieces: bytes) -> None:
        self.stream.send_all(*pieces)

    def cut(self) -> None:
        """End the connection, and this thread's work with it."""
        self.stream.interrupt()

    def hold(self) -> None:
        """Answer nothing more until the test lets go, or the kernel ends the connection."""
        self.server.released.wait(WAIT_S)

    def ok(self, request: Request, data: bytes = b"") -> None:
        self.send(SimpleReply(cookie=request.cookie).encode(), data)

    def fail(self, request: Request, error: Errno) -> None:
        self.send(SimpleReply(cookie=request.cookie, error=error).encode())


class TransmissionServer:
    """Bytes in memory, any number of connections."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.data = bytearray(size)
        self.asked: list[Asked] = []
        self.answer: Answer = lambda peer, request: False
        self.released = threading.Event()
        self.failures: list[BaseException] = []
        self._arrived = threading.Condition()
        self._streams: list[SocketStream] = []
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def unix(self) -> socket.socket:
        """Return the client's end, a Unix socket; it is closed with the server."""
        ours, theirs = socket.socketpair()
        return self._serve(ours, SocketStream(theirs, timeout_s=None))

    def tcp(self) -> socket.socket:
        """Return the client's end, a TCP socket."""
        with listen() as listener:
            ours = connect(listener.address)
            return self._serve(ours.detach(), listener.accept(timeout_s=None))

    def wait_for(self, *kinds: Cmd, timeout_s: float = WAIT_S) -> list[Request]:
        """Wait until a request of each kind has arrived, and return all that came so far."""
        with self._arrived:
            complete = self._arrived.wait_for(
                lambda: set(kinds) <= {asked.request.type for asked in self.asked}, timeout_s
            )
        assert complete, f"{kinds} wanted, only {self.summary()} came"
        return [asked.request for asked in self.asked]

    def of(self, kind: Cmd) -> list[Request]:
        """Return the requests of a kind that came so far."""
        return [asked.request for asked in self.asked if asked.request.type == kind]

    def forget(self) -> None:
        self.asked.clear()

    def summary(self) -> list[tuple[str, int, int]]:
        return [asked.short for asked in self.asked]

    def close(self) -> None:
        self.released.set()
        for stream in self._streams:
            stream.interrupt()
        for thread in self._threads:
            thread.join()
        for stream in self._streams:
            stream.close()
        for client in self._clients:
            client.close()
        if self.failures:
            raise self.failures[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, client: socket.socket, stream: SocketStream) -> socket.socket:
        peer = Peer(self, stream, len(self._threads))
        self._streams.append(stream)
        self._threads.append(threading.Thread(target=self._run, args=(peer,), daemon=True))
        self._threads[-1].start()
        self._clients.append(client)
        return client

    def _run(self, peer: Peer) -> None:
        try:
            while True:
                request = Request.decode(peer.stream.receive_exact(Request.wire_size()))
                data = peer.stream.receive_exact(request.length) if request.type is Cmd.WRITE else b""
                with self._arrived:
                    self.asked.append(Asked(connection=peer.number, request=request))
                    self._arrived.notify_all()
                if self.answer(peer, request):
                    continue
                if request.type is Cmd.DISC:
                    peer.cut()
                    return
                self._carry_out(peer, request, data)
        except TransportError:
            pass  # the kernel or the test ended the connection
        except BaseException as failure:  # noqa: BLE001  # shown by close(), in the test's own thread
            self.failures.append(failure)
            peer.cut()

    def _carry_out(self, peer: Peer, request: Request, data: bytes) -> None:
        end = request.offset + request.length
        if end > len(self.data):
            peer.fail(request, Errno.EINVAL)
            return
        if request.type is Cmd.READ:
            peer.ok(request, bytes(self.data[request.offset : end]))
            return
        if request.type is Cmd.WRITE:
            self.data[request.offset : end] = data
        elif request.type in (Cmd.TRIM, Cmd.WRITE_ZEROES):
            self.data[request.offset : end] = bytes(request.length)
        peer.ok(request)
