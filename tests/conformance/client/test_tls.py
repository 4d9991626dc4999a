"""The checks of TLS on clients with credentials: no false alarm, and what they complain of."""

from __future__ import annotations

import ssl
from dataclasses import replace

import pytest

from nbdtest.conformance import each_check
from nbdtest.conformance.client_runner import run_client_check
from nbdtest.conformance.client_source import NO_KEY, WRONG_KEY
from nbdtest.conformance.client_target import ClientTarget
from nbdtest.fixtures.pki import Flaw, PKIMaterial, PSKMaterial
from nbdtest.net.tls import X509, ServerPSK, VersionRange, client_context, server_context
from nbdtest.report.results import Outcome
from tests.conformance.client.plain_client import PlainSource
from tests.conformance.client.test_mutants import WITH_CREDENTIALS

CHECKS = {item.id: item for item in each_check("client") if item.id.startswith(WITH_CREDENTIALS)}
KEYS = ("client-tls.wrong-key", "client-tls.certificate-instead-of-key")
CERTIFICATES = tuple(id for id in CHECKS if id.startswith("client-tls.certificate-") and id not in KEYS)
MUTANTS = {
    "puts data into STARTTLS": ("client-option.starttls-without-data",),
    "starts TLS in TLS": ("client-option.no-starttls-in-tls",),
    "negotiates before TLS": ("client-tls.first-option", "client-tls.stateful-options-later"),
    "opens with EXPORT_NAME & knows no extended headers": ("client-tls.go",),
    "starts TLS in spite of a refusal": ("client-tls.refused",),
    "trusts everybody": CERTIFICATES,
    "gives up when TLS is demanded": ("client-tls.forced",),
    "describes the export before TLS": ("client-tls.selective",),
    "tries again without TLS": (
        "client-tls.goes-on-in-clear",
        "client-tls.cut-handshake",
        "client-tls.damaged-record",
        "client-tls.plaintext-in-handshake",
        "client-tls.plaintext-in-session",
    ),
    "keeps what came in clear": ("client-tls.plaintext-behind-ack",),
    "crashes at a header in several records": ("client-tls.single-byte-records",),
    "crashes at a session ticket": ("client-tls.session-tickets",),
    "does not close TLS": ("client-tls.closed-after-abort", "client-tls.closed-at-the-end"),
    "knows only TLS 1.2": ("client-tls.version-1-3",),
    "knows only TLS 1.3": ("client-tls.version-1-2",),
}
KEY_MUTANTS = {
    "tries again without TLS": KEYS,
    "takes a certificate for a key": ("client-tls.certificate-instead-of-key",),
}
VERSIONS = {
    "knows only TLS 1.2": VersionRange(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
    "knows only TLS 1.3": VersionRange(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
}


def target(pki: PKIMaterial, habits: str = "", *, timeout_s: float = 10) -> ClientTarget:
    trusting = "trusts everybody" in habits
    source = PlainSource(
        frozenset(habits.split(" & ")),
        tls=server_context(pki.server()),
        flawed=lambda flaw: server_context(pki.server(flaw=Flaw(flaw))),
        credentials=client_context(pki.client(hostname="localhost", verify_peer=not trusting), VERSIONS.get(habits)),
    )
    return ClientTarget(source, timeout_s=timeout_s)


def target_with_keys(psk: PSKMaterial, pki: PKIMaterial, habits: str = "") -> ClientTarget:
    credentials = client_context(psk.client())
    if "takes a certificate for a key" in habits:  # as who sets up a key in Python without CERT_REQUIRED
        credentials = replace(credentials, credentials=X509(verify_peer=False))
        credentials._shared.verify_mode = ssl.CERT_NONE
    wrong = {WRONG_KEY: ServerPSK.from_file(psk.wrong_key_file), NO_KEY: pki.server()}
    source = PlainSource(
        frozenset(habits.split(" & ")),
        tls=server_context(psk.server()),
        flawed=lambda flaw: server_context(wrong[flaw]) if flaw in wrong else None,
        credentials=credentials,
    )
    return ClientTarget(source, timeout_s=10)


def test_no_false_alarm(nbd_pki: PKIMaterial) -> None:
    right = target(nbd_pki)
    results = {id: run_client_check(check, right) for id, check in CHECKS.items() if id not in KEYS}
    assert {id: r.message for id, r in results.items() if r.outcome is not Outcome.PASSED} == {}


def test_no_false_alarm_with_keys(nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> None:
    right = target_with_keys(nbd_psk, nbd_pki)
    results = {id: run_client_check(check, right) for id, check in CHECKS.items()}
    wanted = {id: Outcome.SKIPPED if id in CERTIFICATES else Outcome.PASSED for id in CHECKS}
    assert {id: r.message for id, r in results.items() if r.outcome is not wanted[id]} == {}


@pytest.mark.parametrize("habits", KEY_MUTANTS)
def test_a_habit_with_keys_is_seen_by_the_checks_named_for_it(
    habits: str, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial
) -> None:
    wrong = target_with_keys(nbd_psk, nbd_pki, habits)
    results = {id: run_client_check(CHECKS[id], wrong) for id in KEY_MUTANTS[habits]}
    assert {id: (r.outcome, r.message) for id, r in results.items() if r.outcome is not Outcome.FAILED} == {}


@pytest.mark.parametrize("habits", MUTANTS)
def test_a_habit_is_seen_by_the_checks_named_for_it(habits: str, nbd_pki: PKIMaterial) -> None:
    wrong = target(nbd_pki, habits, timeout_s=1.5)
    results = {id: run_client_check(CHECKS[id], wrong) for id in MUTANTS[habits]}
    complains = (Outcome.FAILED, Outcome.WARNED)
    assert {id: (r.outcome, r.message) for id, r in results.items() if r.outcome not in complains} == {}


def test_every_check_has_a_habit_that_it_sees() -> None:
    assert set(CHECKS) - {id for ids in (*MUTANTS.values(), *KEY_MUTANTS.values()) for id in ids} == set()
