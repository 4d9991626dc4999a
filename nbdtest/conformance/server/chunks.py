"""The form of replies: simple ones, structured chunks, their flags, types, lengths and payloads."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_equal, expect_in_step, expect_silence, expect_success
from nbdtest.conformance.replies import Content, Reply
from nbdtest.conformance.target import ServerTarget
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, ErrorOffset, ReplyFlag, ReplyType

EXPORT = [Capability.EXPORT]
STRUCTURED = [Capability.STRUCTURED]
_CONTENT = (ReplyType.OFFSET_DATA, ReplyType.OFFSET_HOLE)
_KNOWN = {*_CONTENT, ReplyType.NONE, ReplyType.BLOCK_STATUS, ReplyType.ERROR, ReplyType.ERROR_OFFSET}


def overlaps(one: Content, other: Content) -> bool:
    """Whether two stretches have a byte in common."""
    return one.offset < other.end and other.offset < one.end


def content_of(reply: Reply, type: ReplyType) -> list[tuple[Content, list[Content]]]:
    """Each stretch in chunks of this type, with the stretches in chunks that came before it."""
    parts = reply.content()
    wanted_hole = type == ReplyType.OFFSET_HOLE
    return [(part, list(parts[:at])) for at, part in enumerate(parts) if (part.data is None) is wanted_hole]


@check("reply.only-simple", proves=["RPL-002", "RPL-020"], needs=EXPORT, legal=True)
def only_simple(t: ServerTarget) -> None:
    """Without structured replies every reply is a simple one, also every error."""
    for reply in t.gallery.replies(mode="simple"):
        expect_equal(reply.kind, "simple", f"the reply to {reply.request.type}")


@check("reply.payload-is-structured", proves=["RPL-021", "META-009"], needs=STRUCTURED, legal=True)
def payload_is_structured(t: ServerTarget) -> None:
    """With structured replies, what carries a payload is structured: successes of READ and BLOCK_STATUS."""
    for reply in t.gallery.replies(Cmd.READ, Cmd.BLOCK_STATUS, mode="structured", succeeded=True):
        expect_equal(reply.kind, "structured", f"the reply to {reply.request.type}")


@check("reply.read-is-never-simple", proves=["RPL-022"], needs=[*STRUCTURED, *EXPORT], legal=True)
def read_is_never_simple(t: ServerTarget) -> None:
    """With structured replies READ is never answered by a simple reply, however early it fails."""
    with t.peer.transmitting(mode="structured") as session:
        expect_equal(session.read(0, 0).kind, "structured", "the reply to READ of 0 bytes")
    for reply in t.gallery.replies(Cmd.READ, mode="structured"):
        flags = f" with flags {reply.request.flags}" if reply.request.flags else ""
        expect_equal(reply.kind, "structured", f"the reply to READ{flags}")


@check("reply.errors-are-structured", proves=["RPL-024"], needs=STRUCTURED, legal=True)
def errors_are_structured(t: ServerTarget) -> None:
    """With structured replies errors of any command are structured, so that they can carry text."""
    for reply in t.gallery.replies(mode="structured", succeeded=False):
        expect_equal(reply.kind, "structured", f"the error reply to {reply.request.type}")


@check("reply.simple-has-no-payload", proves=["RPL-011", "RPL-016"], needs=EXPORT, legal=True)
def simple_has_no_payload(t: ServerTarget) -> None:
    """A simple reply that is not the success of a READ ends with its cookie."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            for type in (Cmd.READ, Cmd.BLOCK_STATUS, 0x7FFF):
                session.command(type, session.size // t.unit * t.unit, t.unit)
                expect_in_step(session)


@check("reply.nothing-unasked", proves=["RPL-029", "RPL-026"], needs=EXPORT, legal=True)
def nothing_unasked(t: ServerTarget) -> None:
    """After the reply nothing more comes for a request."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            session.read(0, t.unit)
            expect_silence(session.peer, f"the {mode} reply to a READ")


@check("chunk.flags-assigned", proves=["RPL-036", "RPL-043"], needs=STRUCTURED, legal=True)
def flags_assigned(t: ServerTarget) -> None:
    """A chunk has no flag but DONE."""
    for chunk in t.gallery.chunks():
        expect(not chunk.flags.beyond(ReplyFlag.DONE), f"{chunk.type} with flags {chunk.flags}", "DONE at most")


@check("chunk.type-assigned", proves=["RPL-037", "RPL-071", "RPL-091"], needs=STRUCTURED, legal=True)
def type_assigned(t: ServerTarget) -> None:
    """A chunk is of a type that the specification assigns to structured replies."""
    for chunk in t.gallery.chunks():
        expect(chunk.type in _KNOWN, f"a chunk of {chunk.type} with {len(chunk.payload)} bytes", "an assigned type")


@check("chunk.done-is-last", proves=["RPL-027", "RPL-029"], needs=STRUCTURED, legal=True)
def done_is_last(t: ServerTarget) -> None:
    """A reply ends with the one chunk that says DONE, and what a READ asked for has come by then."""
    for reply in t.gallery.replies(Cmd.READ, mode="structured", succeeded=True):
        expect(reply.content(), f"READ is answered with {reply}", "its data before DONE", requirement="RPL-029")


@check("chunk.none-has-done", proves=["RPL-042"], needs=STRUCTURED, legal=True)
def none_has_done(t: ServerTarget) -> None:
    """A NONE chunk says DONE."""
    for chunk in t.gallery.chunks(ReplyType.NONE):
        expect(ReplyFlag.DONE in chunk.flags, "NONE without DONE")


@check("chunk.none-is-empty", proves=["RPL-052", "RPL-039"], needs=STRUCTURED, legal=True)
def none_is_empty(t: ServerTarget) -> None:
    """A NONE chunk has no payload."""
    for chunk in t.gallery.chunks(ReplyType.NONE):
        expect_equal(len(chunk.payload), 0, "the length of NONE")


@check("chunk.data-is-not-empty", proves=["RPL-060"], needs=[*STRUCTURED, *EXPORT], legal=True)
def data_is_not_empty(t: ServerTarget) -> None:
    """An OFFSET_DATA chunk has an offset and at least one byte of data, also in the reply to a READ of 0 bytes."""
    with t.peer.transmitting(mode="structured") as session:
        empty = session.read(0, 0)
        expect(not empty.of_type(ReplyType.OFFSET_DATA), f"a READ of 0 bytes: {empty}", "no OFFSET_DATA")
    for chunk in t.gallery.chunks(ReplyType.OFFSET_DATA):
        expect(len(chunk.payload) >= 9, f"OFFSET_DATA of {len(chunk.payload)} bytes", "at least 9")


@check("chunk.data-is-inside", proves=["RPL-062", "RPL-061"], needs=STRUCTURED, legal=True)
def data_is_inside(t: ServerTarget) -> None:
    """OFFSET_DATA gives offsets in the export, and stays inside the request."""
    for reply in t.gallery.replies(Cmd.READ, mode="structured"):
        for part, _ in content_of(reply, ReplyType.OFFSET_DATA):
            expect_inside(part, reply)


@check("chunk.data-does-not-overlap", proves=["RPL-063"], needs=STRUCTURED, legal=True)
def data_does_not_overlap(t: ServerTarget) -> None:
    """OFFSET_DATA describes no byte that an earlier chunk described."""
    for reply in t.gallery.replies(Cmd.READ, mode="structured"):
        for part, before in content_of(reply, ReplyType.OFFSET_DATA):
            twice = [other for other in before if overlaps(part, other)]
            expect(not twice, f"[{part.offset}, {part.end}) after {[(other.offset, other.end) for other in twice]}")


@check("chunk.hole-length", proves=["RPL-065"], needs=STRUCTURED, legal=True)
def hole_length(t: ServerTarget) -> None:
    """An OFFSET_HOLE chunk is 12 bytes long."""
    for chunk in t.gallery.chunks(ReplyType.OFFSET_HOLE):
        expect_equal(len(chunk.payload), 12, "the length of OFFSET_HOLE")


@check("chunk.hole-is-inside", proves=["RPL-067", "RPL-066"], needs=STRUCTURED, legal=True)
def hole_is_inside(t: ServerTarget) -> None:
    """OFFSET_HOLE gives offsets in the export, and stays inside the request."""
    for reply in t.gallery.replies(Cmd.READ, mode="structured"):
        for part, _ in content_of(reply, ReplyType.OFFSET_HOLE):
            expect_inside(part, reply)


@check("chunk.hole-does-not-overlap", proves=["RPL-068"], needs=STRUCTURED, legal=True)
def hole_does_not_overlap(t: ServerTarget) -> None:
    """OFFSET_HOLE describes no byte that an earlier chunk described."""
    for reply in t.gallery.replies(Cmd.READ, mode="structured"):
        for part, before in content_of(reply, ReplyType.OFFSET_HOLE):
            twice = [other for other in before if overlaps(part, other)]
            expect(not twice, f"[{part.offset}, {part.end}) after {[(other.offset, other.end) for other in twice]}")


@check("chunk.hole-is-not-empty", proves=["RPL-070"], needs=STRUCTURED, legal=True)
def hole_is_not_empty(t: ServerTarget) -> None:
    """An OFFSET_HOLE chunk describes at least one byte."""
    for chunk in t.gallery.chunks(ReplyType.OFFSET_HOLE):
        expect(any(chunk.payload[8:]), "OFFSET_HOLE of 0 bytes")


@check("chunk.content-answers-read", proves=["RPL-072"], needs=STRUCTURED, legal=True)
def content_answers_read(t: ServerTarget) -> None:
    """OFFSET_DATA and OFFSET_HOLE answer nothing but READ."""
    for reply, chunk in t.gallery.chunks_with_reply(*_CONTENT):
        expect_equal(reply.request.type, Cmd.READ, f"what {chunk.type} answers")


@check("chunk.success-is-whole", proves=["CMD-031"], needs=STRUCTURED, legal=True)
def success_is_whole(t: ServerTarget) -> None:
    """The chunks of a successful READ describe every byte of the request."""
    for reply in t.gallery.replies(Cmd.READ, mode="structured", succeeded=True):
        described = sum(part.length for part in reply.content())
        expect_equal(described, reply.request.length, "the number of bytes described")


@check("chunk.error-length", proves=["RPL-102", "RPL-100"], needs=STRUCTURED, legal=True)
def error_length(t: ServerTarget) -> None:
    """An ERROR chunk is at least 6 bytes long."""
    for chunk in t.gallery.chunks(ReplyType.ERROR):
        expect(len(chunk.payload) >= 6, f"ERROR of {len(chunk.payload)} bytes", "at least 6")


@check("chunk.error-message-fits", proves=["RPL-107", "RPL-101", "RPL-115"], needs=STRUCTURED, legal=True)
def error_message_fits(t: ServerTarget) -> None:
    """An error chunk has its message behind its length, and what its header counts is that and the fixed fields."""
    for chunk in t.gallery.chunks(ReplyType.ERROR, ReplyType.ERROR_OFFSET):
        fixed = 6 if chunk.type == ReplyType.ERROR else 14
        length = int.from_bytes(chunk.payload[4:6], "big")
        expect_equal(fixed + length, len(chunk.payload), f"what {chunk.type} says of its own length")


@check("chunk.error-message-is-short", proves=["RPL-105"], needs=STRUCTURED, legal=True)
def error_message_is_short(t: ServerTarget) -> None:
    """The message of an error chunk is at most 4096 bytes long."""
    for chunk in t.gallery.chunks(ReplyType.ERROR, ReplyType.ERROR_OFFSET):
        length = int.from_bytes(chunk.payload[4:6], "big")
        expect(length <= 4096, f"a message of {length} bytes", "4096 at most")


@check("chunk.error-is-not-zero", proves=["RPL-106", "RPL-114"], needs=STRUCTURED, legal=True)
def error_is_not_zero(t: ServerTarget) -> None:
    """The error value of an error chunk is not 0."""
    for chunk in t.gallery.chunks(ReplyType.ERROR, ReplyType.ERROR_OFFSET):
        expect(any(chunk.payload[:4]), f"{chunk.type} with error 0")


@check("chunk.one-error", proves=["RPL-104", "CMD-045"], needs=STRUCTURED, legal=True)
def one_error(t: ServerTarget) -> None:
    """A reply has one ERROR chunk at most, and none beside errors with an offset."""
    for reply in t.gallery.replies(mode="structured", succeeded=False):
        errors = reply.of_type(ReplyType.ERROR)
        expect(len(errors) <= 1, f"{len(errors)} ERROR chunks in one reply", "one")
        both = errors and reply.of_type(ReplyType.ERROR_OFFSET)
        expect(not both, "ERROR beside ERROR_OFFSET", requirement="CMD-045")


@check("chunk.error-offset-length", proves=["RPL-108"], needs=STRUCTURED, legal=True)
def error_offset_length(t: ServerTarget) -> None:
    """An ERROR_OFFSET chunk is at least 14 bytes long."""
    for chunk in t.gallery.chunks(ReplyType.ERROR_OFFSET):
        expect(len(chunk.payload) >= 14, f"ERROR_OFFSET of {len(chunk.payload)} bytes", "at least 14")


@check("chunk.error-offset-is-inside", proves=["RPL-109"], needs=STRUCTURED, legal=True)
def error_offset_is_inside(t: ServerTarget) -> None:
    """The offset of an ERROR_OFFSET chunk lies inside the request."""
    for reply, _ in t.gallery.chunks_with_reply(ReplyType.ERROR_OFFSET):
        request = reply.request
        for error in reply.errors():
            if isinstance(error, ErrorOffset):
                good = request.offset <= error.offset < request.offset + request.length
                expect(
                    good, f"error offset {error.offset}", f"one in a request of {request.length} at {request.offset}"
                )


@check("chunk.error-offsets-differ", proves=["RPL-111"], needs=STRUCTURED, legal=True)
def error_offsets_differ(t: ServerTarget) -> None:
    """No two ERROR_OFFSET chunks of a reply name one offset."""
    for reply, _ in t.gallery.chunks_with_reply(ReplyType.ERROR_OFFSET):
        offsets = [error.offset for error in reply.errors() if isinstance(error, ErrorOffset)]
        expect_equal(len(set(offsets)), len(offsets), f"the number of different offsets in {offsets}")


@check("chunk.error-offset-answers-ranges", proves=["RPL-113"], needs=STRUCTURED, legal=True)
def error_offset_answers_ranges(t: ServerTarget) -> None:
    """ERROR_OFFSET answers only commands that have a range."""
    ranged = {Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS}
    for reply, _ in t.gallery.chunks_with_reply(ReplyType.ERROR_OFFSET):
        expect(reply.request.type in ranged, f"ERROR_OFFSET in reply to {reply.request.type}")


@check("chunk.failure-has-error", proves=["CMD-038", "RPL-054"], needs=[*STRUCTURED, *EXPORT], legal=True)
def failure_has_error(t: ServerTarget) -> None:
    """A READ past the end has an error chunk in its reply: NONE alone would mean success."""
    past = t.size // t.unit * t.unit
    with t.peer.transmitting(mode="structured") as session:
        reply = session.read(past, t.unit)
        expect(reply.of_type(ReplyType.ERROR, ReplyType.ERROR_OFFSET), f"READ past the end: {reply}", "an error chunk")


@check("chunk.few", proves=["RPL-031"], needs=[*STRUCTURED, Capability.SIZE_64K], legal=True)
def few(t: ServerTarget) -> None:
    """A READ is not cut into many small chunks."""
    with t.peer.transmitting(mode="structured") as session:
        reply = expect_success(session.read(0, 65536))
        expect(len(reply.chunks) <= 65536 // 1024, f"{len(reply.chunks)} chunks for 64 KiB", "a few")


@check("chunk.cut-at-512", proves=["CMD-023"], needs=STRUCTURED, legal=True, level=Level.SHOULD)
def cut_at_512(t: ServerTarget) -> None:
    """An aligned READ is cut into chunks at multiples of 512 bytes."""
    for reply in t.gallery.replies(Cmd.READ, mode="structured", succeeded=True):
        if reply.request.offset % 512 or reply.request.length % 512:
            continue
        for part in reply.content():
            expect(part.offset % 512 == 0, f"a chunk at {part.offset}", "a multiple of 512")


def expect_inside(part: Content, reply: Reply) -> None:
    """Complain unless `part` lies inside the request."""
    first, end = reply.request.offset, reply.request.offset + reply.request.length
    expect(first <= part.offset and part.end <= end, f"[{part.offset}, {part.end})", f"inside [{first}, {end})")
