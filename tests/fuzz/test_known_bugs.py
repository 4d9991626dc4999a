"""Known bugs of servers, as far as random sessions can reach them, are found on their mutants within a minute."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SWEEP: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "known_bugs.py"))
MUTANTS: dict[str, list[str]] = SWEEP["bugs_by_mutant"]()
A_HANDFUL = 5


@pytest.mark.nightly
@pytest.mark.parametrize("mutant", sorted(set(MUTANTS) - set(SWEEP["OUT_OF_REACH"])))
def test_a_known_bug_is_found_and_made_small(mutant: str) -> None:
    # On a machine with a lot to do a minute may not be one: give it five.
    found = SWEEP["hunt"](mutant, seconds=300)
    assert found.problem is not None, f"{found.sessions} sessions"
    if mutant not in SWEEP["LONG_BY_NATURE"]:
        assert found.messages <= A_HANDFUL


@pytest.mark.nightly
def test_the_documentation_tells_of_every_mutant_of_a_known_bug() -> None:
    # When this fails: python benchmarks/known_bugs.py, and its lines into docs/fuzzing.md.
    page = (ROOT / "docs" / "fuzzing.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9.-]+)` \| ([A-Z0-9, ]+) \|(.*)\|$", page, re.MULTILINE)
    told = {mutant: bugs for mutant, bugs, _ in rows}
    assert {mutant: told.get(mutant) for mutant in MUTANTS} == {name: ", ".join(ids) for name, ids in MUTANTS.items()}
    for mutant, _, outcome in rows:
        assert ("out of reach" in outcome) == (mutant in SWEEP["OUT_OF_REACH"])
        assert "not found" not in outcome
