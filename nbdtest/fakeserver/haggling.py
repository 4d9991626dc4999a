"""The correct answers to options. Pure: a plan and what it changes, from the option, the session and the settings."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from nbdtest.errors import PeerViolation
from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.contexts import Context, matches
from nbdtest.fakeserver.export import Export, Settings, Style, TLSMode
from nbdtest.fakeserver.quirks import Quirks
from nbdtest.fakeserver.session import Session
from nbdtest.fakeserver.violations import Violation, of_strings
from nbdtest.wire import Info, InfoRequest, Message, MetaContextRequest, Opt, Option, Rep
from nbdtest.wire.limits import MAXIMUM_STRING

__all__ = ["Answer", "Effect", "answer", "knows", "shutting_down"]


class Effect(enum.Enum):
    """What an answered option changes, besides the session's own fields."""

    NONE = "none"
    ABORT = "abort"
    START_TLS = "start TLS"
    TRANSMIT = "transmit"


Change: TypeAlias = Callable[[Session], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A plan, and what happens if it (or what a rule puts in its place) says yes."""

    plan: Plan
    export: Export | None = None
    """What the option is about, if it is about an export."""
    change: Change | None = None
    effect: Effect = Effect.NONE
    violations: tuple[Violation, ...] = ()


def answer(option: Option, session: Session, settings: Settings) -> Answer:
    """Answer `option` as the specification demands. `session` is not changed, except that a failing
    SET_META_CONTEXT drops the contexts (META-072)."""
    if settings.style is Style.NEWSTYLE and option.option != Opt.EXPORT_NAME:
        return Answer(plan=(actions.Close(),))  # HS-013: there are no option replies to answer with
    if settings.tls_mode is TLSMode.REQUIRED and not session.in_tls and option.option not in (Opt.STARTTLS, Opt.ABORT):
        # TLS-031, TLS-032
        if option.option == Opt.EXPORT_NAME:
            return Answer(plan=(actions.Close(),))
        if not session.fixed:  # TLS-021: there is no TLS to be asked for
            return _refusal(Rep.ERR_POLICY, "nothing is served without TLS, and that takes fixed newstyle")
        return _refusal(Rep.ERR_TLS_REQD, "TLS has to be started first")
    handler = _HANDLERS.get(option.option)
    if handler is None:
        return _refusal(Rep.ERR_UNSUP, f"{option.option} is not supported")
    return handler(option, session, settings)


def shutting_down(option: Opt) -> Answer:
    """Answer an option of a client that the server wants to be rid of (TERM-016)."""
    if option == Opt.EXPORT_NAME:
        return Answer(plan=(actions.Close(),))
    return _refusal(Rep.ERR_SHUTDOWN, "the server is being shut down")


def knows(option: Opt) -> bool:
    """Whether the server implements this option."""
    return option in _HANDLERS


def _abort(option: Option, session: Session, settings: Settings) -> Answer:
    return Answer(plan=(actions.Ack(),), effect=Effect.ABORT)  # OPT-042: surplus data is ignored


def _list(option: Option, session: Session, settings: Settings) -> Answer:
    if option.data:
        return _refusal(Rep.ERR_INVALID, "OPT_LIST takes no data")
    if not settings.list_exports:
        return _refusal(Rep.ERR_POLICY, "exports are not listed here")
    names = [
        actions.ServerExport(export.name, export.description)
        for export in settings.exports
        if export.listed and (session.in_tls or not export.tls_only)
    ]
    return Answer(plan=(*names, actions.Ack()))


def _starttls(option: Option, session: Session, settings: Settings) -> Answer:
    if option.data:
        return _refusal(Rep.ERR_INVALID, "OPT_STARTTLS takes no data")
    if session.in_tls:
        return _refusal(Rep.ERR_INVALID, "TLS is up already")
    if settings.tls_mode is TLSMode.NONE or not session.fixed:  # TLS-021
        return _refusal(Rep.ERR_POLICY, "there is no TLS here")
    return Answer(plan=(actions.Ack(),), effect=Effect.START_TLS)


def _export_name(option: Option, session: Session, settings: Settings) -> Answer:
    name = option.data.decode("utf-8", "surrogateescape")
    found = tuple(of_strings(name))
    export = _find(name, settings)
    refused = (
        export is None
        or len(option.data) > MAXIMUM_STRING
        or export.insist_on_block_sizes  # OPT-033
        or (session.extended and not settings.quirks.ignores_option_errors)  # EXT-021
        or _needs_tls(export, session, settings)  # TLS-040
    )
    if refused:
        return Answer(plan=(actions.Close(),), violations=found)  # HS-017
    padded = not session.no_zeroes
    if settings.quirks.always_pads_export_name or settings.quirks.never_pads_export_name:
        padded = settings.quirks.always_pads_export_name
    reply = actions.ExportReply(padded=padded)
    return Answer(plan=(reply,), export=export, effect=Effect.TRANSMIT, violations=found)


def _info(option: Option, session: Session, settings: Settings) -> Answer:
    if not settings.info_and_go:
        return _refusal(Rep.ERR_UNSUP, f"{option.option} is not supported")
    asked, problem = _decoded(InfoRequest, option, settings.quirks)
    if asked is None:
        return _refusal(Rep.ERR_INVALID, problem, Violation("OPT-075", f"{option.option}: {problem}"))
    found = [*of_strings(asked.name)]
    if len(set(asked.infos)) < len(asked.infos):
        found.append(Violation("OPT-079", f"{option.option} asks for an information twice"))
    if problem := _bad_name(asked.name, settings.quirks):
        return _refusal(Rep.ERR_INVALID, problem, *found)
    export = _find(asked.name, settings)
    if export is None:
        return _refusal(Rep.ERR_UNKNOWN, f"there is no export {_short(asked.name)}", *found)
    if _needs_tls(export, session, settings):
        return _refusal(Rep.ERR_TLS_REQD, f"export {_short(asked.name)} needs TLS", *found)
    if export.insist_on_block_sizes and Info.BLOCK_SIZE not in asked.infos:  # OPT-095, OPT-097
        refusal = actions.OptError(Rep.ERR_BLOCK_SIZE_REQD, "ask for INFO_BLOCK_SIZE")
        return Answer(plan=(actions.InfoBlockSize(), refusal), export=export, violations=tuple(found))
    plan: list[Action] = [actions.InfoExport()]
    if Info.NAME in asked.infos:
        plan.append(actions.InfoName())
    if Info.DESCRIPTION in asked.infos:
        plan.append(actions.InfoDescription())
    if Info.BLOCK_SIZE in asked.infos or export.block_sizes is not None:  # REP-023
        plan.append(actions.InfoBlockSize())
    effect = Effect.TRANSMIT if option.option == Opt.GO else Effect.NONE
    promised = Info.BLOCK_SIZE in asked.infos

    def promise(session: Session) -> None:
        session.promised_sizes = promised

    return Answer(plan=(*plan, actions.Ack()), export=export, change=promise, effect=effect, violations=tuple(found))


def _structured_reply(option: Option, session: Session, settings: Settings) -> Answer:
    if option.data:
        return _refusal(Rep.ERR_INVALID, "OPT_STRUCTURED_REPLY takes no data")
    if session.extended:  # EXT-025
        return _refusal(Rep.ERR_EXT_HEADER_REQD, "extended headers are in use")
    if not settings.structured_replies:
        return _refusal(Rep.ERR_UNSUP, "structured replies are not supported")

    def agree(session: Session) -> None:
        session.structured = True

    return Answer(plan=(actions.Ack(),), change=agree)


def _extended_headers(option: Option, session: Session, settings: Settings) -> Answer:
    if option.data:
        return _refusal(Rep.ERR_INVALID, "OPT_EXTENDED_HEADERS takes no data")
    # EXT-039: whoever accepts this supports GO.
    if not settings.extended_headers or not settings.info_and_go:
        return _refusal(Rep.ERR_UNSUP, "extended headers are not supported")

    def agree(session: Session) -> None:
        session.extended = True

    return Answer(plan=(actions.Ack(),), change=agree)


def _list_meta_context(option: Option, session: Session, settings: Settings) -> Answer:
    asked = _meta_context_request(option, session, settings)
    if isinstance(asked, Answer):
        return asked
    names = [
        actions.MetaContext(context.name)
        for context in _usable(asked.export, session)
        if not asked.queries or any(matches(query, context.name, listing=True) for query in asked.queries)
    ]
    return Answer(plan=(*names, actions.Ack()), export=asked.export, violations=asked.violations)


def _set_meta_context(option: Option, session: Session, settings: Settings) -> Answer:
    if not settings.quirks.keeps_contexts_after_failure:
        session.contexts, session.contexts_of = {}, ""  # META-071, META-072
    allowed = session.structured or session.extended or settings.quirks.sets_contexts_without_structured
    if settings.meta_contexts and not allowed:  # META-062
        return _refusal(Rep.ERR_INVALID, "structured replies have to be negotiated first")
    asked = _meta_context_request(option, session, settings)
    if isinstance(asked, Answer):
        return asked
    wild = settings.quirks.wildcards_select
    usable = _usable(asked.export, session)
    chosen = {
        context.name: number
        for number, context in enumerate(asked.export.contexts, start=1)
        if context in usable and any(matches(query, context.name, listing=wild) for query in asked.queries)
    }
    name = asked.export.name

    def select(session: Session) -> None:
        if chosen or not settings.quirks.keeps_contexts_after_failure:
            session.contexts, session.contexts_of = chosen, name

    plan = [actions.MetaContext(context, id=number) for context, number in chosen.items()]
    return Answer(plan=(*plan, actions.Ack()), export=asked.export, change=select, violations=asked.violations)


@dataclass(frozen=True, slots=True)
class _MetaContextQuestion:
    """A well-formed LIST or SET of metadata contexts."""

    export: Export
    queries: tuple[str, ...]
    violations: tuple[Violation, ...]


def _meta_context_request(option: Option, session: Session, settings: Settings) -> _MetaContextQuestion | Answer:
    if not settings.meta_contexts:
        return _refusal(Rep.ERR_UNSUP, f"{option.option} is not supported")
    setting = option.option == Opt.SET_META_CONTEXT
    asked, problem = _decoded(MetaContextRequest, option, settings.quirks)
    if asked is None:  # META-055, META-085
        broken = Violation("META-075" if setting else "META-053", f"{option.option}: {problem}")
        return _refusal(Rep.ERR_INVALID, problem, broken)
    found = [*of_strings(asked.name, *asked.queries)]
    problem = _bad_name(asked.name, settings.quirks)
    for query in asked.queries:
        if not query.partition(":")[1] or query.startswith(":"):
            text = f"the query {_short(query)} does not start with a namespace and a colon"
            found.append(Violation("META-076" if setting else "META-054", text))
            problem = problem or text
        problem = problem or _bad_name(query, settings.quirks)
    if problem and not settings.quirks.ignores_option_errors:
        return _refusal(Rep.ERR_INVALID, problem, *found)
    export = _find(asked.name, settings)
    if export is None:  # META-086
        return _refusal(Rep.ERR_UNKNOWN, f"there is no export {_short(asked.name)}", *found)
    if _needs_tls(export, session, settings):  # TLS-042: ERR_TLS_REQD is for INFO and GO
        return _refusal(Rep.ERR_POLICY, f"export {_short(asked.name)} is not served in clear", *found)
    return _MetaContextQuestion(export, asked.queries, tuple(found))


def _usable(export: Export, session: Session) -> list[Context]:
    """EXT-034: a context of 64 bits is left out as long as headers are compact."""
    return [context for context in export.contexts if session.extended or not context.wide]


def _needs_tls(export: Export | None, session: Session, settings: Settings) -> bool:
    if export is None or session.in_tls or settings.quirks.allows_plain_transmission:
        return False
    return settings.tls_mode is TLSMode.SELECTIVE and export.tls_only


def _find(name: str, settings: Settings) -> Export | None:
    if settings.quirks.ends_names_at_nul:
        name = name.partition("\0")[0]
    found = settings.find(name)
    if found is None and settings.quirks.serves_unknown_exports and settings.exports:
        return settings.exports[0]
    return found


def _short(name: str) -> str:
    """CONV-005: a text that quotes the client stays short, however long the name is."""
    return ascii(name if len(name) <= 48 else f"{name[:48]}…")


def _bad_name(name: str, quirks: Quirks) -> str:
    if "\0" in name and not quirks.ends_names_at_nul:
        return "a string holds a NUL"
    if len(name.encode("utf-8", "surrogateescape")) > MAXIMUM_STRING:
        return "a string is longer than 4096 bytes"
    return ""


_AnyMessage = TypeVar("_AnyMessage", bound=Message)


def _decoded(kind: type[_AnyMessage], option: Option, quirks: Quirks) -> tuple[_AnyMessage | None, str]:
    """Read the option's data, or say what is wrong with it."""
    try:
        return kind.decode(option.data), ""
    except PeerViolation as violation:
        if quirks.ignores_option_errors:
            return kind(), ""
        return None, str(violation)


def _refusal(type_: Rep, text: str, *violations: Violation) -> Answer:
    return Answer(plan=(actions.OptError(type_, text),), violations=violations)


_HANDLERS: Mapping[Opt, Callable[[Option, Session, Settings], Answer]] = {
    Opt.EXPORT_NAME: _export_name,
    Opt.ABORT: _abort,
    Opt.LIST: _list,
    Opt.STARTTLS: _starttls,
    Opt.INFO: _info,
    Opt.GO: _info,
    Opt.STRUCTURED_REPLY: _structured_reply,
    Opt.LIST_META_CONTEXT: _list_meta_context,
    Opt.SET_META_CONTEXT: _set_meta_context,
    Opt.EXTENDED_HEADERS: _extended_headers,
}
