"""Extended headers, an experimental branch of the specification: 64-bit lengths, one kind of reply."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_equal, expect_error, expect_in_step, expect_reply, expect_success
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.wire import (
    Cmd,
    CmdFlag,
    Errno,
    ExtendedReply,
    ExtendedRequest,
    Opt,
    Rep,
    ReplyType,
    StatusFilter,
    TransmissionFlag,
)

EXTENDED = [Capability.EXTENDED, Capability.EXPORT]
STATUS = [*EXTENDED, Capability.BASE_ALLOCATION]
FILTER = [Capability.STATUS_PAYLOAD, Capability.BASE_ALLOCATION]
ALLOCATION = "base:allocation"


@check("extended.every-reply", proves=["EXT-009", "EXT-014", "MAGIC-005"], needs=EXTENDED, legal=True)
def every_reply(t: ServerTarget) -> None:
    """With extended headers every reply is an extended chunk, also errors and what carries nothing."""
    for reply in t.gallery.replies(mode="extended"):
        expect_equal(reply.kind, "extended", f"the reply to {reply.request.type}")


@check("extended.repeats-offset", proves=["EXT-011"], needs=EXTENDED, legal=True)
def repeats_offset(t: ServerTarget) -> None:
    """The header of each chunk repeats the offset of the request."""
    for reply, chunk in t.gallery.chunks_with_reply(mode="extended"):
        assert isinstance(chunk, ExtendedReply)
        expect_equal(chunk.offset, reply.request.offset, f"the offset in {chunk.type}")


@check("extended.length-below-4-gib", proves=["EXT-012"], needs=EXTENDED, legal=True)
def length_below_4_gib(t: ServerTarget) -> None:
    """The 64-bit length of a chunk counts its payload, and stays below 2^32."""
    with t.peer.transmitting(mode="extended") as session:
        for length in (t.unit, 3 * t.unit):
            expect_success(session.read(0, length))
            expect_in_step(session)


@check("extended.echoes-cookie", proves=["EXT-015"], needs=EXTENDED, legal=True)
def echoes_cookie(t: ServerTarget) -> None:
    """A chunk has the cookie of its request, bit for bit."""
    with t.peer.transmitting(mode="extended") as session:
        for cookie in (0, 0x0102_0304_0506_0708, 0xFFFF_FFFF_FFFF_FFFF):
            session.receive(session.send(Cmd.READ, 0, t.unit, cookie=cookie))


@check("extended.lengths-have-64-bits", proves=["EXT-008", "EXT-068"], needs=STATUS, legal=True)
def lengths_have_64_bits(t: ServerTarget) -> None:
    """A length of 2^40 and more is not cut to 32 bits: past the end it is an error."""
    with t.peer.transmitting(mode="extended", contexts=[ALLOCATION]) as session:
        for length in ((1 << 40) + t.unit, (1 << 32) + t.unit if t.size < 1 << 32 else (1 << 50)):
            expect_error(session.block_status(0, length), Errno.EINVAL)


@check(
    "extended.zeroes-of-64-bits",
    proves=["EXT-008"],
    needs=[*EXTENDED, Capability.WRITE_ZEROES],
    legal=True,
    writes=True,
)
def zeroes_of_64_bits(t: ServerTarget) -> None:
    """WRITE_ZEROES of 2^40 bytes and some is not one of some bytes."""
    with t.peer.transmitting(mode="extended") as session:
        expect_error(session.command(Cmd.WRITE_ZEROES, 0, (1 << 40) + t.unit))


@check("extended.huge-payload", proves=["EXT-006"], needs=EXTENDED, legal=False)
def huge_payload(t: ServerTarget) -> None:
    """A payload of 8 GiB is not waited for: the server hangs up."""
    with t.peer.transmitting(mode="extended") as session:
        request = ExtendedRequest(type=Cmd.WRITE, flags=CmdFlag.PAYLOAD_LEN, cookie=1, length=1 << 33)
        session.peer.send(request)
        session.peer.receive_to_end()


@check("extended.unexpected-payload-is-skipped", proves=["EXT-007", "EXT-052"], needs=EXTENDED, legal=False)
def unexpected_payload_is_skipped(t: ServerTarget) -> None:
    """A payload for a command that has none is read, and the command fails with EINVAL."""
    with t.peer.transmitting(mode="extended") as session:
        for type in (Cmd.READ, Cmd.FLUSH, Cmd.CACHE):
            reply = session.command(type, 0, t.unit, payload=b"\x21\xe4\x1c\x71" * 128)
            expect_error(reply, Errno.EINVAL)
            expect_in_step(session)


@check("extended.contexts-without-structured", proves=["EXT-016", "EXT-041"], needs=STATUS, legal=True)
def contexts_without_structured(t: ServerTarget) -> None:
    """Extended headers alone allow metadata contexts."""
    with t.peer.negotiating() as nego:
        expect_reply(nego.option(Opt.EXTENDED_HEADERS), Rep.ACK)
        expect(ALLOCATION in nego.set_meta(t.export, ALLOCATION).contexts(), "base:allocation is not selected")


@check("extended.no-status-payload-without-contexts", proves=["EXT-019"], needs=EXTENDED, legal=True)
def no_status_payload_without_contexts(t: ServerTarget) -> None:
    """BLOCK_STATUS_PAYLOAD is not offered when no context was selected."""
    with t.peer.transmitting(mode="extended") as session:
        offered = TransmissionFlag.BLOCK_STATUS_PAYLOAD in session.flags
        expect(not offered, f"flags {session.flags} without a context")


@check("extended.go-is-served", proves=["EXT-024", "EXT-039"], needs=EXTENDED, legal=True)
def go_is_served(t: ServerTarget) -> None:
    """After extended headers were agreed on GO works."""
    with t.peer.negotiating() as nego:
        nego.option(Opt.EXTENDED_HEADERS)
        expect_in_step(t.peer.begin_transmission(nego, t.export))


@check("extended.structured-is-refused-afterwards", proves=["EXT-025"], needs=EXTENDED, legal=False)
def structured_is_refused_afterwards(t: ServerTarget) -> None:
    """STRUCTURED_REPLY after EXTENDED_HEADERS is answered with ERR_EXT_HEADER_REQD."""
    with t.peer.negotiating() as nego:
        nego.option(Opt.EXTENDED_HEADERS)
        expect_reply(nego.option(Opt.STRUCTURED_REPLY), Rep.ERR_EXT_HEADER_REQD)


@check("extended.supersede-structured", proves=["EXT-038"], needs=[*EXTENDED, Capability.STRUCTURED], legal=True)
def supersede_structured(t: ServerTarget) -> None:
    """EXTENDED_HEADERS after STRUCTURED_REPLY is accepted, and extended replies come."""
    with t.peer.negotiating(structured=True) as nego:
        expect_reply(nego.option(Opt.EXTENDED_HEADERS), Rep.ACK)
        session = t.peer.begin_transmission(nego, t.export)
        expect_equal(expect_success(session.read(0, t.unit)).kind, "extended", "the reply to READ")


@check("extended.not-required-for-base", proves=["EXT-030", "EXT-035"], needs=[Capability.META], legal=True)
def not_required_for_base(t: ServerTarget) -> None:
    """Contexts of the namespace base never ask for extended headers."""
    with t.peer.negotiating(structured=True) as nego:
        for answer in (nego.list_meta(t.export, "base:"), nego.set_meta(t.export, ALLOCATION)):
            expect(answer.final.type != Rep.ERR_EXT_HEADER_REQD, f"{answer.option.option} is answered with {answer}")


@check("extended.not-required-when-agreed", proves=["EXT-031"], needs=STATUS, legal=True)
def not_required_when_agreed(t: ServerTarget) -> None:
    """Once extended headers are agreed on nothing asks for them."""
    with t.peer.negotiating() as nego:
        nego.option(Opt.EXTENDED_HEADERS)
        for answer in (nego.list_meta(t.export), nego.set_meta(t.export, ALLOCATION)):
            expect(answer.final.type != Rep.ERR_EXT_HEADER_REQD, f"{answer.option.option} is answered with {answer}")


@check("extended.contexts-need-either", proves=["EXT-033"], needs=STATUS, legal=False)
def contexts_need_either(t: ServerTarget) -> None:
    """SET_META_CONTEXT before structured replies and extended headers is refused."""
    with t.peer.negotiating() as nego:
        answer = nego.set_meta(t.export, ALLOCATION)
        expect_reply(answer, Rep.ERR_INVALID, Rep.ERR_EXT_HEADER_REQD)


@check("extended.with-data-is-invalid", proves=["EXT-037"], needs=EXTENDED, legal=False)
def with_data_is_invalid(t: ServerTarget) -> None:
    """EXTENDED_HEADERS with data is refused with ERR_INVALID."""
    with t.peer.negotiating() as nego:
        expect_reply(nego.option(Opt.EXTENDED_HEADERS, b"data"), Rep.ERR_INVALID)
        expect_in_step(nego)


@check("extended.not-insisted-on", proves=["EXT-069", "EXT-023"], needs=[*EXTENDED, Capability.INFO], legal=True)
def not_insisted_on(t: ServerTarget) -> None:
    """A client without extended headers is let in."""
    with t.peer.negotiating() as nego:
        answer = nego.go(t.export)
        expect(answer.final.type != Rep.ERR_EXT_HEADER_REQD, f"OPT_GO is answered with {answer}", "an ACK")


@check("extended.status-type", proves=["EXT-054", "EXT-061"], needs=STATUS, legal=True)
def status_type(t: ServerTarget) -> None:
    """Block status comes in BLOCK_STATUS_EXT chunks, however small the range."""
    with t.peer.transmitting(mode="extended", contexts=[ALLOCATION]) as session:
        reply = expect_success(session.block_status(0, t.unit))
        types = {chunk.type for chunk in reply.chunks} - {ReplyType.NONE}
        expect_equal(sorted(types), [ReplyType.BLOCK_STATUS_EXT], "the types of the chunks")


@check("extended.status-length", proves=["EXT-055", "EXT-060"], needs=STATUS, legal=True)
def status_length(t: ServerTarget) -> None:
    """A BLOCK_STATUS_EXT chunk has an id, a count and at least one extent of 16 bytes."""
    for chunk in t.gallery.chunks(ReplyType.BLOCK_STATUS_EXT, mode="extended"):
        length = len(chunk.payload)
        expect(length >= 24 and length % 16 == 8, f"BLOCK_STATUS_EXT of {length} bytes", "8 + 16n, n at least 1")


@check("extended.status-count", proves=["EXT-057", "EXT-058"], needs=STATUS, legal=True)
def status_count(t: ServerTarget) -> None:
    """The count in a BLOCK_STATUS_EXT chunk is that of its extents, and not 0."""
    for chunk in t.gallery.chunks(ReplyType.BLOCK_STATUS_EXT, mode="extended"):
        count = int.from_bytes(chunk.payload[4:8], "big")
        expect_equal(count, (len(chunk.payload) - 8) // 16, "the count of extents")
        expect(count, "a count of 0", requirement="EXT-058")


@check("extended.extents-are-not-empty", proves=["EXT-059"], needs=STATUS, legal=True)
def extents_are_not_empty(t: ServerTarget) -> None:
    """No 64-bit extent is 0 bytes long."""
    for reply in t.gallery.replies(Cmd.BLOCK_STATUS, mode="extended", succeeded=True):
        for extents in reply.extents().values():
            expect(all(extent.length for extent in extents), f"an extent of 0 bytes among {extents[:8]}")


@check("extended.status-has-32-bits", proves=["EXT-062"], needs=STATUS, legal=True)
def status_has_32_bits(t: ServerTarget) -> None:
    """The upper half of a status of base:allocation is 0."""
    with t.peer.transmitting(mode="extended", contexts=[ALLOCATION]) as session:
        for extents in expect_success(session.block_status(0, t.unit)).extents().values():
            for extent in extents:
                expect(not extent.status >> 32, f"status 0x{extent.status:x}", "32 bits")


def wide_contexts(t: ServerTarget) -> list[str]:
    """The contexts with a status that needs more than 32 bits, as extended headers show it.

    Raises:
        NotApplicable: there are none.
    """
    with t.peer.negotiating() as nego:
        expect_reply(nego.option(Opt.EXTENDED_HEADERS), Rep.ACK)
        names = nego.set_meta(t.export, *nego.list_meta(t.export).contexts()).contexts()
        session = t.peer.begin_transmission(nego, t.export)
        told = session.block_status(0, min(t.size, 1 << 30) // t.unit * t.unit).extents()
    found = [name for name, id in names.items() if any(extent.status >> 32 for extent in told.get(id, ()))]
    if not found:
        raise NotApplicable("no context of the server was seen to need more than 32 bits")
    return found


@check("extended.wide-contexts-are-withheld", proves=["EXT-034"], needs=[*STATUS, Capability.STRUCTURED], legal=True)
def wide_contexts_are_withheld(t: ServerTarget) -> None:
    """Without extended headers a context of 64 bits is left out, or SET fails with ERR_EXT_HEADER_REQD."""
    wide = wide_contexts(t)
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.set_meta(t.export, *wide)
        expect_reply(answer, Rep.ACK, Rep.ERR_EXT_HEADER_REQD)
        if answer.is_ack:
            expect(not answer.contexts(), f"{', '.join(answer.contexts())} is selected", "no context of 64 bits")


@check("extended.wide-contexts-are-announced", proves=["EXT-029"], needs=[*STATUS, Capability.STRUCTURED], legal=True)
def wide_contexts_are_announced(t: ServerTarget) -> None:
    """A list of contexts that names one of 64 bits to a client without extended headers ends in ERR_EXT_HEADER_REQD."""
    wide = wide_contexts(t)
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.list_meta(t.export)
        if set(wide) & set(answer.contexts()):
            expect_reply(answer, Rep.ERR_EXT_HEADER_REQD)


@check("extended.one-chunk-per-context", proves=["EXT-063"], needs=STATUS, legal=True)
def one_chunk_per_context(t: ServerTarget) -> None:
    """A successful block status has one chunk for each selected context."""
    with t.peer.transmitting(mode="extended", contexts=t.facts.contexts) as session:
        reply = expect_success(session.block_status(0, t.unit))
        chunks = reply.of_type(ReplyType.BLOCK_STATUS_EXT)
        seen = sorted(int.from_bytes(chunk.payload[:4], "big") for chunk in chunks)
        expect_equal(seen, sorted(session.contexts.values()), "the list of context ids")


@check("extended.multiple-of-minimum", proves=["EXT-072"], needs=[*STATUS, Capability.MINIMUM_BLOCK], legal=True)
def multiple_of_minimum(t: ServerTarget) -> None:
    """64-bit extents are multiples of the minimum block size, but for one that ends the export."""
    for reply in t.gallery.replies(Cmd.BLOCK_STATUS, mode="extended", succeeded=True):
        for extents in reply.extents().values():
            end = reply.request.offset
            for extent in extents:
                end += extent.length
                good = extent.length % t.facts.minimum_block == 0 or end == t.size
                expect(good, f"an extent of {extent.length} bytes", f"a multiple of {t.facts.minimum_block}")


def id_of_allocation(session: Session) -> int:
    """The id that the server gave base:allocation in this session."""
    if ALLOCATION not in session.contexts:
        raise NotApplicable(f"the server selected {list(session.contexts)} when all of its contexts were asked for")
    return session.contexts[ALLOCATION]


@check("extended.status-of-chosen-contexts", proves=["EXT-063"], needs=FILTER, legal=True)
def status_of_chosen_contexts(t: ServerTarget) -> None:
    """With BLOCK_STATUS_PAYLOAD a request names the contexts that it wants."""
    with t.peer.transmitting(mode="extended", contexts=t.facts.contexts) as session:
        id = id_of_allocation(session)
        payload = StatusFilter(length=t.unit, context_ids=(id,)).encode()
        reply = expect_success(session.command(Cmd.BLOCK_STATUS, 0, payload=payload))
        expect_equal(list(reply.extents()), [id], "the list of context ids")


@check("extended.wrong-contexts-are-einval", proves=["EXT-065"], needs=FILTER, legal=False)
def wrong_contexts_are_einval(t: ServerTarget) -> None:
    """A request that names a context twice, or one that was not selected, fails with EINVAL; its payload is read."""
    with t.peer.transmitting(mode="extended", contexts=t.facts.contexts) as session:
        known = id_of_allocation(session)
        unknown = max(session.contexts.values()) + 1
        for ids in ((known, known), (unknown,)):
            payload = StatusFilter(length=t.unit, context_ids=ids).encode()
            expect_error(session.command(Cmd.BLOCK_STATUS, 0, payload=payload), Errno.EINVAL)
            expect_in_step(session)
