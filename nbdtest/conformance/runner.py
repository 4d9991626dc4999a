"""Runs one check on one target and turns what it said into a verdict.

This is the edge where every exception of a check ends: a complaint is judged by the level of the broken rule, a missing
capability skips, and anything else is a fault of the harness, never of the target.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.catalogue import Requirement, requirement
from nbdtest.conformance.declare import Check
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import Complaint, Hangup, NotApplicable
from nbdtest.errors import PeerViolation, TransportError
from nbdtest.net.clock import monotonic_s
from nbdtest.report.results import Level, Outcome, Result

__all__ = ["run_check"]

_RECORDS_KEPT = 60
_LAST_WORDS = 10  # lines of a server that has died


@dataclass(frozen=True, slots=True)
class _Verdict:
    outcome: Outcome
    level: Level
    message: str = ""


def run_check(check: Check, target: ServerTarget, *, strict: bool = False) -> Result:
    """Run `check` on `target`; `strict` makes a broken SHOULD a failure.

    A target that no longer answers a plain read afterwards fails the check, whatever its level, and is started again.
    """
    started = monotonic_s()
    target.begin(check.id)
    try:
        verdict = _missing(check, target) or _probe(check, target)
    except TransportError as error:
        # Raised by the first look at the target: it cannot be reached at all.
        verdict = _Verdict(Outcome.ERROR, check.level, f"the server cannot be reached: {error}{_last_words(target)}")
    finally:
        target.end()
    if strict and verdict.outcome is Outcome.WARNED:
        verdict = _Verdict(Outcome.FAILED, verdict.level, verdict.message)
    kept = verdict.outcome in (Outcome.FAILED, Outcome.WARNED, Outcome.ERROR)
    return Result(
        check=check.id,
        target=target.source.name,
        outcome=verdict.outcome,
        level=verdict.level,
        requirements=check.proves,
        message=verdict.message,
        seconds=monotonic_s() - started,
        transcript=target.transcript.format(last=_RECORDS_KEPT) if kept else "",
    )


def _missing(check: Check, target: ServerTarget) -> _Verdict | None:
    """Say why the check cannot be run here, if so."""
    trouble = target.facts.trouble
    needs = (*check.needs, Capability.WRITABLE) if check.writes else check.needs
    for capability in needs:
        assert isinstance(capability, Capability)
        if not target.has(capability):
            return _Verdict(Outcome.SKIPPED, check.level, trouble or capability.value)
    return None


def _probe(check: Check, target: ServerTarget) -> _Verdict:
    if check.hostile and (trouble := target.trouble()):
        target.source.revive()
        if trouble := target.trouble():
            said = _last_words(target)
            return _Verdict(Outcome.ERROR, check.level, f"the server did not serve before this check: {trouble}{said}")
    verdict = _judge(check, target)
    failed = verdict.outcome in (Outcome.FAILED, Outcome.WARNED, Outcome.ERROR)
    if (check.hostile or failed) and (trouble := _lasting_trouble(target)):
        said = f"after this probe the server does not serve any more: {trouble}{_last_words(target)}"
        why = "" if verdict.outcome is Outcome.PASSED else verdict.message  # of a hangup that was tolerated
        rule = () if "rule:" in why else _rule(check.requirements[0])
        verdict = _Verdict(Outcome.FAILED, Level.MUST, "\n".join(filter(None, (said, why, *rule))))
        target.source.revive()
    return verdict


def _lasting_trouble(target: ServerTarget) -> str:
    """What is wrong with a plain read, asked a second time if the first one fails: who is only late is not dead."""
    if not target.trouble():
        return ""
    target.wait(target.quiet_s)
    return target.trouble()


def _judge(check: Check, target: ServerTarget) -> _Verdict:
    try:
        check.run(target)
    except NotApplicable as reason:
        return _Verdict(Outcome.SKIPPED, check.level, str(reason))
    except Hangup as hangup:
        if not check.legal and hangup.tolerable:
            return _Verdict(Outcome.PASSED, check.level, f"tolerated: {hangup.seen} (TERM-006, TERM-034)")
        return _complained(check, hangup)
    except Complaint as complaint:
        return _complained(check, complaint)
    except PeerViolation as violation:
        return _complained(check, Complaint(str(violation), requirement=violation.requirement))
    except TransportError as error:
        return _Verdict(Outcome.ERROR, check.level, f"no connection to the server: {error}")
    except Exception:  # noqa: BLE001 - the edge of a check: whatever it is, it is the harness's fault and reported as that
        return _Verdict(Outcome.ERROR, check.level, f"fault of the harness:\n{traceback.format_exc()}")
    return _Verdict(Outcome.PASSED, check.level, "; ".join(target.remarks))


def _complained(check: Check, complaint: Complaint) -> _Verdict:
    broken = requirement(complaint.requirement or check.proves[0])
    level = broken.level if complaint.requirement else check.level
    outcome = Outcome.FAILED if level is Level.MUST else Outcome.WARNED
    return _Verdict(outcome, level, explain(check, complaint, broken))


def explain(check: Check, complaint: Complaint, broken: Requirement) -> str:
    """Say to a server's author what was seen, what was expected, and which rule says so."""
    lines = [f"seen:   {complaint.seen}"]
    if complaint.wanted:
        lines.append(f"wanted: {complaint.wanted}")
    eased = not complaint.requirement and broken.level is Level.MUST and check.level is not Level.MUST
    return "\n".join([*lines, *_rule(broken, note=", where this check only warns" if eased else "")])


def _rule(broken: Requirement, note: str = "") -> tuple[str, str]:
    return f"rule:   {broken.id}, {broken.kind.upper()}{note}: {broken.text}", f"where:  {broken.url}"


def _last_words(target: ServerTarget) -> str:
    words = (target.source.obituary() or target.source.output()).strip().splitlines()
    if len(words) > _LAST_WORDS:
        # A server logs every check: how it died is said first, why it died last.
        words[1 : 1 - _LAST_WORDS] = [f"… {len(words) - _LAST_WORDS} lines"]
    return "".join(f"\n{line}" for line in words)
