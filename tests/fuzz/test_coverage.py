"""What a campaign has seen is counted by kind, and every rule that is judged by can be among those exercised."""

from __future__ import annotations

import inspect
import re
from types import ModuleType

import pytest

from nbdtest.conformance import requirement
from nbdtest.conformance.negotiation import Answer as OptionAnswer
from nbdtest.fuzz import coverage, etiquette, exchange, judge, player
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.coverage import Coverage
from nbdtest.fuzz.exchange import Answer
from nbdtest.fuzz.script import Mode, Way
from nbdtest.wire import Cmd, CmdFlag, Errno, Opt, Option, OptionReply, Rep, ReplyType

READ = Command(type=Cmd.READ, length=512)
FLUSH = Command(type=Cmd.FLUSH)


def rules_in(module: ModuleType) -> set[str]:
    return set(re.findall(r'"([A-Z]+-[0-9]{3})"', inspect.getsource(module)))


@pytest.mark.parametrize("module", [judge, exchange, player, etiquette], ids=lambda module: str(module.__name__))
def test_every_rule_that_is_judged_by_can_be_exercised(module: ModuleType) -> None:
    assert rules_in(module) <= rules_in(coverage)


@pytest.mark.parametrize("rule", sorted(rules_in(coverage)))
def test_every_rule_is_in_the_catalogue(rule: str) -> None:
    assert requirement(rule).id == rule


def refusal() -> Answer:
    answer = Answer()
    answer.error = int(Errno.EINVAL)
    return answer


def in_chunks(*kinds: ReplyType) -> Answer:
    answer = Answer()
    answer.chunks = [(0, int(kind), b"") for kind in kinds]
    return answer


def test_nothing_is_covered_at_first() -> None:
    assert Coverage().size == 0
    assert Coverage().requirements == ()


def test_requests_and_replies_are_counted_by_kind() -> None:
    seen = Coverage()
    seen.answered(Mode.SIMPLE, [READ, READ, FLUSH])
    seen.answered(Mode.STRUCTURED, [READ, FLUSH])
    seen.noticed(Mode.SIMPLE, READ, "it reaches past the end", refusal())
    seen.noticed(Mode.STRUCTURED, FLUSH, "", in_chunks(ReplyType.NONE))
    assert seen.requests == {"CMD_READ": 3, "CMD_FLUSH": 2}
    assert seen.replies == {"simple": 2, "EINVAL": 1, "REPLY_TYPE_NONE": 1, "plain": 1}
    assert {"RPL-022", "SIZE-040", "ERR-001", "RPL-053"} <= set(seen.requirements)
    assert "META-008" not in seen.requirements


def test_options_are_counted_by_kind() -> None:
    seen = Coverage()
    for option in (Opt.INFO, Opt(0x63), Opt(0x64)):
        reply = OptionReply(option=option, type=Rep.ERR_UNSUP)
        seen.replied(OptionAnswer(option=Option(option=option), replies=(reply,)))
    assert seen.options == {"OPT_INFO": 1, "unknown": 2}
    assert {"COMPAT-005", "OPT-012", "REP-008"} <= set(seen.requirements)


def test_it_grows_by_what_is_new_alone() -> None:
    seen = Coverage()
    seen.answered(Mode.SIMPLE, [READ])
    seen.noticed(Mode.SIMPLE, READ, "", refusal())
    size = seen.size
    seen.answered(Mode.SIMPLE, [Command(type=Cmd.READ, flags=CmdFlag.FUA, length=1)])
    seen.noticed(Mode.SIMPLE, READ, "", refusal())
    assert seen.size == size
    seen.noticed(Mode.SIMPLE, READ, "a flag does not belong there", refusal())
    seen.ended(Way.DISC)
    assert seen.size == size + 2
