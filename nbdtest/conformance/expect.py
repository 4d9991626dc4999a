"""What checks demand, as functions that complain: short words for the sentences that many checks share."""

from __future__ import annotations

from typing import TypeVar

from nbdtest.conformance.negotiation import Answer, Negotiation
from nbdtest.conformance.peer import Peer
from nbdtest.conformance.replies import Reply
from nbdtest.conformance.session import Session
from nbdtest.conformance.verdict import Complaint
from nbdtest.wire import Errno, Opt, OptionReply, Rep, shorten

__all__ = [
    "UNKNOWN_OPTION",
    "expect",
    "expect_bytes",
    "expect_end",
    "expect_equal",
    "expect_error",
    "expect_in_step",
    "expect_refused",
    "expect_reply",
    "expect_silence",
    "expect_success",
]

UNKNOWN_OPTION = 0x6E62_6474
"""An option that nobody assigned, to ask "still there?". LIST would not do: nbdkit refuses a second one."""

_T = TypeVar("_T")


def expect(condition: object, seen: str, wanted: str = "", *, requirement: str = "") -> None:
    """Complain unless `condition` holds."""
    if not condition:
        raise Complaint(seen, wanted, requirement=requirement)


def expect_equal(seen: _T, wanted: _T, what: str, *, requirement: str = "") -> None:
    """Complain unless both are equal; `what` names the thing, such as "the magic"."""
    if seen != wanted:
        raise Complaint(f"{what} is {_show(seen)}", _show(wanted), requirement=requirement)


def expect_bytes(seen: bytes, wanted: bytes, what: str, *, offset: int = 0, requirement: str = "") -> None:
    """Complain unless both are equal, and name the first byte that differs, counted from `offset`."""
    if seen == wanted:
        return
    if len(seen) != len(wanted):
        raise Complaint(f"{what}: {len(seen)} bytes", f"{len(wanted)}", requirement=requirement)
    at = next(i for i, (a, b) in enumerate(zip(seen, wanted, strict=True)) if a != b)
    raise Complaint(
        f"{what}: from offset {offset + at} there is {shorten(seen[at : at + 16])}",
        shorten(wanted[at : at + 16]),
        requirement=requirement,
    )


def expect_reply(answer: Answer, *types: Rep, requirement: str = "") -> OptionReply:
    """Complain unless the final reply is of one of these types."""
    if answer.final.type not in types:
        wanted = " or ".join(str(type) for type in types)
        raise Complaint(f"{answer.option.option} is answered with {answer}", wanted, requirement=requirement)
    return answer.final


def expect_refused(answer: Answer, *, requirement: str = "") -> OptionReply:
    """Complain unless the final reply is an error, whichever."""
    if not answer.final.type.is_error:
        raise Complaint(f"{answer.option.option} is answered with {answer}", "an error", requirement=requirement)
    return answer.final


def expect_success(reply: Reply, *, requirement: str = "") -> Reply:
    """Complain unless the reply reports success."""
    if not reply.succeeded:
        raise Complaint(f"{_request(reply)} is answered with {reply}", "success", requirement=requirement)
    return reply


def expect_error(reply: Reply, *errors: Errno, requirement: str = "", value: str = "") -> Reply:
    """Complain unless the reply reports an error: about `requirement` if it succeeds, about `value` for its number."""
    if reply.succeeded:
        wanted = f"error {' or '.join(map(str, errors))}" if errors else "an error"
        raise Complaint(f"{_request(reply)} succeeds", wanted, requirement=requirement)
    if errors and reply.error not in errors:
        wanted = " or ".join(f"{error} ({int(error)})" for error in errors)
        raise Complaint(
            f"{_request(reply)} is answered with error {reply.error} ({int(reply.error)})", wanted, requirement=value
        )
    return reply


def expect_in_step(talk: Negotiation | Session, *, requirement: str = "") -> None:
    """Complain unless the next message is answered as if nothing had been: an unknown option, or a READ."""
    talk.peer.preparing = False
    if isinstance(talk, Negotiation):
        answer = talk.option(UNKNOWN_OPTION)
        seen = answer.replies[0]
        if len(answer.replies) > 1 or not seen.type.is_error or seen.option != UNKNOWN_OPTION:
            raise Complaint(
                f"the next option, {Opt(UNKNOWN_OPTION)}, is answered with {answer} to {seen.option}",
                f"{Rep.ERR_UNSUP} to {Opt(UNKNOWN_OPTION)}",
                requirement=requirement,
            )
        return
    length = min(talk.unit, talk.size)
    reply = talk.read(0, length)
    if length and (not reply.succeeded or len(reply.bytes_read()) != length):
        raise Complaint(f"the next READ is answered with {reply}", f"{length} bytes", requirement=requirement)


def expect_silence(peer: Peer, after: str, *, requirement: str = "") -> None:
    """Complain if anything arrives, or the connection ends, in the target's quiet period."""
    if not peer.stays_silent():
        last = peer.transcript.records[-1]
        seen = f"{last.summary}: {shorten(last.data)}" if last.data else last.summary
        raise Complaint(f"after {after} there comes {seen}", "nothing", requirement=requirement)


def expect_end(peer: Peer, after: str, *, silent: bool = True, requirement: str = "") -> None:
    """Complain unless the target ends the connection, by FIN or RST, without another byte if `silent`."""
    peer.preparing = False
    if silent and (first := peer.receive_unless_ended()):
        raise Complaint(
            f"after {after} there comes {shorten(first)}", "the end of the connection", requirement=requirement
        )
    if not silent:
        peer.receive_to_end()


def _request(reply: Reply) -> str:
    request = reply.request
    flags = f" flags {request.flags}" if request.flags else ""
    return f"{request.type}{flags} of {request.length} bytes at {request.offset}"


def _show(value: object) -> str:
    if isinstance(value, bytes):
        return shorten(value)
    return f"{value!r}" if isinstance(value, str) else str(value)
