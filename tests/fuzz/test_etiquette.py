"""Answers to options that break a rule are noticed; what honest servers say differently is not."""

from __future__ import annotations

import random

import pytest

from nbdtest.conformance.negotiation import Answer
from nbdtest.fuzz.etiquette import Etiquette, may_be_left
from nbdtest.fuzz.script import Opening
from nbdtest.fuzz.visits import visit
from nbdtest.wire import (
    Info,
    InfoExport,
    InfoRequest,
    MetaContext,
    MetaContextRequest,
    Opt,
    Option,
    OptionReply,
    Rep,
    ServerExport,
    TransmissionFlag,
)
from tests.fuzz import grounds

UNKNOWN = Opt(0x7FFF_0001)
SIZE = 4096


def info(name: str) -> bytes:
    return InfoRequest(name=name).encode()


def contexts(*queries: str) -> bytes:
    return MetaContextRequest(name="disk", queries=queries).encode()


def size_is(size: int) -> tuple[Rep, bytes]:
    return Rep.INFO, InfoExport(size=size, flags=TransmissionFlag.HAS_FLAGS).encode()


def context(number: int, name: str) -> tuple[Rep, bytes]:
    return Rep.META_CONTEXT, MetaContext(id=number, name=name).encode()


def judged(option: Opt, data: bytes, *replies: tuple[Rep, bytes], echo: Opt | None = None) -> str:
    messages = tuple(OptionReply(option=echo or option, type=kind, data=payload) for kind, payload in replies)
    answer = Answer(option=Option(option=option, data=data), replies=messages)
    problem = Etiquette("disk", SIZE, names_matter=True).judge(answer)
    return "" if problem is None else problem.requirement


ACK = (Rep.ACK, b"")
BASE = "base:allocation"


@pytest.mark.parametrize(
    ("option", "data", "replies", "requirement"),
    [
        (UNKNOWN, b"", [(Rep.ERR_UNSUP, b"what?")], ""),
        (UNKNOWN, b"", [(Rep.ERR_INVALID, b"")], ""),
        (UNKNOWN, b"", [ACK], "COMPAT-005"),
        (UNKNOWN, b"", [(Rep.ERR_UNSUP, b"x" * 4097)], "CONV-006"),
        (Opt.LIST, b"", [(Rep.SERVER, ServerExport(name="disk").encode()), ACK], ""),
        (Opt.LIST, b"", [(Rep.SERVER, ServerExport(name="n" * 4097).encode()), ACK], "CONV-006"),
        (Opt.LIST, b"", [(Rep.SERVER, b"\0\0\0\x09short"), ACK], "OPT-016"),
        (Opt.LIST, b"", [(Rep.SERVER, b"\0\0\0\x01\xff"), ACK], ""),
        (Opt.LIST, b"", [size_is(SIZE), ACK], "OPT-016"),
        (Opt.LIST, b"", [(Rep.ACK, b"data")], "OPT-016"),
        (Opt.INFO, info("disk"), [size_is(SIZE), ACK], ""),
        (Opt.INFO, info("disk"), [ACK], "REP-008"),
        (Opt.INFO, info("disk"), [size_is(512), ACK], "REP-014"),
        (Opt.INFO, info("other"), [size_is(512), ACK], ""),
        (Opt.INFO, info("disk\0x"), [size_is(SIZE), ACK], "CONV-004"),
        (Opt.INFO, info("disk\0x"), [(Rep.ERR_INVALID, b"")], ""),
        (Opt.INFO, info("disk"), [(Rep.ERR_UNKNOWN, b"")], "OPT-090"),
        (Opt.INFO, info("other"), [(Rep.ERR_UNKNOWN, b"")], ""),
        (Opt.INFO, info("disk"), [(Rep.ERR_POLICY, b"")], ""),
        (Opt.INFO, info("disk") + b"\0", [ACK], ""),
        (Opt.SET_META_CONTEXT, contexts(BASE), [context(1, BASE), ACK], ""),
        (Opt.SET_META_CONTEXT, contexts("base:"), [context(1, BASE), ACK], "META-021"),
        (Opt.LIST_META_CONTEXT, contexts("base:"), [context(1, BASE), ACK], ""),
        (Opt.LIST_META_CONTEXT, contexts("base:"), [context(0, "base:other"), ACK], "META-020"),
        (Opt.SET_META_CONTEXT, contexts(BASE, "x:y"), [context(1, BASE), context(1, "x:y"), ACK], "META-080"),
        (Opt.SET_META_CONTEXT, contexts(BASE, BASE), [context(1, BASE), context(1, BASE), ACK], ""),
    ],
)
def test_an_answer_is_held_against_its_rule(
    option: Opt, data: bytes, replies: list[tuple[Rep, bytes]], requirement: str
) -> None:
    assert judged(option, data, *replies) == requirement


def test_a_reply_has_to_name_the_option() -> None:
    assert judged(Opt.LIST, b"", ACK, echo=Opt.INFO) == "OPT-012"


@pytest.mark.parametrize(
    ("option", "illegal"),
    [
        (Option(option=Opt.LIST), False),
        (Option(option=Opt.LIST, data=b"x"), True),
        (Option(option=Opt.INFO, data=InfoRequest(name="disk", infos=(Info.NAME,)).encode()), False),
        (Option(option=Opt.INFO, data=info("disk\0x")), True),
        (Option(option=Opt.INFO, data=info("n" * 4096)), False),
        (Option(option=Opt.INFO, data=info("n" * 4097)), True),
        (Option(option=Opt.INFO, data=b"\0\0\0\x01\xff\0\0"), True),
        (Option(option=Opt.SET_META_CONTEXT, data=contexts(BASE)), False),
        (Option(option=Opt.SET_META_CONTEXT, data=contexts(BASE, "x:\0")), True),
        (Option(option=UNKNOWN, data=bytes(20_000)), True),
        (Option(option=UNKNOWN, data=b"anything"), False),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_server_may_hang_up_at_what_no_client_may_send(option: Option, illegal: bool) -> None:
    assert may_be_left(option) is illegal


def test_visits_are_repeated_by_their_seed_and_write_only_where_that_is_allowed() -> None:
    made = [[visit(random.Random(seed), grounds.UNTOUCHABLE, ["disk"]) for seed in range(200)] for _ in range(2)]
    assert made[0] == made[1]
    assert all(isinstance(opening, Opening) for script in made[0] for opening in script.openings)
    kinds = {
        str(command.type) for script in made[0] for step in script.steps for command in getattr(step, "commands", ())
    }
    assert not kinds & {"CMD_WRITE", "CMD_TRIM", "CMD_WRITE_ZEROES"}
