"""Process 1 of the guest: mounts, loads modules, runs the command, writes its status, powers off.

It has the standard library only and calls the kernel directly: no mount, insmod or shell of the host is needed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
import termios
import time
import traceback
from typing import Any

SYS_FINIT_MODULE = 313  # x86_64, the only architecture of the package
EEXIST = 17
EBUSY = 16
MS_RDONLY = 1
SIOCSIFFLAGS = 0x8914
IFF_UP_RUNNING = 0x41
POWER_OFF = 0x4321FEDC
JOB = "/run/job"

libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, target: str, *, source: str = "none", flags: int = 0, data: str = "") -> None:
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind}: {os.strerror(number)}", target)


def mount_job(directory: str) -> None:
    """Make the host's directory ours before anything hides it: /dev was mounted by the kernel."""
    mount("tmpfs", "/run")
    os.mkdir(JOB)
    mount("hostfs", JOB, data=directory)


def mount_all(job: dict[str, Any]) -> None:
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    try:
        mount("devtmpfs", "/dev")
    except OSError as error:
        if error.errno != EBUSY:  # the kernel has mounted it already
            raise
    for directory, kind in (("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")):
        os.makedirs(directory, exist_ok=True)
        mount(kind, directory)
    for directory in job["shadowed"]:
        if directory not in ("/run", "/dev/shm"):
            mount("tmpfs", directory)
    for flags, directories in ((MS_RDONLY, job["readable"]), (0, job["writable"])):
        for directory in directories:
            if not os.path.isdir(directory):
                os.makedirs(directory)
            mount("hostfs", directory, flags=flags, data=directory)


def load_modules(job: dict[str, Any]) -> None:
    directory = job["modules_directory"]
    with open(f"{directory}/modules.dep") as listing:
        needs = {path: rest.split() for path, _, rest in (line.strip().partition(":") for line in listing)}
    by_name = {os.path.basename(path).partition(".")[0].replace("-", "_"): path for path in needs}
    for name in job["modules"]:
        path = by_name[name]
        for needed in reversed(needs[path]):
            load_module(f"{directory}/{needed}", "")
        load_module(f"{directory}/{path}", job["module_options"].get(name, ""))


def load_module(path: str, options: str) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        if libc.syscall(SYS_FINIT_MODULE, opened, options.encode(), 0) and ctypes.get_errno() != EEXIST:
            number = ctypes.get_errno()
            raise OSError(number, f"finit_module: {os.strerror(number)}", path)
    finally:
        os.close(opened)


def raise_loopback() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))


def take_console(verbose: bool) -> None:
    """Make tty0, which is the host's stdout, ours, byte for byte."""
    if not verbose:
        console = os.open("/dev/tty0", os.O_RDWR | os.O_NOCTTY)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(console, 1)
        os.dup2(console, 2)
    settings = termios.tcgetattr(1)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(1, termios.TCSANOW, settings)


def run(job: dict[str, Any]) -> int:
    """Run the command as a session of its own, reap whatever ends meanwhile, and return its status."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.chdir(job["directory"])
            environment = {
                **job["environment"],
                "PYTHONDONTWRITEBYTECODE": "1",
                "NBDTEST_GUEST": os.uname().release,
                "TMPDIR": "/tmp",
                "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
            }
            os.execvpe(job["command"][0], job["command"], environment)
        except OSError as error:
            print(f"guest: {job['command'][0]}: {error}", flush=True)
            os._exit(127)
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def write(name: str, text: str) -> None:
    with open(f"{JOB}/.{name}", "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.rename(f"{JOB}/.{name}", f"{JOB}/{name}")  # the host sees all of it or nothing


def main() -> None:
    booted = time.monotonic()
    mount_job(os.environ["GUEST_JOB"])
    with open(f"{JOB}/job.json") as description:
        job = json.load(description)
    os.environ.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    mount_all(job)
    take_console(job["verbose"])
    raise_loopback()
    load_modules(job)
    write("up", "")
    ready = time.monotonic()
    status = run(job)
    write(
        "times",
        f"boot {booted:.2f} s, mounts and modules {ready - booted:.2f} s, command {time.monotonic() - ready:.2f} s",
    )
    write("status", str(status))


try:
    main()
except BaseException:  # noqa: BLE001  # process 1 must not end: the kernel would panic before anybody knew why
    traceback.print_exc()  # to the kernel's log
    write("failure", traceback.format_exc())
finally:
    sys.stdout.flush()
    os.sync()
    libc.reboot(POWER_OFF)
