"""A client that crashes or never ends on a wrong server is found; one that complains and goes is not."""

import signal
import sys
from pathlib import Path

import pytest

from nbdtest.cli import main
from nbdtest.errors import UsageError
from nbdtest.fixtures.client_command import CommandSource, parse_clients
from nbdtest.fuzz.clients import ClientCampaign
from nbdtest.fuzz.problem import Kind

READS = """
import os, signal, sys, time
from nbdtest.client import NBD, Error

handle = NBD()
try:
    handle.connect_uri(sys.argv[1])
    handle.pread(512, 0)
except Error:
    {reaction}
"""


def campaign_on(reaction: str, folder: Path, *, patience_s: float = 2.0) -> ClientCampaign:
    program = folder / "client.py"
    program.write_text(READS.format(reaction=reaction))
    (spec,) = parse_clients([f"{sys.executable} {program} {{uri}}"])
    return ClientCampaign(CommandSource(spec), seed=1, patience_s=patience_s)


def test_a_client_that_complains_is_right(tmp_path: Path) -> None:
    campaign = campaign_on("sys.exit(1)", tmp_path)
    campaign.rehearse()
    assert campaign.run(runs=8) is None
    assert campaign.runs == 8


def test_a_crash_is_found_with_the_least_that_provokes_it(tmp_path: Path) -> None:
    finding = campaign_on("os.kill(os.getpid(), signal.SIGABRT)", tmp_path).run(runs=40)
    assert finding is not None
    assert finding.problem.kind is Kind.DEATH
    assert signal.SIGABRT.name in finding.problem.detail
    assert len(finding.rules) == 1
    assert finding.python.startswith("server.on(")
    assert "NewstyleGreeting" in finding.story


def test_a_client_that_outstays_its_server_is_found(tmp_path: Path) -> None:
    finding = campaign_on("time.sleep(1000)", tmp_path, patience_s=1.0).run(runs=40)
    assert finding is not None
    assert finding.problem.kind is Kind.HANG


def test_a_client_that_fails_anyway_is_refused(tmp_path: Path) -> None:
    campaign = campaign_on("pass\nsys.exit(3)", tmp_path)
    with pytest.raises(UsageError, match=r"the client fails on a correct server.*status 3"):
        campaign.rehearse()


def test_the_command_line_says_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "client.py"
    program.write_text(READS.format(reaction="sys.exit(1)"))
    assert main(["fuzz", "--client", f"{sys.executable} {program} {{uri}}", "--sessions", "4", "--seed", "1"]) == 0
    assert "4 runs in" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["builtin", "--client", "x {uri}"]], ids=["neither", "both"])
def test_either_a_server_or_a_client_is_tested(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", *arguments]) == 2
    assert "either which server to test or, with --client, which client" in capsys.readouterr().err


@pytest.mark.interop
@pytest.mark.parametrize("command", ["nbdinfo {uri}", "qemu-io -f raw -r -c 'read 0 64k' {uri}"])
def test_released_clients_survive(command: str) -> None:
    (spec,) = parse_clients([command])
    campaign = ClientCampaign(CommandSource(spec), seed=1)
    campaign.rehearse()
    assert campaign.run(runs=12) is None
