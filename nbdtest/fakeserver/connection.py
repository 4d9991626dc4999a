"""One accepted connection: its stream, its engine, and TLS between the two once it is up.

It moves bytes when its loop (or whoever has taken it over) says so, and never waits.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from nbdtest.fakeserver.engine import Engine
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.outbox import End
from nbdtest.fakeserver.session import Phase
from nbdtest.fakeserver.tls import TLSLayer
from nbdtest.fakeserver.violations import of_tls_end
from nbdtest.net.clock import monotonic_s
from nbdtest.net.stream import MAX_PIECES, SocketStream, unsent
from nbdtest.net.tls import TLSContext
from nbdtest.wire.layout import Readable

__all__ = ["LEFT_OPEN", "Connection"]

LEFT_OPEN = "no close_notify before the end"
"""Stands in the journal where a client ended the connection without closing TLS, whether or not it may be blamed."""
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
        self.successor: None = None
        """Nobody: this is the last guise of a connection."""
        self.tls_layer: TLSLayer | None = None
        self._tls = tls
        self._released = released
        self._unsent: list[Readable] = []
        self._end_seen = False
        self._closing = False
        """Set when the connection ends as soon as what is unsent has left, whatever the engine thinks."""

    @property
    def number(self) -> int:
        """Counted from 1 over the life of the server."""
        return self.engine.connection

    @property
    def wants_read(self) -> bool:
        """Whether to wait for the client's bytes."""
        return not self._end_seen and self.engine.wants_bytes

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
        # A reply that is on its way must not show what a later request does to the disk.
        self._unsent = [bytes(piece) if isinstance(piece, memoryview) else piece for piece in self._unsent]
        if self.tls_layer is not None and self.tls_layer.is_forsaken(data):
            self.tls_layer = None
        if self.tls_layer is not None:
            self._guarded(partial(self._decrypt, self.tls_layer, data))
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
        if not self.closed and (self._closing or self.engine.end is not None):
            self.close(rst=self.engine.end is End.RST)

    @property
    def unfinished(self) -> bool:
        """Whether the client is owed something."""
        return not self.closed and (self.wants_write or self.engine.unfinished)

    def shut_down(self) -> None:
        """Answer from now on that the server is about to end."""
        self.engine.shutting_down = True

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
        if self.tls_layer is not None and not self.engine.cut_short and not self._unsent:
            self._guarded(partial(self._say_goodbye, self.tls_layer))
        self.stream.cut(rst=rst)

    def _say_goodbye(self, layer: TLSLayer) -> None:
        notice = layer.goodbye()
        with suppress(OSError):  # the client has gone, or does not read: the notice is a courtesy
            self.stream.raw_socket.send(notice, _FLAGS)

    def _collect(self) -> None:
        pieces = self.engine.data_to_send(monotonic_s())
        if self.tls_layer is not None:
            self.tls_layer.encrypt(pieces)
            pieces = self.tls_layer.outgoing()
        elif self.engine.wants_tls and not pieces and self.engine.has_said_all:  # the ACK has left
            pieces = self._start_tls()
        self._unsent = pieces

    def _start_tls(self) -> list[Readable]:
        """Put TLS between, and give what has to leave at once: an answer to a ClientHello that came early."""
        engine = self.engine
        engine.wants_tls = False
        if engine.settings.tls_quirks.ignores_starttls:
            engine.receive(b"", monotonic_s())
        elif self._tls is None:
            engine.hang_up()
        else:
            layer = self.tls_layer = TLSLayer(self._tls, engine.settings.tls_quirks)
            if not engine.settings.tls_quirks.keeps_plaintext and (early := engine.take_unread()):
                self._decrypt(layer, early)
            return layer.outgoing()
        return []

    def _decrypt(self, layer: TLSLayer, data: Readable | None, *, reset: bool = False) -> None:
        """Let the engine understand what the client sent through TLS; None is the end of the connection."""
        established = layer.established
        for plaintext in layer.incoming_end(reset=reset) if data is None else layer.incoming(data):
            self._guarded(partial(self._understand, plaintext))
        if layer.established and not established:
            self.journal.event(self.number, monotonic_s(), f"TLS is up: {layer.describe()}")
        if layer.is_forsaken():
            self.tls_layer = None
            return
        if layer.failure is not None and not self._closing:  # TLS-030
            self.journal.event(self.number, monotonic_s(), f"TLS failed: {layer.failure}")
            self.engine.session.phase = Phase.CLOSED  # TLS-059: now the client has to leave, too
        self._closing = self._closing or layer.over or layer.failure is not None
        if layer.client_closed and data is not None:
            self._ended()

    def _judge_tls_end(self, layer: TLSLayer) -> None:
        engine = self.engine
        if not layer.established or layer.client_closed or layer.failure is not None:
            return
        self.journal.event(self.number, monotonic_s(), LEFT_OPEN, by_client=True)
        if not engine.lied:
            aborted = engine.session.phase is Phase.CLOSED and engine.session.export is None
            engine.violation(of_tls_end(aborted=aborted))

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
        if self._end_seen:
            return
        self._end_seen = True
        if (layer := self.tls_layer) is not None:
            self._guarded(partial(self._decrypt, layer, None))
            self._judge_tls_end(layer)
        self._guarded(lambda: self.engine.receive_end(monotonic_s()))
        self.flush()

    def _gone(self) -> None:
        """The client reset the connection, or does not read any more: there is nobody to send to."""
        self._unsent = []
        if not self._end_seen:
            self._end_seen = True
            if (layer := self.tls_layer) is not None and not layer.established:
                self._guarded(
                    partial(self._decrypt, layer, None, reset=True)
                )  # it may refuse our credentials like that
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
