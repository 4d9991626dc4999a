"""What one process has found is tried first by all that share Hypothesis's database: the example of docs/fuzzing.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parent.parent.parent / "docs" / "fuzzing.md"


REUSE_ALONE = """
from hypothesis import Phase, settings

settings.register_profile("reuse", phases=[Phase.reuse])
"""
SERVER = "--nbd-server=builtin:command.flush-fails"


def test_two_workers_share_what_they_find_with_everybody(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text().partition("## Many processes")[2], re.DOTALL)
    pytester.makepyfile(test_one=code, test_two=code)
    pytester.makeconftest(REUSE_ALONE)
    monkeypatch.delenv("CI", raising=False)  # or Hypothesis would keep nothing
    monkeypatch.setenv("SHARED_EXAMPLES", str(pytester.path / "shared"))
    workers = pytester.runpytest_subprocess("-n", "2", SERVER, "test_one.py", "test_two.py")
    workers.assert_outcomes(failed=2)
    # Somebody else, who makes no examples of his own: with that database, and with an empty one.
    pytester.runpytest_subprocess(SERVER, "--hypothesis-profile=reuse", "test_one.py").assert_outcomes(failed=1)
    monkeypatch.setenv("SHARED_EXAMPLES", str(pytester.path / "empty"))
    pytester.runpytest_subprocess(SERVER, "--hypothesis-profile=reuse", "test_one.py").assert_outcomes(skipped=1)
