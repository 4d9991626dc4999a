"""Checks that need the server in a process of its own, on the fake server as a program, correct and wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nbdtest.conformance import Capability, ServerTarget, each_check, run_check
from nbdtest.fakeserver.mutants import MUTANTS
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.report.results import Outcome
from tests.conformance.test_mutants import IN_A_PROCESS
from tests.conformance.test_mutants import OURS as IN_PROCESS
from tests.conformance.test_tls import OURS as UNDER_TLS_MUTANTS

CHECKS = {item.id: item for item in each_check()}
COMPLAINS = (Outcome.FAILED, Outcome.WARNED)
WRONG = {
    "leaving.descriptors-leak": ["leaving.leaks-nothing"],
    "leaving.memory-leaks": ["leaving.leaks-nothing"],
    "leaving.spins": ["leaving.burns-no-cpu"],
    "data.lost-on-kill": ["data.flush-survives-a-kill", "data.fua-survives-a-kill"],
    "shutdown.at-once": ["shutdown.option-is-refused", "shutdown.requests-are-finished"],
    "shutdown.option-is-unsupported": ["shutdown.option-is-refused"],
    "shutdown.request-gives-eio": ["shutdown.request-is-told"],
    "tls.leaving-spins": ["leaving.burns-no-cpu-after-tls"],
    "tls.shutdown-truncates": ["shutdown.closes-tls"],
}
UNDER_TLS = f"listen: {sys.executable} -m nbdtest serve --unix {{unix}} --file {{disk}} --tls-psk {{psk}}"


@contextmanager
def target_of(spec: str) -> Iterator[ServerTarget]:
    """A target on the fake server as a program."""
    with open_source(parse_server(spec)) as source:
        yield ServerTarget(source)


def outcomes(spec: str, ids: list[str]) -> dict[str, Outcome]:
    with target_of(spec) as target:
        return {id: run_check(CHECKS[id], target).outcome for id in ids}


@pytest.mark.parametrize("spec", ["builtin", UNDER_TLS], ids=["in clear", "under TLS"])
def test_a_correct_server_is_not_complained_about(spec: str) -> None:
    ids = [id for named in WRONG.values() for id in named]
    needs_tls = {id for id in ids if Capability.TLS_LAYER in CHECKS[id].needs} if spec == "builtin" else set()
    assert outcomes(spec, ids) == {id: Outcome.SKIPPED if id in needs_tls else Outcome.PASSED for id in ids}


def test_every_mutant_is_run_by_some_test() -> None:
    assert set(WRONG) == IN_A_PROCESS
    assert MUTANTS.keys() - {*IN_PROCESS, *UNDER_TLS_MUTANTS, *WRONG} == set()


@pytest.mark.parametrize("name", WRONG)
def test_a_bug_is_seen_by_the_checks_named_for_it_and_by_no_relatives(name: str) -> None:
    assert set(WRONG[name]) <= set(MUTANTS[name].checks)
    related = {id for named in WRONG.values() for id in named if CHECKS[id].family == name.partition(".")[0]}
    seen = outcomes(f"builtin:{name}", sorted(related | set(WRONG[name])))
    assert {id for id, outcome in seen.items() if outcome in COMPLAINS} == set(WRONG[name])
