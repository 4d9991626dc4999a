"""The suite on servers that are wrong on purpose: each bug is seen by the checks that are named for it."""

from __future__ import annotations

import pytest

from nbdtest.conformance import Capability, each_check, requirement, run_check
from nbdtest.fakeserver.mutants import MUTANTS, Mutant
from nbdtest.report.results import Outcome
from tests.conformance.configurations import CONFIGURATIONS, Configuration, target_of
from tests.conformance.test_tls import OURS as UNDER_TLS

CHECKS = {item.id: item for item in each_check()}
RULES = sorted({rule for item in CHECKS.values() for rule in item.proves if not requirement(rule).restates})
COMPLAINS = (Outcome.FAILED, Outcome.WARNED)
IN_A_PROCESS = {
    "leaving.descriptors-leak",
    "leaving.memory-leaks",
    "leaving.spins",
    "data.lost-on-kill",
    "shutdown.at-once",
    "shutdown.option-is-unsupported",
    "shutdown.request-gives-eio",
    "tls.leaving-spins",
    "tls.shutdown-truncates",
}
"""Mutants that only a server in a process of its own can have; test_process runs them."""
OURS = {
    name: made for name, made in MUTANTS.items() if made.checks and name not in IN_A_PROCESS and name not in UNDER_TLS
}


def configuration_for(made: Mutant) -> Configuration:
    if made.name.startswith("fault."):
        return CONFIGURATIONS["with-bad-range"]
    return CONFIGURATIONS["named" if made.name == "list.without-the-export" else "full"]


ODD_EXTENTS = [name for name in OURS if name.startswith("status.") and name != "status.many-extents"]
"""A million extents take seconds for each check: those that are named for that bug, and their relatives, will do."""


@pytest.mark.parametrize("name", ODD_EXTENTS)
def test_odd_extents_are_no_fault_of_the_checks(name: str) -> None:
    with target_of(CONFIGURATIONS["full"], change=OURS[name].apply) as target:
        results = [run_check(item, target) for item in CHECKS.values() if Capability.BASE_ALLOCATION in item.needs]
    assert [result.message for result in results if result.outcome is Outcome.ERROR] == []


@pytest.mark.parametrize(
    ("name", "check"), [("chunk.done-first", "data.shadow-copy"), ("size.minimum-128-kib", "df.mixed-range-is-data")]
)
def test_short_data_and_large_blocks_are_no_fault_of_the_checks(name: str, check: str) -> None:
    with target_of(CONFIGURATIONS["full"], change=OURS[name].apply) as target:
        assert run_check(CHECKS[check], target).outcome is not Outcome.ERROR


@pytest.mark.companions
@pytest.mark.parametrize("name", OURS)
def test_a_bug_is_seen_by_the_checks_named_for_it(name: str) -> None:
    made = OURS[name]
    with target_of(configuration_for(made), change=made.apply) as target:
        outcomes = {id: run_check(CHECKS[id], target).outcome for id in made.checks}
    assert {id: outcome for id, outcome in outcomes.items() if outcome not in COMPLAINS} == {}


def relatives(made: Mutant) -> list[str]:
    """The other checks of the families of the checks that are named for a mutant; `test_matrix` tries them all."""
    families = {CHECKS[id].family for id in made.checks}
    named = {*made.checks, *made.sometimes}
    return [
        item.id for item in CHECKS.values() if item.family in families and item.id not in named and not item.hostile
    ]


def complaints(made: Mutant, ids: list[str]) -> dict[str, str]:
    """What these checks find wrong about a fresh server that has the bug."""
    with target_of(configuration_for(made), change=made.apply) as target:
        results = [run_check(CHECKS[id], target) for id in ids]
    return {each.check: each.message for each in results if each.outcome in (*COMPLAINS, Outcome.ERROR)}


@pytest.mark.companions
@pytest.mark.parametrize("name", [name for name, made in OURS.items() if not made.spoils])
def test_a_bug_is_not_seen_by_related_checks_of_other_rules(name: str) -> None:
    """What counts is what a check says on a server of its own: some mutants wear out, or remember."""
    made = OURS[name]
    suspects = complaints(made, relatives(made))
    assert {id: text for suspect in suspects for id, text in complaints(made, [suspect]).items()} == {}


def test_every_check_has_a_bug_that_it_sees() -> None:
    seen = {id for made in MUTANTS.values() for id in made.checks}
    assert CHECKS.keys() - seen == set()


def test_every_rule_that_a_check_claims_is_broken_by_a_bug_that_such_a_check_sees() -> None:
    seen = {(rule, id) for made in MUTANTS.values() for rule in made.breaks for id in made.checks}
    claimed = {rule: {item.id for item in CHECKS.values() if rule in item.proves} for rule in RULES}
    assert [rule for rule, ids in claimed.items() if not any((rule, id) in seen for id in ids)] == []


def test_mutants_name_checks_and_requirements_that_exist() -> None:
    for made in OURS.values():
        assert [id for id in (*made.checks, *made.sometimes) if id not in CHECKS] == [], made.name
        assert [requirement(id).id for id in made.breaks] == list(made.breaks), made.name


def test_what_needs_a_process_is_known() -> None:
    assert all(any(Capability.OWN_PROCESS in CHECKS[id].needs for id in MUTANTS[name].checks) for name in IN_A_PROCESS)
