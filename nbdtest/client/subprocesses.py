"""Servers that a handle starts for itself: on a socketpair, or by systemd socket activation.

They inherit what a child of this program inherits, stderr included, and end when their connection does. For test
servers whose output and death matter there is `nbdtest.net.process`.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress

from nbdtest.client.connecting import tune
from nbdtest.client.errors import Failure
from nbdtest.net.attendant import attendant
from nbdtest.net.clock import Deadline

__all__ = ["Subprocess", "start_activated", "start_on_socketpair"]

PATIENCE_S = 2.0
"""How long a server may take to end after its connection has, after SIGTERM, and after SIGKILL."""

_ACTIVATION = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_ACTIVATED_DESCRIPTOR = 3


class Subprocess:
    """A server process and, if it was activated, its socket's directory."""

    def __init__(self, pid: int, directory: str | None = None) -> None:
        self.pid = pid
        self.patience_s = PATIENCE_S
        self._parent = os.getpid()
        self._directory = directory
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            self._pidfd = -1

    def kill(self, number: int) -> None:
        """Send a signal; 0 stands for SIGTERM.

        Raises:
            Failure: there is no such signal, or the process has gone.
        """
        if number < 0:
            raise Failure(f"invalid signal number: {number}", errno.EINVAL)
        try:
            os.kill(self.pid, number or signal.SIGTERM)
        except OSError as error:
            raise Failure.of_os("kill", error) from None

    def close(self) -> None:
        """Wait for its end, which the end of its connection brings about, and help it along if that takes too long.

        In a forked child this does nothing: the process is its parent's.
        """
        if os.getpid() == self._parent:
            self._end()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _end(self) -> None:
        if self._directory is not None:
            self._signal(signal.SIGTERM)
            shutil.rmtree(self._directory, ignore_errors=True)
        for number in (signal.SIGTERM, signal.SIGKILL, None):
            if self._ended_within(self.patience_s):
                break
            if number is not None:
                self._signal(number)

    def _signal(self, number: int) -> None:
        with suppress(OSError):
            os.kill(self.pid, number)

    def _ended_within(self, seconds: float) -> bool:
        deadline = Deadline(seconds)
        if self._pidfd >= 0:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if not poller.poll(deadline.remaining_ms()):
                return False
        try:
            return os.waitpid(self.pid, os.WNOHANG if self._pidfd >= 0 else 0)[0] == self.pid
        except ChildProcessError:
            return True  # somebody else has reaped it


def start_on_socketpair(
    argv: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[Subprocess, socket.socket]:
    """Start `argv` with one end of a socketpair as its stdin and stdout; return it and the other end.

    Raises:
        Failure: the command cannot be run.
    """
    ours, theirs = socket.socketpair()
    tune(ours, socket.AF_UNIX)
    try:
        with theirs:
            actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1)]
            pid = _spawn(argv, os.environ if environment is None else environment, actions)
    except BaseException:
        ours.close()
        raise
    return Subprocess(pid), ours


def start_activated(
    argv: Sequence[str], name: str = "", environment: Mapping[str, str] | None = None
) -> tuple[Subprocess, str]:
    """Start `argv` with a listening Unix socket passed by systemd's protocol; return it and the socket's path.

    Raises:
        Failure: the command cannot be run, or no socket can be made.
    """
    given = os.environ if environment is None else environment
    variables = {key: value for key, value in given.items() if key not in _ACTIVATION}
    program = shutil.which(argv[0], path=variables.get("PATH"))
    if program is None:
        raise Failure(argv[0], errno.ENOENT if "/" not in argv[0] or not os.path.exists(argv[0]) else errno.EACCES)
    try:
        directory = tempfile.mkdtemp(prefix="libnbd", dir="/tmp")
    except OSError as error:
        raise Failure.of_os("mkdtemp", error) from None
    path = os.path.join(directory, "sock")
    variables.update(LISTEN_FDS="1", LISTEN_FDNAMES=name or "unknown")
    # LISTEN_PID is the server's own process id, which only the new process can know.
    wrapped = ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", program, *argv[1:]]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(path)
            listening.listen()
            actions = [(os.POSIX_SPAWN_DUP2, listening.fileno(), _ACTIVATED_DESCRIPTOR)]
            if listening.fileno() == _ACTIVATED_DESCRIPTOR:
                listening.set_inheritable(True)
            pid = _spawn(wrapped, variables, actions)
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise Failure.of_os(f"bind: {path}", error) from None
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return Subprocess(pid, directory), path


def _spawn(argv: Sequence[str], environment: Mapping[str, str], actions: Sequence[tuple[int, int, int]]) -> int:
    # In a thread that lives as long as the program: a server may have asked the kernel to be killed when the thread
    # that started it ends, as nbdkit does.
    def start() -> int:
        return os.posix_spawnp(
            argv[0], tuple(argv), environment, file_actions=actions, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ)
        )

    try:
        return attendant().call(start)
    except OSError as error:
        raise Failure.of_os(argv[0], error) from None
