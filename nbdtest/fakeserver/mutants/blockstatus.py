"""Mutants of block status, compact and extended."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.export import BlockSizes
from nbdtest.fakeserver.mutants.edits import change_actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import (
    Cmd,
    CmdFlag,
    Errno,
    Extent,
    ReplyFlag,
    ReplyType,
    StructuredReplyHeader,
)

__all__: list[str] = []

_ALLOCATION = "base:allocation"
_STATUS = (Cmd.BLOCK_STATUS,)


@mutant(
    "status.fails",
    breaks=["CMD-140"],
    checks=[
        "status.works",
        "status.one-chunk-per-context",
        "status.past-end-fails",
        "extended.lengths-have-64-bits",
        "extended.status-type",
        "extended.one-chunk-per-context",
        "extended.status-of-chosen-contexts",
        "boundary.block-status",
        "flag.foreign-on-block-status",
        "flag.unknown-on-block-status",
        "extended.wrong-contexts-are-einval",
        "meta.selection-does-not-add-up",
    ],
)
def status_fails(server: FakeServer) -> None:
    """BLOCK_STATUS succeeds without saying anything."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: bool(asked.contexts)).reply(actions.no_data())


@mutant(
    "status.chunk-without-extent",
    breaks=["RPL-080", "RPL-090", "EXT-058"],
    checks=["status.chunk-length", "status.req-one-gives-one", "extended.status-length", "extended.status-count"],
)
def chunk_without_extent(server: FakeServer) -> None:
    """A block status chunk has no extent at all."""
    change_actions(server, _STATUS, actions.Status, lambda asked, each: [replace(each, extents=())])


@mutant(
    "status.second-chunk", breaks=["RPL-081"], checks=["status.one-chunk-per-context", "extended.one-chunk-per-context"]
)
def second_chunk(server: FakeServer) -> None:
    """A context has two chunks."""
    change_actions(server, _STATUS, actions.Status, lambda asked, each: [each, each])


@mutant(
    "status.empty-extent",
    breaks=["RPL-083", "EXT-059"],
    checks=[
        "status.extents-are-not-empty",
        "extended.extents-are-not-empty",
        "status.req-one-gives-one",
        "status.neighbours-differ",
    ],
)
def empty_extent(server: FakeServer) -> None:
    """Every block status begins with an extent of no length."""
    change_actions(
        server, _STATUS, actions.Status, lambda asked, each: [replace(each, extents=(Extent(0, 0), *each.extents))]
    )


def _one(asked: Asked) -> bool:
    return CmdFlag.REQ_ONE in asked.flags


@mutant("status.req-one-gives-two", breaks=["RPL-084"], checks=["status.req-one-gives-one", "status.cut-at-512"])
def req_one_gives_two(server: FakeServer) -> None:
    """REQ_ONE is ignored: there are two extents."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=(Extent(each.extents[0].length // 2, 0), Extent(each.extents[0].length // 2, 3)))
            if _one(asked)
            else each
        ],
    )


@mutant("status.req-one-is-not-cut", breaks=["RPL-085"], checks=["status.req-one-is-cut"])
def req_one_is_not_cut(server: FakeServer) -> None:
    """The extent with REQ_ONE is longer than the request."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=(Extent(each.extents[0].length + 512, each.extents[0].status),))
            if _one(asked)
            else each
        ],
    )


@mutant(
    "status.beyond-the-request", breaks=["RPL-086"], checks=["status.only-last-goes-beyond", "status.req-one-gives-one"]
)
def beyond_the_request(server: FakeServer) -> None:
    """Extents go on after one that has reached the end of the request."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [replace(each, extents=(Extent(asked.length, 0), Extent(512, 3)))],
    )


@mutant(
    "status.beyond-the-export",
    breaks=["CMD-145"],
    checks=["status.stays-in-export", "status.req-one-is-cut", "status.neighbours-differ", "status.finds-holes"],
)
def beyond_the_export(server: FakeServer) -> None:
    """Extents reach past the end of the export."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [replace(each, extents=(*each.extents[:-1], Extent(1 << 30, 0)))],
    )


@mutant(
    "status.many-extents",
    breaks=["RPL-088"],
    checks=[
        "status.few-extents",
        "status.req-one-gives-one",
        "status.only-last-goes-beyond",
        "status.neighbours-differ",
        "status.cut-at-512",
        "status.finds-holes",
        "boundary.block-status",
    ],
)
def many_extents(server: FakeServer) -> None:
    """A chunk has more than 2^20 extents."""
    payload = b"\0\0\0\1" + b"\0\0\0\1\0\0\0\0" * ((1 << 20) + 1)

    def flood(asked: Asked, plan: Plan) -> list[Action]:
        kind = ReplyType.BLOCK_STATUS
        header = StructuredReplyHeader(flags=ReplyFlag.DONE, type=kind, cookie=asked.cookie, length=len(payload))
        return [actions.raw(header.encode() + payload)]

    server.on(Cmd.BLOCK_STATUS, where=lambda asked: asked.frames is Frames.STRUCTURED and asked.length > 512).rewrite(
        flood
    )


@mutant("status.neighbours-alike", breaks=["CMD-148"], checks=["status.neighbours-differ", "status.finds-holes"])
def neighbours_alike(server: FakeServer) -> None:
    """There is an extent for every 512 bytes."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=tuple(Extent(512, 0) for _ in range(max(asked.length // 512, 1))))
            if asked.frames is Frames.STRUCTURED and not _one(asked)
            else each
        ],
    )


@mutant("status.odd-extents", breaks=["CMD-150"], checks=["status.cut-at-512"])
def odd_extents(server: FakeServer) -> None:
    """Extents end at odd bytes."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=(Extent(333, 0), Extent(asked.length - 333, 1)))
            if asked.length > 512 and not _one(asked)
            else each
        ],
    )


@mutant(
    "status.below-minimum",
    breaks=["CMD-151", "EXT-072"],
    checks=["status.multiple-of-minimum", "extended.multiple-of-minimum"],
)
def below_minimum(server: FakeServer) -> None:
    """Extents are no multiples of the minimum block size."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096))
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=(Extent(512, 0), Extent(asked.length - 512, 1))) if not _one(asked) else each
        ],
    )


@mutant("status.unknown-bits", breaks=["META-040"], checks=["status.only-known-bits"])
def unknown_bits(server: FakeServer) -> None:
    """A status of base:allocation has a third bit."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [replace(each, extents=tuple(Extent(e.length, e.status | 4) for e in each.extents))],
    )


@mutant(
    "status.always-zero",
    breaks=["META-036", "META-030"],
    checks=["status.zero-reads-as-zero", "status.follows-writes", "zeroes.no-hole-is-provisioned"],
)
def always_zero(server: FakeServer) -> None:
    """Everything is reported as a hole that reads as zero."""
    change_actions(
        server, _STATUS, actions.Status, lambda asked, each: [replace(each, extents=(Extent(asked.length, 3),))]
    )


@mutant("status.always-allocated", breaks=["CMD-153"], checks=["status.finds-holes"])
def always_allocated(server: FakeServer) -> None:
    """Everything is reported as data."""
    change_actions(
        server, _STATUS, actions.Status, lambda asked, each: [replace(each, extents=(Extent(asked.length, 0),))]
    )


@mutant(
    "status.zero-length-ends-session",
    breaks=["CMD-142"],
    checks=["status.zero-length-keeps-session", "boundary.block-status-inside"],
)
def zero_length_ends_session(server: FakeServer) -> None:
    """BLOCK_STATUS of 0 bytes ends the session."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: not asked.length).reply(actions.close())


@mutant(
    "status.past-end-clamped",
    breaks=["CMD-154"],
    checks=["status.past-end-fails", "boundary.block-status", "status.stays-in-export"],
)
def past_end_clamped(server: FakeServer) -> None:
    """BLOCK_STATUS past the end succeeds."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: bool(asked.contexts) and asked.offset >= server.disk.size).reply(
        actions.status(_ALLOCATION, (512, 0))
    )


@mutant(
    "extended.type-5", breaks=["EXT-054", "EXT-061"], checks=["extended.status-type", "extended.one-chunk-per-context"]
)
def type_5(server: FakeServer) -> None:
    """Under extended headers block status comes in BLOCK_STATUS chunks."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            actions.chunk(ReplyType.BLOCK_STATUS, bytes(3) + b"\1" + bytes(2) + b"\2" + bytes(5))
            if asked.frames is Frames.EXTENDED
            else each
        ],
    )


@mutant(
    "extended.count-off", breaks=["EXT-057"], checks=["extended.status-count", "extended.status-of-chosen-contexts"]
)
def count_off(server: FakeServer) -> None:
    """The count of 64-bit extents is one too small."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            mangle(each, inner_extent_count=len(each.extents) - 1) if asked.frames is Frames.EXTENDED else each
        ],
    )


@mutant(
    "extended.short-extents",
    breaks=["EXT-055", "EXT-060"],
    checks=[
        "extended.status-length",
        "extended.status-count",
        "extended.one-chunk-per-context",
        "extended.status-of-chosen-contexts",
    ],
)
def short_extents(server: FakeServer) -> None:
    """64-bit extents have a 32-bit status."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            actions.chunk(
                ReplyType.BLOCK_STATUS_EXT, bytes(3) + b"\1" + bytes(3) + b"\1" + bytes(6) + b"\2\0" + bytes(4)
            )
            if asked.frames is Frames.EXTENDED
            else each
        ],
    )


@mutant(
    "extended.wide-status",
    breaks=["EXT-062"],
    checks=[
        "extended.status-has-32-bits",
        "extended.wide-contexts-are-announced",
        "extended.wide-contexts-are-withheld",
    ],
)
def wide_status(server: FakeServer) -> None:
    """A status of base:allocation is sign-extended to 64 bits."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=tuple(Extent(e.length, e.status | 0xFFFF_FFFF << 32) for e in each.extents))
            if asked.frames is Frames.EXTENDED
            else each
        ],
    )


@mutant("status.allocated-is-full", breaks=["META-032"], checks=["status.allocated-takes-writes"])
def allocated_is_full(server: FakeServer) -> None:
    """256 KiB of zeroes cannot be written over data for want of space."""
    length = 4 * 65536

    def fits(asked: Asked) -> bool:
        return asked.length == length and not any(asked.payload) and any(server.disk.read(asked.offset, length))

    server.on(Cmd.WRITE, where=fits).reply(actions.error(Errno.ENOSPC))
