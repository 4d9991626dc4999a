"""`--nbd-fuzz` as a pytest item: random sessions on a target, and every finding kept as a folder."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from nbdtest.errors import UsageError
from nbdtest.fixtures.foreseen import is_foreseen
from nbdtest.fixtures.subject import Subject
from nbdtest.fuzz.campaign import Campaign, Limits
from nbdtest.fuzz.finding import Finding, save
from nbdtest.fuzz.player import Player
from nbdtest.fuzz.problem import Problem
from nbdtest.plugin import SUITE_NODE
from nbdtest.report.results import Level, Outcome, Result

__all__ = ["FuzzItem", "limits_of"]

INTO = Path("findings")


def limits_of(text: str) -> Limits:
    """Read the value of --nbd-fuzz: "500" is a number of sessions, "30s" a number of seconds.

    Raises:
        UsageError: it is neither.
    """
    match = re.fullmatch(r"([1-9][0-9]*)(s?)", text)
    if match is None:
        raise UsageError(
            f"--nbd-fuzz={text}: a number of sessions such as 500, or of seconds such as 30s, was expected"
        )
    number = int(match[1])
    return Limits(seconds=float(number)) if match[2] else Limits(sessions=number)


class Findings(Exception):
    """What random sessions found, for the report of the item."""


class FuzzItem(pytest.Item):
    """Random sessions on one target."""

    def __init__(self, *, subject: Subject, limits: Limits, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._subject = subject
        self._limits = limits
        self.result: Result | None = None
        self.add_marker("nbd")

    def runtest(self) -> None:
        """Play sessions until the limit.

        Raises:
            Findings: something is wrong.
        """
        seed = random.SystemRandom().getrandbits(32)
        kept: list[str] = []
        problems: list[str] = []

        def keep(finding: Finding, player: Player) -> None:
            output = player.target.source.output()
            place = save(finding, self.config.invocation_params.dir / INTO, transcript=player.transcript, output=output)
            problems.append(str(finding.problem))
            kept.append(f"{finding.problem}\n  repeat: nbdtest replay {place}\n\n{player.transcript.format()}")

        def foreseen(problem: Problem) -> bool:
            return is_foreseen(problem, self._subject.info(), self._subject.deviations)

        campaign = Campaign(Player(self._subject.target), seed=seed, found=keep, foreseen=foreseen)
        progress = campaign.run(self._limits)
        rules = len(progress.coverage.requirements)
        summary = f"{progress.sessions} sessions, {progress.commands} commands, {rules} rules exercised, seed {seed}"
        self.add_report_section("call", "fuzz", summary)
        self.result = Result(
            check=self.name,
            target=self._subject.spec.name,
            outcome=Outcome.FAILED if kept else Outcome.PASSED,
            level=Level.MUST,
            title="Random sessions find nothing wrong.",
            message="\n".join([*problems, summary]),
            seconds=progress.seconds,
        )
        if kept:
            raise Findings("\n\n".join([*kept, summary]))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what was found; a traceback is shown for faults outside the sessions only."""
        if isinstance(excinfo.value, Findings):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The place that pytest prints; see `CheckItem`."""
        return self.session.path / SUITE_NODE, None, f"{self.name} on {self._subject.spec.name}"
