"""Replies to a READ that are unusual and right: any split, any order, any mixture of data and holes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client.replies import HOLD_S, rewrites
from nbdtest.conformance.client_probe import Deed, Ending, expect_intact, probe_of
from nbdtest.conformance.client_target import ClientTarget, Seen
from nbdtest.conformance.declare import Check
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.fakeserver import Action, FakeServer, data, hole, no_data, pause
from nbdtest.fakeserver.rendering import Asked
from nbdtest.wire import Cmd, ExtendedReply, ReplyFlag, StructuredReply

MODES = ("structured", "extended")
_PIECE = 512
_MOST = 48


def pieces(asked: Asked, size: int = _PIECE) -> list[tuple[int, int]]:
    """Cut the request into pieces of `size` bytes, or more where they would be too many."""
    size = max(size, -(-asked.length // _MOST))
    return [
        (at, min(size, asked.offset + asked.length - at))
        for at in range(asked.offset, asked.offset + asked.length, size)
    ]


def arranged(arrange: Callable[[list[Action]], Iterable[Action]]) -> Deed:
    """Answer every READ in pieces, arranged so; a NONE chunk ends the reply."""

    def change(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
        chunks: list[Action] = [data(at=at, length=length, done=False) for at, length in pieces(asked)]
        return [*arrange(chunks), no_data(done=True)]

    return rewrites(change, nth=None)


def _last_is_done(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    return [data(at=at, length=length) for at, length in reversed(pieces(asked))]


def _zeroes_as_holes(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    found: list[Action] = []
    for at, length in reversed(pieces(asked)):
        zero = not any(bytes(server.disk.read(at, length)))
        found.append(hole(at=at, length=length) if zero else data(at=at, length=length))
    return found


def _byte_by_byte(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    few = min(asked.length, 64)
    first: list[Action] = [data(at=asked.offset + at, length=1) for at in range(few)]
    rest = asked.length - few
    return [*first, *([data(at=asked.offset + few, length=rest)] if rest else [])]


def row(id: str, doc: str, proves: Sequence[str], *deeds: Deed) -> Check:
    """One way to answer."""
    return probe_of(
        f"client-read.{id}",
        doc,
        *deeds,
        proves=proves,
        legal=True,
        ending=Ending.SUCCESS,
        needs=[Ability.READ],
        modes=MODES,
    )


SPLITS = (
    row(
        "many-chunks",
        "The data of a READ may come in any number of chunks.",
        ["CMD-026", "RPL-001"],
        arranged(lambda chunks: chunks),
        rewrites(_byte_by_byte, nth=None),
    ),
    row(
        "descending-chunks",
        "The client puts chunks where they belong, in whatever order they come.",
        ["CMD-026"],
        arranged(lambda chunks: reversed(chunks)),
        rewrites(_last_is_done, nth=None),
    ),
    row(
        "mixed-chunks",
        "The client puts chunks where they belong, also when they jump to and fro.",
        ["CMD-026"],
        arranged(lambda chunks: [*chunks[1::2], *chunks[::2]]),
    ),
    row(
        "holes-and-data",
        "Holes are zeroes, wherever they stand between data.",
        ["CMD-026"],
        rewrites(_zeroes_as_holes, nth=None),
    ),
)


def _unknown_flags(server: FakeServer) -> None:
    for kind in (StructuredReply, ExtendedReply):
        server.on_send(kind).rewrite(lambda message: replace(message, flags=ReplyFlag(int(message.flags) | 0xFFFE)))


UNKNOWN_FLAGS = probe_of(
    "client-read.unknown-reply-flags",
    "Reply flags that the client does not know are ignored, with DONE and without.",
    _unknown_flags,
    proves=["RPL-044"],
    legal=False,
    ending=Ending.SUCCESS,
    needs=[Ability.READ],
    modes=MODES,
)


def _interrupted(server: FakeServer) -> None:
    def change(asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
        half = asked.length // 2
        return [
            data(at=asked.offset + half, length=asked.length - half, done=False),
            pause(HOLD_S),
            data(length=half, done=True),
        ]

    server.on(Cmd.READ, nth=1).rewrite(change)


def _interleaved(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks:
        answered = [cookie for kind, cookie in talk.order if kind == "reply"]
        first = next((request.cookie for request in talk.requests if request.type == Cmd.READ), None)
        places = [at for at, cookie in enumerate(answered) if cookie == first]
        if places and places[-1] - places[0] >= len(places):
            if seen.succeeded:
                expect_intact(t, seen)
            return
    raise NotApplicable("the command never has two requests under way on one connection")


INTERLEAVED = probe_of(
    "client-read.interleaved-chunks",
    "Between the chunks of one reply there may be replies to other requests.",
    _interrupted,
    proves=["RPL-004", "RPL-030"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[Ability.READ],
    modes=MODES,
    judge=_interleaved,
)
