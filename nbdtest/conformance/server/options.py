"""Option haggling in general: that every option is answered, how, and that the talk goes on after it."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import (
    UNKNOWN_OPTION,
    expect,
    expect_equal,
    expect_in_step,
    expect_refused,
    expect_reply,
    expect_silence,
    expect_success,
)
from nbdtest.conformance.target import ServerTarget
from nbdtest.wire import OPTION_REPLY_MAGIC, Cmd, Opt, Option, Rep, Request

FIXED = [Capability.FIXED_NEWSTYLE]
UNASSIGNED = (0x7FFF_0001, 0xDEAD_BEEF, 0xFFFF_FFFF)


@check("option.reply-magic", proves=["OPT-011"], needs=FIXED, legal=True)
def reply_magic(t: ServerTarget) -> None:
    """An option reply begins with 0x0003e889045565a9."""
    with t.peer.negotiating() as nego:
        nego.send_option(UNKNOWN_OPTION)
        seen = nego.peer.receive_bytes(8, wanted="the magic of an option reply")
        nego.peer.note(seen, "first bytes of the reply")
        expect_equal(seen, OPTION_REPLY_MAGIC.to_bytes(8, "big"), "the magic")


@check("option.reply-names-option", proves=["OPT-012"], needs=FIXED, legal=True)
def reply_names_option(t: ServerTarget) -> None:
    """Every option reply repeats the number of the option that it answers."""
    for answer in t.gallery.answers():
        for reply in answer.replies:
            expect_equal(reply.option, answer.option.option, f"the option in {reply.type}")


@check("option.reply-type-assigned", proves=["OPT-013", "REP-030"], needs=FIXED, legal=True)
def reply_type_assigned(t: ServerTarget) -> None:
    """Every reply type is one that the specification assigns; those of errors have bit 31 set."""
    for reply in t.gallery.option_replies():
        expect(reply.type.is_known, f"reply type {reply.type} to {reply.option}", "an assigned one")


@check("option.ack-has-no-data", proves=["REP-001", "OPT-016"], needs=FIXED, legal=True)
def ack_has_no_data(t: ServerTarget) -> None:
    """An ACK carries no data."""
    for reply in t.gallery.option_replies(Rep.ACK):
        expect_equal(len(reply.data), 0, f"the length of the ACK to {reply.option}")


@check("option.nothing-after-final", proves=["OPT-018"], needs=FIXED, legal=True)
def nothing_after_final(t: ServerTarget) -> None:
    """The ACK or error is the last reply to an option."""
    with t.peer.negotiating() as nego:
        answer = nego.option(Opt.LIST)
        expect_silence(nego.peer, f"{answer} to OPT_LIST")


@check("option.error-length", proves=["OPT-015"], needs=FIXED, legal=True)
def error_length(t: ServerTarget) -> None:
    """The length of an error reply counts exactly its text: the next option is answered in step."""
    with t.peer.negotiating() as nego:
        nego.info(t.unknown_export)
        expect_in_step(nego)
        expect_in_step(nego)


@check("option.is-answered", proves=["OPT-010"], needs=FIXED, legal=True)
def is_answered(t: ServerTarget) -> None:
    """Every option but EXPORT_NAME is answered, whatever its number."""
    with t.peer.negotiating() as nego:
        for number in (0, Opt.PEEK_EXPORT, 12, 100, 101, 0x4E42, *UNASSIGNED):
            nego.option(number)


@check("option.unknown-is-unsupported", proves=["COMPAT-005", "REP-033"], needs=FIXED, legal=True)
def unknown_is_unsupported(t: ServerTarget) -> None:
    """An option that the server does not know is answered with ERR_UNSUP, whatever data came with it."""
    with t.peer.negotiating() as nego:
        for number in UNASSIGNED:
            for data in (b"", b"x", bytes(4096)):
                expect_reply(nego.option(number, data), Rep.ERR_UNSUP)


@check("option.unknown-data-is-skipped", proves=["COMPAT-006"], needs=FIXED, legal=True)
def unknown_data_is_skipped(t: ServerTarget) -> None:
    """The data of an unknown option are skipped, even if they look like options."""
    with t.peer.negotiating() as nego:
        disguised = Option(option=Opt.LIST).encode() * 256
        nego.option(UNASSIGNED[0], disguised)
        expect_in_step(nego)
        expect_silence(nego.peer, "the reply to the option after it")


@check("option.peek-export-is-unsupported", proves=["OPT-055"], needs=FIXED, legal=True)
def peek_export_is_unsupported(t: ServerTarget) -> None:
    """Option 4 was withdrawn: it is as unknown as any other."""
    with t.peer.negotiating() as nego:
        expect_reply(nego.option(Opt.PEEK_EXPORT), Rep.ERR_UNSUP)
        expect_in_step(nego)


@check("option.abort-is-acknowledged", proves=["OPT-040"], needs=FIXED, legal=True)
def abort_is_acknowledged(t: ServerTarget) -> None:
    """ABORT is answered with an ACK."""
    with t.peer.negotiating() as nego:
        expect_reply(nego.option(Opt.ABORT), Rep.ACK)


@check("option.abort-ignores-data", proves=["OPT-042"], needs=FIXED, legal=False)
def abort_ignores_data(t: ServerTarget) -> None:
    """ABORT is answered with an ACK whatever data came with it."""
    with t.peer.negotiating() as nego:
        expect_reply(nego.option(Opt.ABORT, b"farewell"), Rep.ACK)


@check("option.abort-without-waiting", proves=["OPT-044"], needs=FIXED, legal=True, hostile=True)
def abort_without_waiting(t: ServerTarget) -> None:
    """The server copes with clients that send ABORT and vanish without reading the ACK."""
    for rst in (False, True) * 5:
        with t.peer.negotiating() as nego:
            nego.send_option(Opt.ABORT)
            nego.peer.cut(rst=rst)
    with t.peer.negotiating() as nego:
        expect_in_step(nego)


@check("option.errors-keep-the-session", proves=["TERM-009"], needs=FIXED, legal=True)
def errors_keep_the_session(t: ServerTarget) -> None:
    """A refused option does not end the handshake."""
    with t.peer.negotiating() as nego:
        nego.info(t.unknown_export, (0, 1, 2, 3))
        expect_in_step(nego)
        answer = nego.info(t.unknown_export, (0xFFFE,))
        expect(answer.replies, "no answer")
        nego.option(Opt.LIST)
        expect_in_step(nego)


@check("option.errors-in-a-row", proves=["TERM-013"], needs=FIXED, legal=True)
def errors_in_a_row(t: ServerTarget) -> None:
    """A client that asks for twenty things the server does not know gets twenty errors."""
    with t.peer.negotiating() as nego:
        for number in range(20):
            expect_refused(nego.option(UNKNOWN_OPTION + number))


@check("option.number-11-is-extended-headers", proves=["OPT-120"], needs=FIXED, legal=True)
def number_11_is_extended_headers(t: ServerTarget) -> None:
    """Option 11 asks for extended headers and nothing else: ACK or one of the errors for a feature."""
    with t.peer.negotiating() as nego:
        answer = nego.option(Opt.EXTENDED_HEADERS)
        expect_reply(answer, Rep.ACK, Rep.ERR_UNSUP, Rep.ERR_INVALID, Rep.ERR_POLICY, Rep.ERR_PLATFORM)
        expect_equal(len(answer.replies), 1, "the number of replies")


@check("option.no-extended-error", proves=["REP-043"], needs=FIXED, legal=True)
def no_extended_error(t: ServerTarget) -> None:
    """A server that does not do extended headers never sends ERR_EXT_HEADER_REQD."""
    if t.has(Capability.EXTENDED):
        return
    for reply in t.gallery.option_replies():
        expect(reply.type != Rep.ERR_EXT_HEADER_REQD, f"{reply.type} to {reply.option}")


@check("option.structured-with-data-is-invalid", proves=["OPT-111"], needs=[Capability.STRUCTURED], legal=False)
def structured_with_data_is_invalid(t: ServerTarget) -> None:
    """STRUCTURED_REPLY with data is refused with ERR_INVALID."""
    with t.peer.negotiating() as nego:
        expect_reply(nego.option(Opt.STRUCTURED_REPLY, b"data"), Rep.ERR_INVALID)
        expect_in_step(nego)


@check(
    "option.structured-twice",
    proves=["RPL-021", "OPT-020"],
    needs=[Capability.STRUCTURED, Capability.EXPORT],
    legal=True,
)
def structured_twice(t: ServerTarget) -> None:
    """A second STRUCTURED_REPLY is acknowledged or refused, and replies stay structured."""
    with t.peer.negotiating(structured=True) as nego:
        if nego.option(Opt.STRUCTURED_REPLY).is_ack:
            t.remark("a second STRUCTURED_REPLY is acknowledged, too")
        session = t.peer.begin_transmission(nego, t.export)
        expect_equal(expect_success(session.read(0, t.unit)).kind, "structured", "the reply to READ")


@check("option.request-is-no-option", proves=["TERM-001"], needs=FIXED, legal=False, hostile=False)
def request_is_no_option(t: ServerTarget) -> None:
    """A request in the middle of the handshake is not answered as a request."""
    with t.peer.negotiating() as nego:
        nego.peer.send(Request(type=Cmd.READ, cookie=1, length=512))
        seen = nego.peer.receive_if_any()
        expect(seen[:4] not in (b"\x67\x44\x66\x98", b"\x66\x8e\x33\xef"), "a reply to a request during the handshake")


@check("starttls.is-answered-once", proves=["OPT-061"], needs=FIXED, legal=True)
def starttls_is_answered_once(t: ServerTarget) -> None:
    """STARTTLS is answered with one ACK or one error."""
    with t.peer.negotiating(clear=True) as nego:
        expect_equal(len(nego.option(Opt.STARTTLS).replies), 1, "the number of replies to OPT_STARTTLS")


@check("starttls.with-data-is-refused", proves=["OPT-061"], needs=[Capability.NOTLS, *FIXED], legal=False)
def starttls_with_data_is_refused(t: ServerTarget) -> None:
    """STARTTLS with data is refused by a server without TLS, and the data are skipped."""
    with t.peer.negotiating() as nego:
        expect_refused(nego.option(Opt.STARTTLS, b"data"))
        expect_in_step(nego)
