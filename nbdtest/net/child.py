"""One child process as the attendant sees it: started, read from, signalled, reaped, and cleared up after.

A child is registered with the guardian as long as it runs. It belongs to whoever made it, by way of a `Process` in
`nbdtest.net.process`; for what, and which program it is, is not known here.
"""

import atexit
import itertools
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from nbdtest.errors import TransportError
from nbdtest.net.attendant import attendant
from nbdtest.net.capture import Capture
from nbdtest.net.clock import Deadline, pause
from nbdtest.net.guardian import MARK_VARIABLE, guardian
from nbdtest.net.guardian_process import in_group, is_running, kill, marked
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
        self.ended = threading.Event()
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
        """Have it killed, after it has started if need be, and do not wait. Can be called by a finalizer."""
        if self._started and self.is_ours and self.exit is None:
            attendant().post(lambda: self._signal(signal.SIGKILL, group=True))

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
        self._clear_strays()

    def pids(self) -> list[int]:
        """The running processes that carry its mark: itself and what it started, also outside its process group."""
        return marked(self._mark)

    def _spawn(self, descriptors: Mapping[int, int], *, activated: bool) -> None:
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
        self.exit = ended
        self.ended.set()

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
            # What left the process group, as a daemon does. Looking for it takes 6 us per process of the machine, which
            # is too much per connection; a server on stdin and stdout has no use for it, and the guardian looks again
            # at our end.
            strays += self.pids()
        return strays


_live: set[Child] = set()  # only the attendant's thread changes it
_stops_at_exit = False


def _stop_all_at_exit() -> None:
    # Asked for after the guardian's own registration, so that this runs first and the guardian finds nothing to kill.
    global _stops_at_exit
    if not _stops_at_exit:
        _stops_at_exit = True
        atexit.register(_stop_all)


def _stop_all() -> None:
    ours = [child for child in tuple(_live) if child.is_ours]
    for child in ours:
        child.signal(signal.SIGTERM, group=True)
    deadline = Deadline(GRACE_AT_EXIT_S)
    for child in ours:
        child.ended.wait(deadline.remaining())
        child.stop(0)


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
