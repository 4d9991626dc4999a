"""The conformance suite over TLS on our own server as a program, as a user would run it. Other servers are run in
`tests/real_servers`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop

SERVE = f"listen: {sys.executable} -m nbdtest serve --unix {{unix}} --file {{disk}} --tls required"


@pytest.mark.parametrize("credentials", ["--tls-psk {psk}", "--tls-certificates {pki}"])
def test_nothing_is_wrong_with_our_own_server_over_tls(credentials: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=."]
    command += [f"--nbd-server={SERVE} {credentials}", f"--nbd-report={report}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert report.exists(), done.stdout + done.stderr
    outcomes = {row["check"]: row["outcome"] for row in json.loads(report.read_text())["results"]}
    assert {check for check, outcome in outcomes.items() if outcome not in ("passed", "skipped")} == set(), done.stdout
    assert list(outcomes.values()).count("passed") > 300
    assert outcomes["tls.handshake-follows"] == "passed"
