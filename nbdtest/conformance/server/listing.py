"""OPT_LIST: which exports there are."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_equal, expect_in_step, expect_reply
from nbdtest.conformance.negotiation import Answer
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.report.results import Level
from nbdtest.wire import Info, InfoDescription, InfoName, Opt, Rep, ServerExport

FIXED = [Capability.FIXED_NEWSTYLE]
LISTED = [Capability.LIST]
_MOST_NAMES = 10


def listing(t: ServerTarget) -> Answer:
    """The answer to LIST, on a connection of its own: some servers answer a second LIST with an error."""
    with t.peer.negotiating() as nego:
        return nego.option(Opt.LIST)


def listed(t: ServerTarget) -> list[ServerExport]:
    """The exports in the list."""
    found = [ServerExport.decode(part.data) for part in listing(t).parts if part.type == Rep.SERVER]
    if not found:
        raise NotApplicable("the list of exports is empty")
    return found


@check("list.is-served-or-forbidden", proves=["COMPAT-008", "REP-034"], needs=FIXED, legal=True)
def is_served_or_forbidden(t: ServerTarget) -> None:
    """LIST is answered with a list, or refused for a reason, but not as unknown."""
    expect_reply(listing(t), Rep.ACK, Rep.ERR_POLICY, Rep.ERR_TLS_REQD, Rep.ERR_SHUTDOWN, Rep.ERR_PLATFORM)


@check("list.one-reply-per-export", proves=["OPT-050", "OPT-051", "OPT-018"], needs=FIXED, legal=True)
def one_reply_per_export(t: ServerTarget) -> None:
    """The list is a run of SERVER replies, one for each export, that ends with an ACK or an error."""
    answer = listing(t)
    names = []
    for part in answer.parts:
        expect_equal(part.type, Rep.SERVER, "a reply within the list", requirement="OPT-050")
        names.append(ServerExport.decode(part.data).name)
    twice = sorted({name for name in names if names.count(name) > 1})
    expect(not twice, f"{', '.join(map(repr, twice))} listed more than once", requirement="OPT-051")


@check("list.has-the-export", proves=["OPT-051"], needs=LISTED, legal=True, level=Level.SHOULD)
def has_the_export(t: ServerTarget) -> None:
    """An export that was asked for by name, and can be opened, is in the list."""
    if not t.export or not t.has(Capability.NAMES_MATTER):
        raise NotApplicable("the export under test has no name of its own")
    names = [export.name for export in listed(t)]
    expect(t.export in names, f"the list is {', '.join(map(repr, names))}", f"{t.export!r} in it")


@check("list.name-length-fits", proves=["REP-003", "REP-004"], needs=LISTED, legal=True)
def name_length_fits(t: ServerTarget) -> None:
    """The name of a listed export is preceded by its length, which fits into the reply."""
    for reply in t.gallery.option_replies(Rep.SERVER):
        expect(len(reply.data) >= 4, f"a SERVER reply of {len(reply.data)} bytes", "a length at least")
        length = int.from_bytes(reply.data[:4], "big")
        expect(length <= len(reply.data) - 4, f"name length {length} in {len(reply.data)} bytes", requirement="REP-004")


@check("list.names-can-be-opened", proves=["REP-006", "REP-003"], needs=[*LISTED, Capability.INFO], legal=True)
def names_can_be_opened(t: ServerTarget) -> None:
    """Every name in the list is accepted by INFO, or refused for another reason than being unknown."""
    with t.peer.negotiating() as nego:
        for export in [ServerExport.decode(part.data) for part in nego.option(Opt.LIST).parts][:_MOST_NAMES]:
            answer = nego.info(export.name)
            expect(answer.final.type != Rep.ERR_UNKNOWN, f"INFO for {export.name!r} is answered with {answer}")


@check("list.with-data-is-invalid", proves=["OPT-054"], needs=LISTED, legal=False)
def with_data_is_invalid(t: ServerTarget) -> None:
    """LIST with data is refused with ERR_INVALID, and the data are skipped."""
    with t.peer.negotiating() as nego:
        expect_reply(nego.option(Opt.LIST, b"data"), Rep.ERR_INVALID)
        expect_in_step(nego, requirement="OPT-018")


@check("list.with-data-stays-in-step", proves=["OPT-015"], needs=LISTED, legal=False)
def with_data_stays_in_step(t: ServerTarget) -> None:
    """Whatever a server thinks of LIST with data, it does not take the data for the next option."""
    with t.peer.negotiating() as nego:
        nego.option(Opt.LIST, b"IHAVEOPT\0\0\0\3\0\0\0\0")
        expect_in_step(nego)


@check("list.agrees-with-info-name", proves=["REP-018"], needs=[*LISTED, Capability.INFO], legal=True)
def agrees_with_info_name(t: ServerTarget) -> None:
    """The canonical name that INFO gives is one of the list. (An empty one, which many servers give, says nothing.)"""
    names = {export.name for export in listed(t)}
    with t.peer.negotiating() as nego:
        for data in nego.info(t.export, (Info.NAME,)).infos(Info.NAME):
            name = InfoName.decode(data).name
            expect(not name or name in names, f"INFO_NAME {name!r}", f"one of {', '.join(map(repr, sorted(names)))}")


@check("list.agrees-with-info-description", proves=["REP-020"], needs=[*LISTED, Capability.INFO], legal=True)
def agrees_with_info_description(t: ServerTarget) -> None:
    """The description that INFO gives is the text after the name in the list, where both are given."""
    texts = {export.name: export.description for export in listed(t)}
    with t.peer.negotiating() as nego:
        for name, text in list(texts.items())[:_MOST_NAMES]:
            for data in nego.info(name, (Info.DESCRIPTION,)).infos(Info.DESCRIPTION):
                said = InfoDescription.decode(data).description
                expect(not text or said == text, f"description {said!r} of {name!r}", repr(text))
