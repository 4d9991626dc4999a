"""Replies to BLOCK_STATUS: short, long, split, with unknown bits, for unknown contexts, empty and malformed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_probe import ONE_CONNECTION, Deed, Ending, expect_intact, probe_of
from nbdtest.conformance.client_target import SIZE, ClientTarget, Seen
from nbdtest.conformance.declare import Check
from nbdtest.fakeserver import Action, FakeServer, chunk, error, no_data, simple
from nbdtest.fakeserver.actions import Status
from nbdtest.fakeserver.contexts import BASE_ALLOCATION
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, CmdFlag, Errno, Extent, ReplyFlag, ReplyType

MODES = ("structured", "extended")
_HOLE = 1
_UNKNOWN_BITS = 0x8000_FFFC


def described(change: Callable[[Asked, tuple[Extent, ...]], Iterable[Extent]]) -> Deed:
    """Describe every range by other extents."""

    def changed(asked: Asked, plan: Sequence[Action]) -> list[Action]:
        return [Status(a.context, tuple(change(asked, a.extents))) if isinstance(a, Status) else a for a in plan]

    def deed(server: FakeServer) -> None:
        server.on(Cmd.BLOCK_STATUS).rewrite(changed)

    return deed


def replies(*plan: Action, nth: int | None = 1) -> Deed:
    """Answer the first BLOCK_STATUS so."""

    def deed(server: FakeServer) -> None:
        server.on(Cmd.BLOCK_STATUS, nth=nth).reply(*plan)

    return deed


def row(
    id: str,
    doc: str,
    proves: Sequence[str],
    *deeds: Deed,
    legal: bool,
    ending: Ending,
    level: Level | None = None,
    modes: Sequence[str] = MODES,
    intact: bool = True,
) -> Check:
    """One kind of answer."""

    def judge(t: ClientTarget, seen: Seen) -> None:
        if intact and seen.succeeded:
            expect_intact(t, seen)

    return probe_of(
        f"client-status.{id}",
        doc,
        *deeds,
        proves=proves,
        legal=legal,
        ending=ending,
        needs=[Ability.STATUS],
        tells=Ability.TELLS_STATUS_ERROR,
        modes=modes,
        level=level,
        judge=judge,
    )


def _shorter(asked: Asked, extents: tuple[Extent, ...]) -> Iterable[Extent]:
    return (Extent(min(extents[0].length, 65536), extents[0].status),)


def _longer(asked: Asked, extents: tuple[Extent, ...]) -> Iterable[Extent]:
    if CmdFlag.REQ_ONE in asked.flags:
        return extents
    before = sum(extent.length for extent in extents[:-1])
    return (*extents[:-1], Extent(SIZE - asked.offset - before, extents[-1].status))


def _split(asked: Asked, extents: tuple[Extent, ...]) -> Iterable[Extent]:
    if CmdFlag.REQ_ONE in asked.flags:
        return extents
    return (
        Extent(min(4096, extent.length - at), extent.status)
        for extent in extents
        for at in range(0, extent.length, 4096)
    )


def _empty(extents: tuple[Extent, ...]) -> tuple[Extent, ...]:
    return tuple(Extent(0, extent.status) for extent in extents)


USUAL = (
    row(
        "shorter-than-asked",
        "A description may end before the range does; the client goes on where it ended.",
        ["META-004"],
        described(_shorter),
        legal=True,
        ending=Ending.SUCCESS,
    ),
    row(
        "longer-than-asked",
        "The last extent may reach beyond the range, to the end of the export.",
        ["META-004"],
        described(_longer),
        legal=True,
        ending=Ending.SUCCESS,
    ),
    row(
        "equal-neighbours",
        "Neighbouring extents may have equal status.",
        ["CMD-149"],
        described(_split),
        legal=True,
        ending=Ending.SUCCESS,
    ),
    row(
        "unknown-bits",
        "Status bits that the client does not know are ignored.",
        ["META-041"],
        described(lambda asked, extents: (Extent(e.length, e.status | _UNKNOWN_BITS) for e in extents)),
        described(lambda asked, extents: (Extent(e.length, e.status | 0x8000_0000) for e in extents)),
        legal=False,
        ending=Ending.SUCCESS,
    ),
    row(
        "hole-is-not-zero",
        "A hole need not read as zeroes: a status of HOLE alone does no harm.",
        ["META-039"],
        described(lambda asked, extents: (Extent(e.length, _HOLE) for e in extents)),
        legal=True,
        ending=Ending.SUCCESS,
        intact=False,  # undefined contents may be left out
    ),
    row(
        "all-is-data",
        "Everything may be called data.",
        ["META-004", "CMD-149"],
        described(lambda asked, extents: (Extent(e.length, 0) for e in extents)),
        legal=True,
        ending=Ending.SUCCESS,
    ),
    row(
        "fails",
        "A failed BLOCK_STATUS fails the command, or the client does without; it does no harm.",
        ["RPL-033"],
        replies(error(Errno.EIO, message="no idea"), nth=None),
        replies(error(Errno.EINVAL), nth=None),
        legal=True,
        ending=Ending.ANY,
    ),
    row(
        "fails-simply",
        "A simple reply may tell that a BLOCK_STATUS failed.",
        ["RPL-001"],
        replies(simple(Errno.EIO), nth=None),
        legal=True,
        ending=Ending.ANY,
        modes=["structured"],
    ),
    row(
        "fails-after-a-description",
        "A description that comes with an error is no description.",
        ["RPL-033", "RPL-103"],
        replies(
            Status(BASE_ALLOCATION, (Extent(1 << 21, 3),), done=False), error(Errno.EIO, done=False), no_data(done=True)
        ),
        legal=True,
        ending=Ending.ANY,
    ),
)

WRONG = (
    row(
        "empty-extents",
        "A description that makes no headway does not keep the client busy for ever.",
        ["RPL-083", "EXT-059"],
        described(lambda asked, extents: _empty(extents)),
        described(lambda asked, extents: (*_empty(extents), *extents)),
        legal=False,
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
    row(
        "unknown-context",
        "A description for a context that was not selected does no harm.",
        ["RPL-081"],
        replies(Status(0x7777, (Extent(1 << 21, 3),))),
        replies(
            Status(0x7777, (Extent(1 << 21, 3),), done=False), Status(BASE_ALLOCATION, (Extent(1 << 21, 0),), done=True)
        ),
        legal=False,
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
    row(
        "nothing-at-all",
        "A successful BLOCK_STATUS without a description does no harm.",
        ["CMD-143"],
        replies(no_data(), nth=None),
        legal=False,
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
)


def _whole(*payloads: bytes) -> tuple[Deed, ...]:
    return tuple(
        replies(
            chunk(ReplyType.BLOCK_STATUS, payload, flags=ReplyFlag(0)),
            Status(BASE_ALLOCATION, (Extent(1 << 21, 0),), done=True),
        )
        for payload in payloads
    )


_ID = b"\0\0\0\1"
MALFORMED = probe_of(
    "client-status.wrong-length",
    "A chunk of block status whose length does not fit its layout ends the connection.",
    *_whole(b"", b"\0\1", _ID, _ID + bytes(4), _ID + bytes(9)),
    proves=["RPL-118", "RPL-080"],
    legal=False,
    ending=Ending.HANGUP,
    needs=[Ability.STATUS],
    tells=Ability.TELLS_STATUS_ERROR,
    modes=["structured"],
    export=ONE_CONNECTION,
)


def _extended(*payloads: bytes) -> tuple[Deed, ...]:
    return tuple(
        replies(
            chunk(ReplyType.BLOCK_STATUS_EXT, payload, flags=ReplyFlag(0)),
            Status(BASE_ALLOCATION, (Extent(1 << 21, 0),), done=True),
        )
        for payload in payloads
    )


_EXTENT = (512).to_bytes(8, "big") + bytes(8)
MALFORMED_EXTENDED = probe_of(
    "client-status.wrong-extended-length",
    "A chunk of extended block status whose length or count does not fit ends the connection.",
    *_extended(b"", _ID, _ID + bytes(4), _ID + b"\0\0\0\2" + _EXTENT, _ID + b"\0\0\0\1" + _EXTENT[:15]),
    *_extended(_ID + b"\xff\xff\xff\xff" + _EXTENT, _ID + bytes(4) + _EXTENT),
    proves=["RPL-118", "EXT-055", "EXT-057"],
    legal=False,
    ending=Ending.HANGUP,
    needs=[Ability.STATUS],
    tells=Ability.TELLS_STATUS_ERROR,
    modes=["extended"],
    export=ONE_CONNECTION,
)


def _compact_among_extended(server: FakeServer) -> None:
    def change(asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
        assert asked.frames is Frames.EXTENDED
        payload = _ID + (1 << 21).to_bytes(4, "big") + bytes(4)
        return [chunk(ReplyType.BLOCK_STATUS, payload, flags=ReplyFlag.DONE)]

    server.on(Cmd.BLOCK_STATUS, nth=1).rewrite(change)


COMPACT_AMONG_EXTENDED = probe_of(
    "client-status.compact-among-extended",
    "A compact block status does no harm where extended headers were agreed on.",
    _compact_among_extended,
    proves=["EXT-061", "EXT-054"],
    legal=False,
    ending=Ending.ANY,
    needs=[Ability.STATUS],
    tells=Ability.TELLS_STATUS_ERROR,
    modes=["extended"],
    level=Level.SHOULD,
)
