"""CMD_BLOCK_STATUS: extents of each selected context, and whether they tell the truth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_equal, expect_error, expect_in_step, expect_success
from nbdtest.conformance.pattern import read_back, write_pattern
from nbdtest.conformance.replies import Reply
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, CmdFlag, Errno, Extent, ReplyType, State

META = [Capability.META, Capability.STRUCTURED]
BASE = [Capability.BASE_ALLOCATION, Capability.EXPORT]
ALLOCATION = "base:allocation"
_STRETCHES = 64
"""How many parts of a range are tried out."""


def statuses(t: ServerTarget) -> Iterator[Reply]:
    """Every successful reply to BLOCK_STATUS with compact headers."""
    return t.gallery.replies(Cmd.BLOCK_STATUS, mode="structured", succeeded=True)


def allocation(session: Session, offset: int, length: int, *, flags: int = 0) -> tuple[Extent, ...]:
    """The extents of base:allocation."""
    reply = expect_success(session.block_status(offset, length, flags=flags))
    extents = reply.extents().get(session.contexts[ALLOCATION])
    if extents is None:
        raise NotApplicable(f"the reply has no extents of base:allocation: {reply}")
    return extents


@check("status.works", proves=["CMD-140", "META-009"], needs=BASE, legal=True)
def works(t: ServerTarget) -> None:
    """BLOCK_STATUS with a selected context succeeds, in chunks."""
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        reply = expect_success(session.block_status(0, t.unit))
        expect_equal(reply.kind, "structured", "the reply to BLOCK_STATUS")
        expect(reply.of_type(ReplyType.BLOCK_STATUS), f"BLOCK_STATUS is answered with {reply}")


@check("status.chunk-length", proves=["RPL-080", "RPL-090"], needs=META, legal=True)
def chunk_length(t: ServerTarget) -> None:
    """A BLOCK_STATUS chunk has a context id and at least one extent of 8 bytes."""
    for chunk in t.gallery.chunks(ReplyType.BLOCK_STATUS):
        length = len(chunk.payload)
        expect(length >= 12 and length % 8 == 4, f"BLOCK_STATUS of {length} bytes", "4 + 8n, n at least 1")


@check("status.one-chunk-per-context", proves=["RPL-081"], needs=BASE, legal=True)
def one_chunk_per_context(t: ServerTarget) -> None:
    """A successful reply has one chunk for each selected context, and no other."""
    with t.peer.transmitting(mode="structured", contexts=t.facts.contexts) as session:
        reply = expect_success(session.block_status(0, t.unit))
        seen = sorted(int.from_bytes(chunk.payload[:4], "big") for chunk in reply.of_type(ReplyType.BLOCK_STATUS))
        expect_equal(seen, sorted(session.contexts.values()), "the list of context ids")


@check("status.extents-are-not-empty", proves=["RPL-083", "RPL-082"], needs=META, legal=True)
def extents_are_not_empty(t: ServerTarget) -> None:
    """No extent is 0 bytes long."""
    for reply in statuses(t):
        for extents in reply.extents().values():
            expect(all(extent.length for extent in extents), f"an extent of 0 bytes among {extents[:8]}")


@check("status.req-one-gives-one", proves=["RPL-084", "SIZE-032"], needs=BASE, legal=True)
def req_one_gives_one(t: ServerTarget) -> None:
    """With REQ_ONE each context has one extent."""
    with t.peer.transmitting(mode="structured", contexts=t.facts.contexts) as session:
        length = min(t.size, 1 << 20) // t.unit * t.unit
        for extents in expect_success(session.block_status(0, length, flags=CmdFlag.REQ_ONE)).extents().values():
            expect_equal(len(extents), 1, "the number of extents with REQ_ONE")


@check("status.req-one-is-cut", proves=["RPL-085"], needs=[*BASE, Capability.SIZE_64K], legal=True)
def req_one_is_cut(t: ServerTarget) -> None:
    """With REQ_ONE the extent is not longer than the request, however large the hole around it is."""
    with t.peer.transmitting(mode="structured", contexts=t.facts.contexts) as session:
        reply = expect_success(session.block_status(t.unit, t.unit, flags=CmdFlag.REQ_ONE))
        for extents in reply.extents().values():
            for extent in extents[:1]:
                expect(extent.length <= t.unit, f"an extent of {extent.length} bytes", f"{t.unit} at most")


@check("status.only-last-goes-beyond", proves=["RPL-086"], needs=META, legal=True)
def only_last_goes_beyond(t: ServerTarget) -> None:
    """All extents but the last together are shorter than the request."""
    for reply in statuses(t):
        for extents in reply.extents().values():
            first = sum(extent.length for extent in extents[:-1])
            length = reply.request.length
            expect(first < length, f"{first} bytes before the last extent", f"less than the {length} asked for")


@check("status.stays-in-export", proves=["CMD-145"], needs=META, legal=True)
def stays_in_export(t: ServerTarget) -> None:
    """Extents begin at the requested offset, so that they cannot end behind the export."""
    for reply in statuses(t):
        for extents in reply.extents().values():
            end = reply.request.offset + sum(extent.length for extent in extents)
            expect(end <= t.size, f"extents up to {end}", f"up to {t.size} at most")


@check("status.few-extents", proves=["RPL-088"], needs=META, legal=True)
def few_extents(t: ServerTarget) -> None:
    """A chunk has at most 2^20 extents."""
    for chunk in t.gallery.chunks(ReplyType.BLOCK_STATUS):
        expect(len(chunk.payload) <= 8_388_612, f"a BLOCK_STATUS chunk of {len(chunk.payload)} bytes")


@check("status.neighbours-differ", proves=["CMD-148"], needs=META, legal=True)
def neighbours_differ(t: ServerTarget) -> None:
    """Two neighbouring extents have different statuses, or they would be one."""
    for reply in statuses(t):
        for extents in reply.extents().values():
            for one, next_ in pairwise(extents):
                expect(one.status != next_.status, f"two neighbours with status {one.status}")


@check("status.cut-at-512", proves=["CMD-150"], needs=META, legal=True, level=Level.SHOULD)
def cut_at_512(t: ServerTarget) -> None:
    """Extents of an aligned request end at multiples of 512 bytes."""
    for reply in statuses(t):
        for extents in reply.extents().values():
            for extent in extents[:-1]:
                expect(extent.length % 512 == 0, f"an extent of {extent.length} bytes", "a multiple of 512")


@check("status.multiple-of-minimum", proves=["CMD-151"], needs=[*META, Capability.MINIMUM_BLOCK], legal=True)
def multiple_of_minimum(t: ServerTarget) -> None:
    """Extents are multiples of the minimum block size, but for one that ends the export."""
    for reply in statuses(t):
        for extents in reply.extents().values():
            end = reply.request.offset
            for extent in extents:
                end += extent.length
                good = extent.length % t.facts.minimum_block == 0 or end == t.size
                expect(good, f"an extent of {extent.length} bytes", f"a multiple of {t.facts.minimum_block}")


@check("status.only-known-bits", proves=["META-040"], needs=BASE, legal=True)
def only_known_bits(t: ServerTarget) -> None:
    """A status of base:allocation has no bits but HOLE and ZERO."""
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        for offset in (0, t.size // 2 // t.unit * t.unit):
            extents = allocation(session, offset, max(min(65536, t.size - offset) // t.unit, 1) * t.unit)
            for status in {extent.status for extent in extents}:
                expect(not status & ~3, f"status 0x{status:x}", "HOLE and ZERO at most")


def stretches(session: Session, start: int, length: int, bit: State, *, is_set: bool) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each stretch of the range that has a status bit, or has it not.

    There are at most `_STRETCHES` of them: a server may report an extent for every byte.
    """
    mask, found, at = int(bit), 0, start  # a mask, as enum members are slow, and there may be a million extents
    for has_it, alike in groupby(allocation(session, start, length), lambda extent: extent.status & mask != 0):
        count = min(sum(extent.length for extent in alike), start + length - at)
        if has_it is is_set and count > 0:
            yield at, count
            found += 1
        at += count
        if found == _STRETCHES:
            return


def expect_zero_is_zero(session: Session, start: int, length: int) -> None:
    """Complain if an extent with ZERO holds anything else."""
    for at, count in stretches(session, start, length, State.ZERO, is_set=True):
        good = not any(read_back(session, at, count))
        expect(good, f"[{at}, {at + count}) is said to be zero and holds data", "zeroes")


@check(
    "status.zero-reads-as-zero",
    proves=["META-036", "CMD-145"],
    needs=[*BASE, Capability.SIZE_64K],
    legal=True,
)
def zero_reads_as_zero(t: ServerTarget) -> None:
    """An extent with the bit ZERO reads as zero, from the requested offset on."""
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        if t.has(Capability.WRITABLE):
            write_pattern(t, session, 7 * t.unit, t.unit)
        length = min(t.size, 1 << 20) // t.unit * t.unit
        for start in (0, 3 * t.unit, (t.size - length) // t.unit * t.unit):
            expect_zero_is_zero(session, start, min(length, t.size - start) // t.unit * t.unit)


@check("status.follows-writes", proves=["META-036", "META-030", "CMD-145"], needs=BASE, legal=True, writes=True)
def follows_writes(t: ServerTarget) -> None:
    """Data that were just written into a former hole are reported neither as zero nor as a hole."""
    length = 4 * max(t.unit, 65536)
    start = t.place(length)
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        make_hole(t, session, start, length)
        allocation(session, start, length)
        middle = start + length // 2
        write_pattern(t, session, middle, t.unit)
        expect_zero_is_zero(session, start, length)
        extents = allocation(session, middle, t.unit, flags=CmdFlag.REQ_ONE)  # how many: status.req-one-gives-one
        hole = next((extent.status & State.HOLE for extent in extents if extent.length), 0)
        expect(not hole, "data that were just written are said to be a hole", requirement="META-030")


@check("status.allocated-takes-writes", proves=["META-032"], needs=BASE, legal=True, writes=True)
def allocated_takes_writes(t: ServerTarget) -> None:
    """A WRITE to what is reported without HOLE does not fail for want of space."""
    length = 4 * max(t.unit, 65536)
    start = t.place(length)
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        write_pattern(t, session, start, length)
        for at, count in stretches(session, start, length, State.HOLE, is_set=False):
            reply = session.write(at, bytes(count))
            expect(reply.error != Errno.ENOSPC, f"WRITE of {count} bytes that are no hole: {reply}", "success")


@check("status.finds-holes", proves=["CMD-153"], needs=[*BASE, Capability.WRITE_ZEROES], legal=True, writes=True)
def finds_holes(t: ServerTarget) -> None:
    """A large range that was trimmed or zeroed is reported as zero, if that is easily known."""
    length = 4 * max(t.unit, 65536)
    start = t.place(length) // 65536 * 65536
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        make_hole(t, session, start, length)
        statuses = {extent.status for extent in allocation(session, start, length)}
        expect(statuses != {0}, "status 0 for a range that was just zeroed", "ZERO")


def make_hole(t: ServerTarget, session: Session, start: int, length: int) -> None:
    """Zero a range, by TRIM and WRITE_ZEROES where they are offered."""
    if t.has(Capability.TRIM):
        session.command(Cmd.TRIM, start, length)
    if t.has(Capability.WRITE_ZEROES):
        expect_success(session.command(Cmd.WRITE_ZEROES, start, length))
    else:
        expect_success(session.write(start, bytes(length)))


@check("status.past-end-fails", proves=["CMD-154", "SIZE-040"], needs=BASE, legal=True)
def past_end_fails(t: ServerTarget) -> None:
    """BLOCK_STATUS past the end of the export is an error, EINVAL."""
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        expect_error(session.block_status(t.past_end, t.unit), Errno.EINVAL)
        expect_in_step(session)


@check(
    "status.of-4-gib", proves=["CMD-145", "RPL-086"], needs=[*BASE, Capability.SIZE_OVER_4G], legal=True, hostile=True
)
def of_4_gib(t: ServerTarget) -> None:
    """BLOCK_STATUS of nearly 4 GiB is answered for as much of it as the server likes."""
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        for length in (0xFFFF_FE00, 0xFFFF_FFFF // t.unit * t.unit, 0xFFFF_0000):
            if length % t.unit == 0 and length <= t.size:
                first = sum(extent.length for extent in allocation(session, 0, length)[:-1])
                expect(first < length, f"{first} bytes before the last extent", f"less than {length}")


@check("status.zero-length-keeps-session", proves=["CMD-142"], needs=BASE, legal=True)
def zero_length_keeps_session(t: ServerTarget) -> None:
    """BLOCK_STATUS of 0 bytes is answered somehow, and the session goes on."""
    with t.peer.transmitting(mode="structured", contexts=[ALLOCATION]) as session:
        session.block_status(0, 0)
        expect_in_step(session)
