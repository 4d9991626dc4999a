"""The outcome of checks, as values that every report is written from."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Level", "Outcome", "Report", "Result", "Rule", "TargetInfo"]


class Level(enum.StrEnum):
    """How strongly the specification demands something."""

    MUST = "must"
    SHOULD = "should"
    MAY = "may"


class Outcome(enum.StrEnum):
    """What became of one check on one target."""

    PASSED = "passed"
    FAILED = "failed"
    """A MUST is broken."""
    WARNED = "warned"
    """A SHOULD is broken."""
    SKIPPED = "skipped"
    """The target cannot do what the check needs; the message says what."""
    ERROR = "error"
    """The harness failed; nothing is said about the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One check on one target.

    `title` is the check in one sentence, `seconds` is wall time, `transcript` is the exchange for people, "" if none
    is kept.
    """

    check: str
    target: str
    outcome: Outcome
    level: Level
    title: str = ""
    requirements: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0
    expected: bool = False
    """Whether a list of known deviations foresees this outcome."""
    unexpected_pass: bool = False
    """Whether a list of known deviations foresees another outcome than this pass."""
    transcript: str = ""

    def fails_run(self, *, strict: bool = False) -> bool:
        """Whether a run with this result has failed; with `strict` a broken SHOULD counts as well."""
        if self.expected or self.unexpected_pass:
            return self.unexpected_pass
        return self.outcome in (Outcome.FAILED, Outcome.ERROR) or (strict and self.outcome is Outcome.WARNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInfo:
    """What was tested: its name in item ids, the SPEC it came from, its version if known, and what it can do."""

    name: str
    spec: str
    version: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One requirement of the specification: `section` is such as "proto.md#conventions", `text` says it in words."""

    id: str
    level: str
    section: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All results of one run, and the rules that the results name."""

    targets: tuple[TargetInfo, ...]
    results: tuple[Result, ...]
    rules: tuple[Rule, ...] = ()
    tool: str = "nbdtest"
    strict: bool = False
    """Whether a broken SHOULD fails the run."""
    seed: int = 0
    """What the random data and offsets of the checks were drawn from."""

    @property
    def failed(self) -> bool:
        """Whether the run has failed."""
        return any(result.fails_run(strict=self.strict) for result in self.results)

    def of(self, target: str) -> tuple[Result, ...]:
        """The results of one target, in order."""
        return tuple(result for result in self.results if result.target == target)

    def rule(self, id: str) -> Rule | None:
        """The rule named `id`, None when this report does not describe it."""
        return next((rule for rule in self.rules if rule.id == id), None)

    def summary(self) -> dict[str, int]:
        """Count the results by outcome, every outcome named."""
        counts = Counter(result.outcome for result in self.results)
        return {outcome.value: counts[outcome] for outcome in Outcome}

    @staticmethod
    def merged(results: Iterable[Result]) -> tuple[Result, ...]:
        """Sort results by target and check, so that a report does not depend on the order of the run."""
        return tuple(sorted(results, key=lambda result: (result.target, result.check)))
