"""What becomes of the tests in a guest when it dies or stays away, seen with programs in the place of the kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from tests.kernel.conftest import Guest
from tests.kernel.uml import guest
from tests.kernel.uml.package import CannotRun

ITEMS = [
    f"tests/kernel/guest/test_vsock.py::{name}"
    for name in (
        "test_loopback_is_found_by_a_bind",
        "test_streams_carry_bytes_and_end",
        "test_any_port_is_one_that_can_be_connected_to",
        "test_the_client_takes_vsock_uris",
    )
]

KERNEL = f"""#!{sys.executable}
import json, pathlib, sys
if sys.argv[1:] == ["--version"]:
    print("6.1.0")
    sys.exit()
(job,) = (pathlib.Path(word.partition("=")[2]) for word in sys.argv if word.startswith("GUEST_JOB="))
described = json.loads((job / "job.json").read_text())
items = [word for word in described["command"] if "::" in word]

def tell(entry):
    with open(described["environment"]["NBDTEST_GUEST_REPORTS"], "a") as reports:
        reports.write(json.dumps(entry) + "\\n")

def passes(item):
    for when in ("setup", "call", "teardown"):
        tell({{
            "$report_type": "TestReport", "nodeid": item, "location": ["file", 1, item], "keywords": {{}},
            "outcome": "passed", "longrepr": None, "when": when, "user_properties": [], "sections": [], "duration": 0,
            "start": 0, "stop": 0,
        }})
    tell({{"finished": item}})

def boots():
    print("Linux version 6.1.0", file=sys.stderr)
    (job / "up").touch()

"""

DIES_IN_THE_SECOND_OF_FOUR = """
boots()
if len(items) == 4:
    passes(items[0])
    sys.exit("Kernel panic - not syncing: the second test")
for item in items:
    passes(item)
(job / "status").write_text("0")
"""

DIES_WHILE_IT_BOOTS = """
sys.exit("Linux version 6.1.0\\nKernel panic - not syncing: no init")
"""

STOPS_EARLY = """
boots()
passes(items[0])
(job / "status").write_text("3")
"""

DOES_NOT_START = """
sys.exit("ptrace: Operation not permitted")
"""


@dataclass(frozen=True)
class Item:
    """What a guest asks of an item of pytest."""

    nodeid: str

    @property
    def location(self) -> tuple[str, int, str]:
        return (self.nodeid.partition("::")[0], 1, self.nodeid)


Run = Callable[[str], list[tuple[str, str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> Run:
    """Have four tests run by a guest with a kernel, and return the outcome of each, with the reason if there is one."""
    try:
        guest.memory_directory()
    except CannotRun as reason:
        pytest.skip(str(reason))
    executable = tmp_path / "usr/bin/linux.uml"
    modules = tmp_path / "usr/lib/uml/modules/6.1.0"
    for directory in (executable.parent, modules):
        directory.mkdir(parents=True)
    (modules / "modules.dep").touch()
    monkeypatch.setenv("NBDTEST_UML", str(tmp_path))

    def run_with(kernel: str) -> list[tuple[str, str]]:
        executable.write_text(KERNEL + kernel)
        executable.chmod(0o755)
        items = [cast(pytest.Item, Item(nodeid)) for nodeid in ITEMS]
        with closing(Guest(items, pytestconfig)) as booted:
            last = [list(booted.reports(item))[-1] for item in items]
        return [(report.outcome, _reason(report)) for report in last]

    return run_with


def _reason(report: pytest.TestReport) -> str:
    """Return what the summary's line has of it."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    return "" if crash is None else crash.message.splitlines()[0].removeprefix("tests.kernel.conftest.GuestFailed: ")


PASSED = ("passed", "")


def test_one_death_costs_one_test_and_names_its_cause(run: Run) -> None:
    cause = "the guest died before the command had ended: Kernel panic - not syncing: the second test"
    assert run(DIES_IN_THE_SECOND_OF_FOUR) == [PASSED, ("failed", cause), PASSED, PASSED]


def test_a_guest_that_always_dies_is_not_booted_for_ever(run: Run) -> None:
    cause = "the guest died while it booted: Kernel panic - not syncing: no init"
    boots = ["", " (boot 2)", " (boot 3)", " (boot 3)"]
    assert run(DIES_WHILE_IT_BOOTS) == [("failed", cause + boot) for boot in boots]


def test_items_that_the_guest_did_not_run_have_failed(run: Run) -> None:
    cause = "pytest ended with status 3 in the guest, and without this test"
    assert run(STOPS_EARLY) == [PASSED, ("failed", cause), PASSED, ("failed", f"{cause} (boot 2)")]


def test_where_the_kernel_does_not_start_everything_is_skipped_with_the_reason(run: Run, tmp_path: Path) -> None:
    reason = f"{tmp_path}/usr/bin/linux.uml does not start: ptrace: Operation not permitted"
    assert run(DOES_NOT_START) == [("skipped", f"Skipped: uml: {reason}")] * 4
