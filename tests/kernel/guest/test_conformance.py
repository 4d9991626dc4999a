"""The kernel as a client under test: the suite's checks of clients, as far as they are about the transmission phase."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kernel_client.sh")
EXPECTED = {"client-reply.shutdown": "the kernel goes on after ESHUTDOWN: to it all errors are alike"}


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("nbd-client") is None, reason="nbd-client is not installed")
def test_the_kernel_takes_replies_as_the_protocol_says(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider"),
        *("--pyargs", "nbdtest.conformance", "--nbd-checks=client-reply", f"--nbd-report={report}"),
        f"--nbd-client=sh {SCRIPT} {{socket}} {{file}}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert report.exists(), done.stdout + done.stderr
    results = {row["check"]: row["outcome"] for row in json.loads(report.read_text())["results"]}
    assert {check for check, outcome in results.items() if outcome in ("failed", "error")} == set(EXPECTED), done.stdout
    assert list(results.values()).count("passed") > 4
