"""The suite gives no false alarm on a client that does everything right."""

from __future__ import annotations

import pytest

from nbdtest.conformance import each_check
from nbdtest.conformance.client_runner import run_client_check
from nbdtest.conformance.client_target import ClientTarget
from nbdtest.report.results import Outcome
from tests.conformance.client.plain_client import PlainSource

CHECKS = {item.id: item for item in each_check("client")}


TLS = ("client-tls.", "client-option.starttls-without-data", "client-option.no-starttls-in-tls")
"""Checks that need a client with credentials."""


@pytest.fixture(scope="module")
def right() -> ClientTarget:
    return ClientTarget(PlainSource(frozenset({"uses two connections"})), timeout_s=10)


@pytest.mark.parametrize("id", [id for id in CHECKS if not id.startswith(TLS)])
def test_no_false_alarm(id: str, right: ClientTarget) -> None:
    result = run_client_check(CHECKS[id], right)
    assert result.outcome is Outcome.PASSED, f"{result.message}\n{result.transcript}"
    assert not result.message
