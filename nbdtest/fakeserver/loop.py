"""A thread that serves many connections: it waits for sockets and times, and lets connections do the rest."""

from __future__ import annotations

import errno
import math
import os
import selectors
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

from nbdtest.errors import TimedOut, TransportError
from nbdtest.net.clock import Deadline, monotonic_s
from nbdtest.net.sockets import Listener
from nbdtest.net.stream import SocketStream

__all__ = ["Loop", "Served"]

BUFFER = 256 << 10
SWEEP_BYTES = 64 << 20
TRY_AGAIN_S = 0.02
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Served(Protocol):
    """What a loop serves: a connection, in one of its guises."""

    closed: bool

    @property
    def number(self) -> int:
        """Counted from 1 over the life of the server."""

    @property
    def descriptor(self) -> int:
        """The socket's number, also after it was closed."""

    @property
    def successor(self) -> Served | None:
        """Who goes on with the same socket from now on, if this one does not."""

    @property
    def wants_read(self) -> bool:
        """Whether to wait for the client's bytes."""

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for room in the socket."""

    @property
    def wake_at(self) -> float:
        """When to call `flush` although nothing arrives; `inf` for never."""

    def start(self) -> None:
        """Begin, and send the greeting."""

    def receive(self, buffer: memoryview) -> bool:
        """Take in what has arrived, at most a buffer full; False if nothing had."""

    def flush(self) -> None:
        """Send what may leave now and fits."""

    @property
    def unfinished(self) -> bool:
        """Whether the client is owed something."""

    def shut_down(self) -> None:
        """Answer from now on that the server is about to end."""

    def release(self, name: str) -> None:
        """Let go what is held under `name`."""

    def close(self) -> None:
        """End the connection now. Any number of times."""


class Loop:
    """Serves listeners and connections in one thread until it is stopped.

    `accepted` makes a connection of a new stream; `settled` is asked after each step whether the connection is taken
    away from this loop. `broken` is told the number of the connection, 0 if none, in whose service an exception was
    raised; that connection is ended, and everybody else is still served.
    """

    def __init__(
        self,
        broken: Callable[[int, Exception], None],
        *,
        accepted: Callable[[SocketStream], Served | None] = lambda stream: None,
        settled: Callable[[Served], bool] = lambda connection: False,
        name: str = "nbdtest-fakeserver",
        ends_when_empty: bool = False,
    ) -> None:
        self._broken = broken
        self._accepted = accepted
        self._settled = settled
        self._selector = selectors.DefaultSelector()
        self._listeners: list[Listener] = []
        self._waiting_for_room: list[Listener] = []
        """Listeners that could not accept for want of descriptors; they try again in a moment."""
        self._connections: dict[Served, int] = {}
        """What each is registered for; 0 for nothing."""
        self._timed: set[Served] = set()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._buffer = memoryview(bytearray(BUFFER))
        self._stopping = False
        self._ends_when_empty = ends_when_empty
        self._grace: Deadline | None = None
        """Set when the loop is to end: how long clients are waited for."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, *, grace_s: float = 0.0, timeout_s: float = 5.0) -> bool:
        """Take in what clients have sent already, end every connection, and the thread; False if it does not end.

        Clients that are owed answers, or are in their handshake, get at most `grace_s` to hear the rest (TERM-035).
        """
        if grace_s:
            self.call(lambda: self._shut_down(grace_s))
        else:
            self._stopping = True
        self._wake()
        self._thread.join(timeout_s + grace_s)
        return not self._thread.is_alive()

    def call(self, step: Callable[[], None]) -> None:
        """Run `step` in the loop's thread, soon. From any thread."""
        self._calls.append(step)
        self._wake()

    def listen(self, listener: Listener) -> None:
        """Serve whoever connects there; the listener is closed with the loop. From any thread."""

        def begin() -> None:
            self._listeners.append(listener)
            self._selector.register(listener, selectors.EVENT_READ, listener)

        self.call(begin)

    def adopt(self, connection: Served, *, begin: bool) -> None:
        """Serve this connection too, from its greeting on if it is new. From any thread."""

        def take() -> None:
            self._take(connection, begin)

        self.call(take)

    def release(self, name: str) -> None:
        """Let go what any connection of this loop holds under `name`. From any thread."""

        def let_go() -> None:
            for connection in list(self._connections):
                self._step(connection, partial(connection.release, name))

        self.call(let_go)

    @property
    def running(self) -> bool:
        """Whether its thread is alive."""
        return self._thread.is_alive()

    @property
    def connections(self) -> list[Served]:
        """The connections that are open now."""
        return list(self._connections)

    def _wake(self) -> None:
        with suppress(OSError):  # the loop has ended
            os.write(self._wake_write, b"x")

    def _run(self) -> None:
        try:
            while not self._stopping and not self._all_told():
                ready = self._selector.select(self._patience())
                self._listen_again()
                for key, _ in ready:
                    if key.data is None:
                        self._answer_calls()
                    elif isinstance(key.data, Listener):
                        self._accept(key.data)
                    else:
                        self._serve(key.data)
                self._serve_timed()
        finally:
            self._answer_calls()
            self._end()

    def _shut_down(self, grace_s: float) -> None:
        self._grace = Deadline(grace_s)
        self._waiting_for_room.clear()
        for listener in self._listeners:
            if listener.fileno() in self._selector.get_map():
                self._selector.unregister(listener)
        for connection in list(self._connections):
            self._step(connection, connection.shut_down)

    def _all_told(self) -> bool:
        """Whether nobody has to be waited for any more."""
        if self._grace is None:
            return False
        return self._grace.expired or not any(connection.unfinished for connection in self._connections)

    def _patience(self) -> float | None:
        wake_at = min((connection.wake_at for connection in self._timed), default=math.inf)
        if self._grace is not None:
            wake_at = min(wake_at, monotonic_s() + self._grace.remaining())
        patience = None if wake_at == math.inf else max(wake_at - monotonic_s(), 0)
        if self._waiting_for_room:
            return TRY_AGAIN_S if patience is None else min(patience, TRY_AGAIN_S)
        return patience

    def _answer_calls(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception as error:  # noqa: BLE001 - the edge of a thread: it is raised again when the server is verified
                self._broken(0, error)

    def _accept(self, listener: Listener) -> None:
        try:
            stream = listener.accept(Deadline(0), timeout_s=None)
        except TimedOut:
            return  # whoever stood in the queue has gone
        except TransportError as error:
            self._selector.unregister(listener)
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_ROOM:
                self._waiting_for_room.append(listener)
            return
        try:
            connection = self._accepted(stream)
        except Exception as error:  # noqa: BLE001 - see above
            self._broken(0, error)
            stream.close()
            return
        if connection is not None:
            self._take(connection, begin=True)

    def _listen_again(self) -> None:
        listeners, self._waiting_for_room = self._waiting_for_room, []
        for listener in listeners:
            self._selector.register(listener, selectors.EVENT_READ, listener)

    def _take(self, connection: Served, begin: bool) -> None:
        if self._stopping and begin:
            connection.close()
            return
        self._connections[connection] = 0
        # Clients that know what they want have sent it by the time they are accepted.
        self._step(connection, connection.start if begin else None)

    def _serve(self, connection: Served) -> None:
        def exchange() -> None:
            if connection.wants_write:
                connection.flush()
            if not connection.closed and connection.wants_read:
                connection.receive(self._buffer)

        self._step(connection, exchange)

    def _serve_timed(self) -> None:
        if not self._timed:
            return
        now = monotonic_s()
        for connection in [each for each in self._timed if each.wake_at <= now]:
            self._step(connection, connection.flush)

    def _step(self, connection: Served, step: Callable[[], object] | None) -> None:
        """Let the connection do something, and see what it waits for then. If it cannot, it is ended."""
        try:
            if step is not None:
                step()
            self._settle(connection)
        except Exception as error:  # noqa: BLE001 - see above
            self._broken(connection.number, error)
            if connection in self._connections:
                self._let_go(connection)
            self._close(connection.successor or connection)

    def _close(self, connection: Served) -> None:
        try:
            connection.close()
        except Exception as error:  # noqa: BLE001 - see above
            self._broken(connection.number, error)

    def _settle(self, connection: Served) -> None:
        """Bring the selector and the list of times up to date with what the connection waits for now."""
        if connection not in self._connections:
            return
        if connection.successor is not None:
            self._let_go(connection)
            self._take(connection.successor, begin=False)
            return
        if connection.closed or self._settled(connection):
            self._let_go(connection)
            return
        wanted = (selectors.EVENT_READ if connection.wants_read else 0) | (
            selectors.EVENT_WRITE if connection.wants_write else 0
        )
        registered = self._connections[connection]
        if wanted != registered:
            if not registered:
                self._selector.register(connection.descriptor, wanted, connection)
            elif not wanted:
                self._selector.unregister(connection.descriptor)
            else:
                self._selector.modify(connection.descriptor, wanted, connection)
            self._connections[connection] = wanted
        if connection.wake_at != math.inf and not connection.wants_write:
            self._timed.add(connection)
        else:
            self._timed.discard(connection)

    def _let_go(self, connection: Served) -> None:
        registered = self._connections.pop(connection)
        self._timed.discard(connection)
        if self._ends_when_empty and not self._connections:
            self._stopping = True
        if registered:
            self._selector.unregister(connection.descriptor)

    def _end(self) -> None:
        for connection in list(self._connections):
            try:
                connection = self._sweep(connection)
            except Exception as error:  # noqa: BLE001 - see above
                self._broken(connection.number, error)
            self._close(connection)
        for listener in self._listeners:
            listener.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _sweep(self, connection: Served) -> Served:
        """Take in what the client has sent, so that what the journal says does not depend on who was faster.

        Gives the last guise of the connection.
        """
        taken = 0
        while not connection.closed and connection.wants_read and taken < SWEEP_BYTES:
            if not connection.receive(self._buffer):
                break
            if connection.successor is not None:
                connection = connection.successor
            taken += BUFFER
        return connection
