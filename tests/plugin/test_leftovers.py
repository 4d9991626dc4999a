"""However a run ends, no process, socket or file of it is left."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbdtest.net.addresses import UnixAddress
from nbdtest.net.process import start_listening
from tests.fixtures.odd_specs import odd
from tests.plugin.leftovers import PATIENCE_S, Watch

CONFTEST = '''
import os
import signal
import time

import nbdtest.plugin.suite
from nbdtest.conformance import check


@check("demo.first", proves=["HS-007"], legal=True)
def first(t):
    """A check that passes."""
    with t.peer.greeted():
        pass


@check("demo.kills-the-server", proves=["HS-007"], legal=True)
def kills_the_server(t):
    """A check in which the server is killed."""
    with t.peer.greeted() as (peer, _):
        assert t.source.signal(signal.SIGKILL)
        peer.receive_bytes(1, wanted="an answer")


@check("demo.kills-its-own-process", proves=["HS-007"], legal=True)
def kills_its_own_process(t):
    """A check in which pytest, or its worker, is killed."""
    with t.peer.greeted():
        os.kill(os.getpid(), signal.SIGKILL)


@check("demo.waits", proves=["HS-007"], legal=True)
def waits(t):
    """A check in the middle of which somebody presses ^C."""
    with t.peer.greeted():
        print("waiting", flush=True)
        time.sleep(1000)


@check("demo.last", proves=["HS-007"], legal=True)
def last(t):
    """A check that passes."""
    with t.peer.greeted():
        pass


CHECKS = (first, kills_the_server, kills_its_own_process, waits, last)
nbdtest.plugin.suite.each_check = lambda role="server": CHECKS
'''
WAYS = ["listen", "activation", "stdio"]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    return Watch(tmp_path)


@contextmanager
def run(tmp_path: Path, watch: Watch, *options: str) -> Iterator[subprocess.Popen[str]]:
    """pytest in a session of its own, which is killed if it has not ended when the block is left."""
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", *options],
        cwd=tmp_path,
        env=watch.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("way", WAYS)
def test_ordinary_end(tmp_path: Path, watch: Watch, way: str) -> None:
    with run(tmp_path, watch, f"--nbd-server={odd('greets', way)}", "--nbd-checks=*.first,*.last") as process:
        said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, said
    assert watch.left() == []


@pytest.mark.parametrize("way", WAYS)
def test_server_killed_in_the_middle_is_one_failure(tmp_path: Path, watch: Watch, way: str) -> None:
    checks = "--nbd-checks=*.first,*.kills-the-server,*.last"
    with run(tmp_path, watch, f"--nbd-server={odd('greets', way)}", checks) as process:
        said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 1, said
    assert "was killed by SIGKILL" in said or way == "stdio"
    assert re.search("1 failed, 2 passed", said)
    assert watch.left() == []


@pytest.mark.parametrize("way", WAYS)
def test_interrupt_in_the_middle(tmp_path: Path, watch: Watch, way: str) -> None:
    checks = "--nbd-checks=*.first,*.waits,*.last"
    with run(tmp_path, watch, f"--nbd-server={odd('greets', way)}", checks) as process:
        assert process.stdout is not None
        before = ""
        while "waiting" not in before:
            before += process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "KeyboardInterrupt" in said
    assert watch.left() == []


@pytest.mark.parametrize("way", WAYS)
def test_pytest_itself_killed(tmp_path: Path, watch: Watch, way: str) -> None:
    checks = "--nbd-checks=*.first,*.kills-its-own-process"
    with run(tmp_path, watch, f"--nbd-server={odd('greets', way)}", checks) as process:
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL
    assert watch.left() == []


@pytest.mark.parametrize("way", WAYS)
def test_xdist_worker_killed(tmp_path: Path, watch: Watch, way: str) -> None:
    checks = "--nbd-checks=*.first,*.kills-its-own-process,*.last"
    with run(tmp_path, watch, f"--nbd-server={odd('greets', way)}", checks, "-n", "2") as process:
        said = process.communicate(timeout=3 * PATIENCE_S)[0]
    assert process.returncode == 1, said
    assert "crashed while running" in said
    assert "error: demo.kills-its-own-process" in said
    assert watch.left() == []


def test_running_server_that_goes_away_is_said_once(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    conftest = CONFTEST.replace("assert t.source.signal(signal.SIGKILL)", "os.kill(int(os.environ['VICTIM']), 9)")
    (tmp_path / "conftest.py").write_text(conftest)
    path = tmp_path / "sock"
    words = odd("greets").partition(": ")[2].replace("{unix}", str(path)).split()
    with start_listening(words, UnixAddress(str(path))) as server:
        monkeypatch.setenv("VICTIM", str(server.pid))
        checks = "--nbd-checks=*.first,*.kills-the-server,*.last"
        with run(tmp_path, watch, f"--nbd-server=nbd+unix:///?socket={path}", checks, "-rs") as process:
            said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 1, said
    assert "not checked: the server has been gone since demo.kills-the-server" in said
    assert re.search("1 failed, 1 passed, 1 skipped", said)
    assert watch.left() == []
