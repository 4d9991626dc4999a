"""Random sessions find deliberate bugs quickly, make them small, keep them, and find nothing where nothing is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import find, settings

from nbdtest.cli import main
from nbdtest.conformance.target import ServerTarget
from nbdtest.errors import PeerViolation, UsageError
from nbdtest.fakeserver import FakeServer
from nbdtest.fixtures.deviations import Deviation, packaged_deviations
from nbdtest.fixtures.foreseen import is_foreseen
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fuzz import campaign as campaign_module
from nbdtest.fuzz.campaign import Campaign, Limits
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.corpus import Corpus
from nbdtest.fuzz.finding import Finding, load, save
from nbdtest.fuzz.player import STAYS_OPEN, Player
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.fuzz.script import Hostile, Leave, Opening, Script, Send
from nbdtest.fuzz.strategies import sessions
from nbdtest.wire import Cmd, InfoRequest, MetaContextRequest, Opt, Option, Transcript

pytest_plugins = ["pytester"]


@contextmanager
def player_on(spec: str, *, timeout_s: float = 5.0) -> Iterator[Player]:
    source = open_source(parse_server(spec), allow_writes=False)
    try:
        yield Player(ServerTarget(source, timeout_s=timeout_s))
    finally:
        source.close()


def test_the_correct_server_is_not_accused() -> None:
    with player_on("builtin") as player:
        campaign = Campaign(player, seed=7)
        progress = campaign.run(Limits(sessions=60))
    assert [str(finding.problem) for finding in progress.findings] == []
    assert progress.commands > 1000


@pytest.mark.interop
@pytest.mark.parametrize("spec", ["nbdkit", "qemu-nbd", "nbd-server"])
def test_released_servers_are_not_accused(spec: str) -> None:
    known = packaged_deviations()
    with player_on(spec, timeout_s=20) as player:
        target = player.target.info()
        campaign = Campaign(player, seed=7, foreseen=lambda problem: is_foreseen(problem, target, known))
        progress = campaign.run(Limits(sessions=60))
    assert [str(finding.problem) for finding in progress.findings] == []


@pytest.mark.parametrize(
    ("mutant", "after", "rule"),
    [
        ("leaving.descriptors-leak", 90, "the server's open descriptors grow"),
        ("leaving.spins", 24, "the server is busy while nobody is connected"),
    ],
)
def test_a_server_that_needs_more_and_more_is_found(
    mutant: str, after: int, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign_module, "_VITALS_EVERY", after)
    with player_on(f"builtin:{mutant}") as player:
        progress = Campaign(player, seed=7).run(Limits(sessions=after))
    assert (Kind.GROWTH, rule) in [(finding.problem.kind, finding.problem.rule) for finding in progress.findings]


BUGS = {
    "data.writes-forgotten": (Kind.WRONG_DATA, 2),
    "data.zeroes-forgotten": (Kind.WRONG_DATA, 3),
    "data.zeroes-too-much": (Kind.WRONG_DATA, 3),
    "data.private-caches": (Kind.WRONG_DATA, 3),
    "command.unknown-succeeds": (Kind.WRONG_REPLY, 1),
    "command.flush-fails": (Kind.WRONG_REPLY, 1),
    "tls.state-kept": (Kind.OUT_OF_STEP, 4),
    "starttls.first-option-only": (Kind.WRONG_REPLY, 3),
}
"""Mutants, what is found of them, and how many messages are enough to show it."""


@pytest.mark.parametrize("mutant", BUGS)
def test_a_bug_is_found_made_small_and_found_again(mutant: str, tmp_path: Path) -> None:
    kind, most = BUGS[mutant]
    kept: list[Path] = []

    def keep(finding: Finding, player: Player) -> None:
        kept.append(save(finding, tmp_path, transcript=player.transcript, output=player.target.source.output()))

    with player_on(f"builtin:{mutant}") as player:
        progress = Campaign(player, seed=1, found=keep).run(Limits(sessions=80, findings=1))
    (finding,) = progress.findings
    assert finding.reproducible
    assert finding.problem.kind is kind
    assert finding.script.messages <= most
    assert load(kept[0]) == finding
    assert Transcript.from_json_lines((kept[0] / "session.jsonl").read_text())
    (test,) = kept[0].glob("test_*.py")
    compile(test.read_text(), test.name, "exec")


def test_a_finding_is_kept_when_somebody_has_had_enough_of_making_it_small(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Command(type=Cmd(0x63))
    with player_on("builtin:command.unknown-succeeds") as player:
        campaign = Campaign(player, seed=1)
        plays = iter(range(100))
        play = player.play

        def interrupted(script: Script, **how: bool) -> Problem | None:
            if next(plays) == 4:
                raise KeyboardInterrupt
            return play(script, **how)

        monkeypatch.setattr(player, "play", interrupted)
        with pytest.raises(KeyboardInterrupt):
            campaign.play(Script(steps=(Send(commands=(unknown,) * 50),)))
    (finding,) = campaign.progress.findings
    assert finding.reproducible
    assert 1 <= finding.script.commands < 50


def test_what_happens_now_and_then_only_is_made_small_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Command(type=Cmd(0x63))
    with player_on("builtin:command.unknown-succeeds") as player:
        campaign = Campaign(player, seed=1)
        play = player.play
        plays = iter(range(100_000))

        def seldom(script: Script, **how: bool) -> Problem | None:
            return play(script, **how) if next(plays) % 3 == 0 else None

        monkeypatch.setattr(player, "play", seldom)
        campaign.play(Script(steps=(Send(commands=(unknown,) * 20),)))
    (finding,) = campaign.progress.findings
    assert finding.reproducible
    assert finding.script.commands == 1


LEAVES_BY_DISC = Script(steps=(Send(), Leave()))


def test_a_connection_that_stays_open_is_found_once_and_not_waited_for_again() -> None:
    with player_on("builtin:disc.stays", timeout_s=0.3) as player:
        campaign = Campaign(player, seed=1)
        assert campaign.play(LEAVES_BY_DISC) == STAYS_OPEN
        assert campaign.play(LEAVES_BY_DISC) is None
        (finding,) = campaign.progress.findings
    assert finding.problem == STAYS_OPEN
    assert finding.script == Script(steps=(Leave(),))


@pytest.mark.parametrize("check", ["disconnect.closes", "hang-disc-*"], ids=["by-check", "by-finding"])
def test_a_known_deviation_is_no_finding_and_not_waited_for(check: str) -> None:
    known = [Deviation(check=check)]
    with player_on("builtin:disc.stays", timeout_s=1000) as player:
        target = player.target.info()
        campaign = Campaign(player, seed=1, foreseen=lambda problem: is_foreseen(problem, target, known))
        assert campaign.play(LEAVES_BY_DISC) is None
    assert campaign.progress.findings == []


def test_a_session_that_begins_tls_is_not_played_where_there_is_none() -> None:
    script = Script(openings=(Opening(options=(Option(option=Opt.STARTTLS),)),), steps=(Send(),))
    with player_on("builtin") as player:
        assert not player.ground.tls
        assert player.play(script) is None
    with player_on("builtin:tls.state-kept") as player:
        assert player.ground.tls
        assert player.play(script, record=True) is None
        assert "TLS handshake" in player.transcript.format()


def test_what_another_option_may_have_undone_is_not_judged() -> None:
    def about(kind: Opt, request: InfoRequest | MetaContextRequest) -> Option:
        return Option(option=kind, data=request.encode())

    select = about(Opt.SET_META_CONTEXT, MetaContextRequest(name="", queries=("base:allocation",)))
    structured = Option(option=Opt.STRUCTURED_REPLY)
    ask = about(Opt.INFO, InfoRequest(name="another"))
    status = Send(commands=(Command(type=Cmd.BLOCK_STATUS, length=512),))
    with player_on("builtin") as player:
        strange = about(Opt.SET_META_CONTEXT, MetaContextRequest(name="\0x"))
        for options, judged in (
            ((structured, select), 1),
            ((structured, select, ask), 0),
            ((structured, select, strange), 0),
        ):
            before = player.coverage.requests.total()
            assert player.play(Script(openings=(Opening(options=options),), steps=(status,))) is None
            assert player.coverage.requests.total() - before == judged


def test_a_known_deviation_is_counted() -> None:
    known = [Deviation(check="command.unknown-is-einval")]
    with player_on("builtin:command.unknown-succeeds") as player:
        target = player.target.info()
        campaign = Campaign(player, seed=1, foreseen=lambda problem: is_foreseen(problem, target, known))
        unknown = Command(type=Cmd(0x63))
        assert campaign.play(Script(steps=(Send(commands=(unknown,)),))) is not None
    assert campaign.progress.findings == []
    assert list(campaign.progress.foreseen.values()) == [1]


def test_hypothesis_finds_and_shrinks_sessions_as_well() -> None:
    with player_on("builtin:command.flush-fails") as player:
        found = find(
            sessions(player.ground, most=40),
            lambda script: player.play(script, afresh=True) is not None,
            settings=settings(max_examples=400, deadline=None, database=None, derandomize=True),
        )
    assert found.messages == 1


def test_a_malformed_handshake_is_a_finding_and_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise PeerViolation("OptionReply: magic is 0x0", requirement="OPT-001")

    with player_on("builtin") as player:
        monkeypatch.setattr(player.target.peer, "begin_transmission", broken)
        problem = player.play(Script(steps=(Send(),)))
        monkeypatch.undo()
    assert problem is not None
    assert problem.kind is not Kind.OUT_OF_STEP
    assert "OptionReply: magic is 0x0" in problem.detail


def test_the_command_line_finds_keeps_and_replays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = str(tmp_path / "found")
    arguments = ["--sessions", "40", "--stop-after", "1", "--seed", "1", "--into", into]
    assert main(["fuzz", "builtin:command.unknown-succeeds", *arguments]) == 1
    shown = capsys.readouterr().out
    assert "it succeeds although the command is unknown [ERR-029]" in shown
    (folder,) = Path(into).iterdir()
    assert f"nbdtest replay {folder}" in shown
    assert main(["replay", str(folder)]) == 1
    assert "it succeeds although the command is unknown" in capsys.readouterr().out
    assert main(["replay", str(folder), "--server", "builtin"]) == 0
    assert "all is well" in capsys.readouterr().out
    assert main(["replay", str(folder), "--client", "x {uri}"]) == 2
    assert "is a finding about a server, and cannot be played on x {uri}" in capsys.readouterr().err


def test_the_test_of_a_finding_fails_on_the_server_it_was_found_on_and_passes_on_another(
    pytester: pytest.Pytester,
) -> None:
    problem = Problem(kind=Kind.WRONG_REPLY, rule="it succeeds", about="an unknown command")
    script = Script(steps=(Send(commands=(Command(type=Cmd(0x63)),)),))
    finding = Finding(problem=problem, script=script, spec="builtin:command.unknown-succeeds")
    folder = save(finding, pytester.path, transcript=Transcript(), output="")
    failed = pytester.runpytest_subprocess(str(folder))
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["*AssertionError: wrong reply: an unknown command: it succeeds although *"])
    pytester.runpytest_subprocess(str(folder), "--nbd-server=builtin").assert_outcomes(passed=1)


def test_a_server_whose_disk_is_not_to_be_changed_is_spared_the_sessions_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writes = Script(steps=(Send(commands=(Command(type=Cmd.WRITE, length=512, seed=7),)),))
    hidden = Script(steps=(Hostile(data=b"??" + Command(type=Cmd.TRIM, length=512).encode(1)),))
    reads = Script(steps=(Send(commands=(Command(type=Cmd.READ, length=512),)), Hostile(data=b"?")))
    corpus = Corpus(tmp_path / "corpus")
    for script in (writes, hidden, reads):
        corpus.add(script)
    problem = Problem(kind=Kind.WRONG_DATA, rule="the data is wrong")
    finding = Finding(problem=problem, script=writes, spec="builtin")
    folder = save(finding, tmp_path, transcript=Transcript(), output="")
    with FakeServer(size=1 << 20, tolerate="*") as server:
        assert main(["replay", str(folder), "--server", server.uri]) == 2
        assert "this session could write" in capsys.readouterr().err
        run = ["fuzz", server.uri, "--sessions", "1", "--seed", "1", "--corpus", str(corpus.folder)]
        assert main([*run, "--into", str(tmp_path)]) == 0
        assert "1 sessions from" in capsys.readouterr().out
        assert bytes(server.disk.read(0, 512)) == bytes(512)
        assert main(["replay", str(folder), "--server", server.uri, "--allow-writes"]) == 0
        assert bytes(server.disk.read(0, 512)) != bytes(512)


@pytest.mark.parametrize(("spec", "status"), [("builtin", 130), ("builtin:command.flush-fails", 1)])
def test_a_run_that_is_interrupted_says_what_it_has_done(
    spec: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play = Campaign.play

    def interrupted(campaign: Campaign, script: Script) -> Problem | None:
        if campaign.progress.sessions == 5:
            raise KeyboardInterrupt
        return play(campaign, script)

    monkeypatch.setattr(Campaign, "play", interrupted)
    assert main(["fuzz", spec, "--seed", "1", "--into", str(tmp_path), "--corpus", str(tmp_path / "corpus")]) == status
    shown = capsys.readouterr()
    assert "interrupted" in shown.err
    assert "5 sessions, " in shown.out
    assert any((tmp_path / "corpus").iterdir())


def test_the_command_line_says_when_nothing_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "builtin", "--sessions", "5", "--seed", "1", "--into", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "0 findings" in shown
    assert "requests: CMD_" in shown
    assert "rules exercised: " in shown
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_says_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sessions", "40", "--stop-after", "1", "--seed", "1", "--into", str(tmp_path), "--json"]
    assert main(["fuzz", "builtin:command.unknown-succeeds", *arguments]) == 1
    said = json.loads(capsys.readouterr().out)
    (folder,) = tmp_path.iterdir()
    assert [finding["name"] for finding in said["findings"]] == [folder.name]
    assert said["seed"] == 1
    assert said["requests"]["CMD_READ"] > 0
    assert "ERR-029" in said["requirements"]


@pytest.mark.parametrize(
    "wrong", [["--sessions", "0"], ["--seconds", "-1"], ["--stop-after", "0"], ["--timeout", "0"]], ids=" ".join
)
def test_a_limit_of_nothing_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "builtin", *wrong]) == 2
    assert "take numbers above 0" in capsys.readouterr().err


def test_equal_problems_have_equal_names() -> None:
    def named(rule: str, detail: str) -> str:
        problem = Problem(kind=Kind.WRONG_DATA, rule=rule, about="CMD_READ", detail=detail)
        return Finding(problem=problem, script=Script(), spec="x").name

    assert named("the data is wrong", "at 5") == named("the data is wrong", "at 6")
    assert named("the data is wrong", "") != named("the data is late", "")
    assert named("the data is wrong", "").startswith("wrong-data-read-")


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"problem": 5}'], ids=repr)
def test_what_is_no_finding_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "finding.json").write_text(text)
    with pytest.raises(UsageError, match="no finding"):
        load(tmp_path)
