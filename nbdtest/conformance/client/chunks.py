"""Chunks that no server may send, in structured and in extended replies to a READ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client.replies import reads, rewrites
from nbdtest.conformance.client_probe import ONE_CONNECTION, Deed, Ending, probe_of
from nbdtest.conformance.declare import Check
from nbdtest.fakeserver import Action, FakeServer, chunk, data, error, no_data
from nbdtest.fakeserver.rendering import Asked
from nbdtest.report.results import Level
from nbdtest.wire import Errno, ReplyFlag, ReplyType

MODES = ("structured", "extended")
MORE = ReplyFlag(0)
DONE = ReplyFlag.DONE
_U64 = 1 << 64


def row(
    id: str,
    doc: str,
    proves: Sequence[str],
    *deeds: Deed,
    ending: Ending,
    level: Level | None = None,
    legal: bool = False,
) -> Check:
    """One kind of chunk."""
    return probe_of(
        f"client-chunk.{id}",
        doc,
        *deeds,
        proves=proves,
        legal=legal,
        ending=ending,
        needs=[Ability.READ],
        tells=Ability.TELLS_READ_ERROR,
        modes=MODES,
        level=level,
        export=ONE_CONNECTION,
    )


def then_all(*first: Action) -> Deed:
    """Send these chunks, and then everything that was asked for, as if nothing had been."""
    return reads(*first, data(done=True))


def other(type: int, payload: bytes = b"", flags: ReplyFlag = MORE) -> Action:
    """A chunk of any type with any payload."""
    return chunk(ReplyType(type), payload, flags=flags)


def text(errno: int, length: int, message: bytes, rest: bytes = b"") -> bytes:
    """The payload of an error chunk that says that its message has `length` bytes."""
    return errno.to_bytes(4, "big") + length.to_bytes(2, "big") + message + rest


def placed(kind: ReplyType, at: int, rest: bytes) -> Deed:
    """A content chunk at an offset relative to the request's, and then everything."""

    def change(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
        offset = (asked.offset + at) % _U64
        return [chunk(kind, offset.to_bytes(8, "big") + rest, flags=MORE), data(done=True)]

    return rewrites(change)


def _past_the_end(kind: ReplyType, rest: bytes) -> Deed:
    def change(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
        offset = asked.offset + asked.length
        return [chunk(kind, offset.to_bytes(8, "big") + rest, flags=MORE), data(done=True)]

    return rewrites(change)


def _straddling(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    offset = asked.offset + asked.length - 1
    return [chunk(ReplyType.OFFSET_DATA, offset.to_bytes(8, "big") + bytes(512), flags=MORE), data(done=True)]


def _half(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    return [data(length=asked.length // 2, done=True)]


def _all_but_the_middle(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    quarter = asked.length // 4
    return [
        data(length=quarter, done=False),
        data(at=asked.offset + asked.length - quarter, length=quarter, done=False),
        no_data(done=True),
    ]


def _nothing_at_all(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    return [no_data(done=True)]


def _misplaced_error(server: FakeServer, asked: Asked, plan: Sequence[Action]) -> Iterable[Action]:
    return [
        error(Errno.EIO, at=(asked.offset + asked.length + (1 << 40)) % _U64, message="far away", done=False),
        no_data(done=True),
    ]


_WORD = (512).to_bytes(4, "big")

ILLEGAL = (
    row(
        "unknown-type",
        "A chunk of an unknown type that is no error ends the connection.",
        ["RPL-050"],
        then_all(other(77, b"what is this?")),
        then_all(other(0x7FFF)),
        reads(data(done=False), other(77, b"", DONE)),
        ending=Ending.HANGUP,
    ),
    row(
        "unexpected-type",
        "A chunk of a type that does not answer a READ ends the connection.",
        ["RPL-050"],
        then_all(other(ReplyType.BLOCK_STATUS, b"\0\0\0\1" + _WORD + bytes(4))),
        then_all(other(ReplyType.BLOCK_STATUS_EXT, b"\0\0\0\1\0\0\0\1" + bytes(4) + _WORD + bytes(8))),
        ending=Ending.HANGUP,
    ),
    row(
        "data-without-bytes",
        "A chunk of data without a byte of data ends the connection.",
        ["RPL-118", "RPL-060"],
        then_all(data(content=b"", done=False)),
        ending=Ending.HANGUP,
    ),
    row(
        "data-without-offset",
        "A chunk of data that is too short for its offset ends the connection.",
        ["RPL-118", "RPL-060"],
        *(then_all(other(ReplyType.OFFSET_DATA, bytes(length))) for length in (0, 4, 7)),
        ending=Ending.HANGUP,
    ),
    row(
        "hole-of-wrong-length",
        "A hole whose chunk has not 12 bytes ends the connection.",
        ["RPL-118", "RPL-065"],
        *(then_all(other(ReplyType.OFFSET_HOLE, bytes(length))) for length in (0, 11, 13)),
        ending=Ending.HANGUP,
    ),
    row(
        "none-without-done",
        "A NONE chunk without DONE ends the connection.",
        ["RPL-118", "RPL-042"],
        then_all(other(ReplyType.NONE)),
        ending=Ending.HANGUP,
    ),
    row(
        "none-with-payload",
        "A NONE chunk with a payload ends the connection.",
        ["RPL-118", "RPL-052"],
        reads(data(done=False), other(ReplyType.NONE, b"data", DONE)),
        ending=Ending.HANGUP,
    ),
    row(
        "empty-hole",
        "A hole of no bytes is no content.",
        ["RPL-070"],
        placed(ReplyType.OFFSET_HOLE, 0, bytes(4)),
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
    row(
        "data-outside",
        "Data from outside the request do no harm, and are not taken for what was asked for.",
        ["RPL-062", "CMD-024"],
        placed(ReplyType.OFFSET_DATA, -512, bytes(512)),
        placed(ReplyType.OFFSET_DATA, -64, bytes(100)),
        placed(ReplyType.OFFSET_DATA, 1 << 62, bytes(512)),
        _past_the_end(ReplyType.OFFSET_DATA, bytes(512)),
        rewrites(_straddling),
        ending=Ending.FAILURE,
        level=Level.SHOULD,
    ),
    row(
        "hole-outside",
        "A hole outside the request does no harm, and is not taken for what was asked for.",
        ["RPL-067", "CMD-024"],
        placed(ReplyType.OFFSET_HOLE, -512, _WORD),
        placed(ReplyType.OFFSET_HOLE, 0, b"\xff\xff\xff\xff"),
        placed(ReplyType.OFFSET_HOLE, 1 << 62, _WORD),
        _past_the_end(ReplyType.OFFSET_HOLE, _WORD),
        ending=Ending.FAILURE,
        level=Level.SHOULD,
    ),
    row(
        "overlapping-data",
        "Data that come twice do no harm.",
        ["RPL-063"],
        reads(data(done=False), data(done=True)),
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
    row(
        "missing-data",
        "A READ that is answered with less than was asked for has not succeeded.",
        ["CMD-031", "CMD-047"],
        rewrites(_half),
        rewrites(_all_but_the_middle),
        rewrites(_nothing_at_all),
        ending=Ending.FAILURE,
        level=Level.SHOULD,
    ),
    row(
        "after-done",
        "A chunk after the one with DONE does no harm.",
        ["RPL-029"],
        reads(data(done=True), no_data(done=True)),
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
)

FAILURES = (
    row(
        "error-after-data",
        "A READ has failed if its reply holds an error chunk, also after all of the data.",
        ["RPL-033", "RPL-103"],
        reads(data(done=False), error(Errno.EIO, message="a late error", done=False), no_data(done=True)),
        reads(data(done=False), error(Errno.EIO, done=True)),
        ending=Ending.FAILURE,
        legal=True,
    ),
    row(
        "error-before-data",
        "Data that come after an error chunk do not make good for it.",
        ["RPL-033", "CMD-040"],
        reads(error(Errno.EIO, message="an early error", done=False), data(done=True)),
        reads(error(Errno.EIO, done=False), data(done=False), no_data(done=True)),
        ending=Ending.FAILURE,
        legal=True,
    ),
    row(
        "error-with-offset",
        "An error that belongs to an offset makes the READ fail as well.",
        ["RPL-033"],
        rewrites(
            lambda server, asked, plan: [
                data(length=asked.length // 2, done=False),
                error(Errno.EIO, at=asked.offset + asked.length // 2, message="bad sector", done=False),
                no_data(done=True),
            ]
        ),
        rewrites(lambda server, asked, plan: [error(Errno.EIO, at=asked.offset, message="m" * 4096)]),
        ending=Ending.FAILURE,
        legal=True,
    ),
    row(
        "long-messages",
        "The message of an error may have up to 4096 bytes.",
        ["RPL-033"],
        *(reads(error(Errno.EIO, message="m" * length)) for length in (1, 255, 256, 4095, 4096)),
        ending=Ending.FAILURE,
        legal=True,
    ),
    row(
        "unreadable-messages",
        "The message of an error is for people: whatever is in it does no harm.",
        ["RPL-033", "CONV-002"],
        reads(other(ReplyType.ERROR, text(5, 16, b"\xff\xfe\0\x1b[31m%s%n\n\r"[:16].ljust(16, b"\0")), DONE)),
        reads(other(ReplyType.ERROR, text(5, 65535, b"m" * 65535), DONE)),
        ending=Ending.FAILURE,
    ),
    row(
        "unknown-error-type",
        "A chunk of an unknown type that is an error makes the READ fail.",
        ["RPL-116", "RPL-033"],
        reads(other(0x8123, text(5, 4, b"what"), DONE)),
        reads(other(0x8123, text(5, 0, b"")), no_data(done=True)),
        reads(data(done=False), other(0x8123, text(22, 4, b"what", b"and more")), no_data(done=True)),
        ending=Ending.FAILURE,
    ),
    row(
        "message-beyond-its-chunk",
        "An error whose message is longer than its chunk ends the connection; nothing is read beyond.",
        ["RPL-119"],
        reads(other(ReplyType.ERROR, text(5, 100, b"")), data(done=True)),
        reads(other(ReplyType.ERROR, text(5, 65535, b"short"), DONE)),
        reads(other(ReplyType.ERROR_OFFSET, text(5, 9, b"", bytes(8)), DONE)),
        ending=Ending.HANGUP,
    ),
    row(
        "short-error",
        "An error chunk that is too short for an error ends the connection.",
        ["RPL-118", "RPL-102"],
        *(reads(other(ReplyType.ERROR, bytes(length), DONE)) for length in (0, 4, 5)),
        ending=Ending.HANGUP,
    ),
    row(
        "error-without-its-offset",
        "An error chunk that is too short for its offset ends the connection.",
        ["RPL-118", "RPL-108"],
        *(reads(other(ReplyType.ERROR_OFFSET, text(5, 0, b"", bytes(length)), DONE)) for length in (0, 4, 7)),
        ending=Ending.HANGUP,
    ),
    row(
        "error-of-zero",
        "An error chunk whose error is 0 does not mean success.",
        ["RPL-106"],
        reads(other(ReplyType.ERROR, text(0, 0, b""), DONE)),
        reads(data(done=False), other(ReplyType.ERROR, text(0, 2, b"ok"), DONE)),
        ending=Ending.FAILURE,
        level=Level.SHOULD,
    ),
    row(
        "error-outside",
        "An error at an offset outside the request makes the READ fail as well.",
        ["RPL-109"],
        rewrites(_misplaced_error),
        ending=Ending.FAILURE,
        level=Level.SHOULD,
    ),
)
