"""How checks of clients are declared by what the server does: one row, one deed of the server, one way to end.

The rows are in `nbdtest.conformance.client`; running the command and judging what holds everywhere is in
`client_target`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_gallery import MODES
from nbdtest.conformance.client_target import ClientTarget, Seen
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.fakeserver import FakeServer
from nbdtest.report.results import Level

__all__ = ["ONE_CONNECTION", "Deed", "Ending", "Judge", "expect_ending", "expect_intact", "probe_of"]

Deed: TypeAlias = Callable[[FakeServer], None]
"""What is special about the server of a probe."""
Judge: TypeAlias = Callable[[ClientTarget, Seen], None]
"""Looks at one run, and complains."""


ONE_CONNECTION: Mapping[str, Any] = {"multi_conn": False}
"""An export on which what goes wrong first, goes wrong on the first connection that transmits."""


class Ending(enum.Enum):
    """How the client has to come out of it."""

    SUCCESS = "success"
    """What the server did is right, or none of the client's business."""
    FAILURE = "failure"
    """Nothing can come of it: who reports success has not noticed."""
    HANGUP = "hang-up"
    """A failure, and the connection ends without another word: CMD_DISC belongs to sessions that are in order."""
    ANY = "any"
    """The client may give up or go on, but it has to end, without a crash."""


_PHASES: Mapping[Ability, str] = {
    Ability.TELLS_REFUSAL: "opening the export",
    Ability.TELLS_READ_ERROR: "a READ",
    Ability.TELLS_WRITE_ERROR: "a WRITE",
    Ability.TELLS_STATUS_ERROR: "a BLOCK_STATUS",
}


def expect_ending(
    target: ClientTarget, seen: Seen, ending: Ending, tells: Ability = Ability.TELLS_REFUSAL, *, after: str = ""
) -> None:
    """Complain unless the run ended as it has to.

    `tells` is what the client's exit status has to be good for: where it is not, a failure cannot be asked for.
    """
    when = f"{after}: " if after else ""
    if ending is Ending.SUCCESS:
        if not seen.succeeded:
            raise Complaint(f"{when}the client fails: {seen.ending}", "success")
        expect_intact(target, seen, after=after)
    if ending is Ending.HANGUP:
        busy = next((talk for talk in seen.talks if talk.requests), None)
        if busy is not None and busy.disconnected:
            raise Complaint(f"{when}the client goes on, and ends the session by CMD_DISC", "a hard disconnect")
    if ending in (Ending.FAILURE, Ending.HANGUP):
        if not target.has(tells):
            target.remark(f"{tells.value}: it is not known whether the client noticed")
        elif seen.succeeded:
            raise Complaint(f"{when}the client reports success", f"a failure: {_PHASES[tells]} cannot have succeeded")


def expect_intact(target: ClientTarget, seen: Seen, *, after: str = "", requirement: str = "") -> None:
    """Complain if the client copies an export, says that all went well, and the copy is not what was copied."""
    if target.has(Ability.DOWNLOADS) and len(seen.disk) == len(target.disk_contents):
        copy, original = seen.file, target.disk_contents
    elif target.has(Ability.UPLOADS) and len(seen.disk) == len(target.file_contents):
        copy, original = seen.disk, target.file_contents
    else:
        return
    if copy != original:
        when = f"{after}: " if after else ""
        at = next((i for i, (a, b) in enumerate(zip(copy, original, strict=False)) if a != b), len(copy))
        raise Complaint(f"{when}the copy differs from offset {at} on", "the same bytes", requirement=requirement)


def probe_of(
    id: str,
    doc: str,
    *deeds: Deed,
    proves: str | Sequence[str],
    legal: bool,
    ending: Ending,
    needs: Sequence[Ability] = (),
    tells: Ability = Ability.TELLS_REFUSAL,
    modes: Sequence[str] = (),
    level: Level | None = None,
    export: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    uri: Callable[[FakeServer], str] | None = None,
    judge: Judge | None = None,
) -> Check:
    """Declare a check: for each deed, and in each of `modes` that the client agrees on, one run.

    Args:
        doc: the rule, from the client's side.
        deeds: what the servers do, each in a run of its own.
        legal: whether a correct server may do that.
        tells: what the exit status has to be good for.
        export: fields of the export that differ from the usual, as `settings` do of the server.
        uri: gives the client another URI than the server's.
        judge: looks at each run, beside `ending`.
    """
    rows = (proves,) if isinstance(proves, str) else tuple(proves)

    @check(
        id,
        proves=rows,
        legal=legal,
        needs=(Ability.SUCCEEDS, *needs),
        level=level,
        role="client",
        doc=doc,
    )
    def run(t: ClientTarget) -> None:
        missing = ""
        judged = 0
        for mode in t.modes(*modes) if modes else ("",):
            how = {**MODES.get(mode, {}), **(settings or {})}
            for deed in deeds:
                try:
                    seen = t.probe(deed, legal=legal, proves=rows, export=export, uri=uri, **how)
                    if judge is not None:
                        judge(t, seen)
                except NotApplicable as reason:
                    missing = str(reason)
                    continue
                judged += 1
                after = f"with {mode} replies" if mode else ""
                expect_ending(t, seen, ending, tells, after=after)
        if not judged:
            raise NotApplicable(missing or f"the client uses none of {', '.join(modes)} replies")

    return run
