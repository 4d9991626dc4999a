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
from tests.real_servers.releases import RELEASES, Release

pytestmark = pytest.mark.interop

PROGRAM_OF = {spec: spec.partition(":")[0] for spec in PRESETS}
REQUIRED = {"nbdkit", "qemu-nbd", "nbd-server"}


def report_on(spec: str, release: Release, directory: Path) -> dict[str, object]:
    """Run the suite on a preset of this release, and return the JSON report."""
    path = directory / "report.json"
    wrappers = directory / "bin"
    wrappers.mkdir()
    command = [sys.executable, "-m", "nbdtest", "check", spec, "--expect", "packaged", "--report", str(path)]
    environment = os.environ | {"PATH": release.path(wrappers)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    report: dict[str, object] = json.loads(path.read_text())
    return report


def is_surprise(result: dict[str, str | bool]) -> bool:
    """Whether nothing foresees this result, and it is not the death of the server."""
    complained = result["outcome"] in ("failed", "warned", "error") and not result["expected"]
    killed = "was killed by SIG" in str(result["message"])
    return (complained or bool(result["unexpected_pass"])) and not killed


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
@pytest.mark.parametrize("spec", PRESETS)
def test_every_complaint_is_foreseen(spec: str, release: Release, tmp_path: Path) -> None:
    program = PROGRAM_OF[spec]
    if not release.has(program):
        assert program not in REQUIRED, f"{program} is not installed: apt install {PRESETS[spec].package}"
        pytest.skip(f"{program} is not installed ({release.name})")
    report = report_on(spec, release, tmp_path)
    results = report["results"]
    assert isinstance(results, list)
    assert [result["outcome"] for result in results].count("passed") > 50
    assert [f"{result['check']}: {result['message']}" for result in results if is_surprise(result)] == []
