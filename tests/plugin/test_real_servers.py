"""Every form of SPEC with real servers, and the whole way from the option to the verdict."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbdtest.net.addresses import TCPAddress
from nbdtest.net.listening import is_listening
from nbdtest.net.sockets import unused_tcp_port
from tests.plugin.leftovers import Watch

pytestmark = pytest.mark.interop

NBD_SERVERS = ["builtin", "nbdkit", "qemu-nbd", "nbd-server"]
COMMANDS = [
    "stdio: nbdkit -s memory 1M",
    "activation: qemu-nbd -f raw disk.img",
    "activation: nbdkit -f memory 1M",
    "listen: nbdkit -f -U {unix} memory 16M",
    "listen: nbdkit -f -p {port} file {disk}",
    "listen: qemu-nbd -k {unix} -f raw {disk}",
    "listen: nbdkit -f -U {unix} --tls=require --tls-certificates={pki} memory 16M",
    "listen: nbdkit -f -U {unix} --tls=require --tls-psk={psk} memory 16M",
]
SOME_CHECKS = "--nbd-checks=greeting,command,read,info"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with (tmp_path / "disk.img").open("wb") as disk:
        disk.truncate(16 << 20)
    return tmp_path


def outcomes_of(folder: Path, watch: Watch, *options: str) -> dict[str, dict[str, int]]:
    """Run pytest in the folder and count the outcomes of each target. Nothing may be left, and no fault be ours."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nbd-report=r.json", *options]
    done = subprocess.run(
        command, cwd=folder, env=watch.environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    document = json.loads((folder / "r.json").read_text())
    assert document["summary"]["error"] == 0, done.stdout
    assert all(target["version"] for target in document["targets"] if not target["spec"].startswith("nbd:"))
    assert watch.left() == []
    counted: dict[str, dict[str, int]] = {}
    for row in document["results"]:
        of_target = counted.setdefault(row["target"], {})
        of_target[row["outcome"]] = of_target.get(row["outcome"], 0) + 1
    return counted


@pytest.mark.parametrize("spec", NBD_SERVERS)
def test_whole_suite_on_a_preset(folder: Path, spec: str) -> None:
    (counts,) = outcomes_of(folder, Watch(folder), f"--nbd-server={spec}").values()
    assert counts["passed"] > 100


@pytest.mark.parametrize("spec", COMMANDS)
def test_command(folder: Path, spec: str) -> None:
    (counts,) = outcomes_of(folder, Watch(folder), f"--nbd-server={spec}", SOME_CHECKS).values()
    assert counts["passed"] > 10
    assert counts["passed"] > counts["skipped"]


def test_running_server_is_read_only(folder: Path) -> None:
    port = unused_tcp_port()
    before = (folder / "disk.img").read_bytes()
    with subprocess.Popen(["nbdkit", "-f", "-p", str(port), "file", "disk.img"], cwd=folder) as server:
        while not is_listening(TCPAddress("127.0.0.1", port)):
            assert server.poll() is None
        (counts,) = outcomes_of(folder, Watch(folder), f"--nbd-server=nbd://localhost:{port}").values()
        server.terminate()
    assert counts["passed"] > 100
    assert (folder / "disk.img").read_bytes() == before


def test_two_servers_at_once_with_two_workers(folder: Path) -> None:
    counts = outcomes_of(folder, Watch(folder), "--nbd-server=nbdkit", "--nbd-server=qemu-nbd", "-n", "2", SOME_CHECKS)
    assert set(counts) == {"nbdkit", "qemu-nbd"}
