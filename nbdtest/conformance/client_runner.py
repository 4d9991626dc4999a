"""Runs one check on one client and turns what it said into a verdict.

As for servers: a complaint is judged by the level of the broken rule, a missing ability skips, and anything else is a
fault of the harness. A crash or a client that does not end is a failure, whatever the level of the rule.
"""

from __future__ import annotations

import traceback

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.catalogue import requirement
from nbdtest.conformance.client_target import ClientTarget, Crash
from nbdtest.conformance.declare import Check
from nbdtest.conformance.runner import explain
from nbdtest.conformance.verdict import Complaint, NoAnswer, NotApplicable
from nbdtest.errors import TransportError
from nbdtest.net.clock import monotonic_s
from nbdtest.report.results import Level, Outcome, Result

__all__ = ["run_client_check"]

_RECORDS_KEPT = 60


def run_client_check(check: Check, target: ClientTarget, *, strict: bool = False) -> Result:
    """Run `check` on `target`; `strict` makes a broken SHOULD a failure."""
    started = monotonic_s()
    target.begin()
    outcome, level, message = _judge(check, target)
    if strict and outcome is Outcome.WARNED:
        outcome = Outcome.FAILED
    kept = outcome in (Outcome.FAILED, Outcome.WARNED, Outcome.ERROR)
    return Result(
        check=check.id,
        target=target.source.name,
        outcome=outcome,
        level=level,
        title=check.title,
        requirements=check.proves,
        message=message,
        seconds=monotonic_s() - started,
        transcript=target.transcript.format(last=_RECORDS_KEPT) if kept else "",
    )


def _judge(check: Check, target: ClientTarget) -> tuple[Outcome, Level, str]:
    try:
        for need in check.needs:
            assert isinstance(need, Ability)
            if not target.has(need):
                return Outcome.SKIPPED, check.level, need.value
        check.run(target)
    except NotApplicable as reason:
        return Outcome.SKIPPED, check.level, str(reason)
    except Complaint as complaint:
        broken = requirement(complaint.requirement or check.proves[0])
        level = broken.level if complaint.requirement else check.level
        if isinstance(complaint, Crash | NoAnswer):
            level = Level.MUST
        outcome = Outcome.FAILED if level is Level.MUST else Outcome.WARNED
        return outcome, level, explain(check, complaint, broken)
    except TransportError as error:
        return Outcome.ERROR, check.level, f"the client cannot be run: {error}"
    except Exception:  # noqa: BLE001 - the edge of a check: whatever it is, it is the harness's fault and reported as that
        return Outcome.ERROR, check.level, f"fault of the harness:\n{traceback.format_exc()}"
    return Outcome.PASSED, check.level, "; ".join(target.remarks)
