"""The checks of TLS on clients with credentials: no false alarm, and what they complain of."""

from __future__ import annotations

import pytest

from nbdtest.conformance import each_check
from nbdtest.conformance.client_runner import run_client_check
from nbdtest.conformance.client_target import ClientTarget
from nbdtest.fixtures.pki import Flaw, PKIMaterial
from nbdtest.net.tls import client_context, server_context
from nbdtest.report.results import Outcome
from tests.conformance.client.plain_client import PlainSource
from tests.conformance.client.test_mutants import WITH_CREDENTIALS

CHECKS = {item.id: item for item in each_check("client") if item.id.startswith(WITH_CREDENTIALS)}
CERTIFICATES = tuple(id for id in CHECKS if id.startswith("client-tls.certificate-"))
MUTANTS = {
    "puts data into STARTTLS": ("client-option.starttls-without-data",),
    "starts TLS in TLS": ("client-option.no-starttls-in-tls",),
    "negotiates before TLS": ("client-tls.first-option", "client-tls.stateful-options-later"),
    "opens with EXPORT_NAME & knows no extended headers": ("client-tls.go",),
    "starts TLS in spite of a refusal": ("client-tls.refused",),
    "trusts everybody": CERTIFICATES,
}


def target(pki: PKIMaterial, habits: str = "", *, timeout_s: float = 10) -> ClientTarget:
    trusting = "trusts everybody" in habits
    source = PlainSource(
        frozenset(habits.split(" & ")),
        tls=server_context(pki.server()),
        flawed=lambda flaw: server_context(pki.server(flaw=Flaw(flaw))),
        credentials=client_context(pki.client(hostname="localhost", verify_peer=not trusting)),
    )
    return ClientTarget(source, timeout_s=timeout_s)


def test_no_false_alarm(nbd_pki: PKIMaterial) -> None:
    right = target(nbd_pki)
    results = {id: run_client_check(check, right) for id, check in CHECKS.items()}
    assert {id: r.message for id, r in results.items() if r.outcome is not Outcome.PASSED} == {}


@pytest.mark.parametrize("habits", MUTANTS)
def test_a_habit_is_seen_by_the_checks_named_for_it(habits: str, nbd_pki: PKIMaterial) -> None:
    wrong = target(nbd_pki, habits, timeout_s=1.5)
    results = {id: run_client_check(CHECKS[id], wrong) for id in MUTANTS[habits]}
    complains = (Outcome.FAILED, Outcome.WARNED)
    assert {id: (r.outcome, r.message) for id, r in results.items() if r.outcome not in complains} == {}
