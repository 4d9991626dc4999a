"""The suite on the correct fake server: nothing is said of it, and every check is really run somewhere."""

from __future__ import annotations

import pytest

from nbdtest.conformance import Capability, each_check, run_check
from nbdtest.report.results import Outcome
from nbdtest.wire import Sender
from tests.conformance.configurations import CONFIGURATIONS, target_of

NOT_IN_PROCESS = {Capability.OWN_PROCESS, Capability.TCP}
"""What a server in this process does not have."""
ELSEWHERE = ("tls.", "starttls.")
"""Families that are tried on servers with credentials, in their own tests."""

SKIPPED_ON: dict[str, set[str]] = {}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_correct_server_is_never_complained_about(name: str) -> None:
    configuration = CONFIGURATIONS[name]
    with target_of(configuration) as target:
        results = [
            run_check(item, target)
            for item in each_check()
            if not configuration.only or item.family in configuration.only
        ]
    SKIPPED_ON[name] = {result.check for result in results if result.outcome is Outcome.SKIPPED}
    said = {
        result.check: result.message for result in results if result.outcome not in (Outcome.PASSED, Outcome.SKIPPED)
    }
    assert said == {}
    assert all(result.message for result in results if result.outcome is Outcome.SKIPPED), "a skip gives its reason"


def test_every_check_runs_on_some_configuration() -> None:
    if SKIPPED_ON.keys() != CONFIGURATIONS.keys():
        pytest.skip("needs the results of all configurations, in one process")
    expected = {item.id for item in each_check() if set(item.needs) & NOT_IN_PROCESS or item.id.startswith(ELSEWHERE)}
    everywhere = {item.id for item in each_check()}
    for name, skipped in SKIPPED_ON.items():
        only = CONFIGURATIONS[name].only
        everywhere &= skipped | {item.id for item in each_check() if only and item.family not in only}
    assert everywhere - expected == set()


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
