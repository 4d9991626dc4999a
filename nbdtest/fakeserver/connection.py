"""One accepted connection: its stream, its engine, and TLS between the two once it is up.

It moves bytes when its loop (or whoever has taken it over) says so, and never waits.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from nbdtest.errors import TransportError
from nbdtest.fakeserver.engine import Engine
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.outbox import End
from nbdtest.net.clock import monotonic_s
from nbdtest.net.stream import MAX_PIECES, SocketStream, unsent
from nbdtest.net.tls import TLSContext, TLSFailure, TLSPipe
from nbdtest.wire.layout import Readable

__all__ = ["Connection"]

_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Connection:
    """A client that is being served. Used by one thread at a time."""

    def __init__(
        self,
        stream: SocketStream,
        engine: Engine,
        journal: Journal,
        *,
        tls: TLSContext | None = None,
        released: Callable[[str, Connection], None] = lambda name, by: None,
    ) -> None:
        self.stream = stream
        self.descriptor = stream.fileno()
        """The socket's number, also after it was closed."""
        self.engine = engine
        self.journal = journal
        self.closed = False
        self.tls_pipe: TLSPipe | None = None
        self._tls = tls
        self._released = released
        self._unsent: list[Readable] = []
        self._end_seen = False

    @property
    def number(self) -> int:
        """Counted from 1 over the life of the server."""
        return self.engine.connection

    @property
    def wants_read(self) -> bool:
        """Whether to wait for the client's bytes."""
        return not self._end_seen and (self.engine.wants_bytes or self.tls_pipe is not None)

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for room in the socket."""
        return bool(self._unsent)

    @property
    def wake_at(self) -> float:
        """When to call `flush` although nothing arrives."""
        return self.engine.wake_at

    def start(self) -> None:
        """Begin, and send the greeting."""
        self._guarded(lambda: self.engine.start(monotonic_s()))
        self.flush()

    def receive(self, buffer: memoryview) -> bool:
        """Take in what has arrived, at most a buffer full; False if nothing had."""
        try:
            count = self.stream.raw_socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self._gone()
            return False
        if not count:
            self._ended()
            return True
        self.take_in(buffer[:count])
        return True

    def take_in(self, data: Readable) -> None:
        """Take in bytes of the client, and answer."""
        if self.tls_pipe is not None:
            self._decrypt(data)
        else:
            self._guarded(partial(self._understand, data))
        self.flush()

    def flush(self) -> None:
        """Send what may leave now and fits, and end the connection when it has to end."""
        while not self.closed:
            if not self._unsent:
                self._guarded(self._collect)
                self._hand_on_releases()
                if not self._unsent:
                    break
            try:
                sent = self.stream.raw_socket.sendmsg(self._unsent[:MAX_PIECES], (), _FLAGS)
            except BlockingIOError:
                return
            except OSError:
                self._gone()
                return
            self._unsent = list(unsent(self._unsent, sent))
        if not self.closed and self.engine.end is not None:
            self.close(rst=self.engine.end is End.RST)

    def release(self, name: str) -> None:
        """Let go what is held under `name`."""
        if not self.closed:
            self._guarded(lambda: self.engine.release(name, monotonic_s()))
            self.flush()

    def close(self, *, rst: bool = False) -> None:
        """End the connection now. Any number of times."""
        if self.closed:
            return
        self.closed = True
        self.journal.event(self.number, monotonic_s(), "RST" if rst else "FIN")
        if self.tls_pipe is not None and not rst and not self._unsent:
            self.tls_pipe.close_notify()
            with suppress(OSError):  # the client has gone, or does not read: the notice is a courtesy
                self.stream.raw_socket.send(self.tls_pipe.to_send(), _FLAGS)
        self.stream.cut(rst=rst)

    def _collect(self) -> None:
        pieces = self.engine.data_to_send(monotonic_s())
        if self.tls_pipe is not None and self.tls_pipe.established:
            self.tls_pipe.write(*pieces)
            pieces = []
        if self.tls_pipe is not None and self.tls_pipe.pending_to_send:
            pieces = [self.tls_pipe.to_send()]
        self._unsent = pieces
        if self.engine.wants_tls and not pieces:
            self._start_tls()

    def _start_tls(self) -> None:
        self.engine.wants_tls = False
        if self._tls is None:
            self.engine.hang_up()
            return
        early = self.engine.take_unread()
        self.tls_pipe = TLSPipe(self._tls)
        if early:
            self._decrypt(early)

    def _decrypt(self, data: Readable) -> None:
        pipe = self.tls_pipe
        assert pipe is not None
        pipe.feed(bytes(data))
        buffer = memoryview(bytearray(1 << 16))
        try:
            if not pipe.handshake():
                return
            while count := pipe.read_into(buffer):
                plain = bytes(buffer[:count])
                self._guarded(partial(self._understand, plain))
        except TLSFailure as failure:  # TLS-030
            self.journal.event(self.number, monotonic_s(), str(failure))
            self.engine.hang_up()
        except TransportError:
            self._ended()

    def _understand(self, data: Readable) -> None:
        self.engine.receive(data, monotonic_s())

    def _hand_on_releases(self) -> None:
        names, self.engine.to_release = self.engine.to_release, []
        for name in names:
            self._released(name, self)

    def end(self, *, gone: bool = False) -> None:
        """Take in that the client sends nothing more, or does not even read."""
        if gone:
            self._gone()
        else:
            self._ended()

    def _ended(self) -> None:
        self._end_seen = True
        self._guarded(lambda: self.engine.receive_end(monotonic_s()))
        self.flush()

    def _gone(self) -> None:
        """The client reset the connection, or does not read any more: there is nobody to send to."""
        self._unsent = []
        if not self._end_seen:
            self._end_seen = True
            self._guarded(lambda: self.engine.receive_end(monotonic_s()))
        self.close()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run the engine; what the test's own functions raise is written down and ends this connection only."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the edge of a thread: it is raised again when the server is verified
            self.journal.problem(self.number, monotonic_s(), error, "serving")
            self._unsent = []
            self.engine.hang_up()
