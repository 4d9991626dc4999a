"""Starting a program: which file it is, what it inherits, and why it could not be started.

One function around posix_spawn, which may be called in a program with threads. Who waits for the process is not known
here.
"""

import errno
import fcntl
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from nbdtest.errors import UsageError

__all__ = ["CannotStart", "find_executable", "spawn"]

ABOVE_TARGETS = 16  # descriptors are first copied above every number that they may get in the child


class CannotStart(UsageError):
    """The command is no program that can be run; `errno` is what exec said, or would have."""

    def __init__(self, message: str, *, errno: int) -> None:
        super().__init__(message)
        self.errno = errno


def find_executable(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """The file that `argv` runs, looked up on the PATH of `environment` when it is a bare name.

    Raises:
        CannotStart: there is none, or it is not executable.
    """
    if not argv or not argv[0]:
        raise CannotStart("an empty command cannot be started", errno=errno.EINVAL)
    name = argv[0]
    if "/" not in name:
        path = environment.get("PATH", os.defpath)
        found = shutil.which(name, path=path)
        if found is None:
            raise CannotStart(f"{name}: no such program in PATH={path}", errno=errno.ENOENT)
        return found
    if not os.path.exists(name):
        raise CannotStart(f"{name}: no such file", errno=errno.ENOENT)
    if os.path.isdir(name):
        raise CannotStart(f"{name}: is a directory", errno=errno.EACCES)
    if not os.access(name, os.X_OK):
        raise CannotStart(f"{name}: not executable (chmod +x?)", errno=errno.EACCES)
    return name


def spawn(
    executable: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    descriptors: Mapping[int, int],
    *,
    null_stdin: bool,
) -> int:
    """Start `executable` in a session of its own and return its pid.

    It inherits exactly `descriptors` (its number -> ours), with signals unblocked and SIGPIPE as at login, which Python
    ignores.

    Raises:
        CannotStart: the kernel refused.
    """
    with ExitStack() as copies:
        actions: list[tuple[int, int] | tuple[int, int, int] | tuple[int, int, str, int, int]] = []
        actions += [(os.POSIX_SPAWN_CLOSE, number) for number in _inheritable()]
        if null_stdin:
            actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        for number, ours in descriptors.items():
            copy = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, ABOVE_TARGETS)
            copies.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, number))
        try:
            return os.posix_spawn(
                executable,
                tuple(argv),
                environment,
                file_actions=actions,
                setsid=True,  # ^C at the terminal is for us; and a group of its own, to be killed as one
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError as error:
            code = error.errno or 0
            raise CannotStart(f"{executable}: {_reason(executable, code)}", errno=code) from error


def _reason(executable: str, code: int) -> str:
    if code == errno.ENOENT and os.path.exists(executable):
        return "its interpreter (the #! line, or the dynamic loader) does not exist"
    if code == errno.ENOEXEC:
        return "neither a program of this machine nor a script with a #! line"
    return os.strerror(code)


def _inheritable() -> list[int]:
    """Our descriptors above stderr that a child would get without having been meant to."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            if int(entry) > 2 and os.get_inheritable(int(entry)):
                found.append(int(entry))
        except OSError:
            continue  # closed meanwhile
    return found
