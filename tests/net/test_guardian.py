"""Nothing stays behind, however our process ends: each test runs a Python that starts servers, and ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nbdtest.net.clock import Deadline, pause
from nbdtest.net.guardian import MARK_VARIABLE, guardian
from nbdtest.net.guardian_process import in_group, is_running, marked, start_time
from nbdtest.net.scratch import ScratchDirectory

PATIENCE_S = 20.0

STARTED = """
import os, signal, sys
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.guardian import guardian
from nbdtest.net.process import start_activated, start_listening, start_on_stdio
from nbdtest.net.scratch import ScratchDirectory
from nbdtest.net.sockets import listen

DEAF = "import signal, sys; signal.signal(15, signal.SIG_IGN); print('x', flush=True); signal.pause()"
DAEMON = '''
import os, signal
if child := os.fork():
    os.waitpid(child, 0)
else:
    os.setsid()
    if os.fork() == 0:
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.dup2(1, 2)
        signal.pause()
'''

def python(code):
    return [sys.executable, "-I", "-S", "-c", code]

scratch = ScratchDirectory()
kept = []
listener = listen(UnixAddress(scratch.file("s")))
kept.append(start_activated(python(DAEMON), listener))
kept[0].wait(10)
deaf, stream = start_on_stdio(python(DEAF))
stream.receive_exact(2)
kept += [deaf, stream]
forgetful, stream = start_on_stdio(["env", "-i", *python("print('x', flush=True); import signal; signal.pause()")])
stream.receive_exact(2)
kept += [forgetful, stream]
pids = [*kept[0].pids(), deaf.pid, forgetful.pid]
print(guardian().pid, scratch.path, *pids, flush=True)
sys.stdin.readline()
"""


class Guarded:
    """A running Python with a scratch directory and a daemon, a server deaf to SIGTERM and one without our mark.

    It waits for a line on stdin, and then does what `ending` says.
    """

    def __init__(self, ending: str = "") -> None:
        self.python = subprocess.Popen(
            [sys.executable, "-c", STARTED + ending],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.python.stdout is not None
        guardian, self.directory, *pids = self.python.stdout.readline().split()
        self.guardian = int(guardian)
        self.servers = [int(pid) for pid in pids]
        assert len(self.servers) == 3
        assert all(is_running(pid) for pid in self.servers)
        assert os.path.isdir(self.directory)

    def answer(self) -> str:
        """Let it go on, and return the line that it prints then."""
        assert self.python.stdin is not None
        assert self.python.stdout is not None
        self.python.stdin.write("\n")
        self.python.stdin.flush()
        return self.python.stdout.readline()

    def assert_nothing_stays(self) -> None:
        deadline = Deadline(PATIENCE_S)
        while left := [pid for pid in [self.guardian, *self.servers] if is_running(pid)]:
            assert not deadline.expired, f"still there: {left} of {self.guardian} and {self.servers}"
            pause(0.005)
        assert not os.path.exists(self.directory)

    def close(self) -> None:
        for pid in (self.python.pid, *self.servers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.python.communicate()


@pytest.fixture
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    running = Guarded(getattr(request, "param", ""))
    yield running
    running.close()


def test_sigkill_leaves_nothing(guarded: Guarded) -> None:
    guarded.python.kill()
    guarded.assert_nothing_stays()


def test_sigkill_of_the_whole_group_leaves_nothing(guarded: Guarded) -> None:
    os.killpg(guarded.python.pid, signal.SIGKILL)
    guarded.assert_nothing_stays()


def test_interrupt_from_the_terminal_leaves_nothing(guarded: Guarded) -> None:
    os.killpg(guarded.python.pid, signal.SIGINT)
    guarded.python.wait(PATIENCE_S)
    guarded.assert_nothing_stays()


def test_sigterm_to_everything_at_once_leaves_nothing(guarded: Guarded) -> None:
    for pid in (guarded.guardian, *guarded.servers, guarded.python.pid):
        os.kill(pid, signal.SIGTERM)
    guarded.assert_nothing_stays()


@pytest.mark.parametrize(
    "guarded",
    ["", "sys.exit(3)", "os._exit(0)", "os.abort()", "raise KeyboardInterrupt"],
    indirect=True,
    ids=["end", "exit", "_exit", "abort", "interrupt"],
)
def test_an_end_of_its_own_leaves_nothing(guarded: Guarded) -> None:
    guarded.python.communicate("\n", timeout=PATIENCE_S)
    guarded.assert_nothing_stays()


@pytest.mark.parametrize("guarded", [""], indirect=True)
def test_when_an_ordinary_end_is_over_everything_has_gone(guarded: Guarded) -> None:
    guarded.python.communicate("\n", timeout=PATIENCE_S)
    assert not [pid for pid in [guarded.guardian, *guarded.servers] if is_running(pid)]
    assert not os.path.exists(guarded.directory)


FORKED = """
import warnings; warnings.simplefilter("ignore")
parents_guardian = guardian().pid
if (child := os.fork()) == 0:
    deaf.stop()                                   # the parent's: nothing happens
    assert deaf.exit is None
    own, stream = start_on_stdio(["/bin/cat"])    # a guardian and an attendant of its own
    stream.send_all(b"x"); stream.receive_exact(1)
    assert guardian().pid not in (0, parents_guardian)
    own.stop()
    stream.close()
    with ScratchDirectory() as other:
        assert other.path != scratch.path
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), [p.exit for p in (deaf, forgetful)], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("guarded", [FORKED], indirect=True)
def test_a_forked_child_leaves_the_parents_servers_alone_and_can_start_its_own(guarded: Guarded) -> None:
    assert guarded.answer() == "0 [None, None]\n"
    assert all(is_running(pid) for pid in guarded.servers)
    assert os.path.isdir(guarded.directory)


FORKED_WITHOUT_USE = """
import threading, warnings; warnings.simplefilter("ignore")
if (child := os.fork()) == 0:
    deaf.stop()
    del deaf, forgetful, kept
    assert threading.active_count() == 1
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), [p.exit for p in (deaf, forgetful)], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("guarded", [FORKED_WITHOUT_USE], indirect=True)
def test_a_forked_child_that_loses_the_parents_servers_leaves_them_alone(guarded: Guarded) -> None:
    assert guarded.answer() == "0 [None, None]\n"
    assert all(is_running(pid) for pid in guarded.servers)
    assert os.path.isdir(guarded.directory)


FORKED_AND_STAYING = """
import warnings; warnings.simplefilter("ignore")
if (child := os.fork()) == 0:
    os.dup2(os.open("/dev/null", os.O_RDWR), 1)
    signal.pause()
print(child, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("guarded", [FORKED_AND_STAYING], indirect=True)
def test_a_forked_child_does_not_keep_the_guardian_waiting(guarded: Guarded) -> None:
    child = int(guarded.answer())
    try:
        guarded.python.kill()
        guarded.assert_nothing_stays()
        assert is_running(child)  # it is no server of ours
    finally:
        os.kill(child, signal.SIGKILL)


REPLACED = """
os.kill(guardian().pid, signal.SIGKILL)
os.waitid(os.P_PID, guardian().pid, os.WEXITED | os.WNOWAIT)
more = ScratchDirectory()
print(guardian().pid, more.path, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("guarded", [REPLACED], indirect=True)
def test_a_killed_guardian_is_replaced_and_told_everything(guarded: Guarded) -> None:
    guardian, directory = guarded.answer().split()
    assert int(guardian) != guarded.guardian
    guarded.guardian = int(guardian)
    assert os.path.isdir(directory)
    guarded.python.kill()
    guarded.assert_nothing_stays()
    assert not os.path.exists(directory)


def test_several_at_once_clear_up_after_themselves_only() -> None:
    one, other = Guarded(), Guarded()
    try:
        one.python.kill()
        one.assert_nothing_stays()
        assert all(is_running(pid) for pid in other.servers)
        assert os.path.isdir(other.directory)
        other.python.kill()
        other.assert_nothing_stays()
    finally:
        one.close()
        other.close()


def test_an_nbdtest_inside_an_nbdtest_clears_up_when_the_outer_one_is_killed() -> None:
    # The outer guardian kills what carries its mark: the inner Python, not the inner guardian, which clears up in turn.
    outer = r"""
import subprocess, sys
from nbdtest.net.process import start_on_stdio
process, stream = start_on_stdio([sys.executable, "-c", sys.argv[1]])
line = b""
while not line.endswith(b"\n"):
    line += stream.receive_some()
print(line.decode(), end="", flush=True)
sys.stdin.read()
"""
    running = subprocess.Popen(
        [sys.executable, "-c", outer, STARTED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    inner = Guarded.__new__(Guarded)
    inner.python = running
    guardian, inner.directory, *pids = running.stdout.readline().split()
    inner.guardian, inner.servers = int(guardian), [int(pid) for pid in pids]
    try:
        running.kill()
        inner.assert_nothing_stays()
    finally:
        inner.close()


def test_the_guardian_starts_at_the_first_need_and_is_out_of_everybodys_way() -> None:
    code = """
import os
import nbdtest.net.process, nbdtest.net.scratch
from nbdtest.net.guardian import guardian
assert guardian().pid == 0
with nbdtest.net.scratch.ScratchDirectory():
    pid = guardian().pid
assert pid
print(pid, os.getsid(pid) == pid, flush=True)
input()
"""
    running = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        pid, own_session = running.stdout.readline().split()
        assert own_session == "True"
        deadline = Deadline(PATIENCE_S)
        while os.readlink(f"/proc/{pid}/cwd") != "/":  # it has got as far as its own code
            assert not deadline.expired
            pause(0.005)
        descriptors = sorted(os.listdir(f"/proc/{pid}/fd"))
        assert descriptors == ["0", "1", "2"]
    finally:
        running.communicate("\n")


def test_ctrl_c_while_servers_start_leaves_nothing() -> None:
    code = """
import signal, sys
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.clock import Deadline, pause
from nbdtest.net.guardian import guardian
from nbdtest.net.guardian_process import marked
from nbdtest.net.process import start_listening, start_on_stdio
start_on_stdio(["/bin/true"])[1].close()
interrupted = 0
for delay in range(1, 120):
    try:
        signal.setitimer(signal.ITIMER_REAL, delay * 25e-6)
        process, stream = start_on_stdio(["/bin/sleep", "600"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        process.stop()
        stream.close()
    except KeyboardInterrupt:
        interrupted += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, delay * 25e-6)
        start_listening(["/bin/sleep", "600"], UnixAddress("/nowhere/s"))
    except KeyboardInterrupt:
        interrupted += 1
    process = stream = None
deadline = Deadline(10)
while (left := marked(guardian().mark.encode())) and not deadline.expired:
    pause(0.002)
print(interrupted > 0, left)
"""
    handler = "import signal\ndef stop(*_): raise KeyboardInterrupt\nsignal.signal(signal.SIGALRM, stop)\n"
    ran = subprocess.run([sys.executable, "-c", handler + code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True []\n"
    assert ran.stderr == ""


def test_a_scratch_directory_is_private_and_short_and_goes() -> None:
    with ScratchDirectory() as scratch:
        assert Path(scratch.path).stat().st_mode & 0o777 == 0o700
        assert len(scratch.file("x" * 20)) < 107
        Path(scratch.file("file")).write_text("x")
        os.mkdir(scratch.file("directory"))
    assert not os.path.exists(scratch.path)
    scratch.remove()


def test_a_long_tmpdir_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with ScratchDirectory() as scratch:
        assert os.path.dirname(scratch.path) == "/tmp"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ScratchDirectory() as scratch:
        assert os.path.dirname(scratch.path) in (str(tmp_path), "/tmp")


def test_the_process_table() -> None:
    me = os.getpid()
    assert is_running(me)
    assert start_time(me).isdigit()
    assert me not in in_group(os.getpgid(0))  # the one who asks is left out
    child = subprocess.Popen(["/bin/sleep", "600"], process_group=0, env={MARK_VARIABLE: "somebody-else"})
    try:
        assert in_group(child.pid) == [child.pid]
        assert marked(f"{MARK_VARIABLE}=somebody-else\0".encode()) == [child.pid]
        assert child.pid not in marked(guardian().mark.encode())
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_running(child.pid)
        assert in_group(child.pid) == []
    finally:
        child.kill()
        child.wait()
    assert start_time(child.pid) == ""


def test_nothing_is_started_when_the_program_is_ending() -> None:
    code = """
import atexit
from nbdtest.errors import TransportError
from nbdtest.net.guardian import guardian
from nbdtest.net.guardian_process import marked
from nbdtest.net.process import start_on_stdio

def too_late():
    try:
        start_on_stdio(["/bin/sleep", "600"])
    except TransportError as error:
        print(error, marked(guardian().mark.encode()))

atexit.register(too_late)  # run last
process, stream = start_on_stdio(["/bin/cat"])
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "/bin/sleep is not started: this program is ending []\n"
    assert ran.stderr == ""
