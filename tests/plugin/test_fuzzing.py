"""`--nbd-fuzz` adds random sessions to the suite, as one item for each target and worker."""

import pytest

from tests.plugin.projects import EVERY_OUTCOME

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(EVERY_OUTCOME)
    return pytester


def test_what_is_found_fails_the_run_and_is_kept(project: pytest.Pytester) -> None:
    server = "builtin:command.unknown-succeeds"
    result = project.runpytest_subprocess(f"--nbd-server={server}", "--nbd-fuzz=30", f"nbd::{server}::fuzz-1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # Other requests succeed on such a server too, a RESIZE among them: what else is found depends on the seed.
    result.stdout.fnmatch_lines(
        [
            "wrong reply: *: it succeeds although the command is unknown [[]ERR-029[]]*",
            "  repeat: nbdtest replay *findings/wrong-reply-*",
            f"{server} (nbdtest *): 1 failed",
        ]
    )
    sessions = [path.read_text() for path in project.path.glob("findings/wrong-reply-*/session.txt")]
    assert any("CMD_0x" in session or "CMD_RESIZE" in session for session in sessions)


def test_the_test_in_a_finding_fails_on_the_server_and_passes_on_another(project: pytest.Pytester) -> None:
    server = "builtin:command.unknown-succeeds"
    project.runpytest_subprocess(f"--nbd-server={server}", "--nbd-fuzz=30", f"nbd::{server}::fuzz-1")
    tests = [str(path) for path in project.path.glob("findings/*/test_*.py")]
    assert project.runpytest_subprocess(f"--nbd-server={server}", *tests).ret == pytest.ExitCode.TESTS_FAILED
    assert project.runpytest_subprocess("--nbd-server=builtin", *tests).ret == pytest.ExitCode.OK


def test_what_is_known_of_the_server_does_not_fail_the_run(project: pytest.Pytester) -> None:
    (project.path / "known.toml").write_text('[[deviation]]\ncheck = "disconnect.closes"\n')
    server = "builtin:disc.stays"
    arguments = [f"--nbd-server={server}", "--nbd-expect=known.toml", "--nbd-fuzz=20", f"nbd::{server}::fuzz-1"]
    assert project.runpytest_subprocess(*arguments).ret == pytest.ExitCode.OK


def test_every_worker_has_an_item(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--nbd-server=builtin", "--nbd-fuzz=3", "-n2", "-v", "-k", "fuzz")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines_random(["*PASSED nbd::builtin::fuzz-1*", "*PASSED nbd::builtin::fuzz-2*"])


@pytest.mark.parametrize("value", ["0", "5x", "-1", "s"])
def test_a_value_that_is_no_limit_is_refused(project: pytest.Pytester, value: str) -> None:
    result = project.runpytest_subprocess("--nbd-server=builtin", f"--nbd-fuzz={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--nbd-fuzz={value}: a number of sessions such as 500, or of seconds such as 30s*"])
