"""Moves bytes between an engine and a socket: on demand, when told that the socket is ready, or waiting itself.

It owns the socket, the connector that makes one, and the switch to TLS. Which call wants what is not known here.
"""

from __future__ import annotations

import errno
import itertools
import math
import select
import socket
from collections.abc import Callable
from contextlib import suppress

from nbdtest.client import states
from nbdtest.client.channel import Channel, TLSChannel
from nbdtest.client.connecting import Connector, TryAnother
from nbdtest.client.engine import Engine
from nbdtest.client.errors import Failure
from nbdtest.client.states import BOTH, READING, WRITING, State
from nbdtest.client.tls import Credentials
from nbdtest.net.clock import Deadline

__all__ = ["FOREVER", "Driver"]

RECEIVES_AT_A_TIME = 64  # then somebody else has a turn: a server that never stops sending must not keep us here
READABLE = select.POLLIN | select.POLLHUP
BROKEN = select.POLLERR | select.POLLNVAL
FOREVER = Deadline(None)


class Driver:
    """One connection's bytes. `credentials` are asked for when the server has agreed to TLS."""

    def __init__(self, engine: Engine, credentials: Credentials) -> None:
        self.engine = engine
        self.channel: Channel | None = None
        self._credentials = credentials
        self._connector: Connector | None = None
        self._handshaking = False
        self._interrupted = False
        self.before_release: Callable[[], None] | None = None
        """Called before the socket is closed: an event loop has to stop watching it first."""

    # ---- where it stands

    def descriptor(self) -> int:
        """The descriptor to poll, -1 if there is none."""
        if self.channel is not None:
            return self.channel.fileno()
        if self._connector is not None and self._connector.socket is not None:
            return self._connector.socket.fileno()
        return -1

    def direction(self) -> int:
        """What has to become possible before anything can go on."""
        direction = self.state.direction
        if direction and self.channel is not None and self.channel.wants_to_send:
            return BOTH
        return direction

    @property
    def connecting(self) -> bool:
        """Whether there is no connection yet, but an attempt at one."""
        return self._connector is not None

    @property
    def state(self) -> State:
        """The state of the connection."""
        return self.engine.state

    # ---- beginning

    def connect(self, connector: Connector) -> None:
        """Begin to connect.

        Raises:
            Failure: that is known to be impossible already.
        """
        self._connector = connector
        self.engine.rest_in(connector.state)
        self._connecting(connector.start)

    def attach(self, connected: socket.socket) -> None:
        """Use a connected socket and begin the handshake.

        Raises:
            Failure: TLS is wanted in a way that is not possible here; nothing has been sent.
        """
        self._connector = None
        self.channel = Channel(connected)
        try:
            self._credentials.check()
        except Failure as failure:
            self.engine.die(failure)
            self._drop_channel()
            raise
        self.engine.start()
        self.flush()

    def _connecting(self, step: Callable[[], bool]) -> None:
        connector = self._connector
        assert connector is not None, "connecting"
        try:
            if not step():
                return
        except TryAnother:
            self._connector = None
            self.engine.state = states.START
            raise
        except Failure as failure:
            self._connector = None
            self.engine.die(failure)
            raise
        assert connector.socket is not None, "connected"
        self.attach(connector.socket)

    # ---- moving bytes

    def flush(self) -> None:
        """Send what there is to be sent, as far as the socket takes it. Failure shows in the engine's state."""
        engine, channel = self.engine, self.channel
        if channel is None:
            return
        try:
            while engine.has_output and not self._handshaking:
                count = channel.send(engine.output())
                if count is None:
                    break
                engine.sent(count)
            if channel.wants_to_send and isinstance(channel, TLSChannel):
                channel.push()
        except Failure as failure:
            engine.die(failure)
        except BaseException:
            engine.die(_interrupted())
            raise
        self._follow_up()

    def receive(self, deadline: Deadline = FOREVER) -> None:
        """Receive what has come, and answer it. Failure shows in the engine's state."""
        engine = self.engine
        if self._handshaking:
            self._shake_hands()
        for turn in itertools.count():
            channel = self.channel
            if channel is None or engine.over or self._handshaking:
                break
            if turn and (turn >= RECEIVES_AT_A_TIME or deadline.expired) and not channel.holds_bytes:
                break
            space = engine.receive_space()
            try:
                count = channel.receive_into(space)
            except Failure as failure:
                engine.die(failure)
                break
            except BaseException:
                engine.die(_interrupted())
                raise
            if count is None:
                break
            if not count:
                engine.received_end()
                break
            engine.received(count)
            if engine.has_output or engine.tls_wanted:
                self.flush()
            if (count < len(space) or not channel.plain) and not channel.holds_bytes:
                break
        self._follow_up()

    def _receive_waiting(self) -> None:
        """Receive at least one byte, however long that takes."""
        engine, channel = self.engine, self.channel
        assert channel is not None, "connected"
        try:
            count = channel.receive_waiting(engine.receive_space(), whole=engine.inbox.lent_rest > 0)
        except Failure as failure:
            engine.die(failure)
        except BaseException:
            engine.die(_interrupted())
            raise
        else:
            if count:
                engine.received(count)
            else:
                engine.received_end()
        if engine.has_output:
            self.flush()
        else:
            self._follow_up()

    def notify_read(self, deadline: Deadline = FOREVER) -> None:
        """The socket is readable.

        Raises:
            Failure: the handle is not waiting for that, or the connection died of it.
        """
        if not self.direction() & READING:
            raise Failure(f"external event 0 is invalid in state {self.state.name}", errno.EINVAL)
        self._watched(lambda: self.receive(deadline))

    def notify_write(self) -> None:
        """The socket is writable.

        Raises:
            Failure: the handle is not waiting for that, or the connection died of it.
        """
        if not self.direction() & WRITING:
            raise Failure(f"external event 1 is invalid in state {self.state.name}", errno.EINVAL)
        connector = self._connector
        if connector is not None:
            self._connecting(connector.proceed)
        else:
            self._watched(self.flush)

    def _watched(self, step: Callable[[], None]) -> None:
        before = self.engine.failure
        step()
        if (failure := self.engine.failure) is not None and failure is not before:
            raise failure

    # ---- waiting

    def wait(self, deadline: Deadline = FOREVER, extra: int = -1) -> bool:
        """Wait for the socket, or for `extra` to be readable, and go on; False at the deadline.

        Raises:
            Failure: there is nothing to wait for, or the connection died.
        """
        if self._interrupted:
            raise Failure("the handle is being closed", errno.ECANCELED)
        engine, channel = self.engine, self.channel
        if engine.has_output and self._connector is None:
            self._watched(self.flush)
        busy = channel is None or self._handshaking or engine.has_output or channel.wants_to_send
        free = not busy and engine.resting.direction == READING
        if free and extra < 0 and deadline.seconds == math.inf:
            self._receive_waiting()  # there is nothing else to wait for: cheaper than polling first
            if engine.failure is not None:
                raise engine.failure
            self._receive_held()
            return True
        direction = self.direction()
        events = (select.POLLIN if direction & READING else 0) | (select.POLLOUT if direction & WRITING else 0)
        if not events:
            raise Failure(f"nothing to poll for in state {self.state.name}", errno.EINVAL)
        if direction & READING and self._receive_held():
            return True
        descriptor = self.descriptor()
        poller = select.poll()
        poller.register(descriptor, events)
        if extra >= 0 and extra != descriptor:
            poller.register(extra, select.POLLIN)
        try:
            ready = poller.poll(deadline.remaining_ms())
        except OSError as error:
            raise Failure.of_os("poll", error) from None
        happened = dict(ready).get(descriptor, 0)
        if happened & READABLE and direction & READING:
            self.notify_read(deadline)
        elif happened & (select.POLLOUT | select.POLLHUP | select.POLLERR) and self._connector is not None:
            self.notify_write()  # SO_ERROR tells the reason
        elif happened & select.POLLOUT:
            self.notify_write()
        elif happened & (BROKEN | select.POLLHUP):
            raise Failure("server closed socket unexpectedly", errno.ENOTCONN)
        return bool(ready)

    def _receive_held(self) -> bool:
        """Receive what the channel holds, of which the socket knows nothing any more; whether that was anything."""
        if self.channel is None or not self.channel.holds_bytes or self._handshaking:
            return False
        before = self.engine.bytes_received
        self._watched(self.receive)
        return self.engine.bytes_received > before or self.engine.over

    def run_while(self, groups: int, deadline: Deadline = FOREVER) -> None:
        """Wait as long as the state is one of these groups (`Group` values, or'ed).

        Raises:
            Failure: there is nothing more to wait for, the connection died, or the deadline passed.
        """
        engine = self.engine
        while engine.resting.bit & groups:
            if not self.wait(deadline) or (deadline.expired and engine.resting.bit & groups):
                raise timed_out(deadline)  # also when bytes come all the time that lead nowhere

    # ---- ending

    def interrupt(self) -> None:
        """From another thread than the one that waits here: end its waiting, and all further."""
        self._interrupted = True  # before the socket is looked for: one that is made later is not waited for
        for waited_for in (self.channel, self._connector):
            if waited_for is not None and (connection := waited_for.socket) is not None:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Release the socket; the engine tells whoever waits."""
        if self._connector is not None:
            self._connector.close()
            self._connector = None
        self.engine.close()
        self._drop_channel()

    def _follow_up(self) -> None:
        """Do for the engine what it cannot do itself."""
        engine = self.engine
        if engine.tls_wanted and not engine.over and not self._handshaking and not engine.has_output:
            self._start_tls()
        if engine.half_close_wanted and not engine.has_output and self.channel is not None:
            engine.half_close_wanted = False
            self.channel.half_close()
        if engine.over:
            self._drop_channel()

    def _drop_channel(self) -> None:
        if self.channel is not None:
            if self.before_release is not None:
                self.before_release()
            self.channel.close()
            self.channel = None

    def _start_tls(self) -> None:
        assert self.channel is not None, "connected"
        try:
            self.channel = TLSChannel(self.channel.socket, self._credentials.context())
        except Failure as failure:
            self.engine.die(failure)
            return
        self._handshaking = True
        self._shake_hands()

    def _shake_hands(self) -> None:
        channel = self.channel
        if not isinstance(channel, TLSChannel):
            return
        try:
            complete = channel.handshake()
        except Failure as failure:
            self._handshaking = False
            self.engine.die(failure)
            return
        if complete:
            self._handshaking = False
            self.engine.tls_established()
            self.flush()
        else:
            self.engine.rest_in(states.TLS_WRITING if channel.wants_to_send else states.TLS_READING)


def _interrupted() -> Failure:
    # What the interrupted system call had done is not known, so the stream has no known position any more.
    return Failure("interrupted while waiting for a reply", errno.EINTR)


def timed_out(deadline: Deadline) -> Failure:
    """The failure of a call that took too long."""
    seconds = "" if deadline.seconds == math.inf else f" after {deadline.seconds:g} s"
    return Failure(f"timed out{seconds}", errno.ETIMEDOUT)
