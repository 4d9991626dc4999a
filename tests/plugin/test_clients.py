"""`--nbd-client`: clients beside servers, and commands that are none."""

import shlex
import sys
from pathlib import Path

import pytest

from tests.fixtures.odd_specs import odd

pytest_plugins = ["pytester"]

CLIENT = """
import sys
from nbdtest.client import NBD

with NBD() as handle:
    handle.connect_uri(sys.argv[1])
    handle.pread(512, 0)
    handle.shutdown()
"""

CHECKS = '''
import nbdtest.plugin.suite
from nbdtest.conformance import Complaint, check


@check("demo.reads", proves=["HS-007"], legal=True, role="client")
def reads(t):
    """A client reads."""
    assert t.gallery.seen("full").succeeded


@check("demo.fails", proves=["HS-007"], legal=True, role="client")
def fails(t):
    """A client does what none does."""
    raise Complaint("an apple", "a pear")


@check("demo.greets", proves=["HS-007"], legal=True)
def greets(t):
    """A server greets."""
    with t.peer.greeted():
        pass


CHECKS = {"client": (reads, fails), "server": (greets,)}
nbdtest.plugin.suite.each_check = lambda role="server": CHECKS[role]
'''


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CHECKS)
    (pytester.path / "client.py").write_text(CLIENT)
    return pytester


def command(path: Path) -> str:
    return f"{shlex.quote(sys.executable)} {path / 'client.py'} {{uri}}"


def test_client_is_tested_beside_a_server(project: pytest.Pytester) -> None:
    options = (f"--nbd-client={command(project.path)}", f"--nbd-server={odd('greets')}", "--nbd-pcap=captures", "-v")
    result = project.runpytest_subprocess(*options)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "nbd::listen-python*::demo.greets PASSED*",
            "nbd::python*::demo.reads PASSED*",
            "nbd::python*::demo.fails FAILED*",
            "seen:   an apple",
            "again: pytest '--nbd-client=* {uri}' --nbd-checks=demo.fails",
            "python*: 1 failed, 1 passed",
        ]
    )
    assert len(list(project.path.glob("captures/*/*.pcapng"))) == 3


def test_check_of_one_role_is_chosen_where_both_are_tested(project: pytest.Pytester) -> None:
    options = (f"--nbd-client={command(project.path)}", f"--nbd-server={odd('greets')}", "--nbd-checks=demo.greets")
    result = project.runpytest_subprocess(*options)
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("client", "says"),
    [
        pytest.param("nbdinfo", "does not say where the server is", id="without-uri"),
        pytest.param("./no-such-client {uri}", "no such file", id="no-such-program"),
        pytest.param("echo {uri}", "does not connect to the server that it is given", id="no-client"),
        pytest.param("'x {uri}", "cannot be read", id="open-quote"),
    ],
)
def test_command_that_is_no_client(project: pytest.Pytester, client: str, says: str) -> None:
    result = project.runpytest_subprocess(f"--nbd-client={client}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert says in result.stderr.str()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
