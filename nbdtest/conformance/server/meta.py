"""OPT_LIST_META_CONTEXT and OPT_SET_META_CONTEXT: which metadata contexts there are, and selecting them."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import (
    expect,
    expect_equal,
    expect_error,
    expect_in_step,
    expect_refused,
    expect_reply,
    expect_success,
)
from nbdtest.conformance.negotiation import Negotiation
from nbdtest.conformance.server.malformed import meta_requests, named
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.report.results import Level
from nbdtest.wire import Errno, MetaContextRequest, Opt, Rep

META = [Capability.META]
BASE = [Capability.BASE_ALLOCATION, Capability.EXPORT]
BOTH = (Opt.LIST_META_CONTEXT, Opt.SET_META_CONTEXT)
ALLOCATION = "base:allocation"
_REGISTERED = ("base", "nbd-server", "qemu")
_MOST_NAMES = 8
SURPLUS = b"\0\0\0\1" + b"\0\0\0\5base:" + b"surplus!"


def expect_no_context(t: ServerTarget, nego: Negotiation) -> None:
    """Complain unless BLOCK_STATUS is an error in the session that follows."""
    session = t.peer.begin_transmission(nego, t.export)
    expect_error(session.block_status(0, t.unit), Errno.EINVAL, value="META-008")


@check("meta.list-is-answered", proves=["META-059"], needs=META, legal=True)
def list_is_answered(t: ServerTarget) -> None:
    """LIST_META_CONTEXT is answered with META_CONTEXT replies and a final ACK or error."""
    for answer in t.gallery.answers(*BOTH):
        for part in answer.parts:
            expect_equal(part.type, Rep.META_CONTEXT, f"a reply to {answer.option.option} before the final one")


@check("meta.name-has-namespace", proves=["META-011", "META-012", "META-013"], needs=META, legal=True)
def name_has_namespace(t: ServerTarget) -> None:
    """A context's name is a namespace, a colon and a leaf; the namespace is printable, without blanks."""
    for answer in t.gallery.answers(*BOTH):
        for name in answer.contexts():
            namespace, colon, _ = name.partition(":")
            good = colon and namespace and namespace.isprintable() and " " not in namespace
            expect(good, f"context {name!r}", "namespace:leaf")


@check("meta.namespace-is-registered", proves=["META-014"], needs=META, legal=True)
def namespace_is_registered(t: ServerTarget) -> None:
    """A namespace is registered, or begins with x-."""
    for answer in t.gallery.answers(*BOTH):
        for name in answer.contexts():
            namespace = name.partition(":")[0]
            good = namespace in _REGISTERED or namespace.startswith("x-")
            expect(good, f"context {name!r}", f"namespace {', '.join(_REGISTERED)} or x-…")


@check("meta.base-has-one-context", proves=["META-020"], needs=META, legal=True)
def base_has_one_context(t: ServerTarget) -> None:
    """The namespace base has no context but base:allocation."""
    for answer in t.gallery.answers(*BOTH):
        for name in answer.contexts():
            expect(not name.startswith("base:") or name == ALLOCATION, f"context {name!r}")


@check("meta.base-wildcard-lists", proves=["META-022"], needs=BASE, legal=True)
def base_wildcard_lists(t: ServerTarget) -> None:
    """LIST_META_CONTEXT takes "base:" for all contexts of that namespace."""
    with t.peer.negotiating(structured=True) as nego:
        expect(ALLOCATION in nego.list_meta(t.export, "base:").contexts(), 'the list for "base:" lacks base:allocation')


@check("meta.listed-once", proves=["META-023"], needs=BASE, legal=True)
def listed_once(t: ServerTarget) -> None:
    """The wildcard "base:" lists each context of that namespace once."""
    with t.peer.negotiating(structured=True) as nego:
        expect_equal(len(nego.list_meta(t.export, "base:").parts), 1, 'the number of contexts for "base:"')


@check("meta.listed-once-for-two-queries", proves=["META-023"], needs=BASE, legal=True, level=Level.SHOULD)
def listed_once_for_two_queries(t: ServerTarget) -> None:
    """A context is listed once, even if two queries match it."""
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.list_meta(t.export, "base:", ALLOCATION)
        expect_equal(len(answer.parts), 1, f'the number of contexts for "base:" and {ALLOCATION}')


@check("meta.base-wildcard-does-not-select", proves=["META-021"], needs=BASE, legal=True)
def base_wildcard_does_not_select(t: ServerTarget) -> None:
    """SET_META_CONTEXT ignores "base:"."""
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.set_meta(t.export, "base:")
        expect_reply(answer, Rep.ACK)
        expect(not answer.parts, f"{list(answer.contexts())} selected", "nothing")


@check("meta.empty-leaf-does-not-select", proves=["META-017"], needs=META, legal=True)
def empty_leaf_does_not_select(t: ServerTarget) -> None:
    """A query with an empty leaf selects nothing, whatever the namespace."""
    with t.peer.negotiating(structured=True) as nego:
        for query in ("qemu:", "x-foo:"):
            expect(not nego.set_meta(t.export, query).parts, f"SET_META_CONTEXT {query!r} selects something", "nothing")


@check("meta.leaf-matches-exactly", proves=["META-025", "META-012"], needs=BASE, legal=True)
def leaf_matches_exactly(t: ServerTarget) -> None:
    """Only the exact name selects base:allocation."""
    with t.peer.negotiating(structured=True) as nego:
        for query in ("base:alloc", "base:allocationX", "BASE:allocation", "base:allocation ", " base:allocation"):
            expect(not nego.set_meta(t.export, query).parts, f"{query!r} selects something", "nothing")


@check("meta.unknown-leaf-is-ignored", proves=["META-024", "META-084"], needs=BASE, legal=True)
def unknown_leaf_is_ignored(t: ServerTarget) -> None:
    """An unknown leaf of base is ignored; what else was asked for is selected."""
    with t.peer.negotiating(structured=True) as nego:
        for ask in (nego.list_meta, nego.set_meta):
            expect_reply(ask(t.export, "base:nonsense"), Rep.ACK)
            answer = ask(t.export, "base:nonsense", ALLOCATION)
            expect_equal(list(answer.contexts()), [ALLOCATION], "the contexts for base:nonsense and base:allocation")


@check("meta.unknown-namespace-is-ignored", proves=["META-057", "META-058"], needs=META, legal=True)
def unknown_namespace_is_ignored(t: ServerTarget) -> None:
    """A query in an unknown namespace is ignored: the answer is an ACK alone."""
    with t.peer.negotiating(structured=True) as nego:
        for ask in (nego.list_meta, nego.set_meta):
            answer = ask(t.export, "x-nosuch:foo")
            expect_reply(answer, Rep.ACK)
            expect(not answer.parts, f"{list(answer.contexts())} for x-nosuch:foo", "nothing")
            if t.has(Capability.BASE_ALLOCATION):
                answer = ask(t.export, "x-nosuch:foo", ALLOCATION)
                expect_equal(list(answer.contexts()), [ALLOCATION], "the contexts for x-nosuch:foo and base:allocation")


@check("meta.no-query-lists-all", proves=["META-061", "META-063"], needs=META, legal=True)
def no_query_lists_all(t: ServerTarget) -> None:
    """LIST_META_CONTEXT without a query lists every context, one by one or as a wildcard."""
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.list_meta(t.export)
        expect(answer.final.type != Rep.ERR_TOO_BIG, "ERR_TOO_BIG for no query at all", requirement="META-063")
        listed = answer.contexts()
        for name in nego.set_meta(t.export, ALLOCATION, *t.facts.contexts).contexts():
            wildcards = [entry for entry in listed if entry.endswith(":") and name.startswith(entry)]
            expect(name in listed or wildcards, f"{name!r} can be selected but is not listed")


@check("meta.query-filters-list", proves=["META-064"], needs=BASE, legal=True)
def query_filters_list(t: ServerTarget) -> None:
    """LIST_META_CONTEXT with a query lists what matches it, and nothing else."""
    with t.peer.negotiating(structured=True) as nego:
        listed = list(nego.list_meta(t.export, ALLOCATION).contexts())
        expect_equal(listed, [ALLOCATION], "the list for base:allocation")


@check("meta.list-gives-id-0", proves=["META-069"], needs=META, legal=True)
def list_gives_id_0(t: ServerTarget) -> None:
    """The context ids in a list are 0."""
    for answer in t.gallery.answers(Opt.LIST_META_CONTEXT):
        for name, id in answer.contexts().items():
            expect_equal(id, 0, f"the id of {name!r}")


@check("meta.reply-format", proves=["REP-027"], needs=META, legal=True)
def reply_format(t: ServerTarget) -> None:
    """META_CONTEXT is a 32-bit id and the name."""
    for reply in t.gallery.option_replies(Rep.META_CONTEXT):
        expect(len(reply.data) > 4, f"a META_CONTEXT of {len(reply.data)} bytes", "an id and a name")


@check("meta.set-answers-each-context", proves=["META-079"], needs=BASE, legal=True)
def set_answers_each_context(t: ServerTarget) -> None:
    """SET_META_CONTEXT answers one META_CONTEXT for each selected context, and an ACK."""
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.set_meta(t.export, ALLOCATION)
        expect_reply(answer, Rep.ACK)
        expect_equal(list(answer.contexts()), [ALLOCATION], "the selected contexts")
        expect_equal(len(answer.parts), 1, "the number of META_CONTEXT replies")


@check("meta.ids-differ", proves=["META-080"], needs=[Capability.OTHER_CONTEXT], legal=True)
def ids_differ(t: ServerTarget) -> None:
    """Each selected context has an id of its own."""
    with t.peer.negotiating(structured=True) as nego:
        ids = nego.set_meta(t.export, *t.facts.contexts).contexts()
        expect_equal(len(set(ids.values())), len(ids), f"the number of different ids in {ids}")


@check("meta.twice-asked-once-selected", proves=["META-080"], needs=BASE, legal=True)
def twice_asked_once_selected(t: ServerTarget) -> None:
    """A context that two queries ask for is selected once."""
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.set_meta(t.export, ALLOCATION, ALLOCATION)
        expect_equal(len(answer.parts), 1, "the number of META_CONTEXT replies")


@check("meta.set-without-query-selects-nothing", proves=["META-077"], needs=BASE, legal=True)
def set_without_query_selects_nothing(t: ServerTarget) -> None:
    """SET_META_CONTEXT without a query selects nothing."""
    with t.peer.negotiating(structured=True) as nego:
        answer = nego.set_meta(t.export)
        expect_reply(answer, Rep.ACK)
        expect(not answer.parts, f"{list(answer.contexts())} selected", "nothing")


@check("meta.unselected-is-refused", proves=["META-008"], needs=[Capability.STRUCTURED, Capability.EXPORT], legal=False)
def unselected_is_refused(t: ServerTarget) -> None:
    """BLOCK_STATUS without a selected context is an error."""
    with t.peer.negotiating(structured=True) as nego:
        expect_no_context(t, nego)


@check("meta.selection-is-replaced", proves=["META-071", "META-077"], needs=BASE, legal=False)
def selection_is_replaced(t: ServerTarget) -> None:
    """A SET_META_CONTEXT that selects nothing undoes an earlier selection."""
    for queries in ((), ("x-nosuch:foo",), ("base:nonsense",)):
        with t.peer.negotiating(structured=True) as nego:
            nego.set_meta(t.export, ALLOCATION)
            nego.set_meta(t.export, *queries)
            expect_no_context(t, nego)


@check("meta.failure-undoes-selection", proves=["META-072"], needs=BASE, legal=False)
def failure_undoes_selection(t: ServerTarget) -> None:
    """A SET_META_CONTEXT that fails undoes an earlier selection, too."""
    with t.peer.negotiating(structured=True) as nego:
        nego.set_meta(t.export, ALLOCATION)
        if nego.option(Opt.SET_META_CONTEXT, meta_requests(t)["a query length beyond the data"]).is_ack:
            raise NotApplicable("the server accepts malformed queries")
        expect_no_context(t, nego)
    if t.has(Capability.NAMES_MATTER):
        with t.peer.negotiating(structured=True) as nego:
            nego.set_meta(t.export, ALLOCATION)
            expect_refused(nego.set_meta(t.unknown_export, ALLOCATION), requirement="META-086")
            expect_no_context(t, nego)


@check("meta.selection-does-not-add-up", proves=["META-071"], needs=[*BASE, Capability.OTHER_CONTEXT], legal=True)
def selection_does_not_add_up(t: ServerTarget) -> None:
    """A SET_META_CONTEXT that selects something else leaves nothing of an earlier selection."""
    other = next(name for name in t.facts.contexts if name != ALLOCATION)
    with t.peer.negotiating(structured=True) as nego:
        nego.set_meta(t.export, ALLOCATION)
        ids = set(nego.set_meta(t.export, other).contexts().values())
        session = t.peer.begin_transmission(nego, t.export)
        reply = expect_success(session.block_status(0, t.unit))
        expect_equal(set(reply.extents()), ids, f"the ids of the contexts after {other!r} was selected last")


@check("meta.listed-can-be-selected", proves=["META-064"], needs=BASE, legal=True)
def listed_can_be_selected(t: ServerTarget) -> None:
    """What LIST_META_CONTEXT names in full can be selected by that name."""
    with t.peer.negotiating(structured=True) as nego:
        for name in list(nego.list_meta(t.export).contexts())[:_MOST_NAMES]:
            if not name.endswith(":"):
                selected = list(nego.set_meta(t.export, name).contexts())
                expect_equal(selected, [name], f"what SET_META_CONTEXT {name!r} selects")


@check("meta.list-keeps-selection", proves=["META-071"], needs=BASE, legal=True)
def list_keeps_selection(t: ServerTarget) -> None:
    """LIST_META_CONTEXT does not touch the selection."""
    with t.peer.negotiating(structured=True) as nego:
        nego.set_meta(t.export, ALLOCATION)
        nego.list_meta(t.export, "x-nosuch:foo")
        session = t.peer.begin_transmission(nego, t.export)
        expect(session.block_status(0, t.unit).succeeded, "BLOCK_STATUS fails after LIST_META_CONTEXT", "success")


@check("meta.selection-is-for-one-export", proves=["META-008"], needs=[*BASE, Capability.SECOND_EXPORT], legal=False)
def selection_is_for_one_export(t: ServerTarget) -> None:
    """Contexts that were selected for one export do not count for another."""
    other = next(name for name in t.facts.exports if name != t.export)
    with t.peer.negotiating(structured=True) as nego:
        if not nego.set_meta(other, ALLOCATION).contexts():
            raise NotApplicable(f"the export {other!r} has no base:allocation")
        expect_no_context(t, nego)


@check("meta.list-malformed-is-invalid", proves=["META-055"], needs=META, legal=False)
def list_malformed_is_invalid(t: ServerTarget) -> None:
    """LIST_META_CONTEXT with data that contradict themselves is refused with ERR_INVALID."""
    for what, data in meta_requests(t).items():
        with t.peer.negotiating(structured=True) as nego:
            answer = nego.option(Opt.LIST_META_CONTEXT, data)
            expect(answer.final.type == Rep.ERR_INVALID, f"{what} is answered with {answer}", "ERR_INVALID")
            expect_in_step(nego)


@check("meta.set-malformed-is-invalid", proves=["META-085"], needs=META, legal=False)
def set_malformed_is_invalid(t: ServerTarget) -> None:
    """SET_META_CONTEXT with data that contradict themselves is refused with ERR_INVALID."""
    for what, data in meta_requests(t).items():
        with t.peer.negotiating(structured=True) as nego:
            answer = nego.option(Opt.SET_META_CONTEXT, data)
            expect(answer.final.type == Rep.ERR_INVALID, f"{what} is answered with {answer}", "ERR_INVALID")
            expect_in_step(nego)


@check("meta.surplus-is-invalid", proves=["META-055", "META-085"], needs=META, legal=False, level=Level.SHOULD)
def surplus_is_invalid(t: ServerTarget) -> None:
    """Bytes after the last query make the request invalid; a server that overlooks them at least skips them."""
    for option in BOTH:
        with t.peer.negotiating(structured=True) as nego:
            answer = nego.option(option, named(t, SURPLUS))
            expect_in_step(nego, requirement="META-055")
            expect(answer.final.type == Rep.ERR_INVALID, f"{option} is answered with {answer}", "ERR_INVALID")


@check("meta.set-needs-structured", proves=["META-062", "META-010"], needs=META, legal=False)
def set_needs_structured(t: ServerTarget) -> None:
    """SET_META_CONTEXT before structured replies were agreed on is refused, or selects nothing."""
    with t.peer.negotiating() as nego:
        answer = nego.set_meta(t.export, ALLOCATION)
        expect(not (answer.is_ack and answer.parts), f"{answer} without structured replies", "ERR_INVALID")
        if not answer.is_ack:
            fitting = (Rep.ERR_INVALID, Rep.ERR_UNSUP, Rep.ERR_EXT_HEADER_REQD)
            expect_reply(answer, *fitting)


@check("meta.no-status-without-structured", proves=["META-010"], needs=META, legal=False)
def no_status_without_structured(t: ServerTarget) -> None:
    """Without structured replies there is no block status, whatever was asked for before."""
    with t.peer.negotiating() as nego:
        nego.set_meta(t.export, ALLOCATION)
        session = t.peer.begin_transmission(nego, t.export)
        expect_error(session.block_status(0, t.unit))


@check("meta.unknown-export", proves=["META-086"], needs=[*META, Capability.NAMES_MATTER], legal=True)
def unknown_export(t: ServerTarget) -> None:
    """The contexts of an export that does not exist cannot be listed or selected."""
    with t.peer.negotiating(structured=True) as nego:
        for option in BOTH:
            request = MetaContextRequest(name=t.unknown_export, queries=(ALLOCATION,))
            expect_refused(nego.option(option, request))
            expect_in_step(nego)


@check("meta.long-query", proves=["META-013"], needs=META, legal=False)
def long_query(t: ServerTarget) -> None:
    """A query of more than 4096 bytes is refused or ignored, and the handshake goes on."""
    with t.peer.negotiating(structured=True) as nego:
        expect(not nego.set_meta(t.export, "x-long:" + "y" * 4096).parts, "a query of 4103 bytes selects something")
        expect_in_step(nego)
