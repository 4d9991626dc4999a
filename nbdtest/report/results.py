"""The outcome of checks, as values that every report is written from."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Level", "Outcome", "Report", "Result", "TargetInfo"]


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
    """One check on one target. `seconds` is wall time; `transcript` is the exchange for people, "" if none is kept."""

    check: str
    target: str
    outcome: Outcome
    level: Level
    requirements: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0
    expected: bool = False
    """Whether a list of known deviations foresees this outcome."""
    transcript: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetInfo:
    """What was tested: its name in item ids, the SPEC it came from, its version if known, and what it can do."""

    name: str
    spec: str
    version: str = ""
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All results of one run."""

    targets: tuple[TargetInfo, ...]
    results: tuple[Result, ...]

    def summary(self) -> dict[str, int]:
        """Count the results by outcome, every outcome named."""
        counts = Counter(result.outcome for result in self.results)
        return {outcome.value: counts[outcome] for outcome in Outcome}

    @staticmethod
    def merged(results: Iterable[Result]) -> tuple[Result, ...]:
        """Sort results by target and check, so that a report does not depend on the order of the run."""
        return tuple(sorted(results, key=lambda result: (result.target, result.check)))
