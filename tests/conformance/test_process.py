"""Checks that need the server in a process of its own, on the fake server as a program, correct and wrong."""

from __future__ import annotations

import pytest

from nbdtest.conformance import ServerTarget, each_check, run_check
from nbdtest.fakeserver.mutants import MUTANTS
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.report.results import Outcome

CHECKS = {item.id: item for item in each_check()}
COMPLAINS = (Outcome.FAILED, Outcome.WARNED)
WRONG = {
    "leaving.descriptors-leak": ["leaving.leaks-nothing"],
    "leaving.spins": ["leaving.burns-no-cpu"],
    "data.lost-on-kill": ["data.flush-survives-a-kill", "data.fua-survives-a-kill"],
    "shutdown.at-once": ["shutdown.option-is-refused", "shutdown.requests-are-finished"],
    "shutdown.option-is-unsupported": ["shutdown.option-is-refused"],
    "shutdown.request-gives-eio": ["shutdown.request-is-told"],
}


def outcomes(spec: str, ids: list[str]) -> dict[str, Outcome]:
    with open_source(parse_server(spec)) as source:
        target = ServerTarget(source)
        return {id: run_check(CHECKS[id], target).outcome for id in ids}


def test_a_correct_server_is_not_complained_about() -> None:
    ids = [id for named in WRONG.values() for id in named]
    assert outcomes("builtin", ids) == dict.fromkeys(ids, Outcome.PASSED)


@pytest.mark.parametrize("name", WRONG)
def test_a_bug_is_seen_by_the_checks_named_for_it_and_by_no_relatives(name: str) -> None:
    assert set(WRONG[name]) <= set(MUTANTS[name].checks)
    related = {id for named in WRONG.values() for id in named if CHECKS[id].family == name.partition(".")[0]}
    seen = outcomes(f"builtin:{name}", sorted(related | set(WRONG[name])))
    assert {id for id, outcome in seen.items() if outcome in COMPLAINS} == set(WRONG[name])
