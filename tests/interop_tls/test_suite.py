"""The conformance suite over TLS on the servers of others: the command lines of the documentation, and what comes of
them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop

NBDKIT = "listen: nbdkit -f -U {unix} --tls=require"
QEMU_NBD = "listen: qemu-nbd -t -e 8 -f raw -k {unix} -x '' --tls-creds tls0"
SERVE = f"listen: {sys.executable} -m nbdtest serve --unix {{unix}} --file {{disk}}"
SERVERS = {
    "nbdkit with a key": (f"{NBDKIT} --tls-psk={{psk}} memory 16M", set()),
    "nbdkit with certificates of both": (f"{NBDKIT} --tls-certificates={{pki}} --tls-verify-peer memory 16M", set()),
    "qemu-nbd with certificates": (
        f"{QEMU_NBD} --object tls-creds-x509,id=tls0,endpoint=server,dir={{pki}} {{disk}}",
        {"starttls.forced-abort-works", "tls.disc-closes-tls"},
    ),
    "our own with a key": (f"{SERVE} --tls required --tls-psk {{psk}}", set()),
    "our own with certificates": (f"{SERVE} --tls required --tls-certificates {{pki}}", set()),
}
"""SPECs, and the checks of TLS that are known to fail."""


@pytest.mark.parametrize("name", SERVERS)
def test_the_suite_runs_over_tls(name: str, tmp_path: Path) -> None:
    spec, known = SERVERS[name]
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", f"--nbd-server={spec}"]
    # nbdkit takes the payload of a WRITE that it refuses from the socket instead of the TLS session: these would time
    # out.
    command += [f"--nbd-report={report}", "--nbd-timeout=2", "--nbd-checks=!write,!in-step,!boundary,!command"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert report.exists(), done.stdout + done.stderr
    outcomes = {row["check"]: row["outcome"] for row in json.loads(report.read_text())["results"]}
    assert sum(outcome == "passed" for outcome in outcomes.values()) > 150
    assert [check for check, outcome in outcomes.items() if outcome == "error"] == [], done.stdout
    of_tls = {check for check in outcomes if check.startswith(("tls.", "starttls."))}
    assert {check for check in of_tls if outcomes[check] == "failed"} == known, done.stdout
    assert outcomes["tls.handshake-follows"] == "passed"
