"""A blocking byte stream with deadlines: what every layer above reads from and writes to.

`Stream` is the contract, which a TLS layer fulfils as well; `SocketStream` is a connected socket. How a connection
comes about is not known here.
"""

import select
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self, TypeAlias

from nbdtest.errors import Disconnected, TimedOut, TransportError, UsageError
from nbdtest.net.clock import Deadline

__all__ = ["Arrival", "BytesLike", "SocketStream", "Stream", "WritableBuffer", "unsent", "wait_for"]

BytesLike: TypeAlias = bytes | bytearray | memoryview
WritableBuffer: TypeAlias = bytearray | memoryview

SHOWN_BYTES = 32  # of an incomplete message, in an error
MAX_PIECES = 1024  # IOV_MAX of Linux
DRAIN_BYTES = 1 << 20  # what is thrown away at most so that a cut is a FIN and not a RST


class Arrival(Enum):
    """What the other side did while we watched."""

    NOTHING = "nothing"
    BYTES = "bytes"
    END = "end"


class Stream(ABC):
    """An ordered, reliable stream of bytes in both directions, used by one reader and one writer at a time.

    Every call that waits takes a `deadline`; without one it may take `timeout_s` (None: for ever). The end of the
    connection is always an exception: `Disconnected`, with what had arrived before it.
    """

    timeout_s: float | None

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor to poll for arriving bytes."""

    @abstractmethod
    def receive_into(self, buffer: WritableBuffer, deadline: Deadline | None = None, *, what: str = "") -> int:
        """Wait for bytes, put them at the start of `buffer` and return how many: at least 1, at most its length.

        `what` names, for the error, the message that is being read.

        Raises:
            Disconnected: the other side ended the connection and nothing more is queued.
            TimedOut: nothing arrived by the deadline.
        """

    @abstractmethod
    def send_all(self, *pieces: BytesLike, deadline: Deadline | None = None) -> None:
        """Send the pieces one after the other, with as few system calls as possible.

        Raises:
            Disconnected: the other side has closed or reset the connection.
            TimedOut: the other side stopped reading; an unknown part has been sent.
        """

    @abstractmethod
    def arrival(self, within: float) -> Arrival:
        """Say what arrives first in the next `within` seconds, and leave it to be received."""

    @abstractmethod
    def half_close(self) -> None:
        """End our direction (FIN); the other side can still send."""

    @abstractmethod
    def cut(self, *, rst: bool = False) -> None:
        """Close at once, by FIN even when unread bytes are queued, or by RST (only where `can_reset`)."""

    @abstractmethod
    def close(self) -> None:
        """Release the descriptor. Any number of times."""

    @abstractmethod
    def interrupt(self) -> None:
        """End both directions but keep the descriptor, so that a thread that waits in this stream wakes up.

        The one method that another thread may call at any time before `close`.
        """

    @property
    @abstractmethod
    def can_reset(self) -> bool:
        """Whether `cut(rst=True)` reaches the other side as a reset."""

    def fill(self, buffer: WritableBuffer, deadline: Deadline | None = None, *, what: str = "") -> None:
        """Receive until `buffer` is full.

        Raises:
            Disconnected, TimedOut: with what had arrived in `received`.
        """
        deadline = deadline or Deadline(self.timeout_s)
        view = memoryview(buffer).cast("B")
        wanted, have = view.nbytes, 0
        try:
            while have < wanted:
                have += self.receive_into(view[have:], deadline)
        except Disconnected as error:
            received = bytes(view[:have]) + error.received
            how = "reset the connection" if error.reset else "closed the connection"
            raise Disconnected(
                f"the peer {how} {_progress(received, wanted, what)}", received=received, reset=error.reset
            ) from None
        except TimedOut as error:
            received = bytes(view[:have]) + error.received
            waited = f"gave up after {deadline.seconds:g} s {_progress(received, wanted, what)}"
            raise TimedOut(waited, received=received) from None

    def receive_exact(self, count: int, deadline: Deadline | None = None, *, what: str = "") -> bytes:
        """Receive exactly `count` bytes; see `fill`."""
        if not count:
            return b""
        buffer = bytearray(count)
        self.fill(buffer, deadline, what=what)
        return bytes(buffer)

    def receive_some(self, limit: int = 1 << 16, deadline: Deadline | None = None, *, what: str = "") -> bytes:
        """Receive what is there, at least 1 byte and at most `limit`; see `receive_into`."""
        buffer = bytearray(limit)
        count = self.receive_into(buffer, deadline, what=what)
        del buffer[count:]
        return bytes(buffer)

    def receive_to_end(self, limit: int = 1 << 20, deadline: Deadline | None = None) -> bytes:
        """Receive until the other side ends the connection, by FIN or by RST, and return what came before that.

        Raises:
            TimedOut: the connection is still open at the deadline, or more than `limit` bytes came; `received` holds
            them.
        """
        deadline = deadline or Deadline(self.timeout_s)
        received = bytearray()
        while len(received) <= limit:
            try:
                received += self.receive_some(1 << 16, deadline)
            except Disconnected:
                return bytes(received)
            except TimedOut:
                message = f"the connection is still open after {deadline.seconds:g} s {_arrived(bytes(received))}"
                raise TimedOut(message, received=bytes(received)) from None
        raise TimedOut(f"more than {limit} bytes came and no end of the connection", received=bytes(received))

    def nothing_arrives(self, within: float) -> bool:
        """Whether the connection stays open and silent for `within` seconds."""
        return self.arrival(within) is Arrival.NOTHING

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SocketStream(Stream):
    """A connected stream socket (TCP, Unix, vsock), owned by this. Its blocking mode and timeout do not matter."""

    def __init__(self, connected: socket.socket, *, timeout_s: float | None = 10.0) -> None:
        self._socket = connected
        self.timeout_s = timeout_s
        self._was_reset = False
        if connected.family in (socket.AF_INET, socket.AF_INET6):
            # Requests and replies are small and answered one by one: Nagle's algorithm would hold them back.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def raw_socket(self) -> socket.socket:
        """The socket itself, for a driver that reads and writes on its own."""
        return self._socket

    @property
    def closed(self) -> bool:
        """Whether this end has been closed here."""
        return self._socket.fileno() < 0

    @property
    def can_reset(self) -> bool:
        """TCP only; a Unix socket's peer sees a reset just when a `close` throws unread bytes away."""
        return self._socket.family in (socket.AF_INET, socket.AF_INET6)

    def fileno(self) -> int:
        return self._socket.fileno()

    def detach(self) -> socket.socket:
        """Give the socket away; this stream is closed from then on."""
        return socket.socket(fileno=self._socket.detach())

    def receive_into(self, buffer: WritableBuffer, deadline: Deadline | None = None, *, what: str = "") -> int:
        while True:
            try:
                count = self._socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                deadline = deadline or Deadline(self.timeout_s)
                if not wait_for(self.fileno(), select.POLLIN, deadline):
                    raise TimedOut(f"nothing arrived in {deadline.seconds:g} s{_expected(what)}") from None
                continue
            except OSError as error:
                raise self._failure(error, what) from error
            if count == 0:
                if not memoryview(buffer).nbytes:
                    raise UsageError("a receive buffer of 0 bytes: nothing can arrive in it")
                raise self._ended(what)
            return count

    def send_all(self, *pieces: BytesLike, deadline: Deadline | None = None) -> None:
        pending = unsent(pieces, 0)
        while pending:
            try:
                sent = self._socket.sendmsg(pending[:MAX_PIECES], (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                deadline = deadline or Deadline(self.timeout_s)
                if not wait_for(self.fileno(), select.POLLOUT, deadline):
                    left = sum(piece.nbytes for piece in pending)
                    message = f"the peer stopped reading: {left} bytes could not be sent in {deadline.seconds:g} s"
                    raise TimedOut(message) from None
                continue
            except OSError as error:
                raise self._failure(error, "") from error
            pending = unsent(pending, sent)

    def arrival(self, within: float) -> Arrival:
        deadline = Deadline(within)
        while wait_for(self.fileno(), select.POLLIN, deadline):
            try:
                seen = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                self._was_reset = True  # the kernel reports a reset once; the next call would see an ordinary end
                return Arrival.END
            except OSError as error:
                raise self._failure(error, "") from error
            return Arrival.BYTES if seen else Arrival.END
        return Arrival.NOTHING

    def half_close(self) -> None:
        self._shut_down(socket.SHUT_WR)

    def interrupt(self) -> None:
        self._shut_down(socket.SHUT_RDWR)

    def cut(self, *, rst: bool = False) -> None:
        if self.closed:
            return
        if rst and self.can_reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self._shut_down(socket.SHUT_WR)
            self._throw_away_unread()
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _throw_away_unread(self) -> None:
        # A close with unread bytes would send RST (TCP) or look like one (Unix).
        try:
            for _ in range(DRAIN_BYTES >> 16):
                if not self._socket.recv(1 << 16, socket.MSG_DONTWAIT):
                    return
        except OSError:
            pass

    def _shut_down(self, how: int) -> None:
        with suppress(OSError):  # ended by the other side or closed here: the direction is shut either way
            self._socket.shutdown(how)

    def _ended(self, what: str) -> Disconnected:
        how = "reset" if self._was_reset else "closed"
        return Disconnected(f"the peer {how} the connection{_expected(what)}", reset=self._was_reset)

    def _failure(self, error: OSError, what: str) -> TransportError:
        if isinstance(error, ConnectionResetError):
            self._was_reset = True
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return self._ended(what)
        if self.closed:
            return TransportError(f"this end of the connection is closed{_expected(what)}")
        return TransportError(f"the connection failed{_expected(what)}: {error.strerror}")


def wait_for(descriptor: int, events: int, deadline: Deadline) -> bool:
    """Wait until `descriptor` is ready for `events`, or has failed, as the next call tells; False at the deadline."""
    if descriptor < 0:
        return True
    poller = select.poll()
    poller.register(descriptor, events)
    return bool(poller.poll(deadline.remaining_ms()))


def unsent(pieces: Iterable[BytesLike], sent: int) -> list[memoryview]:
    """The bytes of `pieces` after the first `sent`, as views, without empty ones."""
    rest = []
    for piece in pieces:
        view = memoryview(piece)
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        if sent >= view.nbytes:
            sent -= view.nbytes
        else:
            rest.append(view[sent:] if sent else view)
            sent = 0
    return rest


def _expected(what: str) -> str:
    return f" while {what} was expected" if what else ""


def _arrived(received: bytes) -> str:
    if not received:
        return "and nothing arrived"
    shown = received[:SHOWN_BYTES].hex(" ")
    return f"and {len(received)} bytes arrived: {shown}{' ...' if len(received) > SHOWN_BYTES else ''}"


def _progress(received: bytes, wanted: int, what: str) -> str:
    of = f" of {what}" if what else ""
    return f"where {wanted} bytes{of} were expected {_arrived(received)}"
