"""Every mutant against the whole suite: nobody complains but the checks that are declared for it.

`test_mutants` holds each mutant against its own checks and their relatives in every run; this takes many minutes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from nbdtest.conformance import Capability, Check, ServerTarget, each_check, run_check
from nbdtest.fakeserver import TLSMode
from nbdtest.fakeserver.mutants import MUTANTS, Mutant
from nbdtest.fixtures.pki import PKIMaterial, PSKMaterial
from nbdtest.net.tls import server_context
from nbdtest.report.results import Outcome, Result
from tests.conformance import test_process, test_tls
from tests.conformance.configurations import target_of
from tests.conformance.test_mutants import configuration_for

pytestmark = pytest.mark.nightly

CHECKS = {item.id: item for item in each_check()}
COMPLAINS = (Outcome.FAILED, Outcome.WARNED, Outcome.ERROR)
PATIENT_S = 2.0
HASTY_S = 0.6
"""Enough for nearly every answer; who complains is asked again, with patience."""
BLUNT_S = 0.1
"""For servers that leave nearly everything unanswered."""


class Served:
    """One mutant, to be served afresh as often as needed."""

    def __init__(self, made: Mutant, psk: PSKMaterial, pki: PKIMaterial) -> None:
        self.made = made
        self._psk, self._pki = psk, pki
        self._of_tls = made.name in test_tls.OURS

    def checks(self) -> list[Check]:
        """The checks that can be run on the configuration that the mutant is served in."""
        only = () if self._of_tls else configuration_for(self.made).only
        return [item for item in CHECKS.values() if not only or item.family in only]

    def complaints(self, checks: list[Check], timeout_s: float) -> dict[str, Result]:
        """Run these checks on a fresh server, and keep what was found wrong."""
        with self._target() as target:
            target.timeout_s = timeout_s
            results = [run_check(item, target) for item in checks]
        return {result.check: result for result in results if result.outcome in COMPLAINS}

    def _target(self) -> AbstractContextManager[ServerTarget]:
        if any(Capability.OWN_PROCESS in CHECKS[id].needs for id in self.made.checks):
            return test_process.target_of(f"builtin:{self.made.name}")
        if not self._of_tls:
            return target_of(configuration_for(self.made), change=self.made.apply)
        if self.made.certificates:
            kit = (server_context(self._pki.server(verify_peer=True)), self._pki.client(hostname="localhost"))
            return test_tls.target_of(kit, TLSMode.SELECTIVE, self.made.apply)
        kit_of_keys = (server_context(self._psk.server()), self._psk.client())
        return test_tls.target_of(kit_of_keys, TLSMode.SELECTIVE, self.made.apply)


@pytest.fixture
def served(name: str, nbd_psk: PSKMaterial, nbd_pki: PKIMaterial) -> Served:
    return Served(MUTANTS[name], nbd_psk, nbd_pki)


@pytest.mark.parametrize("name", [name for name, made in MUTANTS.items() if not made.spoils])
def test_nobody_complains_but_the_declared_checks(served: Served) -> None:
    """What counts is what a check says on a server of its own: some mutants wear out, or remember."""
    declared = {*served.made.checks, *served.made.sometimes}
    suspects = [CHECKS[id] for id in served.complaints(served.checks(), HASTY_S) if id not in declared]
    complaints = [served.complaints([item], PATIENT_S) for item in suspects]
    assert {id: result.message for each in complaints for id, result in each.items()} == {}


@pytest.mark.parametrize("name", [name for name, made in MUTANTS.items() if made.spoils])
def test_checks_complain_about_the_server_and_never_fail_themselves(served: Served) -> None:
    found = served.complaints(served.checks(), BLUNT_S)
    assert {id: result.message for id, result in found.items() if "fault of the harness" in result.message} == {}
