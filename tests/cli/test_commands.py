"""The command as a whole: its subcommands, their help, and what each prints."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nbdtest
from nbdtest.cli import COMMANDS, main
from tests.fixtures.odd_specs import odd


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    try:
        status = main(list(words))
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 0
    return capsys.readouterr().out


def offered(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.findall(r"^    ([a-z]+) ", printed(capsys, "--help"), re.MULTILINE)


def test_only_commands_that_exist_are_offered(capsys: pytest.CaptureFixture[str]) -> None:
    names = offered(capsys)
    assert {"check", "serve", "info", "list"} <= set(names) <= set(COMMANDS)
    for name in names:
        __import__(COMMANDS[name].module)


def test_every_help_shows_an_example_and_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    for name in offered(capsys):
        told = printed(capsys, name, "--help")
        assert f"Example: nbdtest {name}" in told
        assert "Exit status: 0" in told


def test_help_fits_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in [[], *([name] for name in offered(capsys))]:
        assert [line for line in printed(capsys, *words, "--help").splitlines() if len(line) > 80] == []


def test_examples_are_accepted_as_far_as_their_options_go(capsys: pytest.CaptureFixture[str]) -> None:
    for name in offered(capsys):
        words = shlex.split(COMMANDS[name].example)
        assert words[:2] == ["nbdtest", name]


def test_no_command_and_unknown_command_are_errors_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["chekc"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
    assert "chekc" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"nbdtest \d+\.\d+\.\d+\n", printed(capsys, "--version"))


def test_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "nbdtest", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nbdtest ")


@pytest.mark.parametrize(
    ("what", "keys"),
    [
        ("checks", {"id", "role", "level", "requirements", "title"}),
        ("requirements", {"id", "role", "level", "checks", "reason"}),
        ("mutants", {"name", "checks", "description"}),
    ],
)
def test_lists(what: str, keys: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, "list", what, "--json"))
    assert len(rows) > 20
    assert all(keys <= set(row) for row in rows)
    lines = printed(capsys, "list", what).splitlines()
    assert len(lines) == len(rows)
    assert all("\t" in line for line in lines)


def test_lists_on_a_narrow_terminal_tell_ids_whole() -> None:
    """Where a column is too narrow for one, it goes on in the next line."""
    controller, terminal = os.openpty()
    command = [sys.executable, "-m", "nbdtest", "list", "mutants"]
    with subprocess.Popen(command, stdout=terminal, env={**os.environ, "COLUMNS": "80", "TERM": "dumb"}) as process:
        os.close(terminal)
        told = b""
        with contextlib.suppress(OSError):  # EIO: nobody holds the terminal any more
            while part := os.read(controller, 1 << 16):
                told += part
    os.close(controller)
    assert process.returncode == 0
    assert len(told.splitlines()) > 500
    assert "…".encode() not in told
    assert max(map(len, told.decode().splitlines())) <= 80


def test_requirement_names_the_checks_that_prove_it(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["id"]: row for row in json.loads(printed(capsys, "list", "requirements", "--json"))}
    assert "greeting.nbd-magic" in rows["HS-007"]["checks"]


def test_info_says_what_a_server_offers(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "info", "builtin", "--json"))
    assert found["size"] == 64 << 20
    assert found["handshake"] == "newstyle"
    assert found["exports"] == ["", "second"]
    assert "base:allocation" in found["contexts"]
    lines = printed(capsys, "info", "builtin").splitlines()
    assert {f"size: {64 << 20}", 'export: ""', 'exports: "", second'} <= set(lines)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_time_limits_that_cannot_be_waited_for(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "info", "fuzz"):
        assert main([command, "builtin", "--timeout", seconds]) == 2
        assert "above 0" in capsys.readouterr().err


def test_info_of_what_is_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", odd("ssh")]) == 2
    assert "speaks something else than NBD" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        pytest.param(["check", "builtin", "--checks", "greeting"], 0, "builtin: 5 passed", id="check"),
        pytest.param(["info", "builtin"], 0, "handshake: newstyle", id="info"),
        pytest.param(["list", "checks"], 0, "greeting.nbd-magic", id="list"),
        pytest.param(["check", "builtin", "--report", "r.html"], 2, "package jinja2 is not installed", id="html"),
        pytest.param(["fuzz", "builtin"], 2, "package hypothesis is not installed", id="fuzz"),
    ],
)
def test_what_runs_from_a_checkout_without_any_package(words: list[str], status: int, says: str) -> None:
    checkout = Path(nbdtest.__file__).parents[1]
    command = [sys.executable, "-S", "-E", "-m", "nbdtest", *words]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_reader_that_has_had_enough_is_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m nbdtest list requirements | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
