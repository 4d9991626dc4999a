"""Mutants of LIST_META_CONTEXT and SET_META_CONTEXT."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from nbdtest.errors import PeerViolation
from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.contexts import Allocation, UserContext
from nbdtest.fakeserver.mutants.edits import change_option_plans
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Asked
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import (
    Cmd,
    Errno,
    MetaContextRequest,
    Opt,
    Option,
    Rep,
)

__all__: list[str] = []

_ALLOCATION = "base:allocation"
_LIST = (Opt.LIST_META_CONTEXT,)
_SET = (Opt.SET_META_CONTEXT,)
_BOTH = (*_LIST, *_SET)


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


@mutant(
    "meta.no-namespace",
    breaks=["META-011", "META-012"],
    checks=[
        "meta.name-has-namespace",
        "meta.namespace-is-registered",
        "meta.listed-once",
        "meta.listed-once-for-two-queries",
        "meta.unknown-leaf-is-ignored",
        "meta.unknown-namespace-is-ignored",
        "meta.query-filters-list",
        "status.one-chunk-per-context",
        "status.req-one-gives-one",
        "status.req-one-is-cut",
        "extended.one-chunk-per-context",
        "meta.listed-can-be-selected",
    ],
)
def no_namespace(server: FakeServer) -> None:
    """A context without a namespace is listed."""
    change_option_plans(server, _LIST, lambda option, plan: (actions.meta_context("allocation"), *plan))


@mutant(
    "meta.unregistered",
    breaks=["META-014"],
    checks=["meta.namespace-is-registered", "meta.no-query-lists-all", "meta.listed-can-be-selected"],
)
def unregistered(server: FakeServer) -> None:
    """A context of a namespace that nobody registered is listed."""
    _answer(server, _LIST, lambda queries: not queries, actions.meta_context("foo:bar"), actions.ack())


@mutant(
    "meta.base-foo",
    breaks=["META-020"],
    checks=["meta.base-has-one-context", "meta.listed-once", "meta.listed-once-for-two-queries"],
)
def base_foo(server: FakeServer) -> None:
    """There is a second context in the namespace base."""
    server.change_exports(contexts=(Allocation(), UserContext("base:foo", [])))


@mutant("meta.wildcard-lists-nothing", breaks=["META-022"], checks=["meta.base-wildcard-lists", "meta.listed-once"])
def wildcard_lists_nothing(server: FakeServer) -> None:
    """LIST_META_CONTEXT does not understand "base:"."""
    _answer(server, _LIST, lambda queries: queries == ("base:",), actions.ack())


@mutant("meta.listed-twice", breaks=["META-023"], checks=["meta.listed-once"])
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


@mutant("meta.listed-unselectable", breaks=["META-064"], checks=["meta.listed-can-be-selected"])
def listed_unselectable(server: FakeServer) -> None:
    """A context is listed that nobody can select."""

    def one_more(option: Option, plan: Plan) -> Plan:
        return plan if _queries(option) else (actions.meta_context("x-promised:a"), *plan)

    change_option_plans(server, _LIST, one_more)


@mutant(
    "meta.selections-add-up",
    breaks=["META-071"],
    checks=["meta.selection-does-not-add-up"],
)
def selections_add_up(server: FakeServer) -> None:
    """Block status tells also of a context that was selected earlier, under the id 7."""

    def both(asked: Asked, plan: Plan) -> Plan:
        told = [each for each in plan if isinstance(each, actions.Status)]
        if len(told) != 1 or len(asked.contexts) != 1 or _ALLOCATION in asked.contexts:
            return plan
        return (*plan, actions.status(7, *told[0].extents))

    server.on(Cmd.BLOCK_STATUS).rewrite(both)


@mutant("meta.no-query-lists-nothing", breaks=["META-061"], checks=["meta.no-query-lists-all"])
def no_query_lists_nothing(server: FakeServer) -> None:
    """LIST_META_CONTEXT without a query lists nothing."""
    _answer(server, _LIST, lambda queries: not queries, actions.ack())


@mutant("meta.query-does-not-filter", breaks=["META-064"], checks=["meta.query-filters-list", "meta.unknown-export"])
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


@mutant(
    "meta.reply-without-name",
    breaks=["REP-027"],
    checks=[
        "meta.reply-format",
        "meta.name-has-namespace",
        "meta.namespace-is-registered",
        "meta.listed-once",
        "meta.listed-once-for-two-queries",
        "meta.unknown-leaf-is-ignored",
        "meta.unknown-namespace-is-ignored",
        "meta.query-filters-list",
        "status.one-chunk-per-context",
        "status.req-one-gives-one",
        "status.req-one-is-cut",
        "extended.one-chunk-per-context",
        "meta.listed-can-be-selected",
    ],
)
def reply_without_name(server: FakeServer) -> None:
    """A META_CONTEXT with an id and no name stands in front of the others."""
    change_option_plans(server, _LIST, lambda option, plan: (actions.opt_reply(Rep.META_CONTEXT, bytes(4)), *plan))


@mutant(
    "meta.set-unsaid", breaks=["META-079"], checks=["meta.set-answers-each-context", "meta.twice-asked-once-selected"]
)
def set_unsaid(server: FakeServer) -> None:
    """What SET_META_CONTEXT selects it sends twice."""
    _each_context(server, _SET, lambda context: [context, context])


@mutant(
    "meta.same-ids",
    breaks=["META-080"],
    checks=[
        "meta.ids-differ",
        "status.one-chunk-per-context",
        "extended.one-chunk-per-context",
        "extended.wrong-contexts-are-einval",
        "meta.selection-does-not-add-up",
    ],
)
def same_ids(server: FakeServer) -> None:
    """All contexts have one id."""
    _each_context(server, _SET, lambda context: [replace(context, id=1)])


@mutant("meta.selected-for-each-query", breaks=["META-080"], checks=["meta.twice-asked-once-selected"])
def selected_for_each_query(server: FakeServer) -> None:
    """A context that two queries ask for gets two ids."""
    one, two = actions.meta_context(_ALLOCATION, id=1), actions.meta_context(_ALLOCATION, id=2)
    _answer(server, _SET, lambda queries: queries == (_ALLOCATION, _ALLOCATION), one, two, actions.ack())


@mutant("meta.no-query-selects", breaks=["META-077"], checks=["meta.set-without-query-selects-nothing"])
def no_query_selects(server: FakeServer) -> None:
    """SET_META_CONTEXT without a query selects everything."""
    context = actions.meta_context(_ALLOCATION, id=1)
    _answer(server, _SET, lambda queries: not queries, context, actions.ack())


def _status_always(server: FakeServer) -> None:
    server.on(Cmd.BLOCK_STATUS, where=lambda asked: not asked.contexts).reply(actions.no_data())


@mutant(
    "meta.status-without-contexts",
    breaks=["META-008"],
    checks=[
        "meta.unselected-is-refused",
        "meta.selection-is-replaced",
        "meta.failure-undoes-selection",
        "meta.selection-is-for-one-export",
        "meta.no-status-without-structured",
    ],
)
def status_without_contexts(server: FakeServer) -> None:
    """BLOCK_STATUS succeeds although no context was selected."""
    _status_always(server)


@mutant(
    "meta.failure-keeps-selection",
    breaks=["META-072"],
    checks=["meta.failure-undoes-selection", "meta.selection-is-replaced"],
)
def failure_keeps_selection(server: FakeServer) -> None:
    """A SET_META_CONTEXT that fails leaves the earlier selection valid."""
    server.configure(quirks={"keeps_contexts_after_failure"})


@mutant("meta.list-unselects", breaks=["META-071"], checks=["meta.list-keeps-selection"])
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


@mutant(
    "meta.list-malformed-unsupported",
    breaks=["META-055"],
    checks=["meta.list-malformed-is-invalid", "meta.surplus-is-invalid"],
)
def list_malformed_unsupported(server: FakeServer) -> None:
    """LIST_META_CONTEXT that contradicts itself is unknown to the server."""
    _answer(server, _LIST, lambda queries: queries == ("?",), actions.opt_error(Rep.ERR_UNSUP))


@mutant(
    "meta.set-malformed-unsupported",
    breaks=["META-085"],
    checks=["meta.set-malformed-is-invalid", "meta.surplus-is-invalid"],
)
def set_malformed_unsupported(server: FakeServer) -> None:
    """SET_META_CONTEXT that contradicts itself is unknown to the server."""
    _answer(server, _SET, lambda queries: queries == ("?",), actions.opt_error(Rep.ERR_UNSUP))


@mutant(
    "meta.set-without-structured",
    breaks=["META-062", "META-010"],
    checks=["meta.set-needs-structured", "meta.no-status-without-structured", "extended.contexts-need-either"],
)
def set_without_structured(server: FakeServer) -> None:
    """Contexts can be selected before structured replies, and block status works then."""
    server.configure(quirks={"sets_contexts_without_structured"})


@mutant(
    "meta.unknown-export-served", breaks=["META-086"], checks=["meta.unknown-export", "meta.failure-undoes-selection"]
)
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
