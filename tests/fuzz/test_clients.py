"""A client that crashes or never ends on a wrong server is found; one that complains and goes is not."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.cli import main
from nbdtest.errors import UsageError
from nbdtest.fakeserver.rules import Moment
from nbdtest.fixtures import client_replay
from nbdtest.fixtures.client_command import CommandSource, parse_clients
from nbdtest.fuzz.campaign import Limits
from nbdtest.fuzz.client_finding import ClientFinding, format_rules, python_of, rules_from_json, rules_to_json
from nbdtest.fuzz.clients import ClientCampaign
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.fuzz.strategies.exports import Misbehaviour, misbehaviours
from nbdtest.wire import Cmd, Opt

ONE_FINDING = Limits(sessions=40, findings=1)

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
    campaign.run(Limits(sessions=9))
    assert campaign.findings == []
    assert campaign.runs == 9
    assert campaign.acted.total() >= 4  # what it does is known from the rehearsal
    assert set(campaign.acted) <= {*Opt, Cmd.READ, Cmd.DISC, Moment.GREETING}


def test_a_crash_is_found_with_the_least_that_provokes_it(tmp_path: Path) -> None:
    campaign = campaign_on("os.kill(os.getpid(), signal.SIGABRT)", tmp_path)
    campaign.run(ONE_FINDING)
    (caught,) = campaign.findings
    assert caught.finding.problem.kind is Kind.DEATH
    assert signal.SIGABRT.name in caught.finding.problem.detail
    assert len(caught.finding.rules) == 1
    assert "NewstyleGreeting" in caught.transcript.format()


def test_a_client_that_outstays_its_server_is_found(tmp_path: Path) -> None:
    campaign = campaign_on("time.sleep(1000)", tmp_path, patience_s=1.0)
    campaign.run(ONE_FINDING)
    (caught,) = campaign.findings
    assert caught.finding.problem.kind is Kind.HANG


def test_a_client_that_fails_anyway_is_refused(tmp_path: Path) -> None:
    campaign = campaign_on("pass\nsys.exit(3)", tmp_path)
    with pytest.raises(UsageError, match=r"the client fails on a correct server.*status 3"):
        campaign.rehearse()


def test_the_command_line_says_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "client.py"
    program.write_text(READS.format(reaction="sys.exit(1)"))
    assert main(["fuzz", "--client", f"{sys.executable} {program} {{uri}}", "--sessions", "4", "--seed", "1"]) == 0
    shown = capsys.readouterr().out
    assert "4 runs in" in shown
    assert "answered wrongly: " in shown


CRASHES = """
import os, signal, sys
from nbdtest.client import NBD, Error

handle = NBD()
handle.connect_uri(sys.argv[1])
try:
    handle.pread(512, 0)
except Error:
    print("reader.c:12: got_reply: Assertion `reply' failed.", flush=True)
    os.kill(os.getpid(), signal.SIGABRT)
try:
    handle.pwrite(bytes(512), 0)
except Error:
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_a_second_way_to_crash_is_found_after_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "client.py"
    program.write_text(CRASHES)
    into = tmp_path / "found"
    command = f"{sys.executable} {program} {{uri}}"
    arguments = ["fuzz", "--client", command, "--sessions", "400", "--seed", "1", "--into", str(into)]
    assert main([*arguments, "--stop-after", "2", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert len(said["findings"]) == 2
    assert sorted(finding["name"] for finding in said["findings"]) == sorted(place.name for place in into.iterdir())
    assert said["answered_wrongly"]["CMD_WRITE"] > 0
    known = tmp_path / "known.toml"
    known.write_text('[[deviation]]\ncheck = "client-death-*"\n')
    assert main([*arguments[:3], "--sessions", "12", "--seed", "1", "--expect", str(known)]) == 0
    assert "known: death: the client dies" in capsys.readouterr().out


def test_what_has_been_found_is_kept_when_somebody_has_had_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = campaign_on("os.kill(os.getpid(), signal.SIGABRT)", tmp_path)
    play = campaign.play

    def interrupted(self: ClientCampaign, rules: tuple[Misbehaviour, ...]) -> Problem | None:
        if campaign._last is not None:
            raise KeyboardInterrupt
        return play(rules) if len(rules) > 1 else None

    monkeypatch.setattr(ClientCampaign, "play", interrupted)  # has slots
    with pytest.raises(KeyboardInterrupt):
        campaign.run(ONE_FINDING)
    (caught,) = campaign.findings
    assert caught.finding.problem.kind is Kind.DEATH


@pytest.mark.parametrize("wrong", [["--corpus", "x"], ["--allow-writes"]], ids=lambda words: words[0])
def test_what_is_for_servers_is_refused_for_a_client(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "--client", "x {uri}", *wrong]) == 2
    assert "--corpus and --allow-writes are for servers" in capsys.readouterr().err


def test_a_client_with_certificates_is_offered_tls(tmp_path: Path) -> None:
    program = tmp_path / "client.py"
    program.write_text(
        READS.format(reaction="sys.exit(1)").replace("try:", "handle.set_uri_allow_local_file(True)\ntry:")
    )
    uri = "nbds+unix:///?socket={socket}&tls-certificates={pki}&tls-hostname=localhost"
    (spec,) = parse_clients([f"{sys.executable} {program} {uri}"])
    source = CommandSource(spec)
    try:
        campaign = ClientCampaign(source, seed=1)
        campaign.rehearse()
        assert "STARTTLS" in campaign.transcript.format()
    finally:
        source.close()


def test_what_is_found_is_kept_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = {}
    for name, reaction in (("bad", "os.kill(os.getpid(), signal.SIGABRT)"), ("good", "sys.exit(1)")):
        program = tmp_path / f"{name}.py"
        program.write_text(READS.format(reaction=reaction))
        commands[name] = f"{sys.executable} {program} {{uri}}"
    into = tmp_path / "found"
    arguments = ["--client", commands["bad"], "--sessions", "40", "--stop-after", "1", "--seed", "1"]
    arguments += ["--into", str(into)]
    assert main(["fuzz", *arguments]) == 1
    (folder,) = into.iterdir()
    assert f"repeat: nbdtest replay {folder}" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} >= {"finding.json", "session.jsonl", "session.pcapng", "client.txt"}
    assert main(["replay", str(folder), "--transcript"]) == 1
    shown = capsys.readouterr().out
    assert "death: the client dies" in shown
    assert "NewstyleGreeting" in shown
    assert main(["replay", str(folder), "--client", commands["good"]]) == 0
    assert main(["replay", str(folder), "--server", "builtin"]) == 2
    assert "is a finding about a client" in capsys.readouterr().err
    (test,) = folder.glob("test_*.py")
    namespace: dict[str, Any] = {}
    exec(compile(test.read_text(), test.name, "exec"), namespace)
    with pytest.raises(AssertionError):
        namespace["test_finding"]()
    namespace["COMMAND"] = commands["good"]
    namespace["test_finding"]()


@given(rules=st.lists(misbehaviours(), max_size=3).map(tuple))
def test_rules_are_printed_and_saved_without_loss(rules: tuple[Misbehaviour, ...]) -> None:
    assert rules_from_json(json.loads(json.dumps(rules_to_json(rules)))) == rules
    assert eval(format_rules(rules), vars(client_replay).copy()) == rules


@given(rules=st.lists(misbehaviours(), max_size=3).map(tuple))
def test_the_python_of_a_finding_imports_what_it_needs(rules: tuple[Misbehaviour, ...]) -> None:
    finding = ClientFinding(problem=Problem(kind=Kind.DEATH, rule="the client dies"), rules=rules, command="x {uri}")
    namespace: dict[str, Any] = {}
    exec(python_of(finding), namespace)
    assert namespace["RULES"] == rules


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
    campaign.run(Limits(sessions=12))
    assert campaign.findings == []
