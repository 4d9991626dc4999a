"""The guardian: a tiny process beside ours that clears up when ours ends, whatever ended it.

Process groups and temporary directories are registered here; what is registered when we end (SIGKILL and os._exit
included) is killed and removed. One guardian per Python process, started at the first registration. How processes are
started is not known here.
"""

import atexit
import os
import secrets
import shutil
import signal
import sys
import threading
import warnings
from contextlib import suppress

from nbdtest.net import guardian_process
from nbdtest.net.guardian_process import start_time

__all__ = ["MARK_VARIABLE", "Guardian", "guardian"]

MARK_VARIABLE = "NBDTEST_STARTED_BY"
"""In the environment of everything that we start: whose it is."""


class Guardian:
    """The registry, and the end of the pipe that keeps the guardian waiting."""

    def __init__(self) -> None:
        self.mark = f"{MARK_VARIABLE}={os.getpid()}-{secrets.token_hex(8)}"
        self._lock = threading.RLock()
        self._groups: dict[int, str] = {}
        self._directories: set[str] = set()
        self._pid = 0
        self._pipe = -1

    @property
    def pid(self) -> int:
        """The guardian's process id; 0 when it is not running."""
        return self._pid

    def ensure_running(self) -> None:
        """Start the guardian unless it runs."""
        with self._lock:
            if self._pipe < 0:
                self._start()

    def add_group(self, leader: int) -> None:
        """Register the process group of `leader`, a child of ours that has not been reaped."""
        with self._lock:
            self._groups[leader] = start_time(leader)
            self._tell(f"+g {leader} {self._groups[leader]}")

    def drop_group(self, leader: int) -> None:
        """Forget a process group. To be called before its leader is reaped: then its number means somebody else."""
        with self._lock:
            if self._groups.pop(leader, None) is not None:
                self._tell(f"-g {leader}")

    def add_directory(self, path: str) -> None:
        """Register a directory that will be made, or was."""
        with self._lock:
            self._directories.add(path)
            self._tell(f"+d {path}")

    def drop_directory(self, path: str) -> None:
        """Forget a directory."""
        with self._lock:
            if path in self._directories:
                self._directories.discard(path)
                self._tell(f"-d {path}")

    def dismiss(self) -> None:
        """Let the guardian clear up what is registered, and end; wait for that."""
        with self._lock:
            self._close_pipe()
            self._groups.clear()
            self._directories.clear()
            if self._pid:
                with suppress(ChildProcessError):
                    os.waitpid(self._pid, 0)
                self._pid = 0

    def abandon(self) -> None:
        """In a forked child: the guardian is the parent's, and must see the end of the pipe when the parent ends."""
        self._close_pipe()

    def _tell(self, record: str) -> None:
        self.ensure_running()
        if self._write(record):
            return
        # Somebody killed the guardian.
        self._close_pipe()
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self._start()
        records = [f"+g {leader} {started}" for leader, started in self._groups.items()]
        records += [f"+d {path}" for path in self._directories]
        written = [self._write(record) for record in records]
        if not all(written):
            warnings.warn("the guardian dies: a killed run may leave processes behind", RuntimeWarning, stacklevel=4)

    def _write(self, record: str) -> bool:
        if self._pipe < 0:
            return True
        try:
            os.write(self._pipe, os.fsencode(record) + b"\0")  # shorter than PIPE_BUF: all or nothing
        except BrokenPipeError:
            return False
        return True

    def _start(self) -> None:
        python = sys.executable or shutil.which("python3")
        if not python:
            warnings.warn(
                "no Python to run the guardian with: a killed run may leave processes behind",
                RuntimeWarning,
                stacklevel=4,
            )
            return
        reading, writing = os.pipe()
        try:
            self._pid = os.posix_spawn(
                python,
                [python, "-I", "-S", guardian_process.__file__, self.mark],
                # Without the mark of an nbdtest that started us: its guardian must not kill this one.
                {name: value for name, value in os.environ.items() if name != MARK_VARIABLE},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reading, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,  # ^C in the terminal reaches the foreground group only
                setsigdef=[signal.SIGCHLD],
            )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        self._pipe = writing

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


_lock = threading.Lock()
_current: Guardian | None = None  # one per process, by its nature
_ends_are_watched = False


def guardian() -> Guardian:
    """The guardian of this process."""
    global _current, _ends_are_watched
    with _lock:
        if _current is None:
            if not _ends_are_watched:
                os.register_at_fork(after_in_child=_after_fork)
                atexit.register(_at_exit)
                _ends_are_watched = True
            _current = Guardian()
        return _current


def _after_fork() -> None:
    global _current, _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    if _current is not None:
        _current.abandon()
        _current = None


def _at_exit() -> None:
    if _current is not None:
        _current.dismiss()
