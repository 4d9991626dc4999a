"""The kernel as a client under test: the whole suite of checks of clients, as far as they apply to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kernel_client.sh")
LARGEST = Path("/sys/block/nbd0/queue/max_sectors_kb")
KERNELS = {"client-reply.shutdown": "it goes on after ESHUTDOWN: to it all errors are alike"}
NBD_CLIENTS = {
    "client-handshake.is-not-dropped": "it gives up without ABORT",
    "client-handshake.no-unknown-flags": "it sets FIXED_NEWSTYLE although the server does not offer it",
    "client-option.refusal-ends-with-abort": "it gives up without ABORT",
    "client-option.shutdown-of-go": "it gives up without ABORT",
}
WARNINGS = {
    "client-reply.unknown-errors": "the kernel's: the error meets its own READ for partitions, which it repeats",
    "client-option.asks-for-block-sizes": "nbd-client's: GO without INFO_BLOCK_SIZE",
    "client-option-reply.ack-without-export": "nbd-client's: it takes it",
    "client-option-reply.other-option": "nbd-client's: it takes it",
    "client-option-reply.short-export": "nbd-client's: it takes it",
}
LARGE_REQUESTS = {"client-request.honours-maximum-payload": "nbd-client does not ask for block sizes"}
"""Linux 6.12 does not stop at 128 KiB, as 6.1 does."""


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("nbd-client") is None, reason="nbd-client is not installed")
def test_only_known_complaints(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider"),
        *("--pyargs", "nbdtest.conformance", f"--nbd-report={report}"),
        f"--nbd-client=sh {SCRIPT} {{socket}} {{file}}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert report.exists(), done.stdout + done.stderr
    results = {row["check"]: row["outcome"] for row in json.loads(report.read_text())["results"]}
    known = KERNELS | NBD_CLIENTS | (LARGE_REQUESTS if int(LARGEST.read_text()) > 128 else {})
    outcomes = Counter(results.values())
    print(f"Linux {os.uname().release}: {dict(outcomes)}")  # what docs/kernel.md says
    assert {check for check, outcome in results.items() if outcome in ("failed", "error")} == set(known), done.stdout
    assert {check for check, outcome in results.items() if outcome == "warned"} == set(WARNINGS), done.stdout
    assert outcomes["passed"] > 90
