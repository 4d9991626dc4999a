"""What becomes of the tests in a guest when it dies or stays away, seen with programs in the place of the kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.uml import guest
from tests.kernel.uml.package import CannotRun

ROOT = Path(__file__).parents[3]
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


def run(kernel: str, root: Path) -> list[str]:
    """Run four tests of the guest with that kernel, and return what pytest said in the end."""
    try:
        guest.memory_directory()
    except CannotRun as reason:
        pytest.skip(str(reason))
    executable = root / "usr/bin/linux.uml"
    modules = root / "usr/lib/uml/modules/6.1.0"
    for directory in (executable.parent, modules):
        directory.mkdir(parents=True)
    (modules / "modules.dep").touch()
    executable.write_text(KERNEL + kernel)
    executable.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "--uml", "-rfEs", *ITEMS],
        cwd=ROOT,
        env={**environment, "NBDTEST_UML": str(root), "COLUMNS": "400"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR ", "SKIPPED "))]
    return [*lines, re.sub(r" in [\d.]+s$", "", done.stdout.splitlines()[-1].strip("= "))]


def failures(reasons: dict[str, str]) -> list[str]:
    return [f"FAILED {item} - tests.kernel.conftest.GuestFailed: {reason}" for item, reason in reasons.items()]


def test_one_death_costs_one_test_and_names_its_cause(tmp_path: Path) -> None:
    cause = "the guest died before the command had ended: Kernel panic - not syncing: the second test"
    assert run(DIES_IN_THE_SECOND_OF_FOUR, tmp_path) == [*failures({ITEMS[1]: cause}), "1 failed, 3 passed"]


def test_a_guest_that_always_dies_is_not_booted_for_ever(tmp_path: Path) -> None:
    cause = "the guest died while it booted: Kernel panic - not syncing: no init"
    boots = ["", " (boot 2)", " (boot 3)", " (boot 3)"]
    expected = failures({item: cause + boot for item, boot in zip(ITEMS, boots, strict=True)})
    assert run(DIES_WHILE_IT_BOOTS, tmp_path) == [*expected, "4 failed"]


def test_items_that_the_guest_did_not_run_have_failed(tmp_path: Path) -> None:
    cause = "pytest ended with status 3 in the guest, and without this test"
    expected = failures({ITEMS[1]: cause, ITEMS[3]: f"{cause} (boot 2)"})
    assert run(STOPS_EARLY, tmp_path) == [*expected, "2 failed, 2 passed"]


def test_where_the_kernel_does_not_start_everything_is_skipped_with_the_reason(tmp_path: Path) -> None:
    *lines, closing = run(DOES_NOT_START, tmp_path)
    assert {line.partition(": ")[2] for line in lines} == {
        f"uml: {tmp_path}/usr/bin/linux.uml does not start: ptrace: Operation not permitted"
    }
    assert closing == "4 skipped"
