"""OPT_EXPORT_NAME, the oldest way into transmission: its bare answer, and its only way to say no."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import (
    expect,
    expect_bytes,
    expect_end,
    expect_equal,
    expect_in_step,
    expect_refused,
)
from nbdtest.conformance.negotiation import Negotiation
from nbdtest.conformance.openings import receive_size
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import Complaint, Hangup, NotApplicable
from nbdtest.net.stream import Arrival
from nbdtest.wire import ExportName, Opt, Rep

SERVED = [Capability.NEWSTYLE, Capability.EXPORT, Capability.CLEAR]
NAMES_MATTER = [Capability.NEWSTYLE, Capability.NAMES_MATTER, Capability.CLEAR]


def ask(t: ServerTarget, nego: Negotiation, count: int) -> bytes:
    """Send EXPORT_NAME and receive `count` bytes of the answer.

    Raises:
        NotApplicable: the server hangs up instead, the only way to refuse; `export-name.enters-transmission` says so.
    """
    nego.send_option(Opt.EXPORT_NAME, ExportName(name=t.export))
    if not t.has(Capability.EXPORT_NAME) and nego.peer.stream.arrival(t.timeout_s) is Arrival.END:
        raise NotApplicable(Capability.EXPORT_NAME.value)
    data = receive_size(nego.peer)
    data += nego.peer.receive_bytes(count - len(data), wanted="the answer to OPT_EXPORT_NAME")
    nego.peer.note(data, "answer to OPT_EXPORT_NAME")
    return data


def begun(nego: Negotiation, t: ServerTarget) -> Session:
    """The session that the answer began."""
    return Session(nego.peer, size=t.size, flags=t.facts.flags, unit=t.unit)


@check("export-name.size", proves=["HS-014", "CONV-001"], needs=[*SERVED, Capability.GO], legal=True)
def size(t: ServerTarget) -> None:
    """The answer begins with the size, 64 bits big-endian, without the header of an option reply."""
    with t.peer.negotiating() as nego:
        seen = ask(t, nego, 8)
        expect_equal(int.from_bytes(seen, "big"), t.size, "the size", requirement="CONV-001")


@check("export-name.flags", proves=["HS-015", "FLAG-001", "FLAG-010", "HS-018"], needs=SERVED, legal=True)
def flags(t: ServerTarget) -> None:
    """16 bits of transmission flags follow the size: HAS_FLAGS is set, unassigned bits are not."""
    with t.peer.negotiating() as nego:
        seen = int.from_bytes(ask(t, nego, 10)[8:], "big")
        expect(seen & 1, f"transmission flags 0x{seen:04x}", "HAS_FLAGS", requirement="FLAG-010")
        expect(not seen & 0xE000, f"transmission flags 0x{seen:04x}", "bits 13 to 15 clear")


@check("export-name.padded", proves=["HS-016", "HS-033"], needs=SERVED, legal=True)
def padded(t: ServerTarget) -> None:
    """Without NO_ZEROES on the client's side, 124 zero bytes end the answer, also if the server offered it."""
    with t.peer.negotiating(flags=1) as nego:
        expect_bytes(ask(t, nego, 134)[10:], bytes(124), "the reserved bytes")
        expect_in_step(begun(nego, t))


@check("export-name.not-padded", proves=["HS-031"], needs=[*SERVED, Capability.NO_ZEROES], legal=True)
def not_padded(t: ServerTarget) -> None:
    """With NO_ZEROES agreed on, the answer ends after the flags."""
    with t.peer.negotiating(flags=3) as nego:
        ask(t, nego, 10)
        expect_in_step(begun(nego, t))


@check("export-name.enters-transmission", proves=["OPT-031", "TERM-001", "COMPAT-019"], needs=SERVED, legal=True)
def enters_transmission(t: ServerTarget) -> None:
    """EXPORT_NAME is served beside GO, and after the answer the server takes requests."""
    with t.peer.negotiating() as nego:
        try:
            session = t.peer.begin_by_export_name(nego, t.export)
        except Hangup as hangup:
            raise Complaint(hangup.seen, hangup.wanted, requirement="COMPAT-019") from None
        expect_in_step(session)


@check(
    "export-name.agrees-with-go",
    proves=["FLAG-001"],
    needs=[*SERVED, Capability.GO, Capability.EXPORT_NAME],
    legal=True,
)
def agrees_with_go(t: ServerTarget) -> None:
    """Size and transmission flags are those that GO gives in the same circumstances."""
    for mode in ("simple", "structured"):
        if mode in t.modes:
            with t.peer.transmitting(mode=mode, by_export_name=True) as by_name:
                pass
            with t.peer.transmitting(mode=mode) as by_go:
                expect_equal(by_name.size, by_go.size, f"the size given by EXPORT_NAME for {mode} replies")
                expect_equal(str(by_name.flags), str(by_go.flags), f"the flags given by EXPORT_NAME for {mode} replies")


@check(
    "export-name.unknown-ends-session",
    proves=["OPT-033", "HS-017", "TERM-008"],
    needs=NAMES_MATTER,
    legal=True,
    hostile=True,
)
def unknown_ends_session(t: ServerTarget) -> None:
    """An export that does not exist ends the session without another byte."""
    with t.peer.negotiating() as nego:
        nego.send_option(Opt.EXPORT_NAME, ExportName(name=t.unknown_export))
        expect_end(nego.peer, "OPT_EXPORT_NAME for an unknown export")


@check("export-name.empty-is-default", proves=["OPT-034"], needs=[Capability.FIXED_NEWSTYLE], legal=True)
def empty_is_default(t: ServerTarget) -> None:
    """The empty name asks for the default export, which may be missing, but is never malformed."""
    with t.peer.negotiating() as nego:
        answer = nego.info("")
        expect(answer.final.type != Rep.ERR_INVALID, f"OPT_INFO for the empty name is answered with {answer}")
        expect_in_step(nego)


@check("export-name.nul-is-no-end", proves=["CONV-004"], needs=NAMES_MATTER, legal=False)
def nul_is_no_end(t: ServerTarget) -> None:
    """A name with a NUL in it is not taken for the part before the NUL."""
    with t.peer.negotiating() as nego:
        expect_refused(nego.info(f"{t.export}\0x"))
