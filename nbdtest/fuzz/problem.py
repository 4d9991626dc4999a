"""What a session can find, as values. Two findings are equal when their identities are."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Kind", "Problem", "Trouble"]


class Kind(enum.StrEnum):
    """How bad it is, and in which way."""

    WRONG_DATA = "wrong data"
    WRONG_REPLY = "wrong reply"
    OUT_OF_STEP = "out of step"
    HUNG_UP = "hung up"
    HANG = "hang"
    DEATH = "death"
    SANITIZER = "sanitizer report"
    GROWTH = "growth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that a server did wrong.

    `rule` is a sentence without numbers, `about` the kind of request it concerns; `detail` has the numbers. `site` is
    where a program died: that tells one crash from another better than what was asked for.
    """

    kind: Kind
    rule: str
    about: str = ""
    requirement: str = ""
    detail: str = ""
    site: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two problems the same."""
        return (
            (self.kind.value, "", f"{self.rule} in {self.site}")
            if self.site
            else (self.kind.value, self.about, self.rule)
        )

    def __str__(self) -> str:
        where = f" [{self.requirement}]" if self.requirement else ""
        about = f"{self.about}: " if self.about else ""
        return f"{self.kind}: {about}{self.rule}{where}{f' ({self.detail})' if self.detail else ''}"


class Trouble(Exception):
    """A session cannot go on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem
