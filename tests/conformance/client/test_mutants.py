"""Each check for clients complains of a client that is wrong in that way."""

from __future__ import annotations

import pytest

from nbdtest.conformance import each_check
from nbdtest.conformance.client_runner import run_client_check
from nbdtest.conformance.client_target import ClientTarget
from nbdtest.report.results import Outcome
from tests.conformance.client.mutants import MUTANTS
from tests.conformance.client.plain_client import PlainSource

CHECKS = {item.id: item for item in each_check("client")}
COMPLAINS = (Outcome.FAILED, Outcome.WARNED)
WITH_CREDENTIALS = ("client-tls.", "client-option.starttls-without-data", "client-option.no-starttls-in-tls")
"""Checks that need a client with credentials."""
TIMEOUT_S = 1.0


@pytest.mark.parametrize("habits", MUTANTS)
def test_a_habit_is_seen_by_the_checks_named_for_it(habits: str) -> None:
    target = ClientTarget(PlainSource(frozenset(habits.split(" & "))), timeout_s=TIMEOUT_S)
    results = {id: run_client_check(CHECKS[id], target) for id in MUTANTS[habits]}
    assert {id: r.outcome for id, r in results.items() if r.outcome not in COMPLAINS} == {}


def test_every_check_has_a_habit_that_it_sees() -> None:
    seen = {id for ids in MUTANTS.values() for id in ids}
    assert {id for id in CHECKS if id not in seen and not id.startswith(WITH_CREDENTIALS)} == set()
