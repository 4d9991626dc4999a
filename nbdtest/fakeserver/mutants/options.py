"""Mutants of option replies in general, of LIST and of ABORT."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Plan
from nbdtest.fakeserver.mutants.edits import change_replies
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.quirks import Quirks
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Opt, Option, OptionReply, Rep, SimpleReply

__all__: list[str] = []


@mutant(
    "option.reply-magic",
    breaks=["OPT-011"],
    checks=["option.reply-magic"],
    spoils="checks ask with an unknown option whether a session is in step",
)
def wrong_reply_magic(server: FakeServer) -> None:
    """Error replies to unknown options begin with a wrong magic."""
    server.on_send(OptionReply, where={"type": Rep.ERR_UNSUP}).mangle(magic=0x0003_E889_0455_65A8)


@mutant("option.reply-other-option", breaks=["OPT-012"], checks=["option.reply-names-option"])
def names_other_option(server: FakeServer) -> None:
    """Replies to INFO name GO."""
    server.on_send(OptionReply, where={"option": Opt.INFO}).mangle(option=int(Opt.GO))


@mutant(
    "option.unassigned-reply-type",
    breaks=["OPT-013", "REP-030"],
    checks=["option.reply-type-assigned", "option.peek-export-is-unsupported"],
)
def unassigned_reply_type(server: FakeServer) -> None:
    """PEEK_EXPORT is answered with an error type that nobody assigned."""
    server.on(Opt.PEEK_EXPORT).reply(actions.opt_reply(Rep(0x8000_0055)))


@mutant("option.ack-with-data", breaks=["REP-001", "OPT-016"], checks=["option.ack-has-no-data"])
def ack_with_data(server: FakeServer) -> None:
    """The ACK to ABORT has a message in it."""
    change_replies(server, Rep.ACK, lambda data: b"bye!", option=Opt.ABORT)


@mutant(
    "option.list-two-finals",
    breaks=["OPT-018"],
    checks=["option.nothing-after-final", "option.errors-keep-the-session"],
)
def list_two_finals(server: FakeServer) -> None:
    """LIST ends with two acknowledgements."""
    server.on(Opt.LIST, where=lambda option: not option.data).pass_through().then(actions.ack())


@mutant(
    "option.error-length-short",
    breaks=["OPT-015"],
    checks=[
        "option.error-length",
        "option.errors-keep-the-session",
        "info.unknown-export",
        "info.nothing-about-unknown-export",
        "go.after-unknown-export",
        "starttls.mode-stays",
        "meta.unknown-export",
        "info.can-be-asked-again",
        "go.takes-name-of-4096-bytes",
        "meta.failure-undoes-selection",
    ],
)
def error_length_short(server: FakeServer) -> None:
    """The length of ERR_UNKNOWN counts one byte too few."""
    server.on_send(OptionReply, where={"type": Rep.ERR_UNKNOWN}).rewrite(
        lambda reply: reply.encode(length=len(reply.data) - 1)
    )


@mutant("option.some-ignored", breaks=["OPT-010"], checks=["option.is-answered"])
def some_ignored(server: FakeServer) -> None:
    """Option 101 is not answered."""
    server.on_send(OptionReply, where=lambda reply: reply.option == 101).drop()


@mutant("option.unknown-is-invalid", breaks=["COMPAT-005", "REP-033"], checks=["option.unknown-is-unsupported"])
def unknown_is_invalid(server: FakeServer) -> None:
    """Options from 2^31 on are answered with ERR_INVALID instead of ERR_UNSUP."""
    server.on_send(OptionReply, where=lambda reply: reply.option >= 1 << 31).rewrite(
        lambda reply: replace(reply, type=Rep.ERR_INVALID)
    )


@mutant(
    "option.unknown-data-left",
    breaks=["COMPAT-006", "OPT-005"],
    checks=[
        "option.unknown-data-is-skipped",
        "option.unknown-is-unsupported",
        "starttls.mode-is-one-of-three",
        "delivery.handshake-by-bytes",
        "delivery.flags-and-option-at-once",
        "in-step.peek-export",
    ],
)
def unknown_data_left(server: FakeServer) -> None:
    """The data of an unknown option are not skipped, and taken for the next option."""
    server.configure(quirks={"leaves_unknown_option_data"})


@mutant(
    "option.surplus-data-left",
    breaks=["OPT-054", "OPT-061"],
    checks=[
        "list.with-data-stays-in-step",
        "option.structured-with-data-is-invalid",
        "list.with-data-is-invalid",
        "in-step.list",
        "in-step.starttls",
        "in-step.structured-reply",
    ],
)
def surplus_data_left(server: FakeServer) -> None:
    """Data that came with an option that takes none are taken for the next option."""
    server.configure(quirks={"leaves_surplus_option_data"})


@mutant("option.peek-export-acknowledged", breaks=["OPT-055"], checks=["option.peek-export-is-unsupported"])
def peek_export_acknowledged(server: FakeServer) -> None:
    """PEEK_EXPORT is acknowledged."""
    server.on(Opt.PEEK_EXPORT).reply(actions.ack())


@mutant(
    "option.abort-refused", breaks=["OPT-040"], checks=["option.abort-is-acknowledged", "option.abort-ignores-data"]
)
def abort_refused(server: FakeServer) -> None:
    """ABORT is answered with an error."""
    server.on(Opt.ABORT).reply(actions.opt_error(Rep.ERR_POLICY))


@mutant("option.abort-with-data-refused", breaks=["OPT-042"], checks=["option.abort-ignores-data"])
def abort_with_data_refused(server: FakeServer) -> None:
    """ABORT with data is answered with ERR_INVALID."""
    server.on(Opt.ABORT, where=lambda option: option.data).reply(actions.opt_error(Rep.ERR_INVALID))


@mutant(
    "option.abort-stops-service",
    breaks=["OPT-044"],
    checks=[
        "option.abort-without-waiting",
        "option.abort-ignores-data",
        "delivery.options-by-bytes",
        "leaving.after-option-replies",
    ],
)
def abort_stops_service(server: FakeServer) -> None:
    """After the first ABORT no connection is greeted any more."""
    aborted: list[Option] = []

    def remember(option: Option, plan: Plan) -> Plan:
        aborted.append(option)
        return plan

    server.on(Opt.ABORT).rewrite(remember)
    server.on(Moment.CONNECT, where=lambda session: bool(aborted)).reply(actions.close())


@mutant(
    "option.error-ends-session",
    breaks=["TERM-009"],
    checks=[
        "option.errors-keep-the-session",
        "option.error-length",
        "info.unknown-export",
        "info.nothing-about-unknown-export",
        "go.after-unknown-export",
        "starttls.mode-stays",
        "info.can-be-asked-again",
        "go.takes-name-of-4096-bytes",
    ],
)
def error_ends_session(server: FakeServer) -> None:
    """The connection ends after ERR_UNKNOWN."""
    for option in (Opt.INFO, Opt.GO):
        server.on(option).rewrite(
            lambda asked, plan: (*plan, *(actions.close() for each in plan if isinstance(each, actions.OptError)))
        )


@mutant("option.fifteen-at-most", breaks=["TERM-013"], checks=["option.errors-in-a-row"])
def fifteen_at_most(server: FakeServer) -> None:
    """The connection ends after fifteen options."""
    server.configure(quirks=Quirks(options_limit=15))


@mutant("option.eleven-lists", breaks=["OPT-120"], checks=["option.number-11-is-extended-headers"])
def eleven_lists(server: FakeServer) -> None:
    """Option 11 lists an export before it says no."""
    server.configure(extended_headers=False)
    server.on(Opt.EXTENDED_HEADERS).reply(actions.server_export("x"), actions.opt_error(Rep.ERR_UNSUP))


@mutant(
    "option.demands-extended",
    breaks=["REP-043"],
    checks=["option.no-extended-error", "option.peek-export-is-unsupported"],
)
def demands_extended(server: FakeServer) -> None:
    """A server without extended headers demands them for PEEK_EXPORT."""
    server.configure(extended_headers=False)
    server.on(Opt.PEEK_EXPORT).reply(actions.opt_error(Rep.ERR_EXT_HEADER_REQD))


@mutant("option.structured-data-accepted", breaks=["OPT-111"], checks=["option.structured-with-data-is-invalid"])
def structured_data_accepted(server: FakeServer) -> None:
    """STRUCTURED_REPLY with data is acknowledged."""
    server.on(Opt.STRUCTURED_REPLY, where=lambda option: option.data).reply(actions.ack())


@mutant(
    "option.request-answered",
    breaks=["TERM-001"],
    checks=["option.request-is-no-option"],
    spoils="nothing after the greeting is in step",
)
def request_answered(server: FakeServer) -> None:
    """A reply to a request comes right after the greeting."""
    server.on(Moment.GREETING).reply(actions.pass_through(), actions.raw(SimpleReply(cookie=1).encode()))


@mutant("starttls.answered-twice", breaks=["OPT-061"], checks=["starttls.is-answered-once"])
def starttls_answered_twice(server: FakeServer) -> None:
    """STARTTLS is refused with something in front of the error."""
    server.on(Opt.STARTTLS).reply(actions.server_export("x"), actions.opt_error(Rep.ERR_POLICY))


@mutant("starttls.data-left", breaks=["OPT-061"], checks=["starttls.with-data-is-refused"])
def starttls_data_left(server: FakeServer) -> None:
    """STARTTLS with data is acknowledged by a server that has no TLS."""
    server.on(Opt.STARTTLS, where=lambda option: option.data).reply(actions.opt_reply(Rep.ACK))


@mutant("list.unsupported", breaks=["COMPAT-008", "REP-034"], checks=["list.is-served-or-forbidden"])
def list_unsupported(server: FakeServer) -> None:
    """LIST is unknown to the server."""
    server.on(Opt.LIST).reply(actions.opt_error(Rep.ERR_UNSUP))


@mutant("list.twice", breaks=["OPT-051"], checks=["list.one-reply-per-export"])
def list_twice(server: FakeServer) -> None:
    """The first export is listed twice."""
    server.on(Opt.LIST, where=lambda option: not option.data).rewrite(lambda option, plan: (plan[0], *plan))


@mutant("list.without-the-export", breaks=["OPT-051"], checks=["list.has-the-export", "list.agrees-with-info-name"])
def list_without_the_export(server: FakeServer) -> None:
    """The export that everybody uses is not in the list."""
    exports = server.settings.exports
    server.configure(exports=(replace(exports[0], listed=False, size=None), *exports[1:]))


@mutant(
    "list.name-length-too-large",
    breaks=["REP-004", "REP-003"],
    checks=[
        "list.name-length-fits",
        "list.one-reply-per-export",
        "list.names-can-be-opened",
        "list.agrees-with-info-name",
        "list.agrees-with-info-description",
    ],
)
def list_name_length_too_large(server: FakeServer) -> None:
    """The length of a listed name counts its own four bytes."""
    change_replies(
        server, Rep.SERVER, lambda data: (int.from_bytes(data[:4], "big") + 99).to_bytes(4, "big") + data[4:]
    )


@mutant("list.other-names", breaks=["REP-006"], checks=["list.names-can-be-opened"])
def list_other_names(server: FakeServer) -> None:
    """Exports are listed with a prefix that opens nothing."""
    server.on(Opt.LIST).rewrite(
        lambda option, plan: [
            replace(each, name=f"nbd/{each.name}") if isinstance(each, actions.ServerExport) else each for each in plan
        ]
    )


@mutant("list.data-ignored", breaks=["OPT-054"], checks=["list.with-data-is-invalid"])
def list_data_ignored(server: FakeServer) -> None:
    """LIST with data is answered as without."""
    server.on(Opt.LIST, where=lambda option: option.data).reply(actions.ack())


@mutant(
    "list.other-canonical-name", breaks=["REP-018"], checks=["list.agrees-with-info-name", "info.name-opens-the-export"]
)
def list_other_canonical_name(server: FakeServer) -> None:
    """INFO_NAME gives a name that the list does not have."""
    server.change_exports(canonical_name="somewhere-else")


@mutant("list.other-description", breaks=["REP-020"], checks=["list.agrees-with-info-description"])
def list_other_description(server: FakeServer) -> None:
    """The description in the list is not that of INFO."""
    server.on(Opt.LIST).rewrite(
        lambda option, plan: [
            replace(each, description="something else") if isinstance(each, actions.ServerExport) else each
            for each in plan
        ]
    )


@mutant("string.latin-1", breaks=["CONV-002", "REP-032"], checks=["string.is-utf-8"])
def latin_1(server: FakeServer) -> None:
    """The text of ERR_UNSUP is Latin-1."""
    change_replies(server, Rep.ERR_UNSUP, lambda data: "unbekannte Größe".encode("latin-1"))


@mutant("string.with-nul", breaks=["CONV-003", "CONV-004"], checks=["string.has-no-nul"])
def with_nul(server: FakeServer) -> None:
    """The text of ERR_UNSUP ends with a NUL."""
    change_replies(server, Rep.ERR_UNSUP, lambda data: b"no such option\0")


@mutant("string.long", breaks=["CONV-005"], checks=["string.is-short"])
def long_string(server: FakeServer) -> None:
    """The text of ERR_UNSUP has 300 bytes."""
    change_replies(server, Rep.ERR_UNSUP, lambda data: b"no " * 100)


@mutant("string.too-long", breaks=["CONV-006"], checks=["string.is-at-most-4096-bytes", "string.is-short"])
def too_long_string(server: FakeServer) -> None:
    """The text of ERR_UNKNOWN repeats the whole name behind some words."""
    server.on(Opt.INFO, where=lambda option: len(option.data) > 4000).reply(
        actions.opt_reply(Rep.ERR_UNKNOWN, b"there is no export of this name: " + b"n" * 4096)
    )


@mutant("string.inner-length", breaks=["CONV-007"], checks=["string.has-no-inner-length", "string.has-no-nul"])
def inner_length(server: FakeServer) -> None:
    """The text of ERR_UNSUP begins with its own length."""
    change_replies(server, Rep.ERR_UNSUP, lambda data: b"\0\0\0\2no")
