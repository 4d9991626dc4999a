"""Mutants of how messages are written: other numbers, magics and layouts than the specification's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.mutants.edits import change_actions, change_replies
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import (
    EXTENDED_REPLY_MAGIC,
    Cmd,
    Errno,
    Extent,
    Opt,
    OptionReply,
    Rep,
    ReplyFlag,
    ReplyType,
    SimpleReply,
    StructuredReply,
)

__all__: list[str] = []

_UNREADABLE = (
    "reply.known-magic",
    "command.unknown-is-einval",
    "reply.simple-has-no-payload",
    "command.errors-keep-the-session",
    "command.unknown-with-length-is-einval",
)
"""The checks that send an unknown command, and want to read on."""
_FAULTY = 4608
"""The length of the READs of what cannot be read."""


@mutant("reply.magic-of-extended", breaks=["MAGIC-005"], checks=_UNREADABLE)
def magic_of_extended(server: FakeServer) -> None:
    """The simple reply to an unknown command begins with the magic of extended replies."""
    server.on(Cmd(0x7FFF), where=lambda asked: asked.frames is Frames.SIMPLE).reply(
        mangle(actions.simple(Errno.EINVAL), magic=EXTENDED_REPLY_MAGIC)
    )


@mutant("chunk.wrong-magic", breaks=["RPL-035"], checks=_UNREADABLE)
def chunk_wrong_magic(server: FakeServer) -> None:
    """The chunk that answers an unknown command has a magic of its own."""
    server.on(Cmd(0x7FFF), where=lambda asked: asked.frames is Frames.STRUCTURED).reply(
        mangle(actions.error(Errno.EINVAL), magic=0x668E_33EE)
    )


@mutant(
    "chunk.type-6",
    breaks=["RPL-091"],
    checks=["chunk.type-assigned", "flag.foreign-on-flush", "flag.unknown-on-flush"],
)
def type_6(server: FakeServer) -> None:
    """A chunk of BLOCK_STATUS_EXT precedes the reply to FLUSH, without extended headers."""
    server.on(Cmd.FLUSH, where=lambda asked: asked.frames is Frames.STRUCTURED).reply(
        actions.chunk(ReplyType.BLOCK_STATUS_EXT, bytes(24)), actions.no_data()
    )


@mutant("chunk.wrong-length", breaks=["RPL-039"], checks=["read.of-every-length"])
def chunk_wrong_length(server: FakeServer) -> None:
    """The length of a chunk with 1025 bytes of a READ does not count its offset."""
    server.on(
        Cmd.READ,
        where=lambda asked: asked.length == 1025 and asked.frames is Frames.STRUCTURED,
    ).rewrite(lambda asked, plan: [mangle(each, length=1025) for each in plan])


@mutant("chunk.hole-of-another", breaks=["RPL-026"], checks=["data.zeroes-and-data-side-by-side"])
def hole_of_another(server: FakeServer) -> None:
    """A hole of 8192 bytes among data carries the cookie of the next request."""
    server.on_send(
        StructuredReply,
        where=lambda chunk: chunk.type == ReplyType.OFFSET_HOLE and chunk.payload[8:] == (8192).to_bytes(4, "big"),
    ).rewrite(lambda chunk: replace(chunk, cookie=chunk.cookie + 1))


def _placed(server: FakeServer, change: Callable[[Asked, actions.Error], list[Action]]) -> None:
    """Answer structured CACHEs past the end with errors that have an offset."""
    change_actions(
        server,
        [Cmd.CACHE],
        actions.Error,
        lambda asked, each: change(asked, each) if asked.frames is Frames.STRUCTURED else [each],
    )


@mutant(
    "chunk.error-offset-zero",
    breaks=["RPL-114"],
    checks=["chunk.error-is-not-zero", "flag.foreign-on-cache", "flag.unknown-on-cache", "error.listed-values"],
)
def error_offset_zero(server: FakeServer) -> None:
    """The error value of ERROR_OFFSET is 0."""
    _placed(
        server,
        lambda asked, each: [actions.chunk(ReplyType.ERROR_OFFSET, bytes(6) + asked.offset.to_bytes(8, "big"))],
    )


@mutant(
    "chunk.error-offset-before-message",
    breaks=["RPL-115"],
    checks=["chunk.error-message-fits"],
)
def error_offset_before_message(server: FakeServer) -> None:
    """In ERROR_OFFSET the offset stands between the error value and the message."""
    text = b"no room here"
    _placed(
        server,
        lambda asked, each: [
            actions.chunk(
                ReplyType.ERROR_OFFSET,
                int(each.errno).to_bytes(4, "big")
                + asked.offset.to_bytes(8, "big")
                + len(text).to_bytes(2, "big")
                + text,
            )
        ],
    )


@mutant("chunk.mixed-errors", breaks=["CMD-045"], checks=["chunk.one-error"])
def mixed_errors(server: FakeServer) -> None:
    """An error with an offset and one without stand in one reply."""
    _placed(server, lambda asked, each: [actions.error(each.errno, at=asked.offset), actions.error(each.errno)])


@mutant(
    "status.before-length",
    breaks=["RPL-082"],
    checks=[
        "status.extents-are-not-empty",
        "status.neighbours-differ",
        "status.only-known-bits",
        "extended.extents-are-not-empty",
    ],
)
def status_before_length(server: FakeServer) -> None:
    """An extent has its status first, and its length behind it."""
    change_actions(
        server,
        [Cmd.BLOCK_STATUS],
        actions.Status,
        lambda asked, each: [replace(each, extents=tuple(Extent(e.status, e.length) for e in each.extents))],
    )


@mutant(
    "status.simple",
    breaks=["META-009"],
    checks=["status.works", "status.one-chunk-per-context", "meta.selection-does-not-add-up"],
)
def status_simple(server: FakeServer) -> None:
    """BLOCK_STATUS of the first unit succeeds with a simple reply, which can say nothing."""
    server.on(
        Cmd.BLOCK_STATUS,
        where=lambda asked: (asked.offset, asked.length, asked.flags) == (0, 512, 0) and bool(asked.contexts),
    ).rewrite(lambda asked, plan: [actions.simple(Errno.OK)] if asked.frames is Frames.STRUCTURED else plan)


@mutant("status.bits-swapped", breaks=["META-033"], checks=["zeroes.no-hole-is-provisioned"])
def bits_swapped(server: FakeServer) -> None:
    """Of base:allocation, bit 0 says ZERO and bit 1 HOLE."""
    swapped = {0: 0, 1: 2, 2: 1, 3: 3}
    change_actions(
        server,
        [Cmd.BLOCK_STATUS],
        actions.Status,
        lambda asked, each: [
            replace(each, extents=tuple(Extent(e.length, swapped.get(e.status, e.status)) for e in each.extents))
        ],
    )


@mutant(
    "command.eoverflow-of-bsd",
    breaks=["ERR-007"],
    checks=[
        "error.listed-values",
        "cache.past-end-fails",
        "flag.foreign-on-cache",
        "flag.unknown-on-cache",
        "extended.unexpected-payload-is-skipped",
    ],
)
def eoverflow_of_bsd(server: FakeServer) -> None:
    """CACHE past the end fails with 84, which is EOVERFLOW on other systems."""
    change_actions(server, [Cmd.CACHE], actions.Error, lambda asked, each: [actions.error(Errno(84))])


@mutant("command.unknown-is-eperm", breaks=["ERR-005"], checks=["command.unknown-is-einval"])
def unknown_is_eperm(server: FakeServer) -> None:
    """Unknown commands fail with EPERM."""
    server.on(Cmd(0xFFFF)).reply(actions.error(Errno.EPERM))


@mutant("fault.read-is-einval", breaks=["ERR-003"], checks=["fault.is-an-error"])
def fault_is_einval(server: FakeServer) -> None:
    """A READ of what cannot be read fails with EINVAL."""
    server.on(Cmd.READ, where=lambda asked: asked.length == _FAULTY).reply(actions.error(Errno.EINVAL))


@mutant(
    "string.latin-1-description", breaks=["REP-005"], checks=["string.is-utf-8", "list.agrees-with-info-description"]
)
def latin_1_description(server: FakeServer) -> None:
    """The description behind a name in the list is Latin-1."""
    change_replies(server, Rep.SERVER, lambda data: data[:4] + data[4:] + "ß".encode("latin-1"))


@mutant(
    "string.latin-1-context",
    breaks=["REP-028"],
    checks=["string.is-utf-8", "meta.name-has-namespace", "meta.listed-can-be-selected"],
)
def latin_1_context(server: FakeServer) -> None:
    """A context whose name is Latin-1 is listed besides the others."""
    listed = OptionReply(option=Opt.LIST_META_CONTEXT, type=Rep.META_CONTEXT, data=bytes(4) + b"x-gr\xf6\xdfe:a")
    server.on(Opt.LIST_META_CONTEXT, where=lambda option: option.data.endswith(bytes(4))).rewrite(
        lambda option, plan: [actions.raw(listed.encode()), *plan]
    )


@mutant(
    "meta.no-query-too-big", breaks=["META-063"], checks=["meta.no-query-lists-all", "meta.list-malformed-is-invalid"]
)
def no_query_too_big(server: FakeServer) -> None:
    """LIST_META_CONTEXT without a query is refused as too big."""
    server.on(Opt.LIST_META_CONTEXT, where=lambda option: option.data.endswith(bytes(4))).reply(
        actions.opt_error(Rep.ERR_TOO_BIG)
    )


@mutant("export-name.unserved", breaks=["COMPAT-019"], checks=["export-name.enters-transmission"])
def export_name_unserved(server: FakeServer) -> None:
    """EXPORT_NAME ends the session whatever the export, as if only GO were known."""
    server.on(Opt.EXPORT_NAME).reply(actions.close())


def _whole(asked: Asked) -> bytes:
    """The OFFSET_DATA chunk that would answer a READ."""
    payload = asked.offset.to_bytes(8, "big") + bytes(asked.length)
    return StructuredReply(type=ReplyType.OFFSET_DATA, cookie=asked.cookie, payload=payload).encode()


@mutant(
    "fault.error-inside-data",
    breaks=["CMD-015"],
    checks=["fault.is-an-error", "fault.late-error-ends-session"],
)
def error_inside_data(server: FakeServer) -> None:
    """A simple reply that has said success is followed by half of the data and an error reply."""
    server.on(Cmd.READ, where=lambda asked: asked.length == _FAULTY and asked.frames is Frames.SIMPLE).rewrite(
        lambda asked, plan: [
            actions.raw(
                SimpleReply(cookie=asked.cookie).encode()
                + bytes(_FAULTY // 2)
                + SimpleReply(cookie=asked.cookie, error=Errno.EIO).encode()
            )
        ]
    )


@mutant(
    "fault.chunk-broken-off",
    breaks=["CMD-034", "CMD-035"],
    checks=[
        "fault.is-an-error",
        "fault.no-done-before-error",
        "fault.content-comes-before-its-error",
        "fault.one-error-per-chunk",
        "fault.padding-is-zero",
    ],
)
def chunk_broken_off(server: FakeServer) -> None:
    """A chunk is left off in the middle, and the error chunk follows at once."""
    failed = int(Errno.EIO).to_bytes(4, "big") + bytes(2)
    server.on(Cmd.READ, where=lambda asked: asked.length == _FAULTY and asked.frames is Frames.STRUCTURED).rewrite(
        lambda asked, plan: [
            actions.raw(
                _whole(asked)[: -_FAULTY // 2]
                + StructuredReply(
                    flags=ReplyFlag.DONE, type=ReplyType.ERROR, cookie=asked.cookie, payload=failed
                ).encode()
            )
        ]
    )


@mutant("fault.two-errors-in-a-chunk", breaks=["RPL-112"], checks=["fault.one-error-per-chunk"])
def two_errors_in_a_chunk(server: FakeServer) -> None:
    """Two places within one chunk are said to have failed."""
    server.on(Cmd.READ, where=lambda asked: asked.length == _FAULTY and asked.frames is Frames.STRUCTURED).rewrite(
        lambda asked, plan: [
            actions.data(content=bytes(asked.length)),
            actions.error(Errno.EIO, at=asked.offset + 2048),
            actions.error(Errno.EIO, at=asked.offset + 2560),
        ]
    )
