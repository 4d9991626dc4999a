"""The suite on the correct fake server: nothing is said of it. That each check can complain, mutants show."""

from __future__ import annotations

import pytest

from nbdtest.conformance import each_check, run_check
from nbdtest.report.results import Outcome
from nbdtest.wire import Sender
from tests.conformance.configurations import CONFIGURATIONS, target_of


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_correct_server_is_never_complained_about(name: str) -> None:
    configuration = CONFIGURATIONS[name]
    with target_of(configuration) as target:
        results = [
            run_check(item, target)
            for item in each_check()
            if not configuration.only or item.family in configuration.only
        ]
    said = {
        result.check: result.message for result in results if result.outcome not in (Outcome.PASSED, Outcome.SKIPPED)
    }
    assert said == {}
    assert all(result.message for result in results if result.outcome is Outcome.SKIPPED), "a skip gives its reason"


def sent_with(seed: int) -> list[bytes]:
    """All that two checks send: one that draws as it goes, and one that looks at answers gathered for all."""
    checks = {item.id: item for item in each_check()}
    sent = []
    with target_of(CONFIGURATIONS["full"], seed=seed) as target:
        for id in ("data.shadow-copy", "chunk.success-is-whole"):
            run_check(checks[id], target)
            sent += [record.data for record in target.transcript if record.sender is Sender.CLIENT]
    return sent


def test_a_run_sends_the_same_bytes_again_with_the_same_seed_alone() -> None:
    assert sent_with(7) == sent_with(7)
    assert sent_with(7) != sent_with(8)
