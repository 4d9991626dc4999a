"""The whole suite on released servers: the packaged lists, which give evidence, foresee every complaint.

Death of a server is let pass here: which requests kill a released server is not written down in this repository.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbdtest.fixtures.presets import PRESETS
from tests.releases import Release, every_release

pytestmark = pytest.mark.interop

NBDKIT_WITH_KEYS = "listen: nbdkit -f -U {unix} --tls=require --tls-psk={psk} memory 16M"
REQUIRED = {"nbdkit", "qemu-nbd", "nbd-server"}


def is_over_tls(spec: str) -> bool:
    return spec.endswith((":psk", ":x509")) or spec == NBDKIT_WITH_KEYS


SPECS = [NBDKIT_WITH_KEYS if spec == "nbdkit:psk" else spec for spec in PRESETS]
"""The presets; for the one that serves a file with keys there is the command line of docs/tls.md."""
SPECS.sort(key=is_over_tls, reverse=True)  # the ones that take long begin first


def report_on(spec: str, release: Release, directory: Path) -> dict[str, object]:
    """Run the suite on a server of this release, and return the JSON report."""
    path = directory / "report.json"
    command = [sys.executable, "-m", "nbdtest", "check", spec, "--expect", "packaged", "--report", str(path)]
    environment = os.environ | {"PATH": release.search_path(directory / "bin")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    report: dict[str, object] = json.loads(path.read_text())
    return report


def is_surprise(result: dict[str, str | bool]) -> bool:
    """Whether nothing foresees this result, and it is not the death of the server."""
    complained = result["outcome"] in ("failed", "warned", "error") and not result["expected"]
    killed = "was killed by SIG" in str(result["message"])
    return (complained or bool(result["unexpected_pass"])) and not killed


@every_release
@pytest.mark.parametrize("spec", SPECS)
def test_every_complaint_is_foreseen(spec: str, release: Release, tmp_path: Path) -> None:
    program = "nbdkit" if spec == NBDKIT_WITH_KEYS else spec.partition(":")[0]
    if program not in REQUIRED and release.find(program) is None:
        pytest.skip(f"{program} is not installed ({release.name})")
    release.command(program)
    report = report_on(spec, release, tmp_path)
    results = report["results"]
    assert isinstance(results, list)
    outcomes = {result["check"]: result["outcome"] for result in results}
    assert list(outcomes.values()).count("passed") > 50
    if is_over_tls(spec):
        assert outcomes["tls.handshake-follows"] == "passed"
    assert [f"{result['check']}: {result['message']}" for result in results if is_surprise(result)] == []
