"""The checks on real clients: every complaint is one that is known, with evidence."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from nbdtest.conformance import Check, each_check
from nbdtest.conformance.client_runner import run_client_check
from nbdtest.conformance.client_target import ClientTarget
from nbdtest.fixtures.client_command import CommandSource, parse_clients
from nbdtest.fixtures.deviations import judged, packaged_deviations
from nbdtest.report.results import Outcome
from tests.releases import Release, every_release

pytestmark = pytest.mark.interop

WITH_CREDENTIALS = ("client-tls.", "client-option.starttls-without-data", "client-option.no-starttls-in-tls")

COMMANDS = (
    "nbdinfo {uri}",
    "nbdcopy {uri} {file}",
    "nbdcopy {file} {uri}",
    'qemu-io -f raw -c "read 0 64k" -c "write 0 4k" -c flush {uri}',
)


OVER_TLS = (
    "nbdinfo nbds://nbdtest@localhost:{port}/?tls-psk-file={psk}",
    "nbdcopy nbds://localhost:{port}/?tls-certificates={pki} {file}",
    "qemu-io --object tls-creds-x509,id=tls0,endpoint=client,dir={pki} -c 'read 0 64k' "
    "--image-opts driver=nbd,path={socket},tls-creds=tls0,tls-hostname=localhost",
)


def unforeseen(command: str, checks: Iterable[Check]) -> dict[str, str]:
    """What these checks complain of that no packaged list foresees."""
    (spec,) = parse_clients([command])
    source = CommandSource(spec)
    target = ClientTarget(source, timeout_s=5)
    deviations = packaged_deviations()
    bad = (Outcome.FAILED, Outcome.WARNED, Outcome.ERROR)
    found = {}
    try:
        for check in checks:
            result = judged(run_client_check(check, target), target.info(), deviations)
            if (result.outcome in bad and not result.expected) or result.unexpected_pass:
                found[check.id] = result.message
    finally:
        source.close()
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_only_known_complaints(command: str) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    assert unforeseen(command, each_check("client")) == {}


@every_release
@pytest.mark.parametrize("command", OVER_TLS)
def test_only_known_complaints_about_tls(
    command: str, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", release.search_path(tmp_path / "bin"))
    checks = [check for check in each_check("client") if check.id.startswith(WITH_CREDENTIALS)]
    assert unforeseen(command, checks) == {}
