"""Wrong SPECs and options, and servers that cannot be tested: one clear message and the right exit status."""

import pytest

from nbdtest.net.sockets import unused_tcp_port
from tests.fixtures.odd_specs import odd

pytest_plugins = ["pytester"]


def refused(pytester: pytest.Pytester, *options: str) -> str:
    """What pytest says on stderr, after exit status 4 and without any traceback or result."""
    result = pytester.runpytest_subprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert " passed" not in result.stdout.str()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    return result.stderr.str()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(["--nbd-server=nbdkt"], "Did you mean 'nbdkit'?", id="unknown-spec"),
        pytest.param(["--nbd-server=builtin:nothing"], "builtin has no mutant 'nothing'", id="unknown-mutant"),
        pytest.param(["--nbd-server=nbd:/localhost"], "no // after nbd:", id="uri-that-is-none"),
        pytest.param(["--nbd-server=mine.toml"], "mine.toml cannot be read", id="no-such-profile"),
        pytest.param(["--nbd-server=stdio: ./no-such-program"], "no such file", id="no-such-program"),
        pytest.param(["--nbd-server=" + odd("complains")], "odd: no such disk", id="listener-that-exits-at-once"),
        pytest.param(["--nbd-server=" + odd("complains", "stdio")], "odd: no such disk", id="stdio-that-exits-at-once"),
        pytest.param(["--nbd-server=" + odd("silent"), "--nbd-timeout=0.2"], "said nothing for 0.2 s", id="silent"),
        pytest.param(["--nbd-server=" + odd("http"), "--nbd-timeout=0.2"], "It is an HTTP server", id="http"),
        pytest.param(["--nbd-server=builtin", "--nbd-timeout=0"], "above 0", id="timeout-of-nothing"),
        pytest.param(["--nbd-server=builtin", "--nbd-checks=no.such"], "matches 'no.such'", id="no-such-check"),
        pytest.param(["--nbd-server=builtin", "--nbd-checks=!*"], "no check is selected", id="nothing-left"),
        pytest.param(["--nbd-server=builtin", "--nbd-expect=none.toml"], "none.toml cannot be read", id="no-such-list"),
        pytest.param(["--nbd-server=builtin", "--nbd-report=r.txt"], ".json, .md, .xml, .html", id="report-suffix"),
        pytest.param(["--nbd-server=builtin", "--nbd-report=/dev/null/r.md"], "null is not writ", id="report-nowhere"),
        pytest.param(["--nbd-server=builtin", "nbd::nbdkit"], "called nbd::nbdkit; see --collect", id="no-such-item"),
        pytest.param(["--nbd-server=builtin", "--nbd-level=shall"], "invalid choice: 'shall'", id="unknown-level"),
    ],
)
def test_message(pytester: pytest.Pytester, options: list[str], says: str) -> None:
    assert says in refused(pytester, *options)


def test_server_that_is_not_installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt install nbdkit" in refused(pytester, "--nbd-server=nbdkit")


def test_port_that_nobody_listens_on(pytester: pytest.Pytester) -> None:
    said = refused(pytester, f"--nbd-server=nbd://localhost:{unused_tcp_port()}")
    assert "Connection refused" in said
    assert "Is the server running?" in said


def test_report_that_cannot_be_written_after_all_fails_the_run(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from nbdtest.errors import UsageError
        from nbdtest.plugin import summary

        def write_report(name, report):
            raise UsageError(f"{name} cannot be written: No space left on device")

        summary.write_report = write_report
        """
    )
    result = pytester.runpytest_subprocess(
        "--nbd-server=" + odd("greets"), "--nbd-checks=greeting.nbd-magic", "--nbd-report=r.json"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["no report: r.json cannot be written: No space left on device", "*1 passed*"])


def test_list_of_deviations_that_is_wrong(pytester: pytest.Pytester) -> None:
    pytester.makefile(".toml", known="[[deviation]]\nchek = 'x'\n")
    said = refused(pytester, "--nbd-server=builtin", "--nbd-expect=known.toml")
    assert "known.toml, deviation 1: unknown key 'chek'" in said


def test_server_that_cannot_be_tested_is_one_error_under_xdist_too(pytester: pytest.Pytester) -> None:
    said = refused(pytester, "--nbd-server=" + odd("complains"), "-n", "2")
    assert said.count("odd: no such disk") == 1


def test_own_tests_are_not_run_against_a_server_that_is_not_there(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_mine(): pass")
    refused(pytester, "--nbd-server=" + odd("complains"))
