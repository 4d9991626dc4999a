"""Option dialogues: what the client makes of refusals of every kind, and how it takes its leave."""

from __future__ import annotations

from collections.abc import Sequence

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_gallery import MODES
from nbdtest.conformance.client_probe import Deed, Ending, Judge, probe_of
from nbdtest.conformance.client_target import ClientTarget, Seen
from nbdtest.conformance.declare import Check
from nbdtest.conformance.verdict import Complaint
from nbdtest.fakeserver import Action, FakeServer, Quirks, close, opt_error, opt_reply, pass_through
from nbdtest.report.results import Level
from nbdtest.wire import Opt, Rep

UNSUPPORTED = (
    (opt_error(Rep.ERR_UNSUP),),
    (opt_error(Rep.ERR_UNSUP, "this is not supported here"),),
    (opt_error(Rep.ERR_UNSUP, "x" * 4096),),
)
"""ERR_UNSUP without text, with some, and with the longest that there may be."""
OTHER_ERRORS = (
    (opt_error(Rep.ERR_POLICY, "not for you"),),
    (opt_error(Rep.ERR_INVALID),),
    (opt_error(Rep.ERR_PLATFORM, "not on this machine"),),
    (opt_error(Rep.ERR_TOO_BIG),),
    (opt_error(Rep(0x8000_00FF), "nobody knows this error"),),
    (opt_error(Rep(0xFFFF_FFFF)),),
)
"""Refusals that a client treats like any, known to it or not."""
FAILED = ((opt_error(Rep.ERR_UNKNOWN, "no such export"),), *OTHER_ERRORS)


def answers(option: Opt, *plan: Action, nth: int | None = None) -> Deed:
    """Answer this option so."""

    def change(server: FakeServer) -> None:
        server.on(option, nth=nth).reply(*plan)

    return change


def everything(*plan: Action, but: Sequence[Opt] = (Opt.ABORT,)) -> Deed:
    """Answer every option so, and hang up on EXPORT_NAME."""

    def change(server: FakeServer) -> None:
        for option in Opt:
            if option == Opt.EXPORT_NAME:
                server.on(option).reply(close())
            elif option not in but:
                server.on(option).reply(*plan)

    return change


def _aborts(t: ClientTarget, seen: Seen) -> None:
    """The first connection ends with ABORT, if it got as far as GO."""
    refused = [talk for talk in seen.talks if talk.options and not talk.requests]
    for talk in refused[:1]:
        if talk.last_option != Opt.ABORT:
            raise Complaint(
                f"after the refusal of {talk.last_option} the connection ends without OPT_ABORT", "OPT_ABORT"
            )


def _stops_after(option: Opt) -> Judge:
    def judge(t: ClientTarget, seen: Seen) -> None:
        for talk in seen.talks[:1]:
            numbers = [each.option for each in talk.options]
            following = numbers[numbers.index(option) + 1 :] if option in numbers else []
            if following != [Opt.ABORT]:
                sent = ", ".join(map(str, following)) or "nothing"
                raise Complaint(
                    f"after ERR_SHUTDOWN to {option} the client sends {sent}", "OPT_ABORT, and nothing else"
                )

    return judge


def _leaves_in_clear(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks[:1]:
        if talk.sent(Opt.EXPORT_NAME) or talk.requests:
            raise Complaint("the client goes on after REP_ERR_TLS_REQD: it sends OPT_EXPORT_NAME", "the end")


def _nothing_after_abort(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks:
        numbers = [each.option for each in talk.options]
        if Opt.ABORT in numbers and numbers[-1] != Opt.ABORT:
            raise Complaint(f"after OPT_ABORT the client sends {numbers[-1]}", "nothing")


def _falls_back(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks[:1]:
        if not talk.sent(Opt.EXPORT_NAME):
            raise Complaint(
                f"after OPT_GO is not supported, the client's last option is {talk.last_option}", "OPT_EXPORT_NAME"
            )


def refusals(
    id: str,
    doc: str,
    option: Opt,
    plans: Sequence[Sequence[Action]],
    proves: Sequence[str],
    ability: Ability,
    ending: Ending,
) -> Check:
    """The client copes with these refusals of one option."""
    return probe_of(
        f"client-option.{id}",
        doc,
        *(answers(option, *plan) for plan in plans),
        proves=proves,
        legal=True,
        ending=ending,
        needs=[ability, *([Ability.WORKS_SIMPLE] if ending is Ending.SUCCESS else [])],
        settings=MODES["structured"] if option is not Opt.EXTENDED_HEADERS else {},
    )


REFUSALS = tuple(
    refusals(*row)
    for row in (
        (
            "structured-reply-unsupported",
            "Without structured replies the client goes on with simple ones; the text of the refusal is skipped.",
            Opt.STRUCTURED_REPLY,
            UNSUPPORTED,
            ["OPT-113", "REP-031", "REP-032"],
            Ability.STRUCTURED,
            Ending.SUCCESS,
        ),
        (
            "structured-reply-refused",
            "Any error to STRUCTURED_REPLY, also an unknown one, means that there are no structured replies.",
            Opt.STRUCTURED_REPLY,
            OTHER_ERRORS,
            ["REP-044"],
            Ability.STRUCTURED,
            Ending.SUCCESS,
        ),
        (
            "extended-headers-unsupported",
            "Without extended headers the client goes on with compact ones; the text of the refusal is skipped.",
            Opt.EXTENDED_HEADERS,
            UNSUPPORTED,
            ["EXT-047", "EXT-002"],
            Ability.EXTENDED,
            Ending.SUCCESS,
        ),
        (
            "extended-headers-refused",
            "Any error to EXTENDED_HEADERS, also an unknown one, means that there are no extended headers.",
            Opt.EXTENDED_HEADERS,
            OTHER_ERRORS,
            ["REP-044", "EXT-047"],
            Ability.EXTENDED,
            Ending.SUCCESS,
        ),
        (
            "set-meta-context-unsupported",
            "A client whose SET_META_CONTEXT is not supported asks for no block status.",
            Opt.SET_META_CONTEXT,
            UNSUPPORTED,
            ["META-007", "META-074"],
            Ability.SET_META,
            Ending.ANY,
        ),
        (
            "set-meta-context-refused",
            "A client whose SET_META_CONTEXT fails, for whatever reason, asks for no block status.",
            Opt.SET_META_CONTEXT,
            OTHER_ERRORS,
            ["REP-044", "META-007", "META-074"],
            Ability.SET_META,
            Ending.ANY,
        ),
        (
            "list-meta-context-refused",
            "A refused LIST_META_CONTEXT leaves the session in step.",
            Opt.LIST_META_CONTEXT,
            (*UNSUPPORTED, *OTHER_ERRORS),
            ["REP-044"],
            Ability.LIST_META,
            Ending.ANY,
        ),
        (
            "info-refused",
            "A refused INFO leaves the session in step.",
            Opt.INFO,
            (*UNSUPPORTED, *OTHER_ERRORS),
            ["REP-044", "OPT-100"],
            Ability.INFO,
            Ending.ANY,
        ),
        (
            "list-refused",
            "A refused LIST leaves the session in step.",
            Opt.LIST,
            (*UNSUPPORTED, *OTHER_ERRORS),
            ["REP-044"],
            Ability.LIST,
            Ending.ANY,
        ),
    )
)

GO_UNSUPPORTED = probe_of(
    "client-option.go-unsupported",
    "Where GO is not supported, the client falls back to EXPORT_NAME; the text of the refusal is skipped.",
    *(answers(Opt.GO, *plan) for plan in UNSUPPORTED),
    proves=["OPT-037", "OPT-100", "COMPAT-019"],
    legal=True,
    ending=Ending.SUCCESS,
    needs=[Ability.GO],
    settings=MODES["structured"],
    judge=_falls_back,
)
GO_REFUSED = probe_of(
    "client-option.go-refused",
    "An export that cannot be opened, for whatever reason, known or not, is a failure.",
    *(answers(Opt.GO, *plan) for plan in FAILED),
    proves=["REP-044", "OPT-090"],
    legal=True,
    ending=Ending.FAILURE,
    needs=[Ability.GO],
)
GO_REFUSED_ABORTS = probe_of(
    "client-option.refusal-ends-with-abort",
    "A client that gives up because it cannot open its export says so with ABORT before it disconnects.",
    *(answers(Opt.GO, *plan) for plan in FAILED),
    proves=["TERM-012", "TERM-010"],
    legal=True,
    ending=Ending.ANY,
    needs=[Ability.GO],
    judge=_aborts,
)
LONG_REFUSAL = probe_of(
    "client-option.unreadable-text",
    "The text of an error reply is for people: whatever is in it does no harm.",
    answers(Opt.GO, opt_reply(Rep.ERR_UNKNOWN, b"\xff\xfe\0\x1b[31m%s%n\n\r" * 8)),
    answers(Opt.GO, opt_reply(Rep.ERR_UNKNOWN, b"\0" * 4096)),
    answers(Opt.GO, opt_reply(Rep.ERR_UNKNOWN, b"e" * 65536)),
    proves=["REP-032", "CONV-002", "CONV-006"],
    legal=False,
    ending=Ending.FAILURE,
    needs=[Ability.GO],
    level=Level.SHOULD,
)
SHUTDOWN = tuple(
    probe_of(
        f"client-option.shutdown-{name}",
        f"After ERR_SHUTDOWN to {option} the client sends ABORT and goes.",
        answers(option, opt_error(Rep.ERR_SHUTDOWN, "going down")),
        proves=["TERM-017"],
        legal=True,
        ending=Ending.ANY,
        needs=[ability],
        judge=_stops_after(option),
        settings=settings,
    )
    for name, option, ability, settings in (
        ("of-structured-reply", Opt.STRUCTURED_REPLY, Ability.STRUCTURED, MODES["structured"]),
        ("of-extended-headers", Opt.EXTENDED_HEADERS, Ability.EXTENDED, {}),
        ("of-set-meta-context", Opt.SET_META_CONTEXT, Ability.SET_META, {}),
        ("of-info", Opt.INFO, Ability.INFO, {}),
        ("of-go", Opt.GO, Ability.GO, {}),
    )
)
TLS_REQUIRED = probe_of(
    "client-option.tls-required",
    "A client that does no TLS gives up when the server insists on it; it does not try EXPORT_NAME in the clear.",
    everything(opt_error(Rep.ERR_TLS_REQD, "TLS has to be started first")),
    proves=["TLS-060", "TLS-050"],
    legal=True,
    ending=Ending.FAILURE,
    needs=[Ability.NEGOTIATES],
    judge=_leaves_in_clear,
)
BLOCK_SIZE_REQUIRED = probe_of(
    "client-option.block-size-required",
    "A client copes with a server that insists on being asked for its block sizes.",
    lambda server: None,
    proves=["SIZE-002"],
    legal=True,
    ending=Ending.ANY,
    needs=[Ability.GO],
    export={"insist_on_block_sizes": True},
)


def _refuse_and(*plan: Action) -> Deed:
    def change(server: FakeServer) -> None:
        server.on(Opt.GO).reply(opt_error(Rep.ERR_UNKNOWN, "no such export"))
        server.on(Opt.ABORT).reply(*plan)

    return change


ABORT_UNANSWERED = probe_of(
    "client-option.abort-unanswered",
    "The server may close the connection after ABORT without a reply.",
    _refuse_and(close()),
    proves=["OPT-043"],
    legal=True,
    ending=Ending.FAILURE,
    needs=[Ability.GO, Ability.ABORT],
)
ABORT_REFUSED = probe_of(
    "client-option.abort-is-final",
    "After ABORT the client disconnects, whatever the server says to it, and sends nothing more.",
    _refuse_and(pass_through()),
    _refuse_and(opt_error(Rep.ERR_UNSUP, "what is this?")),
    proves=["TERM-003"],
    legal=False,
    ending=Ending.FAILURE,
    needs=[Ability.GO, Ability.ABORT],
    judge=_nothing_after_abort,
    settings={"quirks": Quirks(stays_after_abort=True)},
)
