"""Strings, wherever the server sends them: names, descriptions, context names, texts of errors."""

from __future__ import annotations

from collections.abc import Iterator

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect
from nbdtest.conformance.gallery import LONG_NAME
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.wire import OptionReply, Rep, ReplyType, shorten

FIXED = [Capability.FIXED_NEWSTYLE]


def strings_of(reply: OptionReply) -> Iterator[tuple[str, bytes]]:
    """What is text in an option reply, and what it is called. Lengths that lie are followed as far as data go."""
    data = reply.data
    match reply.type:
        case Rep.SERVER if len(data) >= 4:
            length = int.from_bytes(data[:4], "big")
            yield "the name of a listed export", data[4 : 4 + length]
            yield "the description of a listed export", data[4 + length :]
        case Rep.INFO if data[:2] == b"\0\1":
            yield "INFO_NAME", data[2:]
        case Rep.INFO if data[:2] == b"\0\2":
            yield "INFO_DESCRIPTION", data[2:]
        case Rep.META_CONTEXT if len(data) >= 4:
            yield "the name of a context", data[4:]
        case _ if reply.type.is_error:
            yield f"the text of {reply.type}", data


def strings(t: ServerTarget) -> Iterator[tuple[str, bytes]]:
    """Every string that the gallery holds, empty ones left out."""
    found = False
    for reply in t.gallery.option_replies():
        for what, text in strings_of(reply):
            if text:
                found = True
                yield what, text
    if t.has(Capability.STRUCTURED):
        for chunk in t.gallery.chunks():
            if chunk.type in (ReplyType.ERROR, ReplyType.ERROR_OFFSET):
                length = int.from_bytes(chunk.payload[4:6], "big")
                if text := chunk.payload[6 : 6 + length]:
                    found = True
                    yield "the text of an error chunk", text
    if not found:
        raise NotApplicable("the server sent no string")


@check("string.is-utf-8", proves=["CONV-002", "REP-005", "REP-028", "REP-032"], needs=FIXED, legal=True)
def is_utf_8(t: ServerTarget) -> None:
    """Every string is UTF-8."""
    for what, text in strings(t):
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            expect(False, f"{what} is {shorten(text)}: {error.reason} at byte {error.start}", "UTF-8")


@check("string.has-no-nul", proves=["CONV-004", "CONV-003"], needs=FIXED, legal=True)
def has_no_nul(t: ServerTarget) -> None:
    """No string has a NUL in it or at its end."""
    for what, text in strings(t):
        expect(b"\0" not in text, f"{what} is {shorten(text, 64)}", "no NUL")


@check("string.is-short", proves=["CONV-005"], needs=FIXED, legal=True)
def is_short(t: ServerTarget) -> None:
    """No string is longer than 256 bytes, except a name that the client gave itself."""
    for what, text in strings(t):
        expect(
            len(text) <= 256 or text == LONG_NAME.encode(),
            f"{what} has {len(text)} bytes: {text[:60]!r}…",
            "256 at most",
        )


@check("string.is-at-most-4096-bytes", proves=["CONV-006"], needs=FIXED, legal=True)
def is_at_most_4096_bytes(t: ServerTarget) -> None:
    """No string is longer than 4096 bytes, not even an error text that repeats a name of 4096 bytes."""
    for what, text in strings(t):
        expect(len(text) <= 4096, f"{what} has {len(text)} bytes: {text[:60]!r}…", "4096 at most")


@check("string.has-no-inner-length", proves=["CONV-007", "REP-027"], needs=FIXED, legal=True)
def has_no_inner_length(t: ServerTarget) -> None:
    """A string's length follows from the header alone: it does not begin with a length of its own."""
    for what, text in strings(t):
        inner = int.from_bytes(text[:4], "big")
        expect(len(text) < 4 or inner != len(text) - 4, f"{what} begins with its own length, {inner}")
