"""What the runner makes of what a check says: verdicts, messages, and whose fault a death is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nbdtest.conformance import (
    Capability,
    Check,
    Complaint,
    Hangup,
    NotApplicable,
    ServerTarget,
    check,
    in_order,
    run_check,
    run_suite,
)
from nbdtest.errors import PeerViolation, TransportError
from nbdtest.fakeserver import FakeServer, actions
from nbdtest.fakeserver.rules import Moment
from nbdtest.report.results import Level, Outcome
from nbdtest.wire import Opt
from tests.conformance.configurations import CONFIGURATIONS, target_of


@pytest.fixture(scope="module")
def target() -> Iterator[ServerTarget]:
    with target_of(CONFIGURATIONS["full"]) as made:
        yield made


def saying(raised: BaseException | None, *, legal: bool = True, proves: str = "OPT-040", **more: object) -> Check:
    """A check that does nothing but raise."""

    def run(t: ServerTarget) -> None:
        """A rule."""
        if raised is not None:
            raise raised

    return check("test.rule", proves=[proves], legal=legal, **more)(run)  # type: ignore[arg-type]  # passed on


@pytest.mark.parametrize(
    ("made", "outcome"),
    [
        (saying(None), Outcome.PASSED),
        (saying(Complaint("a", "b")), Outcome.FAILED),
        (saying(Complaint("a"), proves="CONV-005"), Outcome.WARNED),
        (saying(Complaint("a", requirement="CONV-005")), Outcome.WARNED),
        (saying(Complaint("a", requirement="OPT-040"), proves="CONV-005"), Outcome.FAILED),
        (saying(Complaint("a"), level=Level.SHOULD), Outcome.WARNED),
        (saying(NotApplicable("not here")), Outcome.SKIPPED),
        (saying(PeerViolation("malformed", requirement="OPT-011")), Outcome.FAILED),
        (saying(Hangup("closed")), Outcome.FAILED),
        (saying(Hangup("closed"), legal=False), Outcome.PASSED),
        (saying(Hangup("closed", tolerable=False), legal=False), Outcome.FAILED),
        (saying(TransportError("refused")), Outcome.ERROR),
        (saying(ZeroDivisionError()), Outcome.ERROR),
        (saying(None, needs=[Capability.OLDSTYLE]), Outcome.SKIPPED),
    ],
    ids=[
        "silence passes",
        "a broken MUST fails",
        "a broken SHOULD warns",
        "the complaint names a SHOULD",
        "the complaint names a MUST",
        "the check states its level",
        "not applicable skips",
        "a malformed message fails",
        "a hangup after a legal probe fails",
        "a hangup after an illegal probe passes",
        "a hangup before the probe fails",
        "no connection is our fault",
        "an exception is our fault",
        "a missing capability skips",
    ],
)
def test_the_verdict_follows_from_what_the_check_says(target: ServerTarget, made: Check, outcome: Outcome) -> None:
    assert run_check(made, target).outcome is outcome


def test_strict_makes_a_warning_a_failure(target: ServerTarget) -> None:
    assert run_check(saying(Complaint("a"), proves="CONV-005"), target, strict=True).outcome is Outcome.FAILED


def test_the_message_says_what_was_seen_and_which_rule_says_otherwise(target: ServerTarget) -> None:
    message = run_check(saying(Complaint("something", "something else")), target).message
    assert message.splitlines() == [
        "seen:   something",
        "wanted: something else",
        "rule:   OPT-040, MUST: ABORT (option 2) is answered with ACK.",
        "where:  https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md#option-types",
    ]


def test_the_message_says_where_a_check_is_milder_than_its_rule(target: ServerTarget) -> None:
    message = run_check(saying(Complaint("something"), level=Level.SHOULD), target).message
    assert "rule:   OPT-040, MUST, where this check only warns: ABORT" in message


def test_a_skip_gives_the_reason_and_a_toleration_what_was_tolerated(target: ServerTarget) -> None:
    assert run_check(saying(None, needs=[Capability.OLDSTYLE]), target).message == "the server greets newstyle"
    assert run_check(saying(Hangup("closed"), legal=False), target).message == "tolerated: closed (TERM-006, TERM-034)"


def test_a_failed_check_keeps_its_exchange(target: ServerTarget) -> None:
    def run(t: ServerTarget) -> None:
        """A rule."""
        with t.peer.negotiating() as nego:
            nego.option(Opt.ABORT)
        raise Complaint("a")

    result = run_check(check("test.rule", proves=["OPT-040"], legal=True)(run), target)
    assert "client --> Option option=OPT_ABORT" in result.transcript
    assert "<-- server OptionReply option=OPT_ABORT type=REP_ACK" in result.transcript
    assert "49 48 41 56 45 4f 50 54" in result.transcript


def test_randomness_depends_on_the_seed_and_the_check_alone(target: ServerTarget) -> None:
    drawn: list[float] = []

    def run(t: ServerTarget) -> None:
        """A rule."""
        drawn.append(t.random.random())

    for _ in range(2):
        run_check(check("test.rule", proves=["OPT-040"], legal=True)(run), target)
    run_check(check("test.other", proves=["OPT-040"], legal=True)(run), target)
    assert drawn[0] == drawn[1] != drawn[2]


def dies_of_abort(server: FakeServer) -> None:
    """Greet nobody any more after the first ABORT."""
    aborted: list[object] = []

    def remember(asked: object, plan: actions.Plan) -> actions.Plan:
        aborted.append(asked)
        return plan

    server.on(Opt.ABORT).rewrite(remember)
    server.on(Moment.GREETING, where=lambda session: bool(aborted)).reply(actions.close())


def abort(t: ServerTarget) -> None:
    """ABORT is answered."""
    with t.peer.negotiating() as nego:
        nego.option(Opt.ABORT)


def test_a_death_is_laid_at_the_door_of_the_check_that_caused_it() -> None:
    hostile = check("test.hostile", proves=["CONV-005"], legal=False)(abort)
    with target_of(CONFIGURATIONS["full"], change=dies_of_abort) as made:
        result = run_check(hostile, made)
        assert (result.outcome, result.level) == (Outcome.FAILED, Level.MUST)
        assert result.message.startswith("after this probe the server does not serve any more: ")
        assert result.message.splitlines()[-2].startswith("rule:   CONV-005, SHOULD: ")
        assert run_check(saying(None, legal=False), made).outcome is Outcome.PASSED, "it was started again"


def test_a_server_that_was_dead_before_is_started_again_and_not_blamed() -> None:
    quiet = check("test.quiet", proves=["CONV-005"], legal=True)(abort)
    with target_of(CONFIGURATIONS["full"], change=dies_of_abort) as made:
        assert run_check(quiet, made).outcome is Outcome.PASSED
        assert run_check(saying(None, legal=False), made).outcome is Outcome.PASSED


def test_hostile_checks_come_last_and_a_shuffle_repeats() -> None:
    kind, hostile = saying(None), saying(None, legal=False)
    assert in_order([hostile, kind]) == (kind, hostile)
    many = [saying(None) for _ in range(20)]
    assert in_order(many, shuffle_seed=1) == in_order(many, shuffle_seed=1)


def test_a_run_gives_every_result_as_it_comes(target: ServerTarget) -> None:
    seen = []
    report = run_suite([saying(None), saying(Complaint("a"))], target, on_result=seen.append)
    assert tuple(seen) == report.results
    assert report.summary()["failed"] == 1
    assert report.targets[0].name == "fake"
    assert "structured" in report.targets[0].capabilities
