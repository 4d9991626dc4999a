"""Starts a command in the guest, passes its output and exit status on, and leaves no process behind.

The guest's root is the host's tree, read-only; /tmp, /run, /var/tmp and /dev/shm are its own; the directories given as
`writable` are the host's. Nothing of it needs root, KVM, an image or a network.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nbdtest.net.clock import Deadline, monotonic_s
from nbdtest.net.guardian import guardian
from nbdtest.net.stream import wait_for
from tests.kernel.uml.package import CannotRun, Kernel

TIMED_OUT = 124
NO_STATUS = 125
BOOT_S = 60.0
MEMORY_MB = 400  # all of the tests in one guest take 260
LOG_LINES = 60
"""How much of the kernel's log is shown when it dies."""

MODULES = ("nbd", "vsock_loopback")
SHADOWED = ("/tmp", "/run", "/var/tmp", "/dev/shm")
"""Where the guest has a file system of its own, so that what the command needs of the host's there is mounted again."""

PR_SET_CHILD_SUBREAPER = 36
KERNEL_RUNS = "Linux version"
"""What its log begins with: a machine on which it got so far can run it, whatever comes next."""
GRAVE = re.compile(r"Kernel panic|ran out of space|Out of memory|BUG:")


def run(
    kernel: Kernel,
    command: Sequence[str],
    *,
    writable: Sequence[Path] = (),
    modules: Sequence[str] = MODULES,
    module_options: dict[str, str] | None = None,
    memory_mb: int = MEMORY_MB,
    timeout_s: float = 120.0,
    verbose: bool = False,
) -> int:
    """Run `command` in a fresh guest, in this working directory and environment, with its output on our stdout.

    The calling process becomes the one that inherits orphans of its descendants (a subreaper).

    Returns:
        The command's exit status (128 + number after a signal), TIMED_OUT, or NO_STATUS when the guest died. The last
        line on stderr says what happened in the latter two cases.

    Raises:
        CannotRun: the kernel does not even start on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="uml.") as name:
        guardian().add_directory(name)
        job = Path(name)
        description = {
            "command": list(command),
            "directory": os.getcwd(),
            "environment": {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "SSH_", "LD_"))},
            "release": kernel.release,
            "modules_directory": str(kernel.modules),
            "modules": list(modules),
            "module_options": module_options or {},
            "shadowed": SHADOWED,
            "readable": _needed_of_the_host(kernel),
            "writable": [str(directory.resolve()) for directory in writable],
            "verbose": verbose,
        }
        (job / "job.json").write_text(json.dumps(description))
        try:
            return _boot(kernel, job, memory_mb, timeout_s, verbose)
        finally:
            guardian().drop_directory(name)


def _boot(kernel: Kernel, job: Path, memory_mb: int, timeout_s: float, verbose: bool) -> int:
    began = monotonic_s()
    arguments = [
        str(kernel.executable),
        *(f"mem={memory_mb}M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        # stdout is the command's alone; the kernel's own messages go to stderr, which is kept for when it dies. Without
        # a console called tty, be it one that swallows everything, a panic would write the log to stdout again.
        *("con0=null,fd:1", "con=null", "ssl0=null,fd:2", "ssl=null", "loglevel=7"),
        *(() if verbose else ("console=tty1", "console=ttyS0")),
        *("panic=-1", "lpj=9641984"),  # a given loops-per-jiffy saves 0.3 s of calibration
        *(f"umid=guest{os.getpid()}", f"uml_dir={job}/"),
        *(f"GUEST_JOB={job}", f"init={os.path.realpath(sys.executable)}"),
        *("--", "-I", str(Path(__file__).with_name("init.py").resolve())),
    ]
    # What the kernel leaves behind when it is killed becomes our child, and is waited for below.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with (job / "chatter").open("wb") as chatter:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stderr=None if verbose else chatter,
            start_new_session=True,
            cwd=kernel.directory,
            env={**os.environ, **kernel.environment, "TMPDIR": memory_directory()},
        )
    guardian().add_group(process.pid)  # which kills it when we are killed
    ended = os.pidfd_open(process.pid)
    limit = Deadline(timeout_s)
    try:
        has_ended = wait_for(ended, select.POLLIN, Deadline(min(BOOT_S, timeout_s)))
        if not has_ended and (job / "up").exists():
            has_ended = wait_for(ended, select.POLLIN, limit)
    finally:
        os.close(ended)
        os.killpg(process.pid, signal.SIGKILL)
        guardian().drop_group(process.pid)
        process.wait()
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-process.pid, 0)
    if verbose:
        print(f"guest: {monotonic_s() - began:.2f} s, {_text(job / 'times')}", file=sys.stderr)
    if (job / "status").exists():
        return int((job / "status").read_text())
    started = (job / "up").exists()
    if not has_ended:
        late = "the command did not end" if started else "the guest did not boot"
        _say(job, f"{late} in {timeout_s if started else min(BOOT_S, timeout_s):g} s, and was killed")
        return TIMED_OUT
    if verbose or KERNEL_RUNS in _text(job / "chatter"):
        what = "the guest died before the command had ended" if started else "the guest died while it booted"
        _say(job, f"{what}: {_cause_of_death(job, process.returncode)}")
        return NO_STATUS
    raise CannotRun(f"{kernel.executable} does not start: {_last_words(job)}")


def _say(job: Path, what: str) -> None:
    """Show the end of the kernel's log, and below it what happened, where a report that was cut off still has it."""
    log = [line for line in _text(job / "chatter").splitlines() if line.strip()]
    print(*log[-LOG_LINES:], f"uml: {what}", sep="\n", file=sys.stderr)


def _cause_of_death(job: Path, status: int) -> str:
    failure = _text(job / "failure").splitlines()[-1:]
    grave = [line for line in _text(job / "chatter").splitlines() if GRAVE.search(line)]
    if failure or grave:
        return " | ".join(failure + grave)
    if status < 0:
        return f"its kernel was ended by {signal.Signals(-status).name}, which came from this machine"
    return f"its kernel ended with status {status}"


def _last_words(job: Path) -> str:
    lines = [line for name in ("failure", "chatter") for line in _text(job / name).splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "it said nothing"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _needed_of_the_host(kernel: Kernel) -> list[str]:
    """List what of the host's directories lies where the guest has its own: the tree, the interpreter, the modules."""
    needed = {os.getcwd(), sys.prefix, sys.base_prefix, str(kernel.modules), str(Path(__file__).resolve().parents[3])}
    needed.update(os.path.realpath(path) for path in sys.path if os.path.isdir(path))
    hidden = sorted(path for path in needed if any(path.startswith(f"{shadow}/") for shadow in SHADOWED))
    return [path for path in hidden if not any(path.startswith(f"{other}/") for other in hidden)]


def memory_directory() -> str:
    """Return where the kernel's memory file may lie: it is mapped executable, which some /dev/shm refuse."""
    for directory in ("/dev/shm", tempfile.gettempdir()):
        mappable = os.access(directory, os.W_OK) and not os.statvfs(directory).f_flag & os.ST_NOEXEC
        if mappable and shutil.disk_usage(directory).free > MEMORY_MB << 20:
            return directory
    raise CannotRun(
        f"neither /dev/shm nor the temporary directory has {MEMORY_MB} MB free and allows executable mappings"
    )
