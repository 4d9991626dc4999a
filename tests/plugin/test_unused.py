"""Whoever has the plugin installed and does not use it pays for one small module."""

import sys

import pytest

pytest_plugins = ["pytester"]

LOOKS_AT_MODULES = """
import sys

def test_nothing_was_loaded():
    loaded = {name for name in sys.modules if name.partition(".")[0] in ("nbdtest", "hypothesis", "cryptography")}
    assert loaded == {"nbdtest", "nbdtest.plugin"}
"""
# Hypothesis brings a plugin of its own, which loads hypothesis; it is no part of what is asked here.
WITHOUT_HYPOTHESIS = ("-p", "no:hypothesispytest")


def test_unused_plugin_loads_nothing_else(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LOOKS_AT_MODULES)
    result = pytester.runpytest_subprocess(*WITHOUT_HYPOTHESIS)
    result.assert_outcomes(passed=1)


def test_plugin_imports_pytest_and_the_standard_library_alone(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile(
        """
        import sys
        import pytest
        before = set(sys.modules)
        import nbdtest.plugin
        names = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(sorted(names - set(sys.stdlib_module_names) - {"nbdtest"}))
        """
    )
    result = pytester.run(sys.executable, script)
    assert result.outlines == ["[]"]


def test_own_tests_run_without_any_option_as_if_the_plugin_were_not_there(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_mine(): pass")
    result = pytester.runpytest_subprocess("-v")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*nbd:*")
