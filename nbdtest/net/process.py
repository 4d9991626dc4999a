"""Servers as child processes: on stdin and stdout, by socket activation, or listening at an address.

A `Process` is started by the attendant's thread, registered with the guardian, and killed with everything it started.
Which program it is, and what it speaks, is not known here.
"""

import atexit
import itertools
import os
import shlex
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from nbdtest.errors import TimedOut, TransportError
from nbdtest.net.addresses import Address
from nbdtest.net.attendant import attendant
from nbdtest.net.capture import Capture
from nbdtest.net.clock import Deadline, pause
from nbdtest.net.guardian import MARK_VARIABLE, guardian
from nbdtest.net.guardian_process import in_group, is_running, kill, marked
from nbdtest.net.inherited import FIRST_ACTIVATED
from nbdtest.net.listening import is_listening
from nbdtest.net.sockets import Listener
from nbdtest.net.spawn import CannotStart, find_executable, spawn
from nbdtest.net.stream import SocketStream

__all__ = [
    "CannotStart",
    "Exit",
    "Process",
    "ProcessDied",
    "start_activated",
    "start_listening",
    "start_on_stdio",
]

GRACE_S = 2.0  # between SIGTERM and SIGKILL
AFTER_KILL_S = 5.0  # a process that survives SIGKILL that long hangs in the kernel
FIRST_POLL_S, LAST_POLL_S = 0.001, 0.02  # between looks at whether a server listens
STRAY_POLL_S = 0.002
DRAINED_READS = 32  # of the output, after death: more than a pipe holds
ACTIVATION = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

_counter = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: by `status` or by `signal`; neither when somebody else had taken the status."""

    status: int | None = None
    signal: int | None = None
    core_dumped: bool = False

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = f"signal {self.signal}"
            return f"was killed by {name}{' and dumped core' if self.core_dumped else ''}"
        if self.status is None:
            return "ended, and somebody else took its exit status"
        return f"exited with status {self.status}"


class ProcessDied(TransportError):
    """A server ended while it was needed."""

    def __init__(self, message: str, *, exit: Exit) -> None:
        super().__init__(message)
        self.exit = exit


class Process:
    """A running or finished child process. Leaving its `with` block stops it."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Prepare; the functions below start it. `environment` is the whole of it, by default ours.

        Raises:
            CannotStart: there is no such program.
        """
        self.argv = tuple(argv)
        self.pid = 0
        self.output = Capture()
        """What it printed on stderr, and on stdout unless that is its connection; also while it runs."""
        self._environment = {**(os.environ if environment is None else environment)}
        for name in ACTIVATION:
            self._environment.pop(name, None)
        self._executable = find_executable(argv, self._environment)
        self._mark = f"{guardian().mark}/{next(_counter)}"
        self._environment[MARK_VARIABLE] = self._mark.partition("=")[2]
        self._owner = os.getpid()
        self._on_stdio = False
        self._pidfd = -1
        self._reading = -1
        self._exit: Exit | None = None
        self._ended = threading.Event()

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""
        return self._exit

    def wait(self, within: float | None = None) -> Exit | None:
        """Wait until it has ended, at most `within` seconds, and say how; None when it still runs."""
        self._ended.wait(within)
        return self._exit

    def send_signal(self, number: int) -> None:
        """Send a signal to the process itself; nothing happens when it has ended."""
        self._in_attendant(number, group=False)

    def stop(self, *, grace_s: float = GRACE_S) -> Exit:
        """End it with everything it started: SIGTERM, after `grace_s` SIGKILL. Any number of times.

        Raises:
            TransportError: it survived SIGKILL.
        """
        if self.pid and self._owner == os.getpid():
            try:
                self._stop(grace_s)
                self._clear_strays()
            except BaseException:
                self._in_attendant(signal.SIGKILL, group=True)
                raise
        return self._exit or Exit()

    def pids(self) -> list[int]:
        """Itself and everything it started, as far as they still run; also what has left its process group."""
        return marked(os.fsencode(self._mark) + b"\0")

    def describe(self) -> str:
        """One fact for an error message: how it ended, and what it printed."""
        printed = self.output.text().strip()
        state = "still runs" if self._exit is None else str(self._exit)
        return f"{shlex.join(self.argv)} {state}" + (f"; it printed:\n{printed}" if printed else " and printed nothing")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, descriptors: Mapping[int, int], *, activated: bool = False) -> None:
        """Start it with `descriptors` (its number -> ours) and what is missing of stdin, stdout and stderr."""
        self._on_stdio = 0 in descriptors
        guardian().ensure_running()
        _stop_all_at_exit()
        try:
            attendant().call(lambda: self._spawn(descriptors, activated=activated))
        except BaseException:
            # Interrupted, maybe before the attendant came to it: this is done after that, so it finds the process.
            self._in_attendant(signal.SIGKILL, group=True)
            self.stop(grace_s=0)
            raise

    def _spawn(self, descriptors: Mapping[int, int], *, activated: bool) -> None:
        executable, argv = self._executable, list(self.argv)
        if activated:
            # LISTEN_PID is the server's own pid, which only the child can know.
            argv = ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", executable, *argv[1:]]
            executable = argv[0]
        reading, writing = os.pipe()
        try:
            given = {1: writing, **descriptors, 2: writing}
            self.pid = spawn(executable, argv, self._environment, given, null_stdin=0 not in descriptors)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        _live.add(self)
        self._reading = reading
        try:
            os.set_blocking(reading, False)
            attendant().watch(reading, self._on_output)
            guardian().add_group(self.pid)
            self._pidfd = os.pidfd_open(self.pid)
            attendant().watch(self._pidfd, self._on_death)
        except ProcessLookupError:  # SIGCHLD is ignored in this program, so the kernel has reaped it already
            self._on_death()
        except BaseException:  # such as no descriptors left: it could not be watched
            self._on_death()
            raise

    def _on_output(self) -> None:
        try:
            printed = os.read(self._reading, 1 << 16)
        except BlockingIOError:
            return
        if printed:
            self.output.feed(printed)
        else:
            self._reading = _unwatched(self._reading)

    def _on_death(self) -> None:
        # Until the leader is reaped, its number can mean nobody else.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        guardian().drop_group(self.pid)
        try:
            ended = _exit_of(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            ended = Exit()
        for _ in range(DRAINED_READS):
            before = self.output.total
            if self._reading >= 0:
                self._on_output()
            if self.output.total == before:
                break
        self._reading = _unwatched(self._reading)
        self._pidfd = _unwatched(self._pidfd)
        _live.discard(self)
        self._exit = ended
        self._ended.set()

    def _stop(self, grace_s: float) -> None:
        if self._exit is None and grace_s > 0:
            self._in_attendant(signal.SIGTERM, group=True)
            self.wait(grace_s)
        if self._exit is None:
            self._in_attendant(signal.SIGKILL, group=True)
            if self.wait(AFTER_KILL_S) is None:
                raise TransportError(f"process {self.pid} survived SIGKILL: {self.describe()}")

    def _clear_strays(self) -> None:
        """Kill what it left running, and wait until that has gone: only then are a locked file and a port free."""
        deadline = Deadline(AFTER_KILL_S)
        strays: set[int] = set()
        while not deadline.expired:
            strays.update(self._strays())
            strays = {pid for pid in strays if is_running(pid)}
            if not strays:
                return
            kill(list(strays))
            pause(STRAY_POLL_S)

    def _strays(self) -> list[int]:
        # Killed when it ended, but maybe not gone.
        strays = in_group(self.pid) if _group_exists(self.pid) else []
        if not self._on_stdio:
            # What left the process group, as a daemon does. Looking for it takes 6 us per process of the machine, which
            # is too much per connection; a server on stdin and stdout has no use for it, and the guardian looks again
            # at our end.
            strays += self.pids()
        return strays

    def _in_attendant(self, number: int, *, group: bool) -> None:
        if self._owner == os.getpid():
            attendant().call(lambda: self._signal(number, group=group))

    def _signal(self, number: int, *, group: bool) -> None:
        # In the attendant, which also reaps: here the pid cannot have become somebody else's.
        if self.pid and self._exit is None:
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)


def start_on_stdio(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout_s: float | None = 10.0
) -> tuple[Process, SocketStream]:
    """Start a server that speaks on its stdin and stdout, which are one Unix socket; the stream is the other end.

    Raises:
        CannotStart: the command cannot be run.
    """
    process = Process(argv, environment)
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process._start({0: theirs.fileno(), 1: theirs.fileno()})
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
    process = Process(argv, environment)
    process._environment.update(LISTEN_FDS="1", LISTEN_FDNAMES=name)
    process._start({FIRST_ACTIVATED: listener.fileno()}, activated=True)
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
    process = Process(argv, environment)
    try:
        process._start({})
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


_live: set[Process] = set()  # only the attendant's thread changes it
_stops_at_exit = False


def _stop_all_at_exit() -> None:
    # Asked for after the guardian's own registration, so that this runs first and the guardian finds nothing to kill.
    global _stops_at_exit
    if not _stops_at_exit:
        _stops_at_exit = True
        atexit.register(_stop_all)


def _stop_all() -> None:
    ours = [process for process in tuple(_live) if process._owner == os.getpid()]
    for process in ours:
        process._in_attendant(signal.SIGTERM, group=True)
    deadline = Deadline(GRACE_S)
    for process in ours:
        process.wait(deadline.remaining())
        process.stop(grace_s=0)


def _exit_of(wait_status: int) -> Exit:
    if os.WIFSIGNALED(wait_status):
        return Exit(signal=os.WTERMSIG(wait_status), core_dumped=os.WCOREDUMP(wait_status))
    return Exit(status=os.WEXITSTATUS(wait_status))


def _unwatched(descriptor: int) -> int:
    if descriptor >= 0:
        attendant().unwatch(descriptor)
        os.close(descriptor)
    return -1


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # the number is somebody else's already
    return True
