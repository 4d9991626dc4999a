"""docs/usage.md names everything there is, and its examples run."""

import re
import textwrap
from pathlib import Path

import pytest

from nbdtest.cli import COMMANDS, main
from nbdtest.fixtures import profile
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.presets import PRESETS
from nbdtest.fixtures.server_spec import PLACEHOLDERS
from nbdtest.report.rendering import WRITERS
from nbdtest.report.results import Outcome

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
PYTHON = [textwrap.dedent(block) for block in re.findall(r"^```python\n(.*?)^```", USAGE, re.MULTILINE | re.DOTALL)]
TOML = re.findall(r"^```toml\n(.*?)^```", USAGE, re.MULTILINE | re.DOTALL)
THIRD_PARTY = (ROOT / "docs" / "third-party.md").read_text(encoding="utf-8")


def test_every_option_of_pytest_is_described(pytester: pytest.Pytester) -> None:
    told = pytester.runpytest_subprocess("--help").stdout.str()
    options = set(re.findall(r"--nbd-[a-z-]+", told))
    assert len(options) >= 8
    assert options <= set(re.findall(r"--nbd-[a-z-]+", USAGE))


def test_every_option_of_check_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help", "--socket"}
    assert options <= set(re.findall(r"--[a-z-]+", USAGE))


def test_every_fixture_is_described(pytester: pytest.Pytester) -> None:
    told = pytester.runpytest_subprocess("--fixtures", "-q").stdout.str()
    names = set(re.findall(r"^(\w+) .*-- .*nbdtest/plugin/__init__", told, re.MULTILINE))
    assert {"nbd", "nbd_server", "fake_nbd_server"} <= names
    assert all(f"`{name}`" in USAGE for name in names)


@pytest.mark.parametrize("name", [*PRESETS, *(f"{{{name}}}" for name in PLACEHOLDERS), *WRITERS])
def test_every_name_is_described(name: str) -> None:
    assert f"`{name}`" in USAGE


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_described(outcome: Outcome) -> None:
    assert f"| {outcome} |" in USAGE


def test_every_key_of_a_profile_is_described() -> None:
    keys = profile._SERVER_KEYS | profile._TLS_KEYS
    assert all(re.search(rf"^(# )?{key} = ", USAGE, re.MULTILINE) for key in keys)


def test_profile_of_the_documentation_is_read(tmp_path: Path) -> None:
    known, full = TOML
    (tmp_path / "known.toml").write_text(known)
    (tmp_path / "full.toml").write_text(full)
    spec = parse_server(str(tmp_path / "full.toml"))
    assert spec.name == "mine"
    assert [deviation.check for deviation in spec.deviations] == ["command.cache", "option.list-with-data"]


@pytest.mark.parametrize("number", range(4))
def test_profiles_of_third_parties_are_read(tmp_path: Path, number: int) -> None:
    profiles = re.findall(r"^```toml\n(.*?)^```", THIRD_PARTY, re.MULTILINE | re.DOTALL)
    assert len(profiles) == 4
    (tmp_path / "mine.toml").write_text(profiles[number])
    assert parse_server(str(tmp_path / "mine.toml")).started


def test_commands_of_the_documentation_exist() -> None:
    for name in re.findall(r"^ +nbdtest ([a-z]+)", USAGE, re.MULTILINE):
        assert name in COMMANDS


def test_example_of_a_servers_author_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(next(block for block in PYTHON if "nbd_server.connect" in block))
    pytester.runpytest_subprocess("--nbd-server=builtin", "test_example_of_a_servers_author_runs.py").assert_outcomes(
        passed=1
    )


@pytest.mark.interop
def test_example_of_a_clients_author_runs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(next(block for block in PYTHON if "qemu-io" in block))
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
