"""What a check can say of its target, as exceptions: it complains, or it cannot be run here.

Which outcome follows from that is decided by the runner; nothing here knows a connection.
"""

from __future__ import annotations

from nbdtest.errors import NBDTestError

__all__ = ["Complaint", "Hangup", "NoAnswer", "NotApplicable"]


class Complaint(NBDTestError):
    """The target broke the rule that the check proves.

    `requirement` names the broken rule when the check proves several, "" for the check's first one.
    """

    def __init__(self, seen: str, wanted: str = "", *, requirement: str = "") -> None:
        super().__init__(f"{seen}; {wanted} was expected" if wanted else seen)
        self.seen = seen
        self.wanted = wanted
        self.requirement = requirement


class Hangup(Complaint):
    """The target ended the connection. An illegal probe tolerates it, a legal one does not (TERM-006, TERM-034).

    `tolerable` is False while the check has sent nothing but what prepares its probe.
    """

    def __init__(self, seen: str, wanted: str = "", *, tolerable: bool = True) -> None:
        super().__init__(seen, wanted)
        self.tolerable = tolerable


class NoAnswer(Complaint):
    """The target left the connection open and said nothing within the time limit."""


class NotApplicable(NBDTestError):
    """The check cannot be judged on this target; the message says why. Nobody is at fault."""
