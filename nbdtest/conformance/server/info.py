"""OPT_INFO and OPT_GO: what an export is like, and the way into transmission."""

from __future__ import annotations

from collections import Counter

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import (
    expect,
    expect_equal,
    expect_in_step,
    expect_refused,
    expect_reply,
    expect_silence,
    expect_success,
)
from nbdtest.conformance.gallery import ALL_INFOS
from nbdtest.conformance.server.malformed import info_requests
from nbdtest.conformance.target import ServerTarget
from nbdtest.wire import Info, InfoExport, InfoName, Opt, Rep, TransmissionFlag

FIXED = [Capability.FIXED_NEWSTYLE]
INFO = [Capability.INFO]
GO = [Capability.GO]
BOTH = [Capability.INFO, Capability.GO]
_OTHER_REASONS = (Rep.ERR_TLS_REQD, Rep.ERR_POLICY, Rep.ERR_SHUTDOWN)


@check("info.is-baseline", proves=["COMPAT-004"], needs=FIXED, legal=True)
def is_baseline(t: ServerTarget) -> None:
    """INFO and GO are known options."""
    for option in (Opt.INFO, Opt.GO):
        with t.peer.negotiating() as nego:
            answer = nego.info(t.export, option=option)
            expect(answer.final.type != Rep.ERR_UNSUP, f"{option} is answered with {answer}")


@check("info.export-is-never-withheld", proves=["OPT-083", "OPT-089", "REP-012"], needs=BOTH, legal=True)
def export_is_never_withheld(t: ServerTarget) -> None:
    """An ACK to INFO or GO comes after an INFO_EXPORT, whatever information was asked for."""
    for option in (Opt.INFO, Opt.GO):
        for infos in ((), (Info.EXPORT,), (Info.BLOCK_SIZE,), (Info.NAME, Info.DESCRIPTION)):
            with t.peer.negotiating() as nego:
                answer = nego.info(t.export, infos, option=option)
                expect(answer.infos(Info.EXPORT) or not answer.is_ack, f"{option}: {answer}", "INFO_EXPORT before it")


@check("info.export-length", proves=["REP-013", "REP-007"], needs=INFO, legal=True)
def export_length(t: ServerTarget) -> None:
    """INFO_EXPORT is 12 bytes long."""
    for data in t.gallery.infos(Info.EXPORT):
        expect_equal(len(data), 12, "the length of INFO_EXPORT")


@check("info.export-format", proves=["REP-014", "CONV-001", "FLAG-010", "FLAG-001", "HS-018"], needs=BOTH, legal=True)
def export_format(t: ServerTarget) -> None:
    """INFO_EXPORT gives the size in 64 bits, then the flags in 16: HAS_FLAGS set, unassigned ones clear."""
    for data in t.gallery.infos(Info.EXPORT):
        export = InfoExport.decode(data[:12])
        expect_equal(export.size, t.size, "the size")
        expect(TransmissionFlag.HAS_FLAGS in export.flags, f"flags {export.flags}", "HAS_FLAGS", requirement="FLAG-010")
        expect(not export.flags & 0xE000, f"flags {export.flags}", "bits 13 to 15 clear", requirement="HS-018")


@check("info.unknown-types-are-ignored", proves=["OPT-080"], needs=BOTH, legal=True)
def unknown_types_are_ignored(t: ServerTarget) -> None:
    """A request for information of unknown types is as good as without them."""
    for option in (Opt.INFO, Opt.GO):
        with t.peer.negotiating() as nego:
            answer = nego.info(t.export, (0xFFFE, Info.EXPORT, Info.BLOCK_SIZE, 0x7777), option=option)
            expect_reply(answer, Rep.ACK)


@check("info.only-infos-before-the-final", proves=["OPT-088"], needs=INFO, legal=True)
def only_infos_before_the_final(t: ServerTarget) -> None:
    """The answer to INFO or GO is a run of REP_INFO and one ACK or error."""
    for answer in t.gallery.answers(Opt.INFO, Opt.GO):
        for part in answer.parts:
            expect_equal(part.type, Rep.INFO, f"a reply to {answer.option.option} before the final one")


@check("info.each-type-once", proves=["REP-009"], needs=INFO, legal=True)
def each_type_once(t: ServerTarget) -> None:
    """No type of information is given twice in one answer."""
    for answer in t.gallery.answers(Opt.INFO, Opt.GO):
        types = Counter(part.data[:2] for part in answer.parts if part.type == Rep.INFO)
        twice = [str(Info(int.from_bytes(type, "big"))) for type, count in types.items() if count > 1]
        expect(not twice, f"{', '.join(twice)} more than once in the answer to {answer.option.option}")


@check("info.has-a-type", proves=["REP-007", "REP-019", "REP-021"], needs=INFO, legal=True)
def has_a_type(t: ServerTarget) -> None:
    """Every REP_INFO has at least the 16 bits of its type, and the length counts them."""
    for reply in t.gallery.option_replies(Rep.INFO):
        expect(len(reply.data) >= 2, f"a REP_INFO of {len(reply.data)} bytes", "at least 2")


@check("info.type-assigned", proves=["REP-012", "REP-022"], needs=INFO, legal=True)
def type_assigned(t: ServerTarget) -> None:
    """Every type of information is one that the specification assigns."""
    for reply in t.gallery.option_replies(Rep.INFO):
        info = Info(int.from_bytes(reply.data[:2], "big"))
        expect(info.is_known, f"{info} of {len(reply.data)} bytes", "an assigned type")


@check("info.name-opens-the-export", proves=["REP-015"], needs=INFO, legal=True)
def name_opens_the_export(t: ServerTarget) -> None:
    """The name in INFO_NAME opens the same export."""
    with t.peer.negotiating() as nego:
        for data in nego.info(t.export, (Info.NAME,)).infos(Info.NAME):
            name = InfoName.decode(data).name
            export = nego.info(name).export() if name else None
            expect(not name or (export and export.size == t.size), f"INFO for INFO_NAME {name!r} gives {export}")


@check("info.same-as-go", proves=["OPT-070"], needs=BOTH, legal=True)
def same_as_go(t: ServerTarget) -> None:
    """INFO and GO, each on a connection of its own, answer the same request with the same kinds of information."""
    kinds = []
    for option in (Opt.INFO, Opt.GO):
        with t.peer.negotiating() as nego:
            answer = nego.info(t.export, ALL_INFOS, option=option)
            expect_reply(answer, Rep.ACK)
            kinds.append(sorted(part.data[:2].hex() for part in answer.parts))
    expect_equal(kinds[0], kinds[1], "the types given by INFO")


@check("go.repeats-info", proves=["OPT-102"], needs=BOTH, legal=True)
def repeats_info(t: ServerTarget) -> None:
    """GO right after INFO with the same data gives the same information, in any order."""
    with t.peer.negotiating() as nego:
        told = sorted(part.data.hex() for part in nego.info(t.export, ALL_INFOS).parts)
        again = sorted(part.data.hex() for part in nego.go(t.export, ALL_INFOS).parts)
        expect_equal(again, told, "the information given by GO")


@check("info.can-be-asked-again", proves=["OPT-071", "TERM-001"], needs=BOTH, legal=True, hostile=True)
def can_be_asked_again(t: ServerTarget) -> None:
    """INFO leaves the handshake where it is: it can be repeated, for other names too, and GO still works."""
    with t.peer.negotiating() as nego:
        first = nego.info(t.export).export()
        nego.info(t.unknown_export)
        second = nego.info(t.export).export()
        expect_equal(second, first, "the export at the second INFO")
        expect_in_step(nego)
        expect_in_step(t.peer.begin_transmission(nego, t.export))


@check("info.unknown-export", proves=["OPT-090", "REP-039"], needs=[Capability.NAMES_MATTER, *FIXED], legal=True)
def unknown_export(t: ServerTarget) -> None:
    """INFO and GO answer ERR_UNKNOWN for a name that does not exist, and the handshake goes on."""
    with t.peer.negotiating() as nego:
        for option in (Opt.INFO, Opt.GO):
            expect_reply(nego.info(t.unknown_export, option=option), Rep.ERR_UNKNOWN, *_OTHER_REASONS)
            expect_in_step(nego)


@check("info.nothing-about-unknown-export", proves=["OPT-091"], needs=[Capability.NAMES_MATTER, *FIXED], legal=True)
def nothing_about_unknown_export(t: ServerTarget) -> None:
    """No information precedes ERR_UNKNOWN."""
    with t.peer.negotiating() as nego:
        for option in (Opt.INFO, Opt.GO):
            answer = nego.info(t.unknown_export, ALL_INFOS, option=option)
            expect(not answer.parts, f"{option} for an unknown export: {answer}", "the error alone")


@check("go.after-unknown-export", proves=["OPT-090"], needs=[Capability.NAMES_MATTER, *GO], legal=True)
def after_unknown_export(t: ServerTarget) -> None:
    """After ERR_UNKNOWN to GO another name can be asked for."""
    with t.peer.negotiating() as nego:
        nego.go(t.unknown_export)
        expect_in_step(t.peer.begin_transmission(nego, t.export))


@check("info.malformed-is-invalid", proves=["REP-035"], needs=INFO, legal=False)
def malformed_is_invalid(t: ServerTarget) -> None:
    """INFO and GO with data that contradict themselves are refused with ERR_INVALID."""
    for option in (Opt.INFO, Opt.GO):
        for what, data in info_requests(t).items():
            with t.peer.negotiating() as nego:
                answer = nego.option(option, data)
                expect(answer.final.type == Rep.ERR_INVALID, f"{option} with {what} is answered with {answer}")


@check("info.malformed-stays-in-step", proves=["OPT-015"], needs=INFO, legal=False)
def malformed_stays_in_step(t: ServerTarget) -> None:
    """After INFO with data that contradict themselves the next option is answered rightly."""
    for what, data in info_requests(t).items():
        with t.peer.negotiating() as nego:
            answer = nego.option(Opt.INFO, data)
            expect_in_step(nego)
            expect_silence(nego.peer, f"{answer} to INFO with {what}, and the next option")


@check("go.enters-transmission", proves=["TERM-001", "OPT-071", "TRN-003"], needs=GO, legal=True)
def enters_transmission(t: ServerTarget) -> None:
    """After the ACK to GO the server takes requests, and says nothing before them."""
    with t.peer.transmitting() as session:
        expect_silence(session.peer, "the ACK to GO", requirement="TRN-003")
        expect_in_step(session)


@check("go.no-padding", proves=["OPT-106"], needs=GO, legal=True)
def no_padding(t: ServerTarget) -> None:
    """No zero bytes follow the ACK to GO, even without NO_ZEROES."""
    with t.peer.transmitting(flags=1) as session:
        expect_in_step(session)


@check("go.takes-name-of-4096-bytes", proves=["CONV-006"], needs=FIXED, legal=True, hostile=True)
def takes_name_of_4096_bytes(t: ServerTarget) -> None:
    """A name of up to 4096 bytes is an ordinary name: it is served or refused, and the handshake goes on."""
    for length in (257, 3000, 4096):
        with t.peer.negotiating() as nego:
            nego.info("n" * length, ALL_INFOS)
            expect_in_step(nego)


@check("go.refuses-name-of-4097-bytes", proves=["CONV-006"], needs=FIXED, legal=False)
def refuses_name_of_4097_bytes(t: ServerTarget) -> None:
    """A name of more than 4096 bytes is no name."""
    with t.peer.negotiating() as nego:
        expect_refused(nego.info("n" * 4097))


@check(
    "go.default-request-works", proves=["OPT-031", "SIZE-013", "COMPAT-015"], needs=[*GO, Capability.EXPORT], legal=True
)
def default_request_works(t: ServerTarget) -> None:
    """A client that asks for no information is let in, and can read."""
    with t.peer.transmitting(infos=()) as session:
        expect_success(session.read(0, t.unit))
