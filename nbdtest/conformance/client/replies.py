"""Replies of any form that come in another order, belong to nobody, have wrong magics or strange errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_probe import Deed, Ending, expect_intact, probe_of
from nbdtest.conformance.client_target import ClientTarget, Seen
from nbdtest.conformance.declare import Check
from nbdtest.conformance.talk import Talk
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.fakeserver import Action, FakeServer, error, mangle, pass_through, pause, raw, simple
from nbdtest.fakeserver.rendering import Asked
from nbdtest.report.results import Level
from nbdtest.wire import (
    Cmd,
    Errno,
    ExtendedReply,
    ReplyFlag,
    ReplyType,
    SimpleReply,
    StructuredReply,
)

READ = (Ability.READ,)
HOLD_S = 0.1
"""So long a reply is held back: whatever else the client wants to have asked for by then, it has asked for."""


def reads(*plan: Action, nth: int | None = 1, times: int | None = None) -> Deed:
    """Answer the first READ so."""

    def change(server: FakeServer) -> None:
        server.on(Cmd.READ, nth=nth, times=times).reply(*plan)

    return change


def rewrites(change: Callable[[FakeServer, Asked, Sequence[Action]], Iterable[Action]], nth: int | None = 1) -> Deed:
    """Answer the first READ with what `change(server, asked, correct)` gives."""

    def deed(server: FakeServer) -> None:
        server.on(Cmd.READ, nth=nth).rewrite(lambda asked, plan: change(server, asked, plan))

    return deed


def _overtaken(talk: Talk) -> bool:
    """Whether a later request has been answered before an earlier one."""
    asked = [cookie for kind, cookie in talk.order if kind == "request"]
    answered = list(dict.fromkeys(cookie for kind, cookie in talk.order if kind == "reply"))
    return [cookie for cookie in asked if cookie in set(answered)] != answered


def _in_another_order(t: ClientTarget, seen: Seen) -> None:
    if not any(map(_overtaken, seen.talks)):
        raise NotApplicable("the command never has two requests under way on one connection")
    if seen.succeeded:
        expect_intact(t, seen)


def delayed(*commands: Cmd) -> tuple[Deed, ...]:
    """Answer the first of each command after later requests."""

    def one(command: Cmd) -> Deed:
        def change(server: FakeServer) -> None:
            server.on(command, nth=1).reply(pause(HOLD_S), pass_through())

        return change

    return tuple(map(one, commands))


OUT_OF_ORDER = probe_of(
    "client-reply.any-order",
    "Replies come in any order; the client tells them apart by their cookies.",
    *delayed(Cmd.READ, Cmd.WRITE),
    proves=["RPL-003"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[Ability.TRANSMITS],
    modes=["simple", "structured", "extended"],
    judge=_in_another_order,
)


def _first_word(word: int) -> Deed:
    return reads(mangle(pass_through(), magic=word))


def _unnegotiated_structured(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    data = asked.offset.to_bytes(8, "big") + bytes(server.disk.read(asked.offset, asked.length))
    reply = StructuredReply(flags=ReplyFlag.DONE, type=ReplyType.OFFSET_DATA, cookie=asked.cookie, payload=data)
    return [raw(reply.encode())]


def _unnegotiated_extended(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    data = asked.offset.to_bytes(8, "big") + bytes(server.disk.read(asked.offset, asked.length))
    reply = ExtendedReply(
        flags=ReplyFlag.DONE, type=ReplyType.OFFSET_DATA, cookie=asked.cookie, offset=asked.offset, payload=data
    )
    return [raw(reply.encode())]


def _simple_with_data(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    return [simple(content=bytes(server.disk.read(asked.offset, asked.length)))]


def _foreign(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    return [raw(SimpleReply(cookie=asked.cookie ^ 0x5A5A_0000_0000_5A5A, error=Errno.EIO).encode()), *plan]


def _twice(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    return [simple(Errno.EIO), simple(Errno.EIO)]


def row(
    id: str,
    doc: str,
    proves: Sequence[str],
    *deeds: Deed,
    modes: Sequence[str],
    ending: Ending = Ending.FAILURE,
    level: Level | None = None,
) -> Check:
    """One thing that no reply may be."""
    return probe_of(
        f"client-reply.{id}",
        doc,
        *deeds,
        proves=proves,
        legal=False,
        ending=ending,
        needs=READ,
        tells=Ability.TELLS_READ_ERROR,
        modes=modes,
        level=level,
    )


WRONG = (
    row(
        "wrong-magic",
        "What does not begin with the magic of a reply is none.",
        ["RPL-001"],
        _first_word(0),
        _first_word(0x6744_6699),
        _first_word(0x9866_4467),
        modes=["simple", "structured", "extended"],
    ),
    row(
        "historic-magic",
        "The reply magic of the 1990s begins no reply.",
        ["MAGIC-002", "RPL-001"],
        _first_word(0x9674_4668),
        modes=["simple"],
    ),
    row(
        "request-magic",
        "A request magic begins no reply.",
        ["MAGIC-003", "MAGIC-004", "RPL-001"],
        _first_word(0x2560_9513),
        _first_word(0x2560_9514),
        _first_word(0x21E4_1C71),
        modes=["simple"],
    ),
    row(
        "unnegotiated-structured",
        "A structured reply is none where structured replies were not agreed on.",
        ["RPL-020"],
        rewrites(_unnegotiated_structured),
        modes=["simple"],
        level=Level.SHOULD,
    ),
    row(
        "unnegotiated-extended",
        "An extended reply is none where extended headers were not agreed on.",
        ["MAGIC-005"],
        rewrites(_unnegotiated_extended),
        modes=["simple", "structured"],
    ),
    row(
        "simple-with-data",
        "A simple reply to a READ does no harm where structured replies were agreed on.",
        ["RPL-022"],
        rewrites(_simple_with_data),
        modes=["structured"],
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
    row(
        "simple-among-extended",
        "A simple reply is none where extended headers were agreed on.",
        ["EXT-010"],
        # Bytes follow, so that a client that wants a whole extended header does not wait for it.
        reads(simple(), raw(bytes(64))),
        modes=["extended"],
        level=Level.SHOULD,
    ),
    row(
        "unknown-cookie",
        "A reply with a cookie that no request has does no harm.",
        ["RPL-005"],
        rewrites(_foreign),
        modes=["simple", "structured"],
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
    row(
        "same-reply-twice",
        "A reply that comes twice does no harm.",
        ["RPL-005"],
        rewrites(_twice),
        modes=["simple"],
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
)


def _keeps_the_session(t: ClientTarget, seen: Seen) -> None:
    """Complain of a hard disconnect, if the client does better after an ordinary error."""
    if all(talk.disconnected for talk in t.gallery.seen("read errors").talks):
        for talk in seen.talks:
            if talk.requests and not talk.disconnected:
                raise Complaint("the client disconnects without CMD_DISC", "an error like any other, such as EINVAL")


UNKNOWN_ERRORS = probe_of(
    "client-reply.unknown-errors",
    "An error value that the client does not know is an error like any other, and the session goes on.",
    *(reads(error(Errno(value), message="a strange error")) for value in (9999, 0x7FFF_FFFF, 0x8000_0005, 0xFFFF_FFFF)),
    proves=["ERR-034"],
    legal=True,
    ending=Ending.FAILURE,
    needs=READ,
    tells=Ability.TELLS_READ_ERROR,
    modes=["simple", "structured", "extended"],
    judge=_keeps_the_session,
)


def _goes_at_once(t: ClientTarget, seen: Seen) -> None:
    talk = next(talk for talk in seen.talks if talk.sent(Cmd.READ))
    failed = next(request.cookie for request in talk.requests if request.type == Cmd.READ)
    answered = ("reply", failed)
    if answered not in talk.order:
        raise NotApplicable("the client left before it was answered")
    later = [cookie for kind, cookie in talk.order[talk.order.index(answered) :] if kind == "request"]
    if talk.requests[-1].type != Cmd.DISC:
        raise Complaint(f"after ESHUTDOWN the last request is {talk.requests[-1].type}", "CMD_DISC")
    if len(later) > 1:
        raise Complaint(f"after ESHUTDOWN the client sends {len(later)} requests", "CMD_DISC alone")


SHUTDOWN = probe_of(
    "client-reply.shutdown",
    "After ESHUTDOWN the client sends DISC, and nothing else.",
    reads(pause(HOLD_S), error(Errno.ESHUTDOWN, message="going down")),
    proves=["TERM-038"],
    legal=True,
    ending=Ending.ANY,
    needs=[*READ, Ability.DISC],
    modes=["simple", "structured", "extended"],
    judge=_goes_at_once,
)


def _too_large(server: FakeServer) -> None:
    server.on(Cmd.READ, where=lambda asked: asked.length > 65536).reply(
        error(Errno.EOVERFLOW, message="too much at once")
    )


OVERFLOW = probe_of(
    "client-reply.overflow",
    "A READ that is too large for the server fails, or is tried again in parts; the client does not hang on to it.",
    _too_large,
    proves=["CMD-030"],
    legal=True,
    ending=Ending.ANY,
    needs=READ,
    modes=["structured", "extended"],
    judge=lambda t, seen: expect_intact(t, seen) if seen.succeeded else None,
)
