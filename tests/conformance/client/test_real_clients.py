"""The checks on real clients: every complaint is one that is known, with evidence."""

from __future__ import annotations

import shutil

import pytest

from nbdtest.conformance import each_check
from nbdtest.conformance.client_runner import run_client_check
from nbdtest.conformance.client_target import ClientTarget
from nbdtest.fixtures.client_command import CommandSource, parse_clients
from nbdtest.fixtures.deviations import judged, packaged_deviations
from nbdtest.report.results import Outcome

pytestmark = pytest.mark.interop

COMMANDS = (
    "nbdinfo {uri}",
    "nbdcopy {uri} {file}",
    "nbdcopy {file} {uri}",
    'qemu-io -f raw -c "read 0 64k" -c "write 0 4k" -c flush {uri}',
)


@pytest.mark.parametrize("command", COMMANDS)
def test_only_known_complaints(command: str) -> None:
    (spec,) = parse_clients([command])
    if shutil.which(spec.words[0]) is None:
        pytest.skip(f"{spec.words[0]} is not installed")
    source = CommandSource(spec)
    target = ClientTarget(source, timeout_s=5)
    deviations = packaged_deviations()
    bad = (Outcome.FAILED, Outcome.WARNED, Outcome.ERROR)
    found = {}
    for check in each_check("client"):
        result = judged(run_client_check(check, target), target.info(), deviations)
        if result.outcome in bad and not result.expected:
            found[check.id] = result.message
    assert found == {}
