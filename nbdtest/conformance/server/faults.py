"""What becomes of a READ whose data cannot be had: the target has to have a range that is known to fail."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_error, expect_in_step
from nbdtest.conformance.replies import Reply
from nbdtest.conformance.session import DATA_OF_READ, Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import Hangup
from nbdtest.wire import CmdFlag, Errno, ErrorOffset, ReplyFlag, ReplyType

FAULT = [Capability.BAD_RANGE]
STRUCTURED = [Capability.BAD_RANGE, Capability.STRUCTURED]
CONTENT = (ReplyType.OFFSET_DATA, ReplyType.OFFSET_HOLE)


def read_across(t: ServerTarget, session: Session) -> Reply:
    """Read the bad range together with what lies around it."""
    assert t.bad_range is not None
    offset, length = t.bad_range
    first = max(0, offset - 4 * t.unit) // t.unit * t.unit
    return session.read(first, min(t.size, offset + length + 4 * t.unit) // t.unit * t.unit - first)


def read_or_hangup(t: ServerTarget, session: Session) -> Reply | None:
    """The same; None if a simple reply said success, and the connection ended in the middle of its data."""
    try:
        return read_across(t, session)
    except Hangup as hangup:
        if hangup.wanted != DATA_OF_READ:
            raise
        return None


@check("fault.is-an-error", proves=["ERR-003", "CMD-011", "CMD-038"], needs=FAULT, legal=True)
def is_an_error(t: ServerTarget) -> None:
    """A READ of what cannot be read fails with EIO, and the session goes on, unless success had already been said."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            reply = read_or_hangup(t, session)
            if reply is not None:
                expect_error(reply, Errno.EIO, value="ERR-003")
                expect_in_step(session, requirement="CMD-013")


@check("fault.late-error-ends-session", proves=["CMD-014", "CMD-015"], needs=FAULT, legal=True)
def late_error_ends_session(t: ServerTarget) -> None:
    """A simple reply that said success is never followed by made-up data: it is complete, or the connection ends."""
    with t.peer.transmitting() as session:
        reply = read_or_hangup(t, session)
        expect(not (reply and reply.succeeded), "a READ of what cannot be read succeeds", "an error, or a hangup")


@check("fault.no-done-before-error", proves=["RPL-032", "CMD-038"], needs=STRUCTURED, legal=True)
def no_done_before_error(t: ServerTarget) -> None:
    """No chunk says DONE before the error has been told."""
    with t.peer.transmitting(mode="structured") as session:
        reply = read_across(t, session)
        told = [chunk for chunk in reply.chunks if chunk.type.is_error]
        expect(told, f"READ of what cannot be read: {reply}", "an error chunk")
        last = reply.chunks[-1]
        expect(ReplyFlag.DONE in last.flags, f"{last.type} ends the reply without DONE")


@check("fault.one-error-per-chunk", proves=["RPL-112"], needs=STRUCTURED, legal=True)
def one_error_per_chunk(t: ServerTarget) -> None:
    """No content chunk has several errors within it: a new chunk begins where another error is to be told."""
    with t.peer.transmitting(mode="structured") as session:
        reply = read_across(t, session)
        failed = {error.offset for error in reply.errors() if isinstance(error, ErrorOffset)}
        for part in reply.content():
            within = sorted(offset for offset in failed if part.offset <= offset < part.end)
            expect(len(within) <= 1, f"errors at {within} in the content [{part.offset}, {part.end})", "one at most")


@check("fault.content-comes-before-its-error", proves=["CMD-044"], needs=STRUCTURED, legal=True)
def content_comes_before_its_error(t: ServerTarget) -> None:
    """A content chunk that covers the offset of an error comes before that error."""
    with t.peer.transmitting(mode="structured") as session:
        reply = read_across(t, session)
        failed: list[int] = []
        for chunk in reply.chunks:
            one = Reply(request=reply.request, chunks=(chunk,))
            failed += [error.offset for error in one.errors() if isinstance(error, ErrorOffset)]
            for part in one.content():
                late = [offset for offset in failed if part.offset <= offset < part.end]
                expect(not late, f"content [{part.offset}, {part.end}) after the error at {late}", "before it")


@check("fault.padding-is-zero", proves=["CMD-034", "CMD-035", "CMD-036"], needs=STRUCTURED, legal=True)
def padding_is_zero(t: ServerTarget) -> None:
    """A chunk that was begun before the error is completed, and what could not be read is zero in it."""
    with t.peer.transmitting(mode="structured") as session:
        reply = read_across(t, session)
        offsets = [error.offset for error in reply.errors() if isinstance(error, ErrorOffset)]
        for part in reply.content():
            for offset in offsets:
                if part.data is not None and part.offset <= offset < part.end:
                    rest = part.data[offset - part.offset :]
                    expect(not any(rest), f"data after the error at {offset}", "zeroes", requirement="CMD-036")
        expect_in_step(session)


@check("fault.df-has-one-chunk", proves=["CMD-050"], needs=[*STRUCTURED, Capability.DF], legal=True)
def df_has_one_chunk(t: ServerTarget) -> None:
    """A READ with DF that fails has one content chunk at most."""
    assert t.bad_range is not None
    with t.peer.transmitting(mode="structured") as session:
        reply = session.read(t.bad_range[0] // t.unit * t.unit, t.unit, flags=CmdFlag.DF)
        expect(len(reply.of_type(*CONTENT)) <= 1, f"READ with DF: {reply}", "one content chunk at most")
