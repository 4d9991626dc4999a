"""`nbdtest check`: verdicts, exit status, reports and lists of known deviations."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nbdtest.cli import main
from nbdtest.conformance import Capability, Check, Complaint, NotApplicable, ServerTarget, check
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.process import start_listening
from tests.fixtures.odd_specs import odd
from tests.plugin.leftovers import PATIENCE_S, Watch

SERVER = odd("greets")


def demo(name: str, requirement: str, complaint: Exception | None, **more: Any) -> Check:
    """A check that raises `complaint`."""

    def run(t: ServerTarget) -> None:
        with t.peer.greeted():
            if complaint is not None:
                raise complaint

    return check(f"demo.{name}", proves=[requirement], legal=True, doc=f"The rule of {name}.", **more)(run)


CHECKS = {
    each.id: each
    for each in (
        demo("passes", "HS-007", None),
        demo("fails", "COMPAT-005", Complaint("an apple", "a pear")),
        demo("warns", "CONV-005", Complaint("a long string", "256 bytes")),
        demo("skips", "HS-007", NotApplicable("the server has no tail")),
        demo("lacks", "HS-007", None, needs=[Capability.TRIM]),
        demo("errs", "HS-007", RuntimeError("a bug in the check")),
    )
}


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nbdtest.cli.check.each_check", lambda role="server": tuple(CHECKS.values()))


def run(*words: str) -> int:
    return main(["check", SERVER, *words])


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param([], 1, id="everything"),
        pytest.param(["--checks", "demo.passes,demo.skips"], 0, id="passed-and-skipped"),
        pytest.param(["--checks", "demo.warns"], 0, id="warned"),
        pytest.param(["--checks", "demo.warns", "--strict"], 1, id="warned-strictly"),
        pytest.param(["--checks", "demo.errs"], 1, id="fault-of-the-harness"),
        pytest.param(["--level", "must", "--checks", "demo.warns,demo.passes"], 0, id="level"),
        pytest.param(["--checks", "demo.none"], 2, id="no-such-check"),
        pytest.param(["--checks", "!*"], 2, id="nothing-selected"),
        pytest.param(["--timeout", "0"], 2, id="no-time"),
        pytest.param(["--report", "r.doc"], 2, id="no-such-report"),
        pytest.param(["--report", "/proc/no/r.json"], 2, id="report-nowhere"),
        pytest.param(["--report", "/dev/null/r.json"], 2, id="report-below-a-file"),
        pytest.param(["--pcap", "/dev/null/x"], 2, id="no-such-folder"),
        pytest.param(["--expect", "none.toml"], 2, id="no-such-list"),
        pytest.param(["--expect", sys.executable], 2, id="list-that-is-no-text"),
    ],
)
def test_exit_status(words: list[str], status: int) -> None:
    assert run(*words) == status


def test_what_went_wrong_is_told_with_the_rule_and_how_to_repeat_it(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    told = capsys.readouterr().out
    for words in (
        "failed: demo.fails: The rule of fails.",
        "seen:   an apple",
        "wanted: a pear",
        "rule:   COMPAT-005, MUST",
        "<-- server NewstyleGreeting",
        "again: nbdtest check",
        "--checks demo.fails",
        "warned: demo.warns",
        "RuntimeError: a bug in the check",
        "listen-python: 1 error, 1 failed, 1 warned, 2 skipped, 1 passed",
    ):
        assert words in told
    assert "demo.skips" not in told


def test_verbose_names_every_check_and_why_one_was_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    run("-v")
    told = capsys.readouterr().out
    assert "passed: demo.passes" in told
    assert "skipped: demo.skips: the server has no tail" in told


def test_json_is_the_report_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["summary"] == {"passed": 1, "failed": 1, "warned": 1, "skipped": 2, "error": 1}
    assert document["results"][1]["title"] == "The rule of fails."
    assert document["targets"][0]["name"] == "listen-python"


def test_the_seed_is_told_and_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    run("--seed", "17", "--json")
    assert json.loads(capsys.readouterr().out)["seed"] == 17
    run("--seed", "17")
    told = capsys.readouterr().out
    assert "seed 17" in told.partition("\n")[0]
    assert "--checks demo.fails --seed 17" in told


def test_reports_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "new" / f"r{suffix}" for suffix in (".json", ".md", ".xml", ".html")]
    run(*(word for path in paths for word in ("--report", str(path))))
    assert all("demo.fails" in path.read_text() for path in paths)
    assert f"report written to {paths[0]}" in capsys.readouterr().out


def test_captures_are_written(tmp_path: Path) -> None:
    run("--pcap", str(tmp_path / "new"), "--checks", "demo.passes,demo.skips")
    captures = sorted((tmp_path / "new" / "listen-python").iterdir())
    assert [path.name for path in captures] == ["demo.passes.pcapng", "demo.skips.pcapng"]
    assert all(b"NBDMAGICIHAVEOPT" in path.read_bytes() for path in captures)


def test_two_servers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", SERVER, SERVER, "--checks", "demo.passes"]) == 0
    told = capsys.readouterr().out
    assert "listen-python: 1 passed" in told
    assert "listen-python-2: 1 passed" in told


def test_list_of_known_deviations_is_kept_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = tmp_path / "known.toml"
    without_error = ("--checks", "!demo.errs")
    assert run("--update-expect", str(known), *without_error) == 0
    assert "0 kept, 2 added, 0 taken off" in capsys.readouterr().out
    assert run("--expect", str(known), *without_error, "--strict") == 0
    known.write_text(known.read_text() + '[[deviation]]\ncheck = "demo.passes"\nevidence = "once"\n')
    assert run("--expect", str(known), *without_error) == 1
    assert "passed unexpectedly: demo.passes" in capsys.readouterr().out
    assert run("--update-expect", str(known), *without_error) == 0
    assert "2 kept, 0 added, 1 taken off" in capsys.readouterr().out


def test_expected_deviation_is_not_told_at_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = tmp_path / "known.toml"
    known.write_text('[[deviation]]\ncheck = "demo.fails"\n')
    assert run("--expect", str(known), "--checks", "demo.fails") == 0
    told = capsys.readouterr().out
    assert "an apple" not in told
    assert "listen-python: 1 failed (expected)" in told


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param("nbdkt", "Did you mean 'nbdkit'?", id="unknown-spec"),
        pytest.param(odd("complains"), "odd: no such disk", id="exits-at-once"),
        pytest.param("nbd:/x", "no // after nbd:", id="uri-that-is-none"),
    ],
)
def test_server_that_cannot_be_tested(spec: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", spec]) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.out == ""


def test_running_server_is_said_not_to_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s"
    words = odd("greets").partition(": ")[2].replace("{unix}", str(path)).split()
    with start_listening(words, UnixAddress(str(path))):
        assert main(["check", f"nbd+unix:///?socket={path}", "--checks", "demo.passes"]) == 0
    assert "checks that write are skipped: it was not started here; see --allow-writes" in capsys.readouterr().out


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    words = [sys.executable, "-u", "-m", "nbdtest", "check", odd("greets"), "--checks", "greeting", "-v"]
    with subprocess.Popen(
        [*words, "--timeout", "600"], env=watch.environment(), stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode in (0, 130)  # it may just have finished
    assert watch.left() == []
