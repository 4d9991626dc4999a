"""What a run of the suite costs beside its checks: modules are loaded as they are, and none for nothing."""

import pytest

from tests.plugin.projects import EVERY_OUTCOME, SERVER

pytest_plugins = ["pytester"]

LOOKS_AT_LOADERS = """
import sys

def test_loaders():
    loaders = {name: type(sys.modules[name].__spec__.loader).__name__ for name in sys.modules if name[:8] == "nbdtest."}
    assert "nbdtest.conformance.runner" in loaders
    assert {loaders[name] for name in loaders if name != "nbdtest.plugin"} == {"SourceFileLoader"}
"""
NOTES_WHETHER_HYPOTHESIS_IS_LOADED = """
import pathlib, sys

def pytest_unconfigure(config):
    worker = getattr(config, "workerinput", {}).get("workerid", "main")
    pathlib.Path(__file__).with_name(f"{worker}.txt").write_text(str("hypothesis" in sys.modules))
"""


def test_pytest_does_not_rewrite_the_suite(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LOOKS_AT_LOADERS)
    result = pytester.runpytest_subprocess(f"--nbd-server={SERVER}", "test_pytest_does_not_rewrite_the_suite.py")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("options", "process"),
    [((), "main"), (("-n1",), "gw0"), (("-n1",), "main")],
    ids=["alone", "worker", "its master"],
)
def test_hypothesis_is_not_loaded_for_its_summary_of_nothing(
    pytester: pytest.Pytester, options: tuple[str, ...], process: str
) -> None:
    pytester.makeconftest(EVERY_OUTCOME + NOTES_WHETHER_HYPOTHESIS_IS_LOADED)
    pytester.runpytest_subprocess(f"--nbd-server={SERVER}", *options)
    assert pytester.path.joinpath(f"{process}.txt").read_text() == "False"


def test_hypothesis_keeps_its_summary_of_what_workers_ran(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(EVERY_OUTCOME + NOTES_WHETHER_HYPOTHESIS_IS_LOADED)
    pytester.makepyfile("def test_of_somebody_else(): pass")
    pytester.runpytest_subprocess(f"--nbd-server={SERVER}", "-n1")
    assert pytester.path.joinpath("main.txt").read_text() == "True"


def test_hypothesis_keeps_its_summary_of_tests_that_use_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(EVERY_OUTCOME)
    pytester.makepyfile(
        """
        from hypothesis import given, strategies

        @given(strategies.integers())
        def test_any(number):
            pass
        """
    )
    result = pytester.runpytest_subprocess(f"--nbd-server={SERVER}", "--hypothesis-show-statistics")
    result.stdout.fnmatch_lines(["*Hypothesis Statistics*", "*test_any*"])
