"""Mutants of how replies are framed: magics, cookies, flags, chunk layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.mutants.edits import change_actions, change_chunks
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import (
    Cmd,
    CmdFlag,
    Errno,
    ExtendedReply,
    ExtendedReplyHeader,
    ReplyFlag,
    ReplyType,
    SimpleReply,
    StructuredReply,
)

__all__: list[str] = []

_READ = (Cmd.READ,)
_HIGH = 1 << 32


def _structured(
    change: Callable[[Asked, actions.Data], list[Action]],
) -> Callable[[Asked, actions.Data], list[Action]]:
    """Apply a change only where chunks are sent, and only to long reads: so checks of other things are spared."""

    def changed(asked: Asked, each: actions.Data) -> list[Action]:
        return change(asked, each) if asked.frames is Frames.STRUCTURED and asked.length > 1024 else [each]

    return changed


def _text_chunk(errno: int, length: int, text: bytes, type: ReplyType = ReplyType.ERROR, rest: bytes = b"") -> Action:
    return actions.chunk(type, errno.to_bytes(4, "big") + length.to_bytes(2, "big") + text + rest)


@mutant("reply.simple-wrong-cookie", breaks=["RPL-005", "RPL-015"], checks=["reply.echoes-cookie"])
def wrong_cookie(server: FakeServer) -> None:
    """Simple replies carry the lower half of the cookie only."""
    server.on_send(SimpleReply).rewrite(lambda reply: replace(reply, cookie=reply.cookie % _HIGH))


@mutant("reply.error-cookie-lost", breaks=["RPL-005", "RPL-038"], checks=["reply.echoes-cookie"])
def error_cookie_lost(server: FakeServer) -> None:
    """Error chunks for cookies of more than 32 bits have cookie 0."""
    server.on_send(StructuredReply, where=lambda chunk: chunk.type.is_error and chunk.cookie >= _HIGH).rewrite(
        lambda chunk: replace(chunk, cookie=0)
    )


@mutant("reply.structured-unasked", breaks=["RPL-002", "RPL-020"], checks=["reply.only-simple"])
def structured_unasked(server: FakeServer) -> None:
    """Errors are chunks although structured replies were not negotiated."""
    server.on_send(SimpleReply, where=lambda reply: reply.error == Errno.EINVAL).rewrite(
        lambda reply: StructuredReply(
            flags=ReplyFlag.DONE, type=ReplyType.ERROR, cookie=reply.cookie, payload=bytes(3) + b"\x16" + bytes(2)
        )
    )


@mutant(
    "reply.read-stays-simple",
    breaks=["RPL-021", "OPT-112"],
    checks=["reply.payload-is-structured", "reply.read-is-never-simple"],
)
def read_stays_simple(server: FakeServer) -> None:
    """Small READs get a simple reply although structured replies were negotiated."""

    def answered(asked: Asked, each: Action) -> list[Action]:
        if asked.frames is not Frames.STRUCTURED or asked.length != 512:
            return [each]
        return [actions.simple(content=bytes(server.disk.read(asked.offset, asked.length)))]

    change_actions(server, _READ, actions.Data, answered)


@mutant(
    "reply.read-error-simple",
    breaks=["RPL-022"],
    checks=[
        "reply.read-is-never-simple",
        "reply.errors-are-structured",
        "chunk.failure-has-error",
        "boundary.read-beyond-maximum",
    ],
)
def read_error_simple(server: FakeServer) -> None:
    """READ that fails gets a simple reply although structured replies were negotiated."""
    change_actions(
        server,
        _READ,
        actions.Error,
        lambda asked, each: [actions.simple(each.errno) if asked.frames is Frames.STRUCTURED else each],
    )


@mutant("reply.errors-simple", breaks=["RPL-024"], checks=["reply.errors-are-structured"])
def errors_simple(server: FakeServer) -> None:
    """TRIM that fails gets a simple reply although structured replies were negotiated."""
    change_actions(
        server,
        [Cmd.TRIM],
        actions.Error,
        lambda asked, each: [actions.simple(each.errno) if asked.frames is Frames.STRUCTURED else each],
    )


@mutant(
    "reply.payload-after-error",
    breaks=["RPL-011", "RPL-016", "CMD-013"],
    checks=[
        "reply.simple-has-no-payload",
        "read.error-has-no-payload",
        "read.past-end-fails",
        "reply.echoes-cookie",
        "command.errors-keep-the-session",
        "boundary.read",
        "boundary.clamped-is-not-served",
        "flag.foreign-on-read",
        "flag.unknown-on-read",
        "abuse.huge-read",
    ],
)
def payload_after_error(server: FakeServer) -> None:
    """A simple error reply to READ is followed by the data."""
    change_actions(
        server,
        _READ,
        actions.Error,
        lambda asked, each: (
            [each, actions.raw(bytes(asked.length))] if asked.frames is Frames.SIMPLE and asked.length else [each]
        ),
    )


@mutant(
    "reply.something-later",
    breaks=["RPL-029"],
    checks=[
        "reply.nothing-unasked",
        "write.of-every-length",
        "write.of-odd-length",
        "write.refused-payload-is-skipped",
        "write.flag-refused-payload-is-skipped",
        "disconnect.closes",
        "in-step.write-past-the-end",
        "in-step.write-at-2-to-the-63",
        "in-step.write-at-the-last-offset",
    ],
    spoils="whoever waits after a READ meets the second reply",
)
def something_later(server: FakeServer) -> None:
    """A moment after the reply to a READ another one comes."""
    server.on(Cmd.READ, where=lambda asked: asked.length == 512, nth=1, per_connection=True).pass_through().then(
        actions.pause(0.005), actions.raw(SimpleReply(cookie=1).encode())
    )


@mutant(
    "reply.historic-magic",
    breaks=["RPL-001", "MAGIC-002", "RPL-012"],
    checks=[
        "reply.known-magic",
        "command.unknown-is-einval",
        "reply.simple-has-no-payload",
        "command.errors-keep-the-session",
        "command.unknown-with-length-is-einval",
    ],
)
def historic_magic(server: FakeServer) -> None:
    """The simple reply to an unknown command begins with the magic of the 1990s."""
    server.on(Cmd(0x7FFF), where=lambda asked: asked.frames is Frames.SIMPLE).reply(
        mangle(actions.simple(Errno.EINVAL), magic=0x9674_4668)
    )


@mutant("chunk.unknown-flag", breaks=["RPL-043", "RPL-036"], checks=["chunk.flags-assigned"])
def unknown_flag(server: FakeServer) -> None:
    """Chunks carry a reply flag that nobody has defined."""
    server.on_send(StructuredReply).rewrite(lambda chunk: replace(chunk, flags=chunk.flags | ReplyFlag(1 << 4)))


@mutant(
    "chunk.type-3",
    breaks=["RPL-037", "RPL-071"],
    checks=["chunk.type-assigned", "flag.foreign-on-flush", "flag.unknown-on-flush"],
)
def type_3(server: FakeServer) -> None:
    """A chunk of type 3 precedes the reply to FLUSH."""
    server.on(Cmd.FLUSH, where=lambda asked: asked.frames is Frames.STRUCTURED).reply(
        actions.chunk(ReplyType(3), b"what?"), actions.no_data()
    )


@mutant(
    "chunk.done-first",
    breaks=["RPL-029", "RPL-027"],
    checks=[
        "chunk.done-is-last",
        "chunk.success-is-whole",
        "read.returns-what-was-written",
        "read.odd-offsets",
        "read.of-every-length",
        "df.mixed-range-is-data",
        "write.stores",
        "delivery.payload-in-pieces",
        "delivery.many-writes-at-once",
        "data.shadow-copy",
        "data.zeroes-and-data-side-by-side",
        "abuse.huge-read",
        "boundary.read-inside",
        "boundary.read-beyond-maximum",
    ],
)
def done_first(server: FakeServer) -> None:
    """DONE comes first, and a READ of two units says nothing else."""
    server.on(Cmd.READ, where=lambda asked: asked.frames is Frames.STRUCTURED and asked.length > 1024).reply(
        actions.no_data(done=True)
    )


@mutant("chunk.none-without-done", breaks=["RPL-042"], checks=["chunk.none-has-done"])
def none_without_done(server: FakeServer) -> None:
    """A NONE chunk without DONE precedes the one with it."""
    change_actions(
        server,
        [Cmd.FLUSH],
        actions.NoData,
        lambda asked, each: [actions.no_data(done=False), actions.no_data(done=True)],
    )


@mutant("chunk.none-with-payload", breaks=["RPL-052"], checks=["chunk.none-is-empty"])
def none_with_payload(server: FakeServer) -> None:
    """A NONE chunk has four zero bytes."""
    change_chunks(server, ReplyType.NONE, lambda chunk: replace(chunk, payload=bytes(4)))


@mutant("chunk.empty-data", breaks=["RPL-060", "CMD-022"], checks=["chunk.data-is-not-empty", "df.mixed-range-is-data"])
def empty_data(server: FakeServer) -> None:
    """An OFFSET_DATA chunk without data stands in front of the others."""
    change_actions(
        server,
        _READ,
        actions.Data,
        _structured(lambda asked, each: [actions.chunk(ReplyType.OFFSET_DATA, bytes(8)), each]),
    )


@mutant(
    "chunk.data-outside",
    breaks=["RPL-062", "CMD-024"],
    checks=["chunk.data-is-inside", "chunk.success-is-whole", "df.one-chunk", "df.mixed-range-is-data"],
)
def data_outside(server: FakeServer) -> None:
    """A READ of two units and more brings one more unit than was asked for."""
    change_actions(
        server,
        _READ,
        actions.Data,
        _structured(lambda asked, each: [each, actions.data(at=asked.offset + asked.length, length=512)]),
    )


@mutant(
    "chunk.data-overlaps",
    breaks=["RPL-063"],
    checks=["chunk.data-does-not-overlap", "chunk.success-is-whole", "df.one-chunk", "df.mixed-range-is-data"],
)
def data_overlaps(server: FakeServer) -> None:
    """The last 512 bytes of a READ come twice."""
    change_actions(
        server,
        _READ,
        actions.Data,
        _structured(lambda asked, each: [each, actions.data(at=(each.at or 0) + (each.length or 0) - 512, length=512)]),
    )


def _hole_instead(server: FakeServer, change: Callable[[Asked], list[Action]]) -> None:
    """Answer the structured READ of one certain size with chosen holes."""
    server.on(
        Cmd.READ, where=lambda asked: asked.frames is Frames.STRUCTURED and asked.length > 1024 and not asked.flags
    ).rewrite(lambda asked, plan: [*plan, *change(asked)] if not isinstance(plan[0], actions.Error) else plan)


@mutant("chunk.long-hole", breaks=["RPL-065"], checks=["chunk.hole-length", "chunk.hole-is-not-empty"])
def long_hole(server: FakeServer) -> None:
    """OFFSET_HOLE has a 64-bit size."""
    _hole_instead(
        server, lambda asked: [actions.chunk(ReplyType.OFFSET_HOLE, asked.offset.to_bytes(8, "big") + bytes(8))]
    )


@mutant("chunk.hole-outside", breaks=["RPL-067"], checks=["chunk.hole-is-inside", "chunk.success-is-whole"])
def hole_outside(server: FakeServer) -> None:
    """OFFSET_HOLE reaches past the request."""
    _hole_instead(server, lambda asked: [actions.hole(at=asked.offset + asked.length, length=512)])


@mutant("chunk.hole-overlaps", breaks=["RPL-068"], checks=["chunk.hole-does-not-overlap", "chunk.success-is-whole"])
def hole_overlaps(server: FakeServer) -> None:
    """A range is said to be a hole after its data were sent."""
    _hole_instead(server, lambda asked: [actions.hole(at=asked.offset, length=512)])


@mutant("chunk.empty-hole", breaks=["RPL-070"], checks=["chunk.hole-is-not-empty"])
def empty_hole(server: FakeServer) -> None:
    """A hole of 0 bytes ends the reply."""
    _hole_instead(server, lambda asked: [actions.hole(at=asked.offset, length=0)])


@mutant("chunk.data-for-cache", breaks=["RPL-072"], checks=["chunk.content-answers-read"])
def data_for_cache(server: FakeServer) -> None:
    """CACHE is answered with the data."""
    server.on(
        Cmd.CACHE, where=lambda asked: asked.frames is Frames.STRUCTURED and asked.offset == 0 and not asked.flags
    ).reply(actions.data(at=0, length=512))


@mutant(
    "chunk.tail-missing",
    breaks=["CMD-031"],
    checks=["chunk.success-is-whole", "read.of-every-length", "data.shadow-copy", "data.zeroes-and-data-side-by-side"],
)
def tail_missing(server: FakeServer) -> None:
    """The last chunk of a READ of several is left out."""
    server.on(Cmd.READ, where=lambda asked: asked.frames is Frames.STRUCTURED).rewrite(
        lambda asked, plan: plan[:-1] if len(plan) > 1 else plan
    )


def _other_error(server: FakeServer, change: Callable[[Asked, actions.Error], list[Action]]) -> None:
    """Answer structured TRIMs and READs that fail otherwise."""
    change_actions(
        server,
        [Cmd.TRIM, Cmd.CACHE],
        actions.Error,
        lambda asked, each: change(asked, each) if asked.frames is Frames.STRUCTURED else [each],
    )


@mutant("chunk.short-error", breaks=["RPL-102", "RPL-100"], checks=["chunk.error-length", "chunk.error-message-fits"])
def short_error(server: FakeServer) -> None:
    """ERROR has no message length."""
    _other_error(server, lambda asked, each: [actions.chunk(ReplyType.ERROR, int(each.errno).to_bytes(4, "big"))])


@mutant("chunk.error-message-too-long", breaks=["RPL-107", "RPL-101"], checks=["chunk.error-message-fits"])
def error_message_too_long(server: FakeServer) -> None:
    """The message length of ERROR is one too large."""
    _other_error(server, lambda asked, each: [_text_chunk(each.errno, 4, b"no!")])


@mutant(
    "chunk.error-message-of-8-kib",
    breaks=["RPL-105"],
    checks=["chunk.error-message-is-short", "string.is-short", "string.is-at-most-4096-bytes"],
)
def error_message_of_8_kib(server: FakeServer) -> None:
    """The message of ERROR has 8192 bytes."""
    _other_error(server, lambda asked, each: [_text_chunk(each.errno, 8192, b"x" * 8192)])


@mutant(
    "chunk.error-zero",
    breaks=["RPL-106"],
    checks=[
        "chunk.error-is-not-zero",
        "flag.foreign-on-trim",
        "flag.foreign-on-cache",
        "flag.unknown-on-trim",
        "flag.unknown-on-cache",
        "error.listed-values",
    ],
)
def error_zero(server: FakeServer) -> None:
    """The error value of ERROR is 0."""
    _other_error(server, lambda asked, each: [_text_chunk(0, 0, b"")])


@mutant("chunk.two-errors", breaks=["RPL-104"], checks=["chunk.one-error"])
def two_errors(server: FakeServer) -> None:
    """There are two ERROR chunks in one reply."""
    _other_error(server, lambda asked, each: [each, each])


def _placed(server: FakeServer, change: Callable[[Asked, actions.Error], list[Action]]) -> None:
    """Answer structured CACHEs past the end with errors that have an offset."""
    change_actions(
        server,
        [Cmd.CACHE],
        actions.Error,
        lambda asked, each: change(asked, each) if asked.frames is Frames.STRUCTURED else [each],
    )


@mutant(
    "chunk.short-error-offset", breaks=["RPL-108"], checks=["chunk.error-offset-length", "chunk.error-message-fits"]
)
def short_error_offset(server: FakeServer) -> None:
    """ERROR_OFFSET has a 32-bit offset."""
    _placed(server, lambda asked, each: [_text_chunk(each.errno, 0, b"", ReplyType.ERROR_OFFSET, bytes(4))])


@mutant("chunk.error-offset-relative", breaks=["RPL-109"], checks=["chunk.error-offset-is-inside"])
def error_offset_relative(server: FakeServer) -> None:
    """The offset of ERROR_OFFSET counts from the beginning of the request."""
    _placed(server, lambda asked, each: [actions.error(each.errno, at=0)])


@mutant("chunk.error-offset-twice", breaks=["RPL-111"], checks=["chunk.error-offsets-differ"])
def error_offset_twice(server: FakeServer) -> None:
    """One offset is reported twice."""
    _placed(server, lambda asked, each: [actions.error(each.errno, at=asked.offset)] * 2)


@mutant(
    "chunk.error-offset-for-unknown",
    breaks=["RPL-113"],
    checks=["chunk.error-offset-answers-ranges", "chunk.error-offset-is-inside"],
)
def error_offset_for_unknown(server: FakeServer) -> None:
    """An unknown command is answered with ERROR_OFFSET."""
    server.on_send(
        StructuredReply, where=lambda chunk: chunk.type == ReplyType.ERROR and b"0x7fff" in chunk.payload
    ).rewrite(
        lambda chunk: replace(chunk, type=ReplyType.ERROR_OFFSET, payload=bytes(3) + b"\x16" + bytes(2) + bytes(8))
    )


@mutant(
    "chunk.failure-without-error",
    breaks=["CMD-038", "RPL-054"],
    checks=[
        "chunk.failure-has-error",
        "chunk.done-is-last",
        "chunk.success-is-whole",
        "read.past-end-fails",
        "boundary.read",
        "boundary.clamped-is-not-served",
        "abuse.huge-read",
        "boundary.read-beyond-maximum",
    ],
)
def failure_without_error(server: FakeServer) -> None:
    """A READ past the end is answered with NONE."""
    change_actions(
        server,
        _READ,
        actions.Error,
        lambda asked, each: [actions.no_data()] if asked.frames is Frames.STRUCTURED and not asked.flags else [each],
    )


@mutant("chunk.by-sectors", breaks=["RPL-031"], checks=["chunk.few"])
def by_sectors(server: FakeServer) -> None:
    """A READ of 64 KiB is cut into chunks of 512 bytes."""
    server.on(
        Cmd.READ, where=lambda asked: asked.frames is Frames.STRUCTURED and asked.length == 65536 and not asked.flags
    ).rewrite(lambda asked, plan: [actions.data(at=asked.offset + at, length=512) for at in range(0, 65536, 512)])


@mutant("chunk.odd-cuts", breaks=["CMD-023"], checks=["chunk.cut-at-512"])
def odd_cuts(server: FakeServer) -> None:
    """A READ is cut at the 1000th byte."""
    server.on(
        Cmd.READ, where=lambda asked: asked.frames is Frames.STRUCTURED and asked.length > 4096 and not asked.flags
    ).rewrite(
        lambda asked, plan: (
            plan
            if isinstance(plan[0], actions.Error)
            else [
                actions.data(at=asked.offset, length=1000),
                actions.data(at=asked.offset + 1000, length=asked.length - 1000),
            ]
        )
    )


@mutant(
    "extended.simple-error",
    breaks=["EXT-009", "EXT-014"],
    checks=[
        "extended.every-reply",
        "flag.foreign-on-flush",
        "flag.unknown-on-flush",
        "extended.unexpected-payload-is-skipped",
    ],
)
def extended_simple_error(server: FakeServer) -> None:
    """Under extended headers FLUSH gets a simple reply."""
    server.on(Cmd.FLUSH, where=lambda asked: asked.frames is Frames.EXTENDED).reply(actions.simple())


@mutant("extended.chunk-offset", breaks=["EXT-011"], checks=["extended.repeats-offset"])
def chunk_offset(server: FakeServer) -> None:
    """The header of extended chunks has offset 0."""
    for kind in (ExtendedReply, ExtendedReplyHeader):
        server.on_send(kind).mangle(offset=0)


@mutant("extended.short-cookie", breaks=["EXT-015"], checks=["extended.echoes-cookie", "reply.echoes-cookie"])
def short_cookie(server: FakeServer) -> None:
    """Extended chunks carry the lower half of the cookie only."""
    for kind in (ExtendedReply, ExtendedReplyHeader):
        server.on_send(kind, where=lambda chunk: chunk.cookie >= _HIGH).rewrite(
            lambda chunk: replace(chunk, cookie=chunk.cookie % _HIGH)
        )


@mutant(
    "extended.wrong-length",
    breaks=["EXT-012"],
    checks=["extended.length-below-4-gib"],
)
def wrong_length(server: FakeServer) -> None:
    """The length of extended chunks with three sectors of content does not count the offset."""
    content = 3 * 512
    server.on_send(ExtendedReply, where=lambda chunk: len(chunk.payload) == 8 + content).mangle(length=content)
    server.on_send(
        ExtendedReply,
        where=lambda chunk: chunk.type == ReplyType.OFFSET_HOLE and chunk.payload[8:] == content.to_bytes(4, "big"),
    ).mangle(length=4)


@mutant(
    "df.ignored",
    breaks=["CMD-050", "SIZE-032"],
    checks=["df.one-chunk", "chunk.data-does-not-overlap", "chunk.success-is-whole", "df.mixed-range-is-data"],
)
def df_ignored(server: FakeServer) -> None:
    """DF is ignored: what is read comes in two chunks."""
    server.on(Cmd.READ, where=lambda asked: CmdFlag.DF in asked.flags and asked.length > 1024).reply(
        *(actions.data(at=None, length=512),), actions.pass_through()
    )


@mutant("df.hole-for-mixed", breaks=["CMD-052"], checks=["df.mixed-range-is-data"])
def df_hole_for_mixed(server: FakeServer) -> None:
    """A READ with DF is answered with a hole, whatever there is."""
    server.on(Cmd.READ, where=lambda asked: CmdFlag.DF in asked.flags and asked.length > 1024).reply(actions.hole())


@mutant(
    "df.64-kib-refused",
    breaks=["CMD-055"],
    checks=["df.64-kib-is-served", "df.mixed-range-is-data", "error.eoverflow-only-for-long"],
)
def df_64_kib_refused(server: FakeServer) -> None:
    """A READ with DF of 65536 bytes is too long."""
    server.on(Cmd.READ, where=lambda asked: CmdFlag.DF in asked.flags and asked.length == 65536).reply(
        actions.error(Errno.EOVERFLOW)
    )


@mutant("df.refusal-with-content", breaks=["CMD-054"], checks=["df.refusal-has-no-content"])
def df_refusal_with_content(server: FakeServer) -> None:
    """A READ with DF that is too long brings some data and EOVERFLOW."""
    server.on(Cmd.READ, where=lambda asked: CmdFlag.DF in asked.flags and asked.length > 1 << 20).reply(
        actions.data(length=512), actions.error(Errno.EOVERFLOW)
    )


@mutant("df.unsaid", breaks=["FLAG-019"], checks=["df.flag-if-served"])
def df_unsaid(server: FakeServer) -> None:
    """DF is honoured though SEND_DF is clear."""
    server.change_exports(can_df=False)
    server.on(Cmd.READ, where=lambda asked: CmdFlag.DF in asked.flags).reply(actions.data())


@mutant("df.always-offered", breaks=["FLAG-020", "EXT-017"], checks=["df.not-offered-without-structured"])
def df_always_offered(server: FakeServer) -> None:
    """SEND_DF is set without structured replies."""
    export = server.settings.exports[0]
    flags = export.transmission_flags(structured=True, extended=False, contexts_selected=False)
    server.change_exports(flags=flags)
