"""What pytest and the reader are told of each outcome."""

import json
import xml.etree.ElementTree as ET

import pytest

from tests.plugin.projects import EVERY_OUTCOME, SERVER

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(EVERY_OUTCOME)
    return pytester


def summary_of(result: pytest.RunResult) -> str:
    return result.outlines[-1]


def test_every_outcome_is_counted_under_its_name(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "-v")
    assert "1 failed, 1 passed, 2 skipped, 1 error, 1 warned" in summary_of(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for check, word in {
        "passes": "PASSED",
        "fails": "FAILED",
        "warns": "WARNED",
        "skips": "SKIPPED",
        "lacks": "SKIPPED",
        "errs": "ERROR",
    }.items():
        result.stdout.fnmatch_lines([f"nbd::listen-python*::demo.{check} {word}*"])


def test_failure_says_what_was_seen_wanted_and_sent_and_how_to_repeat_it(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}")
    result.stdout.fnmatch_lines(
        [
            "*_ demo.fails on listen-python* _*",
            "A check whose MUST is broken.",
            "seen:   an apple",
            "wanted: a pear",
            "rule:   COMPAT-005*",
            "where:  https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md#*",
            "what was sent and received:",
            "*<-- server NewstyleGreeting flags=FIXED_NEWSTYLE|NO_ZEROES",
            "*4e 42 44 4d 41 47 49 43*NBDMAGIC*",
            "again: pytest '--nbd-server=listen: *' --nbd-checks=demo.fails",
            "*= NBD conformance =*",
            "listen-python*: 1 error, 1 failed, 1 warned, 2 skipped, 1 passed",
            "  warned: demo.warns: A check whose SHOULD is broken.",
            "    seen:   a long string",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback (most recent call last)*pluggy*")


def test_fault_of_the_harness_shows_its_traceback(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "--nbd-checks=demo.errs")
    result.stdout.fnmatch_lines(
        ["*_ ERROR at call of demo.errs on listen-python* _*", "RuntimeError: a bug in the check"]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_reasons_of_skips_are_shown(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "-rs")
    result.stdout.fnmatch_lines_random(
        ["SKIPPED * nbd*: the export does not offer TRIM", "SKIPPED * nbd*: the server has no tail"]
    )


def test_strict_makes_a_warning_a_failure(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "--nbd-checks=demo.warns", "--nbd-strict")
    result.assert_outcomes(failed=1)
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "--nbd-checks=demo.warns")
    assert result.ret == pytest.ExitCode.OK


def test_expected_deviations_do_not_fail_the_run(project: pytest.Pytester) -> None:
    project.makefile(
        ".toml",
        known="""
        [[deviation]]
        check = "demo.fails"
        evidence = "It prefers apples."

        [[deviation]]
        check = "demo.warns"
        """,
    )
    options = (f"--nbd-server={SERVER}", "--nbd-expect=known.toml", "--nbd-checks=!demo.errs", "-rx")
    result = project.runpytest_subprocess(*options)
    result.assert_outcomes(passed=1, skipped=2, xfailed=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["XFAIL nbd::listen-python*::demo.fails - known: It prefers apples."])


def test_unexpected_pass_fails_the_run(project: pytest.Pytester) -> None:
    project.makefile(".toml", known='[[deviation]]\ncheck = "demo.passes"\n')
    options = (f"--nbd-server={SERVER}", "--nbd-expect=known.toml", "--nbd-checks=demo.passes")
    result = project.runpytest_subprocess(*options)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["passed, but it is on the list of known deviations (demo.passes)*"])


def test_feature_that_a_profile_claims_must_be_there(project: pytest.Pytester) -> None:
    project.makefile(".toml", mine=f"[server]\nspec = '''{SERVER}'''\nfeatures = [\"trim\"]\n")
    result = project.runpytest_subprocess("--nbd-server=mine.toml", "--nbd-checks=demo.lacks")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the profile claims the feature trim, but the export does not offer TRIM"])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_reports_hold_every_outcome(project: pytest.Pytester, workers: tuple[str, ...]) -> None:
    names = ("out/r.json", "r.md", "r.xml", "r.html")
    options = [f"--nbd-server={SERVER}", *(f"--nbd-report={name}" for name in names), *workers]
    result = project.runpytest_subprocess(*options)
    result.stdout.fnmatch_lines([f"report written to {name}" for name in names])
    document = json.loads((project.path / "out/r.json").read_text())
    assert document["schema"] == 1
    assert document["summary"] == {"passed": 1, "failed": 1, "warned": 1, "skipped": 2, "error": 1}
    assert document["targets"][0]["spec"] == SERVER
    assert "newstyle" in document["targets"][0]["capabilities"]
    assert [row["check"] for row in document["results"]] == sorted(row["check"] for row in document["results"])
    assert "COMPAT-005" in document["requirements"]
    suite = ET.parse(project.path / "r.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("tests") == "6"
    assert "demo.fails: failed" in (project.path / "r.md").read_text()
    assert "demo.fails" in (project.path / "r.html").read_text()


def test_captures_are_written_by_every_worker(project: pytest.Pytester) -> None:
    project.runpytest_subprocess(f"--nbd-server={SERVER}", "--nbd-pcap=captures", "-n", "2")
    written = {path.name for path in project.path.glob("captures/listen-python/*.pcapng")}
    assert written == {f"demo.{name}.pcapng" for name in ("passes", "fails", "warns", "skips", "lacks", "errs")}


def test_junit_report_of_pytest_itself_has_the_items(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "--junitxml=own.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    cases = list(ET.parse(project.path / "own.xml").getroot().iter("testcase"))
    assert {case.get("name") for case in cases} >= {"demo.passes", "demo.fails"}
