"""Servers as child processes: on stdin and stdout, by socket activation, or listening at an address; and clients.

Which program it is, and what it speaks, is not known here.
"""

import shlex
import socket
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from nbdtest.errors import TimedOut, TransportError
from nbdtest.net.addresses import Address
from nbdtest.net.capture import Capture
from nbdtest.net.child import Child, Exit
from nbdtest.net.clock import Deadline
from nbdtest.net.inherited import FIRST_ACTIVATED
from nbdtest.net.listening import is_listening
from nbdtest.net.sockets import Listener
from nbdtest.net.spawn import CannotStart
from nbdtest.net.stream import SocketStream

__all__ = [
    "CannotStart",
    "Exit",
    "Process",
    "ProcessDied",
    "start_activated",
    "start_command",
    "start_listening",
    "start_on_stdio",
]

GRACE_S = 2.0  # between SIGTERM and SIGKILL
FIRST_POLL_S, LAST_POLL_S = 0.001, 0.02  # between looks at whether a server listens


class ProcessDied(TransportError):
    """A server ended while it was needed."""

    def __init__(self, message: str, *, exit: Exit) -> None:
        super().__init__(message)
        self.exit = exit


class Process:
    """A running or finished server. Leaving its `with` block stops it, and losing the last reference kills it."""

    def __init__(self, child: Child) -> None:
        self._child = child
        # An interrupt can come between the start and the moment when the caller has a name for this.
        self._finalizer = weakref.finalize(self, child.kill_soon)
        self._finalizer.atexit = False

    @property
    def argv(self) -> tuple[str, ...]:
        """The command."""
        return self._child.argv

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its process group and session."""
        return self._child.pid

    @property
    def output(self) -> Capture:
        """What it printed on stderr, and on stdout unless that is its connection; also while it runs."""
        return self._child.output

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._child.exit

    def wait(self, within: float | None = None) -> Exit | None:
        """Wait until it has ended, at most `within` seconds, and say how; None when it still runs."""
        self._child.ended.wait(within)
        return self.exit

    def send_signal(self, number: int) -> None:
        """Send a signal to the process itself; nothing happens when it has ended."""
        self._child.signal(number)

    def stop(self, *, grace_s: float = GRACE_S) -> Exit:
        """End it with everything it started: SIGTERM, after `grace_s` SIGKILL. Any number of times.

        Raises:
            TransportError: it survived SIGKILL.
        """
        if self._child.pid and self._child.is_ours:
            try:
                self._child.stop(grace_s)
            except BaseException:
                self._child.kill_soon()
                raise
            self._finalizer.detach()
        return self.exit or Exit()

    def pids(self) -> list[int]:
        """Itself and everything it started, as far as they still run; also what has left its process group."""
        return self._child.pids()

    def describe(self) -> str:
        """One fact for an error message: how it ended, and what it printed."""
        printed = self.output.text().strip()
        state = "still runs" if self.exit is None else str(self.exit)
        return f"{shlex.join(self.argv)} {state}" + (f"; it printed:\n{printed}" if printed else " and printed nothing")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_command(argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Process:
    """Start a program that does its work and ends, such as a client. Its stdin is empty.

    Raises:
        CannotStart: the command cannot be run.
    """
    child = Child(argv, environment)
    process = Process(child)
    child.start({}, activated=False)
    return process


def start_on_stdio(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout_s: float | None = 10.0
) -> tuple[Process, SocketStream]:
    """Start a server that speaks on its stdin and stdout, which are one Unix socket; the stream is the other end.

    Raises:
        CannotStart: the command cannot be run.
    """
    child = Child(argv, environment)
    process = Process(child)
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            child.start({0: theirs.fileno(), 1: theirs.fileno()}, activated=False)
    except BaseException:
        ours.close()
        raise
    return process, SocketStream(ours, timeout_s=timeout_s)


def start_activated(
    argv: Sequence[str], listener: Listener, *, name: str = "unknown", environment: Mapping[str, str] | None = None
) -> Process:
    """Start a server that gets `listener` by systemd's protocol. It can be connected to at once.

    The listener is the server's then: here it is released, so that connecting fails once the server has gone.

    Raises:
        CannotStart: the command cannot be run; the listener is as before.
    """
    child = Child(argv, environment)
    child.environment.update(LISTEN_FDS="1", LISTEN_FDNAMES=name)
    process = Process(child)
    child.start({FIRST_ACTIVATED: listener.fileno()}, activated=True)
    listener.release()
    return process


def start_listening(
    argv: Sequence[str],
    address: Address,
    *,
    environment: Mapping[str, str] | None = None,
    deadline: Deadline | None = None,
) -> Process:
    """Start a server that is told to listen at `address`, and wait until it does (at most 10 s without a deadline).

    Raises:
        CannotStart: the command cannot be run.
        ProcessDied: it ended instead.
        TimedOut: it does not listen; it has been stopped.
    """
    deadline = deadline or Deadline(10.0)
    child = Child(argv, environment)
    process = Process(child)
    try:
        child.start({}, activated=False)
        interval = FIRST_POLL_S
        while not is_listening(address):
            if (ended := process.wait(interval)) is not None:
                raise ProcessDied(f"no server listens at {address}: {process.describe()}", exit=ended)
            if deadline.expired:
                raise TimedOut(f"nobody listens at {address} after {deadline.seconds:g} s: {process.describe()}")
            interval = min(2 * interval, LAST_POLL_S)
    except BaseException:
        process.stop()
        raise
    return process
