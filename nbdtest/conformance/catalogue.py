"""The requirements of the specification, and which checks prove them.

The list is package data (`data/requirements.csv`); nothing here knows what a check does.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Protocol

from nbdtest.errors import UsageError
from nbdtest.report.results import Level

__all__ = ["Coverage", "Requirement", "coverage", "each_requirement", "requirement"]

_SPECIFICATION = "https://github.com/NetworkBlockDevice/nbd/blob/master/doc/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One rule of proto.md or of its extension branches.

    `kind` is the specification's own word ("must not", "should", "may", "fact"); `visible` says whether the wire shows
    a breach: "yes", "partial" or "no"; `reason` says why it does not, or what more is needed; `restates` is the id of
    the rule that this one repeats.
    """

    id: str
    section: str
    role: str
    kind: str
    text: str
    visible: str
    features: str
    reason: str = ""
    restates: str = ""

    @property
    def level(self) -> Level:
        """How strongly it binds.

        A fact of the format (such as a field's width) binds as a MUST does. Which error value fits which failure is a
        tier of its own, never more than SHOULD: honest servers differ there.
        """
        if self.kind.startswith("should") or self.section == "proto.md#error-values":
            return Level.SHOULD
        return Level.MAY if self.kind == "may" else Level.MUST

    @property
    def url(self) -> str:
        """Where the specification says it."""
        return _SPECIFICATION + self.section if self.section.startswith("proto.md") else self.section

    @property
    def binds(self) -> bool:
        """Whether a check has to prove it: visible, no repetition of another rule, no mere permission."""
        return self.visible != "no" and not self.restates and self.kind != "may"


class Proving(Protocol):
    """What coverage needs to know of a check."""

    @property
    def id(self) -> str: ...

    @property
    def proves(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One requirement and the ids of the checks that prove it, or the reason why there is none."""

    requirement: Requirement
    checks: tuple[str, ...]
    reason: str


@cache
def each_requirement() -> tuple[Requirement, ...]:
    """Return every requirement, in the order of the specification."""
    table = files("nbdtest.conformance").joinpath("data/requirements.csv").read_text(encoding="utf-8")
    return tuple(
        Requirement(
            id=row["id"],
            section=row["section"],
            role=row["role"],
            kind=row["level"],
            text=row["text"],
            visible=row["visible"],
            features=row["features"],
            reason=row["reason"],
            restates=row["restates"],
        )
        for row in csv.DictReader(table.splitlines())
    )


@cache
def _by_id() -> dict[str, Requirement]:
    return {row.id: row for row in each_requirement()}


def requirement(id: str) -> Requirement:
    """Return the requirement with this id.

    Raises:
        UsageError: there is none.
    """
    try:
        return _by_id()[id]
    except KeyError:
        raise UsageError(f"no requirement {id!r} in the catalogue") from None


def coverage(checks: Iterable[Proving]) -> tuple[Coverage, ...]:
    """Say for every requirement which of `checks` prove it, or why none does."""
    proofs: dict[str, list[str]] = {}
    for check in checks:
        for id in check.proves:
            proofs.setdefault(id, []).append(check.id)
    rows = []
    for row in each_requirement():
        proving = tuple(sorted(set(proofs.get(row.id, []) + proofs.get(row.restates, []))))
        rows.append(Coverage(requirement=row, checks=proving, reason="" if proving else _reason(row)))
    return tuple(rows)


def _reason(row: Requirement) -> str:
    if row.restates:
        return f"Restates {row.restates}, which has no check either: {_reason(requirement(row.restates))}"
    if row.kind == "may":
        return "A permission: nothing can break it."
    return row.reason
