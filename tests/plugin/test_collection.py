"""Which items are collected, beside which tests, and how they are chosen."""

import pytest

from tests.plugin.projects import EVERY_OUTCOME, SERVER, SERVER_NAME

pytest_plugins = ["pytester"]

CHECK_IDS = ["passes", "fails", "warns", "skips", "lacks", "errs"]


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(EVERY_OUTCOME)
    pytester.makepyfile(test_mine="def test_own(): pass")
    return pytester


def collected(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line and " " not in line]


def suite_items(name: str = SERVER_NAME) -> list[str]:
    return [f"nbd::{name}::demo.{id}" for id in CHECK_IDS]


def test_suite_is_collected_beside_the_users_own_tests(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "--collect-only", "-q")
    assert collected(result) == ["test_mine.py::test_own", *suite_items()]


def test_collecting_starts_no_server(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--nbd-server=listen: false {unix}", "--collect-only", "-q")
    assert result.ret == pytest.ExitCode.OK


def test_collection_shows_a_tree(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "--collect-only")
    result.stdout.fnmatch_lines(
        [
            "collected 7 items",
            "<SuiteCollector nbd>",
            f"  <TargetCollector {SERVER_NAME}>",
            "    <CheckItem demo.passes>",
        ]
    )


def test_file_arguments_leave_the_suite_out(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "test_mine.py", "--collect-only", "-q")
    assert collected(result) == ["test_mine.py::test_own"]


def test_package_names_the_suite_itself(project: pytest.Pytester) -> None:
    options = (f"--nbd-server={SERVER}", "--collect-only", "-q", "--pyargs", "nbdtest.conformance")
    assert collected(project.runpytest_subprocess(*options)) == suite_items()
    both = project.runpytest_subprocess(*options, "test_mine.py")
    assert collected(both) == ["test_mine.py::test_own", *suite_items()]


def test_package_without_a_server_means_the_one_that_comes_with_nbdtest(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--pyargs", "nbdtest.conformance", "--collect-only", "-q")
    assert collected(result) == suite_items("builtin")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        pytest.param([f"nbd::{SERVER_NAME}::demo.warns"], ["demo.warns"], id="one-item"),
        pytest.param([f"nbd::{SERVER_NAME}"], [f"demo.{id}" for id in CHECK_IDS], id="one-target"),
        pytest.param(
            [f"nbd::{SERVER_NAME}::demo.errs", f"nbd::{SERVER_NAME}::demo.fails"], ["demo.fails", "demo.errs"], id="two"
        ),
        pytest.param(["-k", "demo.fails"], ["demo.fails"], id="keyword"),
        pytest.param(["-k", "CONV-005"], ["demo.warns"], id="keyword-requirement"),
        pytest.param(["-m", "nbd", "--nbd-level=should"], [f"demo.{id}" for id in CHECK_IDS], id="level-should"),
        pytest.param(
            ["-m", "nbd", "--nbd-level=must"],
            ["demo.passes", "demo.fails", "demo.skips", "demo.lacks", "demo.errs"],
            id="level-must",
        ),
        pytest.param(["-m", "nbd", "--nbd-checks=*.s*,demo.e*"], ["demo.skips", "demo.errs"], id="globs"),
        pytest.param(
            ["-m", "nbd", "--nbd-checks=demo", "--nbd-checks=!*[ir]*s,!*.passes"], ["demo.lacks"], id="left-out"
        ),
        pytest.param(["-m", "nbd", "--nbd-checks=COMPAT-005"], ["demo.fails"], id="requirement"),
    ],
)
def test_selection(project: pytest.Pytester, arguments: list[str], wanted: list[str]) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "--collect-only", "-q", *arguments)
    assert collected(result) == [f"nbd::{SERVER_NAME}::{id}" for id in wanted]


def test_item_that_does_not_exist_is_an_error(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", f"nbd::{SERVER_NAME}::demo.none")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: no item of the suite is called nbd::{SERVER_NAME}::demo.none*"])


def test_two_servers_are_two_targets(project: pytest.Pytester) -> None:
    options = (f"--nbd-server={SERVER}", f"--nbd-server={SERVER}", "--nbd-checks=demo.passes,demo.fails")
    result = project.runpytest_subprocess(*options)
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines([f"{SERVER_NAME}: 1 failed, 1 passed", f"{SERVER_NAME}-2: 1 failed, 1 passed"])


def test_x_stops_at_the_first_failure_and_lf_repeats_it(project: pytest.Pytester) -> None:
    first = project.runpytest_subprocess(f"--nbd-server={SERVER}", "-x")
    first.assert_outcomes(passed=2, failed=1)
    again = project.runpytest_subprocess(f"--nbd-server={SERVER}", "--lf")
    again.assert_outcomes(failed=1, deselected=6)


def test_works_with_xdist(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "-n", "2")
    result.assert_outcomes(passed=2, failed=1, skipped=2, errors=1)
    result.stdout.fnmatch_lines([f"{SERVER_NAME}: 1 error, 1 failed, 1 warned, 2 skipped, 1 passed"])


def test_arguments_select_under_xdist_too(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(f"--nbd-server={SERVER}", "-n", "2", f"nbd::{SERVER_NAME}::demo.passes")
    result.assert_outcomes(passed=1)


def test_real_suite_is_collected_with_unique_ids(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--nbd-server=builtin", "--collect-only", "-q")
    items = collected(result)
    assert len(items) >= 80
    assert len(items) == len(set(items))
    assert all(item.startswith("nbd::builtin::") and len(item.split("::")) == 3 for item in items)
