"""The checks of TLS on our own server: no complaint in any of the three modes, and each bug seen by the checks for
it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from nbdtest.conformance import Capability, ServerTarget, each_check, requirement, run_check
from nbdtest.fakeserver import Export, FakeServer, TLSMode
from nbdtest.fakeserver.connection import LEFT_OPEN
from nbdtest.fakeserver.contexts import Allocation
from nbdtest.fakeserver.mutants import MUTANTS
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.pki import PKIMaterial, PSKMaterial
from nbdtest.fixtures.sources import open_source
from nbdtest.net.clock import Deadline
from nbdtest.net.stream import Stream
from nbdtest.net.tls import X509, ClientCredentials, TLSContext, client_context, server_context, start_tls
from nbdtest.report.results import Outcome
from tests.conformance.configurations import QUIET_S, InProcess

FAMILIES = ("starttls", "tls")
ALL = {item.id: item for item in each_check()}
CHECKS = {id: item for id, item in ALL.items() if item.family in FAMILIES}
MADE_ELSEWHERE = ("starttls.answered-twice", "starttls.data-left", "tls.leaving-spins", "tls.shutdown-truncates")
"""Mutants that need no credentials, or a process of their own."""
OURS = {n: made for n, made in MUTANTS.items() if n.partition(".")[0] in FAMILIES and n not in MADE_ELSEWHERE}
COMPLAINS = (Outcome.FAILED, Outcome.WARNED, Outcome.ERROR)

Kit = Callable[[str], tuple[TLSContext, ClientCredentials]]


@dataclass
class WithTLS(InProcess):
    """A fake server in this process, with credentials for it."""

    credentials: Any = field(default=None, kw_only=True)

    @property
    def can_tls(self) -> bool:  # type: ignore[override]  # a field there
        return True

    @can_tls.setter
    def can_tls(self, value: bool) -> None:
        pass

    def start_tls(self, stream: Stream, timeout_s: float) -> Stream:
        return start_tls(stream, client_context(self.credentials), Deadline(timeout_s))


@pytest.fixture
def kit(nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> Kit:
    """The server's and the client's side of credentials: keys, a certificate of the server, or certificates of both."""

    def kit(kind: str) -> tuple[TLSContext, ClientCredentials]:
        if kind == "psk":
            return server_context(nbd_psk.server()), nbd_psk.client()
        client = X509(directory=str(nbd_pki.with_crl), hostname="localhost")
        return server_context(nbd_pki.server(verify_peer=kind == "mutual", crl=True)), client

    return kit


@contextmanager
def target_of(
    kit: tuple[TLSContext, ClientCredentials], mode: TLSMode, change: Callable[[FakeServer], None] | None = None
) -> Iterator[ServerTarget]:
    """A target on a fresh fake server with an export in clear, unless TLS is insisted on, and one that needs TLS."""
    context, credentials = kit

    def begin() -> FakeServer:
        exports = (
            Export("", size=1 << 20, contexts=(Allocation(),)),
            Export("protected", size=1 << 20, contexts=(Allocation(),), tls_only=True),
        )
        server = FakeServer(*exports, tls=context, tls_mode=mode, tolerate=["*"])
        if change is not None:
            change(server)
        return server.start()

    source = WithTLS(begin(), begin, credentials=credentials)
    try:
        yield ServerTarget(source, timeout_s=2.0, quiet_s=QUIET_S)
    finally:
        source.close()


@pytest.mark.parametrize("kind", ["psk", "x509", "mutual"])
@pytest.mark.parametrize("mode", TLSMode)
def test_no_complaint_about_the_correct_server(mode: TLSMode, kind: str, kit: Kit) -> None:
    with target_of(kit(kind), mode) as target:
        results = {id: run_check(item, target) for id, item in CHECKS.items()}
    assert {id: result.message for id, result in results.items() if result.outcome in COMPLAINS} == {}


def test_every_check_runs_in_one_of_the_modes(kit: Kit) -> None:
    skipped = set(CHECKS)
    for mode in TLSMode:
        with target_of(kit("psk"), mode) as target:
            skipped &= {id for id, item in CHECKS.items() if run_check(item, target).outcome is Outcome.SKIPPED}
    # Our server tells in clear which exports do not exist, unless it is a mutant.
    with target_of(kit("mutual"), TLSMode.REQUIRED) as target:
        skipped -= {id for id in skipped if run_check(CHECKS[id], target).outcome is Outcome.PASSED}
    assert skipped == {"tls.hidden-exports-stay-hidden"}


def test_a_connection_is_given_up_without_a_word_of_tls(kit: Kit) -> None:
    with target_of(kit("psk"), TLSMode.REQUIRED) as target:
        assert target.has(Capability.FORCED_TLS)
        with target.peer.transmitting():
            pass
        assert isinstance(target.source, WithTLS)
        target.source.server.stop()
        assert LEFT_OPEN in [record.summary for record in target.source.server.journal.transcript()]


@pytest.mark.parametrize("name", OURS)
def test_a_bug_is_seen_by_the_checks_named_for_it(name: str, kit: Kit) -> None:
    made = OURS[name]
    with target_of(kit("mutual" if made.certificates else "psk"), TLSMode.SELECTIVE, made.apply) as target:
        results = {id: run_check(ALL[id], target) for id in made.checks}
    silent = {id: result for id, result in results.items() if result.outcome not in (Outcome.FAILED, Outcome.WARNED)}
    assert {id: f"{result.outcome}: {result.message}" for id, result in silent.items()} == {}


@pytest.mark.parametrize("name", [name for name, made in OURS.items() if not made.spoils])
def test_a_bug_is_not_seen_by_the_other_checks_of_tls(name: str, kit: Kit) -> None:
    made = OURS[name]
    with target_of(kit("mutual" if made.certificates else "psk"), TLSMode.SELECTIVE, made.apply) as target:
        results = {id: run_check(item, target) for id, item in CHECKS.items() if id not in made.checks}
    assert {id: result.message for id, result in results.items() if result.outcome in COMPLAINS} == {}


@pytest.mark.parametrize("name", [name for name, made in OURS.items() if made.certificates])
def test_a_bug_about_certificates_is_seen_in_a_process_of_its_own(name: str) -> None:
    with open_source(parse_server(f"builtin:{name}")) as source:
        target = ServerTarget(source)
        outcomes = {id: run_check(ALL[id], target).outcome for id in OURS[name].checks}
    assert set(outcomes.values()) <= {Outcome.FAILED, Outcome.WARNED}


def test_every_check_has_a_bug_that_it_sees() -> None:
    seen = {id for made in MUTANTS.values() for id in made.checks}
    assert set(CHECKS) - seen == set()


def test_mutants_name_checks_and_requirements_that_exist() -> None:
    for made in OURS.values():
        assert set(made.checks) <= set(ALL), made.name
        assert [requirement(id).id for id in made.breaks] == list(made.breaks), made.name
