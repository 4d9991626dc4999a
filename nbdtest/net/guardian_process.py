"""The guardian's own program: waits until the process that it guards has gone, then clears up after it.

Run as a file, by `python -I -S`, so that it starts fast; it imports nothing of nbdtest. Its stdin is a pipe whose other
end only the guarded process holds (and, until they call exec, children it is starting: the end of the pipe therefore
comes after the last of them has its environment). On it come records that end with NUL: `+g PID START` and `-g PID` (a
process group, the start time of its leader), `+d PATH` and `-d PATH` (a directory). Its argument is the mark that every
process started by the guarded one carries in its environment.
"""

import os
import signal
import sys
import time
from contextlib import suppress

ROUNDS = 20  # a process that was forked while we looked is found in the next round
PAUSE_S = 0.05
READ_BYTES = 1 << 16


def proc_file(pid: int, name: str) -> bytes:
    """A file of /proc/PID; empty when the process has gone or is another user's."""
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except OSError:
        return b""
    content = b""  # by read(2): open() takes half as long again
    try:
        while piece := os.read(descriptor, READ_BYTES):
            content += piece
            if len(piece) < READ_BYTES:
                break
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return content


def stat_fields(pid: int) -> list[bytes]:
    """What follows the name in /proc/PID/stat: state, parent, process group, ...; empty when there is no process."""
    return proc_file(pid, "stat").rpartition(b")")[2].split()


def start_time(pid: int) -> str:
    """When the process started, in clock ticks since boot; "" when there is none. With the pid it is a unique name."""
    fields = stat_fields(pid)
    return fields[19].decode() if fields else ""


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended, as a zombie has."""
    return stat_fields(pid)[:1] not in ([], [b"Z"], [b"X"])


def processes() -> list[int]:
    """Every process of the machine but this one."""
    own = os.getpid()
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != own]


def in_group(group: int) -> list[int]:
    """The running processes of a process group."""
    wanted = str(group).encode()
    return [pid for pid in processes() if stat_fields(pid)[2:3] == [wanted] and is_running(pid)]


def marked(mark: bytes) -> list[int]:
    """The processes of this user that have `mark` in their environment, wherever they went (session, group, parent)."""
    return [pid for pid in processes() if mark in proc_file(pid, "environ")]


def kill(pids: list[int]) -> None:
    """Kill processes that may have ended meanwhile."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def read_records() -> tuple[dict[int, str], set[str]]:
    """Read to the end of stdin; what was still registered then."""
    groups: dict[int, str] = {}
    directories: set[str] = set()
    rest = b""
    while piece := os.read(0, 1 << 16):
        *records, rest = (rest + piece).split(b"\0")
        for record in records:
            verb, _, argument = os.fsdecode(record).partition(" ")
            if verb == "+g":
                pid, _, started = argument.partition(" ")
                groups[int(pid)] = started
            elif verb == "-g":
                groups.pop(int(argument), None)
            elif verb == "+d":
                directories.add(argument)
            elif verb == "-d":
                directories.discard(argument)
    return groups, directories


def main(mark: str) -> None:
    """Guard until the end of stdin, then clear up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")  # or nobody could unmount where we were started
    groups, directories = read_records()
    for group, started in groups.items():
        # A leader with another start time is a stranger that got a number which had become free.
        if start_time(group) in ("", started):
            with suppress(OSError):
                os.killpg(group, signal.SIGKILL)
    for _ in range(ROUNDS):
        found = marked(os.fsencode(mark))
        if not found:
            break
        kill(found)
        time.sleep(PAUSE_S)
    if directories:
        import shutil

        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
