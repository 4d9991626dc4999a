"""Mutants of extended headers and RESIZE."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.contexts import Allocation, UserContext
from nbdtest.fakeserver.mutants.edits import change_actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Frames
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, CmdFlag, Errno, Opt, Option, Rep, TransmissionFlag

__all__: list[str] = []


@mutant("extended.huge-payload-awaited", breaks=["EXT-006"], checks=["extended.huge-payload"])
def huge_payload_awaited(server: FakeServer) -> None:
    """A payload of any length is waited for."""
    server.configure(quirks={"waits_for_any_payload"})


@mutant(
    "extended.payload-left",
    breaks=["EXT-007"],
    checks=[
        "extended.unexpected-payload-is-skipped",
        "flag.unknown-on-read",
        "flag.unknown-on-flush",
        "flag.unknown-on-cache",
    ],
)
def payload_left(server: FakeServer) -> None:
    """The payload of a command that takes none is taken for requests."""
    for command in (Cmd.READ, Cmd.FLUSH, Cmd.CACHE):
        server.on(command, where=lambda asked: CmdFlag.PAYLOAD_LEN in asked.flags).reply(actions.no_data())


def _after_extended(server: FakeServer, option: Opt, *plan: actions.Action) -> None:
    """Answer `option` otherwise on a connection whose option before it was EXTENDED_HEADERS."""
    last: list[Opt] = []

    def remember(asked: object, correct: actions.Plan) -> actions.Plan:
        last[:] = [Opt.EXTENDED_HEADERS]
        return correct

    def forget(asked: object, correct: actions.Plan) -> actions.Plan:
        was_extended = bool(last)
        last.clear()
        return plan if was_extended else correct

    def begin(asked: object, correct: actions.Plan) -> actions.Plan:
        last.clear()
        return correct

    server.on(Moment.CLIENT_FLAGS).rewrite(begin)
    server.on(Opt.EXTENDED_HEADERS).rewrite(remember)
    server.on(option).rewrite(forget)


@mutant(
    "extended.contexts-need-structured",
    breaks=["EXT-016", "EXT-041"],
    checks=["extended.contexts-without-structured"],
)
def contexts_need_structured(server: FakeServer) -> None:
    """SET_META_CONTEXT is refused after EXTENDED_HEADERS alone."""
    _after_extended(server, Opt.SET_META_CONTEXT, actions.opt_error(Rep.ERR_INVALID))


@mutant(
    "extended.payload-without-contexts",
    breaks=["EXT-019"],
    checks=[
        "extended.no-status-payload-without-contexts",
        "df.not-offered-without-structured",
        "promise.no-status-payload",
    ],
)
def payload_without_contexts(server: FakeServer) -> None:
    """BLOCK_STATUS_PAYLOAD is always offered."""
    export = server.settings.exports[0]
    flags = export.transmission_flags(structured=True, extended=True, contexts_selected=True)
    server.change_exports(flags=flags | TransmissionFlag.BLOCK_STATUS_PAYLOAD)


@mutant(
    "extended.go-unsupported",
    breaks=["EXT-024", "EXT-039"],
    checks=["extended.go-is-served"],
    spoils="no session with extended headers can be opened",
)
def go_unsupported(server: FakeServer) -> None:
    """GO is unknown after EXTENDED_HEADERS."""
    _after_extended(server, Opt.GO, actions.opt_error(Rep.ERR_UNSUP))


@mutant("extended.not-after-structured", breaks=["EXT-038"], checks=["extended.supersede-structured"])
def not_after_structured(server: FakeServer) -> None:
    """EXTENDED_HEADERS is refused after STRUCTURED_REPLY."""
    last: list[bool] = []

    def remember(asked: object, correct: actions.Plan) -> actions.Plan:
        last[:] = [True]
        return correct

    def refuse(asked: object, correct: actions.Plan) -> actions.Plan:
        refused = bool(last)
        last.clear()
        return (actions.opt_error(Rep.ERR_INVALID),) if refused else correct

    def forget(asked: object, correct: actions.Plan) -> actions.Plan:
        last.clear()
        return correct

    server.on(Moment.CLIENT_FLAGS).rewrite(forget)
    server.on(Opt.STRUCTURED_REPLY).rewrite(remember)
    server.on(Opt.EXTENDED_HEADERS).rewrite(refuse)


@mutant(
    "extended.required-for-base",
    breaks=["EXT-030"],
    checks=[
        "extended.not-required-for-base",
        "meta.base-wildcard-lists",
        "meta.listed-once",
        "meta.listed-once-for-two-queries",
        "meta.unknown-leaf-is-ignored",
        "meta.query-filters-list",
        "meta.list-malformed-is-invalid",
        "meta.surplus-is-invalid",
        "meta.unknown-namespace-is-ignored",
    ],
)
def required_for_base(server: FakeServer) -> None:
    """Listing the namespace base demands extended headers."""
    server.on(Opt.LIST_META_CONTEXT, where=lambda asked: b"base:" in asked.data).reply(
        actions.opt_error(Rep.ERR_EXT_HEADER_REQD)
    )


@mutant("extended.required-to-select-base", breaks=["EXT-035"], checks=["extended.not-required-for-base"])
def required_to_select_base(server: FakeServer) -> None:
    """Selecting base:allocation demands extended headers."""
    server.on(
        Opt.SET_META_CONTEXT, where=lambda option: option.data.endswith(b"\0\0\0\1\0\0\0\x0fbase:allocation")
    ).reply(actions.opt_error(Rep.ERR_EXT_HEADER_REQD))


@mutant(
    "extended.required-when-agreed",
    breaks=["EXT-031"],
    checks=["extended.not-required-when-agreed"],
)
def required_when_agreed(server: FakeServer) -> None:
    """Listing contexts demands extended headers even after they were agreed on."""
    _after_extended(server, Opt.LIST_META_CONTEXT, actions.opt_error(Rep.ERR_EXT_HEADER_REQD))


@mutant("extended.contexts-need-nothing", breaks=["EXT-033"], checks=["extended.contexts-need-either"])
def contexts_need_nothing(server: FakeServer) -> None:
    """SET_META_CONTEXT works before structured replies and extended headers, and is then for nothing."""
    server.on(Opt.SET_META_CONTEXT).rewrite(
        lambda asked, plan: [
            actions.ack() if isinstance(each, actions.OptError) and "structured" in each.text.lower() else each
            for each in plan
        ]
    )


@mutant("extended.data-accepted", breaks=["EXT-037"], checks=["extended.with-data-is-invalid"])
def data_accepted(server: FakeServer) -> None:
    """EXTENDED_HEADERS with data is acknowledged."""
    server.on(Opt.EXTENDED_HEADERS, where=lambda asked: asked.data).reply(actions.ack())


@mutant(
    "extended.insisted-on",
    breaks=["EXT-069", "EXT-023"],
    checks=["extended.not-insisted-on", "info.unknown-export", "go.default-request-works", "info.malformed-is-invalid"],
)
def insisted_on(server: FakeServer) -> None:
    """GO without a request for information demands extended headers."""
    server.on(Opt.GO, where=lambda asked: asked.data.endswith(b"\0\0")).reply(
        actions.opt_error(Rep.ERR_EXT_HEADER_REQD)
    )


@mutant("extended.context-missing", breaks=["EXT-063"], checks=["extended.one-chunk-per-context"])
def context_missing(server: FakeServer) -> None:
    """Under extended headers only the first context is described."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: asked.frames is Frames.EXTENDED).rewrite(
        lambda asked, plan: plan[:1]
    )


@mutant("extended.filter-ignored", breaks=["EXT-063"], checks=["extended.status-of-chosen-contexts"])
def filter_ignored(server: FakeServer) -> None:
    """A request that names its contexts is answered for another one."""
    change_actions(
        server,
        [Cmd.BLOCK_STATUS],
        actions.Status,
        lambda asked, each: [replace(each, context=99) if asked.wanted is not None else each],
    )


@mutant("extended.wrong-contexts-served", breaks=["EXT-065"], checks=["extended.wrong-contexts-are-einval"])
def wrong_contexts_served(server: FakeServer) -> None:
    """A request that names a context that was not selected succeeds."""
    change_actions(
        server,
        [Cmd.BLOCK_STATUS],
        actions.Error,
        lambda asked, each: [actions.no_data() if asked.wanted is not None else each],
    )


@mutant("resize.from-length", breaks=["RSZ-002"], checks=["resize.works", "resize.past-new-end-is-enospc"])
def resize_from_length(server: FakeServer) -> None:
    """RESIZE takes the new size from its length, and changes nothing."""
    server.change_exports(can_resize=True)
    server.on(Cmd.RESIZE).reply(actions.no_data())


@mutant("resize.einval", breaks=["RSZ-003"], checks=["resize.errors"])
def resize_einval(server: FakeServer) -> None:
    """A RESIZE that is too large fails with EINVAL."""
    server.change_exports(can_resize=True)
    server.on(Cmd.RESIZE, where=lambda asked: asked.offset >= 1 << 62).reply(actions.error(Errno.EINVAL))


@mutant("resize.past-new-end", breaks=["RSZ-007"], checks=["resize.past-new-end-is-enospc"])
def resize_past_new_end(server: FakeServer) -> None:
    """After the export was shrunk requests past the new end succeed."""
    server.change_exports(can_resize=True)
    server.configure(quirks={"serves_what_resize_took"})


@mutant("meta.no-structured-status", breaks=["META-010"], checks=["meta.no-status-without-structured"])
def no_structured_status(server: FakeServer) -> None:
    """BLOCK_STATUS succeeds, without a word, in a session with simple replies."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: asked.frames is Frames.SIMPLE).reply(actions.no_data())


@mutant(
    "meta.selection-stays",
    breaks=["META-071"],
    checks=[
        "meta.selection-is-replaced",
        "meta.unselected-is-refused",
        "meta.failure-undoes-selection",
        "meta.selection-is-for-one-export",
        "meta.no-status-without-structured",
    ],
)
def selection_stays(server: FakeServer) -> None:
    """BLOCK_STATUS succeeds though a later SET_META_CONTEXT selected nothing."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: not asked.contexts).reply(actions.no_data())


@mutant("go.default-read-fails", breaks=["COMPAT-015"], checks=["go.default-request-works"])
def default_read_fails(server: FakeServer) -> None:
    """Clients that asked GO for nothing cannot read."""
    asked_nothing: list[bool] = []

    def remember(asked: object, plan: actions.Plan) -> actions.Plan:
        asked_nothing[:] = [True] if getattr(asked, "data", b"").endswith(b"\0\0") else []
        return plan

    server.on(Opt.GO).rewrite(remember)
    server.on(Cmd.READ, where=lambda asked: bool(asked_nothing)).reply(actions.error(Errno.EINVAL))


def _with_wide_context(server: FakeServer, option: Opt) -> None:
    """Offer a context of 64 bits, and name it in answers to this option without extended headers, too."""
    name = "x-test:wide"
    server.change_exports(contexts=(Allocation(), UserContext(name, [(1 << 62, 1 << 40)], wide=True)))

    def named(option: Option, plan: actions.Plan) -> actions.Plan:
        known = any(isinstance(each, actions.MetaContext) and each.name == name for each in plan)
        listed = option.option == Opt.LIST_META_CONTEXT and option.data.endswith(bytes(4))  # no query: all are wanted
        if known or plan[-1] != actions.ack() or not (listed or name.encode() in option.data):
            return plan
        return (actions.MetaContext(name, id=0 if listed else 99), *plan)

    server.on(option).rewrite(named)


@mutant("extended.wide-context-selected", breaks=["EXT-034"], checks=["extended.wide-contexts-are-withheld"])
def wide_context_selected(server: FakeServer) -> None:
    """A context of 64 bits can be selected without extended headers."""
    _with_wide_context(server, Opt.SET_META_CONTEXT)


@mutant(
    "extended.wide-context-listed",
    breaks=["EXT-029"],
    checks=["extended.wide-contexts-are-announced", "meta.listed-can-be-selected"],
)
def wide_context_listed(server: FakeServer) -> None:
    """A context of 64 bits is listed as any other without extended headers."""
    _with_wide_context(server, Opt.LIST_META_CONTEXT)
