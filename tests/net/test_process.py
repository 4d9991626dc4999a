"""Servers as child processes: the three ways to start one, how they die, and that nothing stays."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nbdtest.errors import Disconnected, TimedOut
from nbdtest.net.addresses import Address, TCPAddress, UnixAddress
from nbdtest.net.clock import Deadline, pause
from nbdtest.net.guardian_process import is_running
from nbdtest.net.process import (
    CannotStart,
    Exit,
    Process,
    ProcessDied,
    start_activated,
    start_listening,
    start_on_stdio,
)
from nbdtest.net.scratch import ScratchDirectory
from nbdtest.net.sockets import CannotConnect, connect, listen, unused_tcp_port

PYTHON = sys.executable
PATIENCE_S = 20.0

nbdkit = pytest.mark.skipif(not shutil.which("nbdkit"), reason="nbdkit is not on PATH")

LISTEN_ON_PATH = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print("listening", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b"hello")
    c.close()
"""


def python(code: str, *arguments: str) -> list[str]:
    return [PYTHON, "-I", "-S", "-c", code, *arguments]


def assert_reaped(pid: int) -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def started(code: str, *arguments: str) -> tuple[Process, bytes]:
    """A process, and the line that it sent on stdout."""
    process, stream = start_on_stdio(python(code, *arguments))
    with stream:
        line = b""
        while not line.endswith(b"\n"):
            line += stream.receive_some(100, Deadline(PATIENCE_S))
    return process, line.strip()


# On stdin and stdout


def test_stdin_and_stdout_are_one_unix_socket() -> None:
    code = (
        "import os; a, b = os.fstat(0), os.fstat(1); os.write(1, b'%d' % (a.st_ino == b.st_ino)); print(os.read(0, 9))"
    )
    process, stream = start_on_stdio(python(code))
    with process, stream:
        stream.send_all(b"x")
        stream.half_close()
        assert stream.receive_to_end() == b"1b'x'\n"
        assert process.wait(PATIENCE_S) == Exit(status=0)
    assert_reaped(process.pid)


def test_a_child_inherits_nothing_else() -> None:
    reading, writing = os.pipe()
    try:
        os.set_inheritable(writing, True)
        process, stream = start_on_stdio(python("import os; print(os.listdir('/proc/self/fd'))"))
        with process, stream:
            # 3 is the directory being listed
            assert stream.receive_to_end() == b"['0', '1', '2', '3']\n"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_child_dies_of_sigpipe_as_at_login() -> None:
    process, stream = start_on_stdio(["/bin/sh", "-c", "kill -PIPE $$; echo alive"])
    with process, stream:
        assert stream.receive_to_end() == b""
        assert process.wait(PATIENCE_S) == Exit(signal=signal.SIGPIPE)


def test_signals_that_we_block_are_unblocked_in_the_child() -> None:
    code = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
from nbdtest.net.process import start_on_stdio
process, stream = start_on_stdio(["/bin/sh", "-c", "grep SigBlk /proc/self/status"])
print(stream.receive_to_end().split()[1].decode())
process.stop()
stream.close()
"""
    ran = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout, 16) == 0


def test_a_child_that_exits_at_once_tells_why_on_stderr() -> None:
    process, stream = start_on_stdio(["/bin/sh", "-c", "echo no such plugin >&2; exit 3"])
    with process, stream:
        with pytest.raises(Disconnected):
            stream.receive_exact(1)
        assert process.wait(PATIENCE_S) == Exit(status=3)
        assert process.describe().endswith("exited with status 3; it printed:\nno such plugin")


@nbdkit
def test_nbdkit_greets_on_stdio_and_ends_with_the_connection() -> None:
    process, stream = start_on_stdio(["nbdkit", "-s", "null"])
    with process:
        with stream:
            assert stream.receive_exact(16) == b"NBDMAGICIHAVEOPT"
        assert process.wait(PATIENCE_S) is not None
    assert_reaped(process.pid)


@nbdkit
def test_nbdkit_outlives_the_thread_that_asked_for_it() -> None:
    # It asks the kernel to be killed when the thread that started it ends.
    made: list[Process] = []
    with ScratchDirectory() as scratch:
        address = UnixAddress(scratch.file("s"))
        argv = ["nbdkit", "-f", "-U", address.path, "null"]
        thread = threading.Thread(target=lambda: made.append(start_listening(argv, address)))
        thread.start()
        thread.join()
        with made[0] as process, connect(address) as stream:
            assert stream.receive_exact(16) == b"NBDMAGICIHAVEOPT"
            assert process.exit is None


# What cannot be started


def test_a_program_that_is_not_on_path() -> None:
    with pytest.raises(CannotStart, match=r"^no-such-server: no such program in PATH=/nowhere$") as caught:
        start_on_stdio(["no-such-server"], environment={"PATH": "/nowhere"})
    assert caught.value.errno == errno.ENOENT


def test_a_file_that_does_not_exist() -> None:
    with pytest.raises(CannotStart, match=r"^/nowhere/server: no such file$") as caught:
        start_on_stdio(["/nowhere/server"])
    assert caught.value.errno == errno.ENOENT


def test_a_file_that_is_not_executable(tmp_path: Path) -> None:
    path = tmp_path / "server"
    path.write_text("#!/bin/sh\n")
    with pytest.raises(CannotStart, match="not executable") as caught:
        start_on_stdio([str(path)])
    assert caught.value.errno == errno.EACCES
    with pytest.raises(CannotStart, match="is a directory"):
        start_on_stdio([str(tmp_path)])


@pytest.mark.parametrize(
    ("content", "message", "number"),
    [("#!/nowhere/interpreter\n", "its interpreter", errno.ENOENT), ("no #! line", "neither a program", errno.ENOEXEC)],
    ids=["no-interpreter", "no-program"],
)
def test_a_file_that_the_kernel_cannot_run(tmp_path: Path, content: str, message: str, number: int) -> None:
    path = tmp_path / "server"
    path.write_text(content)
    path.chmod(0o755)
    with pytest.raises(CannotStart, match=message) as caught:
        start_on_stdio([str(path)])
    assert caught.value.errno == number
    before = os.listdir("/proc/self/fd")  # now there is what all processes share
    with pytest.raises(CannotStart):
        start_on_stdio([str(path)])
    assert os.listdir("/proc/self/fd") == before


def test_an_empty_command() -> None:
    for argv in ([], [""]):
        with pytest.raises(CannotStart, match="empty command"):
            start_on_stdio(argv)


def test_a_listener_is_kept_when_the_command_cannot_be_started() -> None:
    with listen() as listener:
        with pytest.raises(CannotStart):
            start_activated(["/nowhere/server"], listener)
        connect(listener.address).close()


# Socket activation


@pytest.mark.parametrize("transport", ["unix", "tcp"])
@nbdkit
def test_nbdkit_takes_an_activated_socket(transport: str) -> None:
    with ScratchDirectory() as scratch:
        wanted: Address = UnixAddress(scratch.file("s")) if transport == "unix" else TCPAddress("127.0.0.1", 0)
        listener = listen(wanted)
        address = listener.address
        with start_activated(["nbdkit", "-f", "null"], listener) as process, connect(address) as stream:
            assert stream.receive_exact(16) == b"NBDMAGICIHAVEOPT"
        assert_reaped(process.pid)
        with pytest.raises(CannotConnect):  # the server was the last to have the listener
            connect(address)


def test_activation_variables_are_the_childs_own_and_inherited_ones_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "7")
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "x:y")
    shown = """
import os
print(sorted(i for i in os.environ.items() if i[0][:7] == 'LISTEN_'), os.getpid(), os.listdir('/proc/self/fd'))
"""
    with start_activated(python(shown), listen(), name="export") as process:
        process.wait(PATIENCE_S)
        variables = [("LISTEN_FDNAMES", "export"), ("LISTEN_FDS", "1"), ("LISTEN_PID", str(process.pid))]
        assert process.output.text() == f"{variables} {process.pid} ['0', '1', '2', '3', '4']\n"
    process, stream = start_on_stdio(python(shown))
    with process, stream:
        assert stream.receive_to_end().startswith(b"[] ")


# Listening


def test_a_unix_server_is_there_when_start_listening_returns() -> None:
    with ScratchDirectory() as scratch:
        address = UnixAddress(scratch.file("s"))
        with start_listening(python(LISTEN_ON_PATH, address.path), address) as process:
            with connect(address) as stream:
                assert stream.receive_to_end() == b"hello"
            deadline = Deadline(PATIENCE_S)
            while process.output.text() != "listening\n":
                assert not deadline.expired
                pause(0.01)
            assert process.describe().endswith("still runs; it printed:\nlistening")
        assert process.exit == Exit(signal=signal.SIGTERM)
        assert str(process.exit) == "was killed by SIGTERM"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@nbdkit
def test_a_tcp_server_is_there_when_start_listening_returns(host: str) -> None:
    port = unused_tcp_port(host)
    address = TCPAddress(host, port)
    with start_listening(["nbdkit", "-f", "-p", str(port), "null"], address), connect(address) as stream:
        assert stream.receive_exact(16) == b"NBDMAGICIHAVEOPT"


@pytest.mark.skipif(not shutil.which("qemu-nbd"), reason="qemu-nbd is not on PATH")
def test_waiting_for_a_server_does_not_use_up_its_only_connection(tmp_path: Path) -> None:
    # Without --persistent, qemu-nbd ends after its first client.
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(65536))
    with ScratchDirectory() as scratch:
        address = UnixAddress(scratch.file("s"))
        with (
            start_listening(["qemu-nbd", "-f", "raw", "-k", address.path, str(disk)], address),
            connect(address) as stream,
        ):
            assert stream.receive_exact(16) == b"NBDMAGICIHAVEOPT"


def test_a_server_that_dies_instead_of_listening() -> None:
    address = TCPAddress("127.0.0.1", unused_tcp_port())
    with pytest.raises(ProcessDied, match=r"exited with status 1; it printed:\nbad option$") as caught:
        start_listening(["/bin/sh", "-c", "echo bad option >&2; exit 1"], address, deadline=Deadline(PATIENCE_S))
    assert caught.value.exit == Exit(status=1)


def test_a_server_that_is_killed_instead_of_listening() -> None:
    with pytest.raises(ProcessDied, match="was killed by SIGKILL"):
        start_listening(["/bin/sh", "-c", "kill -KILL $$"], UnixAddress("/nowhere/s"), deadline=Deadline(PATIENCE_S))


def test_a_server_that_never_listens_is_stopped() -> None:
    with ScratchDirectory() as scratch:
        code = "import os; print(os.getpid(), flush=True); import signal; signal.pause()"
        with pytest.raises(
            TimedOut, match=r"(?s)nobody listens at .* after 0\.3 s: .* still runs; it printed:\n[0-9]+$"
        ) as caught:
            start_listening(python(code), UnixAddress(scratch.file("s")), deadline=Deadline(0.3))
        assert not is_running(int(str(caught.value).split()[-1]))


# Output


def test_huge_output_is_read_while_it_comes_and_the_ends_are_kept() -> None:
    code = "import sys; [sys.stderr.write('%07d\\n' % n) for n in range(200000)]; print('done')"
    process, line = started(code)
    with process:
        assert line == b"done"
        assert process.wait(PATIENCE_S) == Exit(status=0)
        assert process.output.total == 8 * 200_000
        assert process.output.text().startswith("0000000\n0000001\n")
        assert process.output.text().endswith("0199998\n0199999\n")
        assert len(process.output.bytes()) < 100_000


def test_output_can_be_looked_at_while_the_process_runs() -> None:
    code = "import signal, sys; print('noise', file=sys.stderr, flush=True); print('ready', flush=True); signal.pause()"
    process, line = started(code)
    with process:
        assert line == b"ready"
        deadline = Deadline(PATIENCE_S)
        while process.output.text() != "noise\n":
            assert not deadline.expired
            pause(0.001)
        assert process.exit is None


# Death


@pytest.mark.parametrize(
    ("wait_status", "text"),
    [
        (Exit(status=0), "exited with status 0"),
        (Exit(signal=signal.SIGSEGV, core_dumped=True), "was killed by SIGSEGV and dumped core"),
        (Exit(signal=63), "was killed by signal 63"),
        (Exit(), "ended, and somebody else took its exit status"),
    ],
)
def test_an_end_in_words(wait_status: Exit, text: str) -> None:
    assert str(wait_status) == text


def test_death_by_a_signal_is_noticed() -> None:
    process, stream = start_on_stdio(["/bin/sh", "-c", "read line; kill -SEGV $$"])
    with process, stream:
        assert process.wait(0) is None
        stream.send_all(b"\n")
        ended = process.wait(PATIENCE_S)
        assert ended is not None
        assert ended.signal == signal.SIGSEGV


def test_a_signal_reaches_the_process() -> None:
    process, line = started(
        "import signal, sys; signal.signal(10, lambda *_: sys.exit(7)); print('x', flush=True); signal.pause()"
    )
    with process:
        assert line == b"x"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(PATIENCE_S) == Exit(status=7)
        process.send_signal(signal.SIGUSR1)  # too late, and harmless


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    process, line = started(
        "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    )
    assert line == b"deaf"
    assert process.stop(grace_s=0.05) == Exit(signal=signal.SIGKILL)
    assert_reaped(process.pid)


def test_a_process_may_use_its_grace_to_clear_up() -> None:
    process, _ = started(
        "import signal, sys; signal.signal(15, lambda *_: sys.exit(5)); print('x', flush=True); signal.pause()"
    )
    assert process.stop() == Exit(status=5)


def test_stopping_twice_and_from_several_threads_is_harmless() -> None:
    process, _ = started("import signal; print('x', flush=True); signal.pause()")
    threads = [threading.Thread(target=process.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.stop() == process.stop() == Exit(signal=signal.SIGTERM)


GRANDCHILD = """
import os, signal, sys
reading, writing = os.pipe()
if (pid := os.fork()) == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "setsid" in sys.argv:
        os.setsid()
    if "close" in sys.argv:
        os.dup2(os.open("/dev/null", os.O_RDWR), 2)
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
    os.write(writing, b"x")
    signal.pause()
os.read(reading, 1)
print(pid, flush=True)
if "leave" not in sys.argv:
    signal.pause()
"""


@pytest.mark.parametrize("how", ["", "leave", "close", "leave close"])
def test_a_grandchild_in_the_group_is_killed(how: str) -> None:
    process, line = started(GRANDCHILD, *how.split())
    grandchild = int(line)
    process.stop()
    assert not is_running(grandchild)
    assert_reaped(process.pid)


def test_what_a_server_leaves_in_its_group_lives_until_it_is_stopped() -> None:
    # As a daemon does, which leaves the group only after its parent has ended.
    process, line = started(GRANDCHILD, "leave")
    grandchild = int(line)
    assert process.wait(PATIENCE_S) == Exit(status=0)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie, which keeps the group's number ours
    assert is_running(grandchild)
    process.stop()
    assert not is_running(grandchild)
    assert_reaped(process.pid)


def test_output_of_what_a_server_leaves_running_is_read() -> None:
    code = """
import os, sys
if os.fork():
    sys.exit(0)
sys.stdin.readline()
os.write(2, b"daemon")
os.write(1, b"x")
sys.stdin.read()
"""
    process, stream = start_on_stdio(python(code))
    with process, stream:
        assert process.wait(PATIENCE_S) == Exit(status=0)
        stream.send_all(b"\n")
        stream.receive_exact(1)
    assert process.output.text() == "daemon"


def test_a_daemon_that_left_the_group_is_killed() -> None:
    with ScratchDirectory() as scratch:
        listener = listen(UnixAddress(scratch.file("s")))
        process = start_activated(python(GRANDCHILD, "setsid", "leave"), listener)
        assert process.wait(PATIENCE_S) == Exit(status=0)
        grandchild = int(process.output.text())
        assert process.pids() == [grandchild]
        process.stop()
        assert not is_running(grandchild)


def test_a_process_that_nobody_can_stop_any_more_is_killed() -> None:
    process, line = started("import os, signal; print(os.getpid(), flush=True); signal.pause()")
    assert int(line) == process.pid
    output = process.output
    del process
    deadline = Deadline(PATIENCE_S)
    while os.path.exists(f"/proc/{int(line)}"):  # also reaped
        assert not deadline.expired
        pause(0.002)
    assert output.text() == ""


def test_a_process_that_has_ended_and_that_nobody_stops_is_reaped() -> None:
    process, stream = start_on_stdio(["/bin/true"])
    stream.close()
    process.wait(PATIENCE_S)
    pid = process.pid
    del process
    deadline = Deadline(PATIENCE_S)
    while os.path.exists(f"/proc/{pid}"):
        assert not deadline.expired
        pause(0.002)


def test_a_status_that_somebody_else_took_is_unknown() -> None:
    # A program that ignores SIGCHLD has its children reaped by the kernel.
    code = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from nbdtest.net.process import start_on_stdio
process, stream = start_on_stdio(["/bin/true"])
print(process.wait(10))
print(process.stop())
stream.close()
"""
    ran = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["ended, and somebody else took its exit status"] * 2
    assert ran.stderr == ""


# Nothing stays


def test_no_thread_no_descriptor_no_zombie_stays() -> None:
    with start_activated(["/bin/true"], listen()):
        pass  # the attendant and the guardian stay, once
    descriptors, threads = sorted(os.listdir("/proc/self/fd")), threading.enumerate()
    pids = []
    for _ in range(10):
        process, stream = start_on_stdio(["/bin/cat"])
        with stream:
            stream.send_all(b"x")
            stream.receive_exact(1)
        process.stop()
        pids.append(process.pid)
        with start_activated(["/bin/cat"], listen()) as process:
            pids.append(process.pid)
        with pytest.raises(TimedOut):
            start_listening(["/bin/sleep", "60"], UnixAddress("/nowhere/s"), deadline=Deadline(0))
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert threading.enumerate() == threads
    for pid in pids:
        assert_reaped(pid)


def test_processes_started_by_many_threads_at_once() -> None:
    answers: list[bytes] = []

    def use() -> None:
        for _ in range(5):
            process, stream = start_on_stdio(["/bin/cat"])
            with process, stream:
                stream.send_all(b"ping")
                answers.append(stream.receive_exact(4))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"ping"] * 40


def test_a_start_for_which_descriptors_are_short_fails_and_leaves_nothing() -> None:
    code = """
import os, resource
from contextlib import suppress
from nbdtest.net.guardian import guardian
from nbdtest.net.guardian_process import marked
from nbdtest.net.process import start_on_stdio

def start_and_stop():
    process, stream = start_on_stdio(["/bin/cat"])
    stream.close()
    process.stop()

start_and_stop()
descriptors = sorted(os.listdir("/proc/self/fd"))
for limit in range(4, 30):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
    with suppress(Exception):
        start_and_stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    assert sorted(os.listdir("/proc/self/fd")) == descriptors, limit
print(marked(guardian().mark.encode()), os.waitpid(-1, os.WNOHANG))
"""
    ran = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("[] (0, 0)\n", "")  # no running process, and none to be reaped
