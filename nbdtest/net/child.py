"""One child process as the attendant sees it: started, read from, signalled, reaped, and cleared up after.

A child is registered with the guardian as long as it runs. It belongs to whoever made it, by way of a `Process` in
`nbdtest.net.process`; for what, and which program it is, is not known here.
"""

import atexit
import itertools
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from nbdtest.errors import TransportError
from nbdtest.net.attendant import attendant, has_attendant
from nbdtest.net.capture import Capture
from nbdtest.net.clock import Deadline, pause
from nbdtest.net.guardian import MARK_VARIABLE, guardian
from nbdtest.net.guardian_process import in_group, is_running, kill, marked
from nbdtest.net.latch import Latch
from nbdtest.net.spawn import find_executable, spawn

__all__ = ["Child", "Exit"]

GRACE_AT_EXIT_S = 0.5  # between SIGTERM and SIGKILL, for what nobody stopped before our end
AFTER_KILL_S = 5.0  # a process that survives SIGKILL that long hangs in the kernel
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


class Child:
    """A child process. Its state is changed by the attendant's thread alone."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None) -> None:
        """Prepare. `environment` is the whole of it, by default ours; systemd's activation variables are taken out.

        Raises:
            CannotStart: there is no such program.
        """
        self.argv = tuple(argv)
        self.pid = 0
        self.output = Capture()
        self.exit: Exit | None = None
        self.ended = Latch()
        self.environment = {**(os.environ if environment is None else environment)}
        for name in ACTIVATION:
            self.environment.pop(name, None)
        self._executable = find_executable(argv, self.environment)
        mark = f"{guardian().mark}/{next(_counter)}"
        self.environment[MARK_VARIABLE] = mark.partition("=")[2]
        self._mark = os.fsencode(mark) + b"\0"
        self._owner = os.getpid()
        self._on_stdio = False
        self._started = False
        self._is_forgotten = False
        self._pidfd = -1
        self._reading = -1

    @property
    def is_ours(self) -> bool:
        """Whether this program started it, and not one that this program was forked from."""
        return self._owner == os.getpid()

    def start(self, descriptors: Mapping[int, int], *, activated: bool) -> None:
        """Start it with `descriptors` (its number -> ours) and what is missing of stdin, stdout and stderr.

        Raises:
            CannotStart: the kernel refused.
        """
        self._on_stdio = 0 in descriptors
        guardian().ensure_running()
        _stop_all_at_exit()
        self._started = True
        attendant().call(lambda: self._spawn(descriptors, activated=activated))

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or to its whole group, if it runs."""
        if self.is_ours:
            attendant().call(lambda: self._signal(number, group=group))

    def kill_soon(self) -> None:
        """Have it killed and reaped, after it has started if need be, and do not wait. A finalizer may call this."""
        if self._started and self.is_ours:
            attendant().post(self._kill_and_release)

    def stop(self, grace_s: float) -> None:
        """End it with everything it started, and wait until that has gone.

        Raises:
            TransportError: it survived SIGKILL.
        """
        if self.exit is None and grace_s > 0:
            self.signal(signal.SIGTERM, group=True)
            self.ended.wait(grace_s)
        if self.exit is None:
            self.signal(signal.SIGKILL, group=True)
            if not self.ended.wait(AFTER_KILL_S):
                raise TransportError(f"process {self.pid} ({self.argv[0]}) survived SIGKILL")
        if self in _live:
            attendant().call(self._release)
        self._clear_strays()

    def pids(self) -> list[int]:
        """The running processes that carry its mark: itself and what it started, also outside its process group."""
        return marked(self._mark)

    def _spawn(self, descriptors: Mapping[int, int], *, activated: bool) -> None:
        if _is_ending:
            raise TransportError(f"{self.argv[0]} is not started: this program is ending")
        executable, argv = self._executable, list(self.argv)
        if activated:
            # LISTEN_PID is the server's own pid, which only the child can know.
            argv = ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", executable, *argv[1:]]
            executable = argv[0]
        reading, writing = os.pipe()
        try:
            given = {1: writing, **descriptors, 2: writing}
            self.pid = spawn(executable, argv, self.environment, given, null_stdin=0 not in descriptors)
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
            self.exit = Exit()
            self.ended.open()
        except BaseException:  # such as no descriptors left: it cannot be watched
            self._pidfd = _unwatched(self._pidfd)
            self._release()
            self.exit = Exit(signal=signal.SIGKILL)
            self.ended.open()
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
        # It stays a zombie until it is released: so long its number, which is its group's too, can mean nobody else.
        # And what it left running is not killed yet: a server that becomes a daemon leaves the group only after its
        # parent has ended.
        self._pidfd, pidfd = -1, self._pidfd
        try:
            self.exit = _exit_of(os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT))
        except ChildProcessError:  # SIGCHLD is ignored in this program, or somebody else waits for every child
            self.exit = Exit()
        _unwatched(pidfd)
        self._drain()
        self.ended.open()
        if self._is_forgotten:
            self._release()

    def _release(self) -> None:
        """Kill the rest of the group of a process that has ended, reap it, and close its output."""
        if self not in _live:
            return
        _live.discard(self)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        guardian().drop_group(self.pid)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._drain()
        self._reading = _unwatched(self._reading)

    def _kill_and_release(self) -> None:
        self._is_forgotten = True
        if self.exit is None:
            self._signal(signal.SIGKILL, group=True)
        else:
            self._release()

    def _drain(self) -> None:
        """Read the output that is there, but not for ever from who goes on printing."""
        for _ in range(DRAINED_READS):
            before = self.output.total
            if self._reading >= 0:
                self._on_output()
            if self.output.total == before:
                return

    def _signal(self, number: int, *, group: bool) -> None:
        # In the attendant's thread, which also reaps: the pid cannot have become somebody else's.
        if self.pid and self.exit is None:
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

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
            # What left the process group, as a daemon does. Looking for it takes 5 us per process of the machine, which
            # is too much per connection; a server on stdin and stdout has no use for it, and the guardian looks again
            # at our end.
            strays += self.pids()
        return strays


_live: set[Child] = set()  # started and not released; only the attendant's thread changes it
_stops_at_exit = False
_is_ending = False


def _stop_all_at_exit() -> None:
    # Asked for after the guardian's own registration, so that this runs first and the guardian finds nothing to kill.
    global _stops_at_exit
    if not _stops_at_exit:
        _stops_at_exit = True
        atexit.register(_stop_all)


def _stop_all() -> None:
    if not has_attendant():  # a forked child that started nothing
        return
    attendant().call(_refuse_to_start)  # also what was asked for, but not waited for because of an interrupt
    ours = [child for child in tuple(_live) if child.is_ours]
    for child in ours:
        child.signal(signal.SIGTERM, group=True)
    deadline = Deadline(GRACE_AT_EXIT_S)
    for child in ours:
        child.ended.wait(deadline.remaining())
        child.stop(0)


def _refuse_to_start() -> None:
    global _is_ending
    _is_ending = True


def _exit_of(ended: os.waitid_result | None) -> Exit:
    if ended is None:
        return Exit()
    if ended.si_code == os.CLD_EXITED:
        return Exit(status=ended.si_status)
    return Exit(signal=ended.si_status, core_dumped=ended.si_code == os.CLD_DUMPED)


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
