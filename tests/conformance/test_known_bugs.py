"""Bugs of published servers: each is seen by a check, on a mutant that has it, or it is said why not."""

from __future__ import annotations

import csv
import re
from importlib.resources import files

from nbdtest.conformance import each_check
from nbdtest.fakeserver.mutants import MUTANTS

ROWS = list(
    csv.DictReader(
        files("nbdtest.conformance").joinpath("data/known-bugs.csv").read_text(encoding="utf-8").splitlines()
    )
)


def test_every_bug_names_a_check_or_says_why_none_sees_it() -> None:
    checks = {item.id for item in each_check()}
    assert [row["id"] for row in ROWS if row["check"] and row["check"] not in checks] == []
    assert [row["id"] for row in ROWS if not row["check"] and not row["remark"]] == []


def test_every_check_is_known_to_see_the_mutant_of_the_bug() -> None:
    # That it does see it is what test_mutants runs.
    assert [row["id"] for row in ROWS if row["mutant"] and row["check"] not in MUTANTS[row["mutant"]].checks] == []
    assert [row["id"] for row in ROWS if row["check"] and not row["mutant"] and not row["remark"]] == []


def test_remarks_name_checks_that_exist() -> None:
    checks = {item.id: item.family for item in each_check()}
    named = [name for row in ROWS for name in re.findall(r"[a-z-]+\.[a-z-]+[a-z]", row["remark"])]
    families = {*checks.values(), "published"}
    assert [name for name in named if name.partition(".")[0] in families and name not in {*checks, *MUTANTS}] == []


def test_most_bugs_are_seen() -> None:
    assert len([row for row in ROWS if row["mutant"]]) >= 0.9 * len(ROWS)
