"""The choice of metadata contexts: ids, surplus, nothing at all, and answers that end badly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client.options import answers
from nbdtest.conformance.client_probe import Deed, Ending, probe_of
from nbdtest.conformance.client_target import ClientTarget, Seen
from nbdtest.conformance.verdict import Complaint
from nbdtest.fakeserver import Action, FakeServer, ack, meta_context, opt_error, opt_reply
from nbdtest.fakeserver.actions import MetaContext, Status
from nbdtest.fakeserver.contexts import BASE_ALLOCATION
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, Opt, Rep


def numbers(id_of: Callable[[int], int]) -> Deed:
    """Give contexts other ids, and use them."""

    def chosen(asked: object, plan: Sequence[Action]) -> list[Action]:
        return [meta_context(a.name, id=id_of(a.id)) if isinstance(a, MetaContext) else a for a in plan]

    def described(asked: object, plan: Sequence[Action]) -> list[Action]:
        known = {name: number for number, name in enumerate((BASE_ALLOCATION,), start=1)}
        return [
            Status(id_of(known.get(a.context, 9) if isinstance(a.context, str) else a.context), a.extents)
            if isinstance(a, Status)
            else a
            for a in plan
        ]

    def change(server: FakeServer) -> None:
        server.on(Opt.SET_META_CONTEXT).rewrite(chosen)
        server.on(Cmd.BLOCK_STATUS).rewrite(described)

    return change


def _lists_other_ids(server: FakeServer) -> None:
    server.on(Opt.LIST_META_CONTEXT).rewrite(
        lambda asked, plan: [meta_context(a.name, id=0xDEAD) if isinstance(a, MetaContext) else a for a in plan]
    )


def no_status(t: ClientTarget, seen: Seen) -> None:
    """Complain if the client asks for block status all the same."""
    if any(talk.sent(Cmd.BLOCK_STATUS) for talk in seen.talks):
        raise Complaint("the client sends CMD_BLOCK_STATUS although no context is selected", "no such request")


SETS = (Ability.SET_META,)

OPAQUE_IDS = probe_of(
    "client-context.ids-are-opaque",
    "The id of a context may be any number, and is the one of the last SET_META_CONTEXT.",
    numbers(lambda id: 0),
    numbers(lambda id: 0xDEAD_BEEF),
    numbers(lambda id: 0xFFFF_FFFF),
    proves=["META-083"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=SETS,
)
LISTED_IDS = probe_of(
    "client-context.listed-ids-mean-nothing",
    "The ids in answers to LIST_META_CONTEXT are disregarded.",
    _lists_other_ids,
    proves=["META-070"],
    legal=False,
    ending=Ending.SUCCESS,
    needs=[Ability.LIST_META],
)
NOTHING_SELECTED = probe_of(
    "client-context.none-selected",
    "A client whose SET_META_CONTEXT selects nothing asks for no block status.",
    answers(Opt.SET_META_CONTEXT, ack()),
    proves=["META-007", "META-074"],
    legal=True,
    ending=Ending.ANY,
    needs=SETS,
    judge=no_status,
)
THEN_AN_ERROR = probe_of(
    "client-context.dropped-after-an-error",
    "Contexts that came before an error are dropped.",
    answers(Opt.SET_META_CONTEXT, meta_context(BASE_ALLOCATION, id=1), opt_error(Rep.ERR_TOO_BIG, "too much")),
    proves=["META-060"],
    legal=True,
    ending=Ending.ANY,
    needs=SETS,
    judge=no_status,
)
UNASKED = probe_of(
    "client-context.unasked-ones-do-no-harm",
    "Contexts that the client did not ask for do no harm.",
    answers(Opt.SET_META_CONTEXT, meta_context("x-nbdtest:other", id=77), meta_context(BASE_ALLOCATION, id=1), ack()),
    answers(Opt.SET_META_CONTEXT, meta_context("x-nbdtest:" + "n" * 4000, id=77), ack()),
    proves=["META-080"],
    legal=False,
    ending=Ending.ANY,
    needs=SETS,
    level=Level.SHOULD,
)
MALFORMED = probe_of(
    "client-context.malformed",
    "REP_META_CONTEXT that is too short, has no name, or one that is no string, does no harm.",
    answers(Opt.SET_META_CONTEXT, opt_reply(Rep.META_CONTEXT, b""), ack()),
    answers(Opt.SET_META_CONTEXT, opt_reply(Rep.META_CONTEXT, b"\0\1"), ack()),
    answers(Opt.SET_META_CONTEXT, opt_reply(Rep.META_CONTEXT, b"\0\0\0\1"), ack()),
    answers(Opt.SET_META_CONTEXT, opt_reply(Rep.META_CONTEXT, b"\0\0\0\1\xff\0base:allocation"), ack()),
    answers(Opt.SET_META_CONTEXT, opt_reply(Rep.META_CONTEXT, b"\0\0\0\1" + b"x:" * 4096), ack()),
    proves=["REP-027", "META-013"],
    legal=False,
    ending=Ending.ANY,
    needs=SETS,
    level=Level.SHOULD,
)
