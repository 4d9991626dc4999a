"""Runs the tests under guest/ inside User Mode Linux and reports them here as if they had run here.

On the host, `--uml` boots guests for the session, in which pytest runs the selected items of guest/; without it, or
where User Mode Linux cannot run, they are skipped with the reason. In the guest they are ordinary tests.
"""

from __future__ import annotations

import compileall
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbdtest.net.clock import Deadline
from nbdtest.net.guardian import guardian

HERE = Path(__file__).parent
GUEST_TESTS = HERE / "guest"
IN_GUEST = "NBDTEST_GUEST" in os.environ
REPORTS = "NBDTEST_GUEST_REPORTS"
NO_OPTION = "needs the kernel's NBD client: give --uml to run it in User Mode Linux (tox -e kernel does)"
UNAVAILABLE = os.EX_UNAVAILABLE
GUEST_LIMIT, GUEST_DIED = 124, 125
GUEST_LIMIT_S = 1000
SILENCE_S = 600
"""How long a single test may take."""
BOOTS_AT_MOST = 3
POLL_S = 0.02
OUTPUT_LINES = 60
GUESTS_AT_MOST = 3
ITEMS_PER_GUEST = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--uml", action="store_true", help="run tests/kernel/guest in User Mode Linux ($NBDTEST_UML: which)"
    )


class GuestFailed(AssertionError):
    """The guest did not run an item to its end; the first line says why."""


class Guest:
    """A boot of User Mode Linux, in which pytest runs the given items in order; another for the rest where it dies."""

    def __init__(self, items: list[pytest.Item], config: pytest.Config) -> None:
        self._config = config
        self._left = [item.nodeid for item in items]
        self._boots = 0
        self._told = 0  # which boot's end has been shown in full
        self._directory = tempfile.TemporaryDirectory(prefix="guest.")
        guardian().add_directory(self._directory.name)
        for part in ("nbdtest", "tests/kernel"):
            # Every process of the guest, to which the tree is read-only, would do it anew.
            compileall.compile_dir(config.rootpath / part, quiet=2)
        self._boot()

    def reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Yield the item's reports as they come; where the guest fails instead, one that says so."""
        while True:
            ended = self._process.poll() is not None  # asked before reading, so that nothing written by then is missed
            while (entry := self._next()) is not None:
                if entry.get("finished") == item.nodeid:
                    self._left.remove(item.nodeid)
                    return
                if entry.get("nodeid") == item.nodeid:
                    yield self._config.hook.pytest_report_from_serializable(config=self._config, data=entry)
            if ended:
                yield self._failure(item)
                self._left.remove(item.nodeid)
                if self._left and self._process.returncode != UNAVAILABLE and self._boots < BOOTS_AT_MOST:
                    self._boot()
                return
            if self._silence.expired:
                self._end()  # which is told in the next round
            time.sleep(POLL_S)

    def close(self) -> None:
        self._end()
        self._directory.cleanup()
        guardian().drop_directory(self._directory.name)

    def _boot(self) -> None:
        self._boots += 1
        self._reports = Path(self._directory.name) / f"reports{self._boots}"
        self._output = Path(self._directory.name) / f"output{self._boots}"
        self._reports.touch()
        self._buffer = b""
        self._position = 0
        self._silence = Deadline(SILENCE_S)
        command = [sys.executable, "-m", "tests.kernel.uml", "--timeout", str(GUEST_LIMIT_S)]
        command += ["--writable", self._directory.name]
        command += ["--", sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--no-header", "--color=no"]
        command += ["-m", self._config.option.markexpr]  # without it the guest would leave out what takes long
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command + self._left,
                cwd=self._config.rootpath,
                env={**os.environ, REPORTS: str(self._reports)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guardian().add_group(self._process.pid)  # which ends the guest when this pytest is killed

    def _end(self) -> None:
        guardian().drop_group(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()

    def _next(self) -> dict[str, Any] | None:
        if b"\n" not in self._buffer:
            with self._reports.open("rb") as reports:
                reports.seek(self._position)
                fresh = reports.read()
            self._position += len(fresh)
            self._buffer += fresh
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        self._silence = Deadline(SILENCE_S)
        entry: dict[str, Any] = json.loads(line)
        return entry

    def _failure(self, item: pytest.Item) -> pytest.TestReport:
        status = self._process.returncode
        output = self._output.read_text(errors="replace").splitlines()
        if status == UNAVAILABLE:
            path, line, _ = item.location
            return _report(item, "skipped", (path, (line or 0) + 1, f"Skipped: {' '.join(output[-1:])}"))
        said = [line for line in output if line.startswith("uml: ")]
        if self._silence.expired:
            why = f"this test did not end in {SILENCE_S} s; its guest was killed"
        elif status in (GUEST_DIED, GUEST_LIMIT) and said:
            why = said[-1].removeprefix("uml: ")
        elif status < 0:
            why = f"the guest was killed: {signal.Signals(-status).name} came from this machine"
        else:
            why = f"pytest ended with status {status} in the guest, and without this test"
        again = "" if self._boots == 1 else f" (boot {self._boots})"
        shown = [] if self._told == self._boots else output[-OUTPUT_LINES:]
        self._told = self._boots
        return _report(item, "failed", _shown(f"{why}{again}", shown))


def _shown(why: str, output: list[str]) -> Any:
    """Make of a failure of the guest what pytest shows of a test's: the reason is also in the summary's line."""
    try:
        raise GuestFailed("\n".join([why, *output]))
    except GuestFailed:
        return pytest.ExceptionInfo.from_current().getrepr(style="value")


GUESTS = pytest.StashKey[dict[str, Guest]]()
"""In which guest an item runs, by its id."""


def _boot(session: pytest.Session) -> dict[str, Guest]:
    """Boot as many guests as pay off, since each has one processor and many tests wait; deal the items out to them."""
    items = [item for item in session.items if _is_guest(item)]
    count = min(GUESTS_AT_MOST, os.cpu_count() or 1, math.ceil(len(items) / ITEMS_PER_GUEST))
    guests = [Guest(items[number::count], session.config) for number in range(count)]
    return {item.nodeid: guests[number % count] for number, item in enumerate(items)}


def _report(item: pytest.Item, outcome: Any, longrepr: Any) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome=outcome,
        longrepr=longrepr,
        when="call" if outcome == "failed" else "setup",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)
    items.sort(key=_is_guest)  # what runs here can run while the guests are at theirs


def _is_guest(item: pytest.Item) -> bool:
    return GUEST_TESTS in item.path.parents


if IN_GUEST:

    class Teller:
        """Writes every report where the host reads it."""

        def __init__(self, config: pytest.Config, path: str) -> None:
            self._config = config
            self._path = path

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            self._tell(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))

        def pytest_runtest_logfinish(self, nodeid: str) -> None:
            self._tell({"finished": nodeid})

        def _tell(self, entry: dict[str, Any]) -> None:
            with open(self._path, "a") as reports:
                reports.write(json.dumps(entry) + "\n")

    def pytest_configure(config: pytest.Config) -> None:
        if REPORTS in os.environ:
            config.pluginmanager.register(Teller(config, os.environ[REPORTS]))

else:

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
        wanted = item.config.getoption("--uml", default=False)
        if wanted and GUESTS not in item.config.stash:
            item.config.stash[GUESTS] = _boot(item.session)
        if not _is_guest(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if wanted:
            reports = item.config.stash[GUESTS][item.nodeid].reports(item)
        else:
            reports = iter([_report(item, "skipped", (str(HERE / "conftest.py"), 1, f"Skipped: {NO_OPTION}"))])
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_unconfigure(config: pytest.Config) -> None:
        for guest in set(config.stash.get(GUESTS, {}).values()):
            guest.close()
