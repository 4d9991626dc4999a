"""What the run says of the servers: the details of a failure, the verdicts at the end, and the report files.

It gathers results from test reports, which under pytest-xdist come from other processes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

import nbdtest
from nbdtest.conformance.declare import Check
from nbdtest.errors import UsageError
from nbdtest.fixtures.report_files import write_report
from nbdtest.fixtures.subject import Subject, locked_out, rules_of
from nbdtest.report.json_document import result_from_row, target_from_row, target_row
from nbdtest.report.results import Level, Outcome, Report, Result, TargetInfo
from nbdtest.report.wording import printable, rule_lines, verdict, word

if TYPE_CHECKING:
    from nbdtest.fixtures.client_subject import ClientSubject

__all__ = ["Summary", "details", "repeat"]


def repeat(subject: Subject | ClientSubject, check: str, seed: int = 0) -> str:
    """The command that runs one check on one target again."""
    option = "--nbd-server" if isinstance(subject, Subject) else "--nbd-client"
    seeded = [f"--nbd-seed={seed}"] if seed else []
    return shlex.join(["pytest", f"{option}={subject.spec.text}", f"--nbd-checks={check}", *seeded])


def details(result: Result, again: str) -> str:
    """Everything that an author needs to know of a result that went wrong; `again` is the command that repeats it."""
    parts = [result.title, printable(result.message)]
    if result.transcript:
        parts.append("what was sent and received:\n" + printable(result.transcript))
    return "\n\n".join(part for part in [*parts, f"again: {again}"] if part)


class Summary:
    """The results so far, and what is known of the targets."""

    def __init__(
        self,
        subjects: Sequence[Subject | ClientSubject],
        checks: Sequence[Check],
        reports: Sequence[str],
        *,
        strict: bool,
        seed: int,
    ) -> None:
        self._subjects = subjects
        self._checks = checks
        self._reports = reports
        self._strict = strict
        self._seed = seed
        self._results: list[Result] = []
        self._targets: dict[str, TargetInfo] = {}
        self._written: list[str] = []

    def notes(self) -> list[str]:
        """What the user should know of the servers before anything is run."""
        return [f"{subject.spec.name}: {subject.note}" for subject in self._subjects if subject.note]

    def add(self, report: pytest.TestReport) -> None:
        """Take over the result that a test report carries."""
        row = getattr(report, "nbd_result", None)
        if row is not None:
            self._results.append(result_from_row(row))
        elif report.failed and (where := report.nodeid.split("::"))[0] == "nbd" and len(where) == 3:
            # The process that ran the check has crashed, so nobody has judged it.
            self._results.append(
                Result(
                    check=where[2],
                    target=where[1],
                    outcome=Outcome.ERROR,
                    level=Level.MUST,
                    message=f"fault of the harness: {report.longreprtext}",
                )
            )

    def learned(self) -> list[dict[str, Any]]:
        """What this process knows of its targets, as rows."""
        return [target_row(subject.info()) for subject in self._subjects]

    def learn(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add what a process knew; who has asked a server what it can do is believed."""
        for row in rows:
            target = target_from_row(row)
            known = self._targets.get(target.name)
            if known is None or len(target.capabilities) > len(known.capabilities):
                self._targets[target.name] = target

    def report(self) -> Report:
        """The results as a report."""
        return Report(
            tool=f"nbdtest {nbdtest.__version__}",
            targets=tuple(self._targets.get(subject.spec.name) or subject.info() for subject in self._subjects),
            results=Report.merged(self._results),
            rules=rules_of(self._checks),
            strict=self._strict,
            seed=self._seed,
        )

    def write_reports(self) -> bool:
        """Write the files that were asked for, if anything was checked; whether all could be."""
        if not self._results:
            return True
        report = self.report()
        written = True
        for name in self._reports:
            try:
                write_report(name, report)
            except UsageError as error:
                self._written.append(f"no report: {error}")
                written = False
            else:
                self._written.append(f"report written to {os.path.relpath(name)}")
        return written

    def print_to(self, terminal: pytest.TerminalReporter) -> None:
        """Print a verdict for each target, with what went wrong by the words of the specification."""
        if not self._results:
            return
        report = self.report()
        terminal.write_sep("=", "NBD conformance")
        for subject, target in zip(self._subjects, report.targets, strict=True):
            self._print_target(terminal, report, subject, target)
        for line in self._written:
            terminal.write_line(line)

    def _print_target(
        self, terminal: pytest.TerminalReporter, report: Report, subject: Subject | ClientSubject, target: TargetInfo
    ) -> None:
        results = report.of(target.name)
        if not results:
            return
        version = f" ({target.version})" if target.version else ""
        bad = any(result.fails_run(strict=self._strict) for result in results)
        terminal.write_line(
            f"{target.name}{printable(version)}: {verdict(report, target.name)}",
            bold=True,
            **{"red" if bad else "green": True},
        )
        for result in results:
            if result.fails_run(strict=self._strict) or (result.outcome is Outcome.WARNED and not result.expected):
                _print_result(terminal, report, result, repeat(subject, result.check, self._seed))
        if subject.note:
            terminal.write_line(f"  {subject.note} (--nbd-allow-writes runs them)")
        if advice := locked_out(target):
            terminal.write_line(f"  {advice}")


def _print_result(terminal: pytest.TerminalReporter, report: Report, result: Result, again: str) -> None:
    terminal.write_line(f"  {word(result)}: {result.check}: {result.title}")
    lines = printable(result.message).strip().splitlines()
    if result.outcome is Outcome.ERROR:
        lines = lines[-1:]  # of a traceback, which stands above, the exception
    elif "rule:" not in result.message:
        lines += rule_lines(report, result)
    for line in lines:
        terminal.write_line(f"    {line}")
    terminal.write_line(f"    again: {again}")
