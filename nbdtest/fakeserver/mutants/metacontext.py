"""Mutants of LIST_META_CONTEXT and SET_META_CONTEXT, and of block status."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from nbdtest.errors import PeerViolation
from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.contexts import Allocation, UserContext
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.export import BlockSizes
from nbdtest.fakeserver.mutants.edits import change_actions, change_option_plans
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import (
    Cmd,
    CmdFlag,
    Errno,
    Extent,
    MetaContextRequest,
    Opt,
    Option,
    Rep,
    ReplyFlag,
    ReplyType,
    StructuredReplyHeader,
)

__all__: list[str] = []

_ALLOCATION = "base:allocation"
_LIST = (Opt.LIST_META_CONTEXT,)
_SET = (Opt.SET_META_CONTEXT,)
_BOTH = (*_LIST, *_SET)
_STATUS = (Cmd.BLOCK_STATUS,)


def _queries(option: Option) -> tuple[str, ...]:
    try:
        return MetaContextRequest.decode(option.data).queries
    except PeerViolation:
        return ("?",)


def _answer(server: FakeServer, options: Iterable[Opt], fits: Callable[[tuple[str, ...]], bool], *plan: Action) -> None:
    """Answer these options with `plan` where the queries fit."""
    for option in options:
        server.on(option, where=lambda asked: fits(_queries(asked))).reply(*plan)


def _each_context(
    server: FakeServer, options: Iterable[Opt], change: Callable[[actions.MetaContext], Iterable[Action]]
) -> None:
    """Replace each META_CONTEXT in the answers to these options."""

    def changed(option: Option, plan: Plan) -> list[Action]:
        return [new for each in plan for new in (change(each) if isinstance(each, actions.MetaContext) else (each,))]

    change_option_plans(server, options, changed)


@mutant(
    "meta.list-within",
    breaks=["META-059"],
    checks=[
        "meta.list-is-answered",
        "meta.listed-once",
        "meta.listed-once-for-two-queries",
        "meta.unknown-namespace-is-ignored",
    ],
)
def list_within(server: FakeServer) -> None:
    """A SERVER reply stands among the contexts."""
    change_option_plans(server, _LIST, lambda option, plan: (actions.server_export("x"), *plan))


@mutant("meta.no-namespace", breaks=["META-011"], checks=["meta.name-has-namespace", "*"])
def no_namespace(server: FakeServer) -> None:
    """A context without a namespace is listed."""
    change_option_plans(server, _LIST, lambda option, plan: (actions.meta_context("allocation"), *plan))


@mutant("meta.unregistered", breaks=["META-014"], checks=["meta.namespace-is-registered", "meta.no-query-lists-all"])
def unregistered(server: FakeServer) -> None:
    """A context of a namespace that nobody registered is listed."""
    _answer(server, _LIST, lambda queries: not queries, actions.meta_context("foo:bar"), actions.ack())


@mutant("meta.base-foo", breaks=["META-020"], checks=["meta.base-has-one-context", "*"])
def base_foo(server: FakeServer) -> None:
    """There is a second context in the namespace base."""
    server.change_exports(contexts=(Allocation(), UserContext("base:foo", [])))


@mutant("meta.wildcard-lists-nothing", breaks=["META-022"], checks=["meta.base-wildcard-lists", "*"])
def wildcard_lists_nothing(server: FakeServer) -> None:
    """LIST_META_CONTEXT does not understand "base:"."""
    _answer(server, _LIST, lambda queries: queries == ("base:",), actions.ack())


@mutant("meta.listed-twice", breaks=["META-023"], checks=["meta.listed-once", "*"])
def listed_twice(server: FakeServer) -> None:
    """The wildcard lists base:allocation twice."""
    context = actions.meta_context(_ALLOCATION)
    _answer(server, _LIST, lambda queries: queries == ("base:",), context, context, actions.ack())


@mutant("meta.listed-for-each-query", breaks=["META-023"], checks=["meta.listed-once-for-two-queries"])
def listed_for_each_query(server: FakeServer) -> None:
    """A context is listed once for each query that matches it."""
    context = actions.meta_context(_ALLOCATION)
    _answer(server, _LIST, lambda queries: queries == ("base:", _ALLOCATION), context, context, actions.ack())


@mutant(
    "meta.wildcard-selects",
    breaks=["META-021"],
    checks=["meta.base-wildcard-does-not-select", "meta.empty-leaf-does-not-select"],
)
def wildcard_selects(server: FakeServer) -> None:
    """SET_META_CONTEXT with "base:" alone selects base:allocation."""
    server.configure(quirks={"wildcards_select"})


@mutant("meta.empty-leaf-selects", breaks=["META-017"], checks=["meta.empty-leaf-does-not-select"])
def empty_leaf_selects(server: FakeServer) -> None:
    """SET_META_CONTEXT with "x-foo:" selects something."""
    _answer(
        server, _SET, lambda queries: queries == ("x-foo:",), actions.meta_context("x-foo:bar", id=9), actions.ack()
    )


@mutant("meta.prefix-selects", breaks=["META-025"], checks=["meta.leaf-matches-exactly"])
def prefix_selects(server: FakeServer) -> None:
    """A query that begins like a context's name selects it."""
    context = actions.meta_context(_ALLOCATION, id=1)
    _answer(server, _SET, lambda queries: queries == ("base:alloc",), context, actions.ack())


@mutant("meta.unknown-leaf-refused", breaks=["META-024", "META-084"], checks=["meta.unknown-leaf-is-ignored"])
def unknown_leaf_refused(server: FakeServer) -> None:
    """An unknown leaf of base is invalid."""
    _answer(server, _BOTH, lambda queries: "base:nonsense" in queries, actions.opt_error(Rep.ERR_INVALID))


@mutant("meta.unknown-namespace-refused", breaks=["META-057", "META-058"], checks=["meta.unknown-namespace-is-ignored"])
def unknown_namespace_refused(server: FakeServer) -> None:
    """A query in an unknown namespace is answered with ERR_UNKNOWN."""
    _answer(server, _BOTH, lambda queries: queries == ("x-nosuch:foo",), actions.opt_error(Rep.ERR_UNKNOWN))


@mutant("meta.no-query-lists-nothing", breaks=["META-061"], checks=["meta.no-query-lists-all", "*"])
def no_query_lists_nothing(server: FakeServer) -> None:
    """LIST_META_CONTEXT without a query lists nothing."""
    _answer(server, _LIST, lambda queries: not queries, actions.ack())


@mutant("meta.query-does-not-filter", breaks=["META-064"], checks=["meta.query-filters-list", "*"])
def query_does_not_filter(server: FakeServer) -> None:
    """LIST_META_CONTEXT lists every context whatever the query."""
    _answer(
        server,
        _LIST,
        lambda queries: queries == (_ALLOCATION,),
        actions.meta_context(_ALLOCATION),
        actions.meta_context("qemu:allocation-depth"),
        actions.ack(),
    )


@mutant("meta.list-gives-ids", breaks=["META-069"], checks=["meta.list-gives-id-0"])
def list_gives_ids(server: FakeServer) -> None:
    """LIST_META_CONTEXT gives internal ids."""
    _each_context(server, _LIST, lambda context: [replace(context, id=42)])


@mutant("meta.reply-without-name", breaks=["REP-027"], checks=["meta.reply-format", "*"])
def reply_without_name(server: FakeServer) -> None:
    """A META_CONTEXT with an id and no name stands in front of the others."""
    change_option_plans(server, _LIST, lambda option, plan: (actions.opt_reply(Rep.META_CONTEXT, bytes(4)), *plan))


@mutant("meta.set-unsaid", breaks=["META-079"], checks=["meta.set-answers-each-context", "*"])
def set_unsaid(server: FakeServer) -> None:
    """What SET_META_CONTEXT selects it sends twice."""
    _each_context(server, _SET, lambda context: [context, context])


@mutant("meta.same-ids", breaks=["META-080"], checks=["meta.ids-differ", "*"])
def same_ids(server: FakeServer) -> None:
    """All contexts have one id."""
    _each_context(server, _SET, lambda context: [replace(context, id=1)])


@mutant("meta.selected-for-each-query", breaks=["META-080"], checks=["meta.twice-asked-once-selected"])
def selected_for_each_query(server: FakeServer) -> None:
    """A context that two queries ask for gets two ids."""
    one, two = actions.meta_context(_ALLOCATION, id=1), actions.meta_context(_ALLOCATION, id=2)
    _answer(server, _SET, lambda queries: queries == (_ALLOCATION, _ALLOCATION), one, two, actions.ack())


@mutant("meta.no-query-selects", breaks=["META-077"], checks=["meta.set-without-query-selects-nothing", "*"])
def no_query_selects(server: FakeServer) -> None:
    """SET_META_CONTEXT without a query selects everything."""
    context = actions.meta_context(_ALLOCATION, id=1)
    _answer(server, _SET, lambda queries: not queries, context, actions.ack())


def _status_always(server: FakeServer) -> None:
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: not asked.contexts).reply(actions.no_data())


@mutant("meta.status-without-contexts", breaks=["META-008"], checks=["meta.unselected-is-refused", "*"])
def status_without_contexts(server: FakeServer) -> None:
    """BLOCK_STATUS succeeds although no context was selected."""
    _status_always(server)


@mutant("meta.failure-keeps-selection", breaks=["META-072"], checks=["meta.failure-undoes-selection", "*"])
def failure_keeps_selection(server: FakeServer) -> None:
    """A SET_META_CONTEXT that fails leaves the earlier selection valid."""
    server.configure(quirks={"keeps_contexts_after_failure"})


@mutant("meta.list-unselects", breaks=["META-071"], checks=["meta.list-keeps-selection", "*"])
def list_unselects(server: FakeServer) -> None:
    """LIST_META_CONTEXT undoes the selection: the second such option has to be the last."""
    listed: list[Option] = []

    def remember(option: Option, plan: Plan) -> Plan:
        listed.append(option)
        return plan

    server.on(Opt.LIST_META_CONTEXT, where=lambda option: _queries(option) == ("x-nosuch:foo",)).rewrite(remember)
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: bool(listed)).reply(actions.error(Errno.EINVAL))


@mutant("meta.selection-of-other-export", breaks=["META-008"], checks=["meta.selection-is-for-one-export"])
def selection_of_other_export(server: FakeServer) -> None:
    """Contexts that were selected for one export count for another."""
    server.configure(quirks={"keeps_contexts_of_other_export"})


@mutant("meta.list-malformed-unsupported", breaks=["META-055"], checks=["meta.list-malformed-is-invalid", "*"])
def list_malformed_unsupported(server: FakeServer) -> None:
    """LIST_META_CONTEXT that contradicts itself is unknown to the server."""
    _answer(server, _LIST, lambda queries: queries == ("?",), actions.opt_error(Rep.ERR_UNSUP))


@mutant("meta.set-malformed-unsupported", breaks=["META-085"], checks=["meta.set-malformed-is-invalid", "*"])
def set_malformed_unsupported(server: FakeServer) -> None:
    """SET_META_CONTEXT that contradicts itself is unknown to the server."""
    _answer(server, _SET, lambda queries: queries == ("?",), actions.opt_error(Rep.ERR_UNSUP))


@mutant("meta.set-without-structured", breaks=["META-062", "META-010"], checks=["meta.set-needs-structured", "*"])
def set_without_structured(server: FakeServer) -> None:
    """Contexts can be selected before structured replies, and block status works then."""
    server.configure(quirks={"sets_contexts_without_structured"})


@mutant("meta.unknown-export-served", breaks=["META-086"], checks=["meta.unknown-export", "*"])
def unknown_export_served(server: FakeServer) -> None:
    """The contexts of an export that does not exist can be listed and selected."""
    change_option_plans(
        server,
        _BOTH,
        lambda option, plan: [
            actions.ack() if isinstance(each, actions.OptError) and each.type == Rep.ERR_UNKNOWN else each
            for each in plan
        ],
    )


@mutant("meta.long-query-selects", breaks=["META-013"], checks=["meta.long-query"])
def long_query_selects(server: FakeServer) -> None:
    """A query of more than 4096 bytes selects something."""
    for option in _SET:
        server.on(option, where=lambda asked: len(asked.data) > 4096 and b"x-long" in asked.data[:64]).reply(
            actions.meta_context("x-long:y", id=7), actions.ack()
        )


@mutant("status.fails", breaks=["CMD-140"], checks=["status.works", "*"])
def status_fails(server: FakeServer) -> None:
    """BLOCK_STATUS succeeds without saying anything."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: bool(asked.contexts)).reply(actions.no_data())


@mutant("status.chunk-without-extent", breaks=["RPL-080", "RPL-090"], checks=["status.chunk-length", "*"])
def chunk_without_extent(server: FakeServer) -> None:
    """A block status chunk has no extent at all."""
    change_actions(server, _STATUS, actions.Status, lambda asked, each: [replace(each, extents=())])


@mutant("status.second-chunk", breaks=["RPL-081"], checks=["status.one-chunk-per-context", "*"])
def second_chunk(server: FakeServer) -> None:
    """A context has two chunks."""
    change_actions(server, _STATUS, actions.Status, lambda asked, each: [each, each])


@mutant(
    "status.empty-extent",
    breaks=["RPL-083", "EXT-059"],
    checks=["status.extents-are-not-empty", "extended.extents-are-not-empty", "*"],
)
def empty_extent(server: FakeServer) -> None:
    """Every block status begins with an extent of no length."""
    change_actions(
        server, _STATUS, actions.Status, lambda asked, each: [replace(each, extents=(Extent(0, 0), *each.extents))]
    )


def _one(asked: Asked) -> bool:
    return CmdFlag.REQ_ONE in asked.flags


@mutant("status.req-one-gives-two", breaks=["RPL-084"], checks=["status.req-one-gives-one", "*"])
def req_one_gives_two(server: FakeServer) -> None:
    """REQ_ONE is ignored: there are two extents."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=(Extent(each.extents[0].length // 2, 0), Extent(each.extents[0].length // 2, 3)))
            if _one(asked)
            else each
        ],
    )


@mutant("status.req-one-is-not-cut", breaks=["RPL-085"], checks=["status.req-one-is-cut", "*"])
def req_one_is_not_cut(server: FakeServer) -> None:
    """The extent with REQ_ONE is longer than the request."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=(Extent(each.extents[0].length + 512, each.extents[0].status),))
            if _one(asked)
            else each
        ],
    )


@mutant("status.beyond-the-request", breaks=["RPL-086"], checks=["status.only-last-goes-beyond", "*"])
def beyond_the_request(server: FakeServer) -> None:
    """Extents go on after one that has reached the end of the request."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [replace(each, extents=(Extent(asked.length, 0), Extent(512, 3)))],
    )


@mutant("status.beyond-the-export", breaks=["CMD-145"], checks=["status.stays-in-export", "*"])
def beyond_the_export(server: FakeServer) -> None:
    """Extents reach past the end of the export."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [replace(each, extents=(*each.extents[:-1], Extent(1 << 30, 0)))],
    )


@mutant("status.many-extents", breaks=["RPL-088"], checks=["status.few-extents", "*"])
def many_extents(server: FakeServer) -> None:
    """A chunk has more than 2^20 extents."""
    payload = b"\0\0\0\1" + b"\0\0\0\1\0\0\0\0" * ((1 << 20) + 1)

    def flood(asked: Asked, plan: Plan) -> list[Action]:
        kind = ReplyType.BLOCK_STATUS
        header = StructuredReplyHeader(flags=ReplyFlag.DONE, type=kind, cookie=asked.cookie, length=len(payload))
        return [actions.raw(header.encode() + payload)]

    server.on(Cmd.BLOCK_STATUS, where=lambda asked: asked.frames is Frames.STRUCTURED and asked.length > 512).rewrite(
        flood
    )


@mutant("status.neighbours-alike", breaks=["CMD-148"], checks=["status.neighbours-differ", "status.finds-holes"])
def neighbours_alike(server: FakeServer) -> None:
    """There is an extent for every 512 bytes."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=tuple(Extent(512, 0) for _ in range(max(asked.length // 512, 1))))
            if asked.frames is Frames.STRUCTURED and not _one(asked)
            else each
        ],
    )


@mutant("status.odd-extents", breaks=["CMD-150"], checks=["status.cut-at-512", "*"])
def odd_extents(server: FakeServer) -> None:
    """Extents end at odd bytes."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=(Extent(333, 0), Extent(asked.length - 333, 1)))
            if asked.length > 512 and not _one(asked)
            else each
        ],
    )


@mutant(
    "status.below-minimum",
    breaks=["CMD-151", "EXT-072"],
    checks=["status.multiple-of-minimum", "extended.multiple-of-minimum", "*"],
)
def below_minimum(server: FakeServer) -> None:
    """Extents are no multiples of the minimum block size."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096))
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=(Extent(512, 0), Extent(asked.length - 512, 1))) if not _one(asked) else each
        ],
    )


@mutant("status.unknown-bits", breaks=["META-040"], checks=["status.only-known-bits", "*"])
def unknown_bits(server: FakeServer) -> None:
    """A status of base:allocation has a third bit."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [replace(each, extents=tuple(Extent(e.length, e.status | 4) for e in each.extents))],
    )


@mutant("status.always-zero", breaks=["META-036"], checks=["status.zero-reads-as-zero", "status.follows-writes", "*"])
def always_zero(server: FakeServer) -> None:
    """Everything is reported as a hole that reads as zero."""
    change_actions(
        server, _STATUS, actions.Status, lambda asked, each: [replace(each, extents=(Extent(asked.length, 3),))]
    )


@mutant("status.always-allocated", breaks=["CMD-153"], checks=["status.finds-holes"])
def always_allocated(server: FakeServer) -> None:
    """Everything is reported as data."""
    change_actions(
        server, _STATUS, actions.Status, lambda asked, each: [replace(each, extents=(Extent(asked.length, 0),))]
    )


@mutant("status.zero-length-ends-session", breaks=["CMD-142"], checks=["status.zero-length-keeps-session"])
def zero_length_ends_session(server: FakeServer) -> None:
    """BLOCK_STATUS of 0 bytes ends the session."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: not asked.length).reply(actions.close())


@mutant("status.past-end-clamped", breaks=["CMD-154"], checks=["status.past-end-fails", "boundary.block-status", "*"])
def past_end_clamped(server: FakeServer) -> None:
    """BLOCK_STATUS past the end succeeds."""
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: bool(asked.contexts) and asked.offset >= server.disk.size).reply(
        actions.status(_ALLOCATION, (512, 0))
    )


@mutant("extended.type-5", breaks=["EXT-054", "EXT-061"], checks=["extended.status-type", "*"])
def type_5(server: FakeServer) -> None:
    """Under extended headers block status comes in BLOCK_STATUS chunks."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            actions.chunk(ReplyType.BLOCK_STATUS, bytes(3) + b"\1" + bytes(2) + b"\2" + bytes(5))
            if asked.frames is Frames.EXTENDED
            else each
        ],
    )


@mutant("extended.count-off", breaks=["EXT-057"], checks=["extended.status-count", "*"])
def count_off(server: FakeServer) -> None:
    """The count of 64-bit extents is one too small."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            mangle(each, inner_extent_count=len(each.extents) - 1) if asked.frames is Frames.EXTENDED else each
        ],
    )


@mutant("extended.short-extents", breaks=["EXT-055", "EXT-060"], checks=["extended.status-length", "*"])
def short_extents(server: FakeServer) -> None:
    """64-bit extents have a 32-bit status."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            actions.chunk(
                ReplyType.BLOCK_STATUS_EXT, bytes(3) + b"\1" + bytes(3) + b"\1" + bytes(6) + b"\2\0" + bytes(4)
            )
            if asked.frames is Frames.EXTENDED
            else each
        ],
    )


@mutant("extended.wide-status", breaks=["EXT-062"], checks=["extended.status-has-32-bits", "*"])
def wide_status(server: FakeServer) -> None:
    """A status of base:allocation is sign-extended to 64 bits."""
    change_actions(
        server,
        _STATUS,
        actions.Status,
        lambda asked, each: [
            replace(each, extents=tuple(Extent(e.length, e.status | 0xFFFF_FFFF << 32) for e in each.extents))
            if asked.frames is Frames.EXTENDED
            else each
        ],
    )
