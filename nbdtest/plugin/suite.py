"""The conformance suite as pytest items: what is collected, how it is run, and what pytest is told of the outcome.

Loaded when a server is to be tested. What is printed and written at the end is in `nbdtest.plugin.summary`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from nbdtest.conformance.declare import Check, each_check, select
from nbdtest.conformance.suite import in_order
from nbdtest.errors import UsageError
from nbdtest.fixtures.deviations import read_deviations
from nbdtest.fixtures.parsing import parse_servers
from nbdtest.fixtures.report_files import refuse_unwritable
from nbdtest.fixtures.subject import Settings, Subject
from nbdtest.fuzz.campaign import Limits
from nbdtest.plugin import SUITE_NODE, SUITE_PACKAGE
from nbdtest.plugin.fuzzing import FuzzItem, limits_of
from nbdtest.plugin.summary import Summary, details, repeat
from nbdtest.report.json_document import result_row
from nbdtest.report.results import Level, Outcome, Result

if TYPE_CHECKING:
    from nbdtest.fixtures.client_subject import ClientSubject

__all__ = ["Suite", "suite_of"]


AnySubject: TypeAlias = "Subject | ClientSubject"


@dataclass(frozen=True, slots=True)
class Task:
    """One target and the checks that are to be run on it."""

    subject: AnySubject
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items the arguments name: "nbd::TARGET::CHECK" each, or everything."""

    nodes: tuple[str, ...] = ()

    def has(self, node: str) -> bool:
        """Whether the item with this node id is meant."""
        return not self.nodes or any(node == named or node.startswith(f"{named}::") for named in self.nodes)


class Unsuccessful(Exception):
    """Carries a result that fails the run from the item to its report."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.message)
        self.result = result


class CheckItem(pytest.Item):
    """One check on one target."""

    def __init__(self, *, check: Check, subject: AnySubject, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check = check
        self.subject = subject
        self.result: Result | None = None
        self.add_marker("nbd")
        self.extra_keyword_matches.update({check.family, *check.proves})

    def runtest(self) -> None:
        """Run the check.

        Raises:
            Unsuccessful: the result fails the run.
        """
        self.result = self.subject.run(self.check)
        if self.result.fails_run():
            raise Unsuccessful(self.result)
        if self.result.outcome is Outcome.SKIPPED and not self.result.expected:
            pytest.skip(self.result.message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what a server's author needs to know; a traceback is shown for faults outside the check only."""
        if isinstance(excinfo.value, Unsuccessful):
            return details(excinfo.value.result, repeat(self.subject, self.check.id, self.config.getoption("nbd_seed")))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The place that pytest prints: there is no file, so the first part of the node id stands for it."""
        return self.session.path / SUITE_NODE, None, f"{self.check.id} on {self.subject.spec.name}"


class TargetCollector(pytest.Collector):
    """The checks for one target."""

    def __init__(
        self,
        *,
        task: Task,
        selection: Selection,
        fuzz: Limits | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._task = task
        self._selection = selection
        self._fuzz = fuzz

    def collect(self) -> Iterator[CheckItem | FuzzItem]:
        """Yield the items."""
        subject = self._task.subject
        for check in self._task.checks:
            if self._selection.has(f"{self.nodeid}::{check.id}"):
                yield CheckItem.from_parent(self, name=check.id, check=check, subject=subject)
        if self._fuzz is None or not isinstance(subject, Subject):
            return
        # Every worker of pytest-xdist has to see the same items; so each of them gets one.
        for number in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))):
            name = f"fuzz-{number + 1}"
            if self._selection.has(f"{self.nodeid}::{name}"):
                yield FuzzItem.from_parent(self, name=name, subject=subject, limits=self._fuzz)


class SuiteCollector(pytest.Collector):
    """All targets."""

    def __init__(self, *, suite: Suite, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._suite = suite

    def collect(self) -> Iterator[TargetCollector]:
        """Yield a collector for each target."""
        for task in self._suite.tasks:
            name = task.subject.spec.name
            yield TargetCollector.from_parent(
                self,
                name=name,
                nodeid=f"{self.nodeid}::{name}",
                task=task,
                selection=self._suite.selection,
                fuzz=self._suite.fuzz,
            )


class Suite:
    """A plugin object: the servers and clients to test in this process, and the hooks that test them."""

    def __init__(
        self,
        config: pytest.Config,
        *,
        tasks: Sequence[Task],
        collects: bool,
        selection: Selection,
        reports: Sequence[str],
        fuzz: Limits | None = None,
    ) -> None:
        self.tasks = tuple(tasks)
        self.subjects = tuple(task.subject for task in tasks)
        self.servers = tuple(subject for subject in self.subjects if isinstance(subject, Subject))
        self.selection = selection
        self.fuzz = fuzz
        self.seed: int = config.getoption("nbd_seed")
        self._collects = collects
        self._worker = hasattr(config, "workerinput")
        self._alone = True
        """Whether no report has come of a test that is not the suite's."""
        checks = {check.id: check for task in tasks for check in task.checks}
        self.summary = Summary(
            self.subjects, tuple(checks.values()), reports, strict=bool(config.getoption("nbd_strict")), seed=self.seed
        )

    def server(self, name: str) -> Subject:
        """The server of this name."""
        return next(subject for subject in self.servers if subject.spec.name == name)

    def pytest_report_header(self) -> list[str]:
        """Say what is tested, and which servers are not written to."""
        lines = []
        if self._collects:
            checks = [f"nbd: {len(task.checks)} checks on {task.subject.spec.name}" for task in self.tasks]
            lines += [*checks, f"nbd: seed {self.seed}"]
        lines += [f"nbd: {note}" for note in self.summary.notes()]
        return lines

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the suite's items behind the user's own tests, before anybody selects or sorts."""
        if self._collects:
            collector = SuiteCollector.from_parent(session, name=SUITE_NODE, nodeid=SUITE_NODE, suite=self)
            found = list(session.genitems(collector))
            if not found:
                raise pytest.UsageError(
                    f"no item of the suite is called {', '.join(self.selection.nodes)}; see --collect-only -q"
                )
            items.extend(found)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Look at each server first: an error in a SPEC is one error, not one of every check."""
        if self._worker or not self._collects or session.config.getoption("collectonly"):
            return
        wanted = {item.subject for item in getattr(session, "items", ()) if isinstance(item, CheckItem)}
        distributed = _distributes(session.config)
        for subject in self.subjects:
            if not (distributed or subject in wanted):
                continue
            try:
                subject.preflight()
            except UsageError as error:
                raise pytest.UsageError(str(error)) from error
            if distributed:
                subject.pause()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Give the result to the report, which may travel to another process, and translate it for pytest."""
        report = yield
        if isinstance(item, CheckItem | FuzzItem) and call.when == "call" and item.result is not None:
            report.nbd_result = result_row(item.result)  # type: ignore[attr-defined]  # reports carry extra attributes
            if item.result.expected:
                report.outcome = "skipped"
                report.wasxfail = item.result.message.rpartition("\n")[2]
            elif item.result.outcome is Outcome.SKIPPED:
                report.longrepr = (str(item.location[0]), 0, f"Skipped: {item.result.message}")
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Show warnings and faults of the harness as what they are."""
        row = getattr(report, "nbd_result", None)
        if row is None or row["expected"]:
            return None
        if row["outcome"] == Outcome.WARNED and report.passed:
            return "warned", "w", ("WARNED", {"yellow": True})
        if row["outcome"] == Outcome.ERROR:
            return "error", "E", ("ERROR", {"red": True})
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result, wherever it comes from."""
        self._alone = self._alone and report.nodeid.startswith(f"{SUITE_NODE}::")
        if not self._worker:
            self.summary.add(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over what a worker learned of its servers."""
        self.summary.learn(getattr(node, "workeroutput", {}).get("nbdtest_targets", []))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Stop the servers, and write the reports or hand over what was learned."""
        if "hypothesis" not in sys.modules and (self._alone or not _distributes(session.config)):
            # Its plugin would now load it, for a summary of tests that there were none of.
            session.config.pluginmanager.unregister(name="hypothesispytest")
        try:
            if self._worker:
                output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]  # xdist adds it
                output["nbdtest_targets"] = self.summary.learned()
            else:
                self.summary.learn(self.summary.learned())
                if not self.summary.write_reports() and session.exitstatus == pytest.ExitCode.OK:
                    session.exitstatus = pytest.ExitCode.USAGE_ERROR  # somebody relies on a report that is not there
        finally:
            self.close()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the verdicts."""
        self.summary.print_to(terminalreporter)

    def pytest_unconfigure(self) -> None:
        """Stop the servers also when no session came about."""
        self.close()

    def close(self) -> None:
        """Stop the servers. Any number of times."""
        for subject in self.subjects:
            subject.close()


def suite_of(config: pytest.Config, arguments: Sequence[str]) -> Suite:
    """Make the suite that the options ask for; `arguments` are those that name it or its items.

    Raises:
        UsageError: an option cannot be used.
    """
    commands = config.getoption("nbd_client")
    servers = parse_servers(config.getoption("nbd_server") or ([] if commands else ["builtin"]))
    captures = config.getoption("nbd_pcap")
    settings = Settings(
        timeout_s=float(config.getoption("nbd_timeout")),
        seed=config.getoption("nbd_seed"),
        strict=bool(config.getoption("nbd_strict")),
        allow_writes=bool(config.getoption("nbd_allow_writes")),
        deviations=read_deviations(config.getoption("nbd_expect")),
        captures=Path(captures) if captures else None,
    )
    subjects: list[AnySubject] = [Subject(spec, settings) for spec in servers]
    if commands:
        from nbdtest.fixtures.client_command import parse_clients
        from nbdtest.fixtures.client_subject import ClientSubject

        subjects += [ClientSubject(spec, settings) for spec in parse_clients(commands)]
    tasks = _tasks(config, subjects)
    names = [subject.spec.name for subject in subjects]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"a server and a client are both called {twice.pop()}: test them one after the other")
    reports = list(config.getoption("nbd_report"))
    refuse_unwritable(reports)
    others = set(config.getoption("file_or_dir") or ()) - set(arguments)
    return Suite(
        config,
        tasks=tasks,
        collects=bool(arguments) or not others,
        selection=Selection(tuple(argument for argument in arguments if not _whole(argument))),
        reports=reports,
        fuzz=limits_of(config.getoption("nbd_fuzz")) if config.getoption("nbd_fuzz") else None,
    )


def _tasks(config: pytest.Config, subjects: Sequence[AnySubject]) -> list[Task]:
    """Give each target its checks; what --nbd-checks names may be a check of servers or of clients."""
    roles = {subject: "server" if isinstance(subject, Subject) else "client" for subject in subjects}
    patterns = [glob for option in config.getoption("nbd_checks") for glob in option.split(",") if glob]
    everything = [check for role in ("server", "client") if role in roles.values() for check in each_check(role)]
    checks = select(in_order(everything), ids=patterns, level=Level(config.getoption("nbd_level")))
    if not checks:
        raise UsageError("no check is selected: --nbd-checks and --nbd-level leave nothing")
    return [Task(subject, tuple(check for check in checks if check.role == role)) for subject, role in roles.items()]


def _distributes(config: pytest.Config) -> bool:
    """Whether this is the process of pytest-xdist that gives the work to others."""
    return bool(config.pluginmanager.hasplugin("dsession"))


def _whole(argument: str) -> bool:
    return argument == SUITE_PACKAGE
