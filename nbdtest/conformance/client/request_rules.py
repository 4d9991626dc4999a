"""What a client sends in transmission, judged on every session with a correct server."""

from __future__ import annotations

from collections.abc import Callable

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client.handshake_rules import never
from nbdtest.conformance.client.replies import delayed
from nbdtest.conformance.client_probe import Ending, probe_of
from nbdtest.conformance.client_target import ClientTarget
from nbdtest.conformance.declare import check
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.wire import Cmd, CmdFlag, ExtendedRequest
from nbdtest.wire.limits import DEFAULT_MAXIMUM_PAYLOAD

TRANSMITS = (Ability.TRANSMITS,)
STATUS = (Ability.STATUS,)

RULES = (
    never(
        "client-request.begins-with-magic",
        "Every request begins with the request magic, where the one before it has ended.",
        "REQ-001",
        needs=TRANSMITS,
        also=["REQ-002", "REQ-003", "REQ-004", "REQ-005", "REQ-006", "REQ-007", "MAGIC-001", "MAGIC-003", "CMD-057"],
    ),
    never(
        "client-request.is-extended-when-agreed",
        "After extended headers were agreed on, requests are extended.",
        "EXT-001",
        needs=[Ability.EXTENDED],
        also=["EXT-004", "EXT-045"],
    ),
    never(
        "client-request.is-compact-otherwise",
        "Unless extended headers were agreed on, requests are compact.",
        "MAGIC-004",
        needs=TRANSMITS,
        also=["EXT-002", "EXT-044"],
    ),
    never(
        "client-request.known-commands",
        "Only commands that are known or were negotiated are sent.",
        "COMPAT-013",
        needs=TRANSMITS,
    ),
    never(
        "client-request.no-unoffered-flush",
        "FLUSH is sent only if SEND_FLUSH is set.",
        "CMD-061",
        needs=TRANSMITS,
        also=["ORD-006", "FLAG-004"],
    ),
    never(
        "client-request.no-unoffered-trim",
        "TRIM is sent only if SEND_TRIM is set.",
        "CMD-087",
        needs=TRANSMITS,
        also=["FLAG-004"],
    ),
    never(
        "client-request.no-unoffered-write-zeroes",
        "WRITE_ZEROES is sent only if SEND_WRITE_ZEROES is set.",
        "CMD-105",
        needs=TRANSMITS,
        also=["FLAG-004"],
    ),
    never(
        "client-request.no-unoffered-resize",
        "RESIZE is sent only if SEND_RESIZE is set.",
        "RSZ-005",
        needs=TRANSMITS,
        also=["CMD-160"],
    ),
    never(
        "client-request.cache-without-flags", "CACHE without SEND_CACHE carries no flags.", "CMD-094", needs=TRANSMITS
    ),
    never(
        "client-flag.documented-only",
        "A request carries only flags that are documented for its command.",
        "FLAG-041",
        needs=TRANSMITS,
        also=["FLAG-040"],
    ),
    never(
        "client-flag.no-unoffered-fua", "FUA is set only if SEND_FUA is.", "FLAG-004", needs=TRANSMITS, also=["ORD-006"]
    ),
    never(
        "client-flag.no-unoffered-df",
        "DF is set only if SEND_DF is.",
        "FLAG-050",
        needs=TRANSMITS,
        also=["FLAG-021", "OPT-116"],
    ),
    never(
        "client-flag.no-unoffered-fast-zero",
        "FAST_ZERO is set only if SEND_FAST_ZERO is.",
        "FLAG-054",
        needs=TRANSMITS,
        also=["FLAG-031"],
    ),
    never(
        "client-flag.fua-on-writes-only",
        "FUA is set on WRITE, WRITE_ZEROES and TRIM only.",
        "FLAG-043",
        needs=TRANSMITS,
    ),
    never(
        "client-flag.no-payload-length-in-compact-requests",
        "PAYLOAD_LEN is not set in a compact request.",
        "EXT-003",
        needs=TRANSMITS,
        also=["FLAG-055"],
    ),
    never(
        "client-flag.payload-length-on-extended-writes",
        "An extended WRITE has PAYLOAD_LEN set.",
        "EXT-005",
        needs=[Ability.EXTENDED, Ability.WRITE],
    ),
    never(
        "client-flag.no-unoffered-status-payload",
        "BLOCK_STATUS has a payload only if BLOCK_STATUS_PAYLOAD is set.",
        "EXT-020",
        needs=[Ability.EXTENDED],
    ),
    never(
        "client-request.status-payload-is-well-formed",
        "The payload of BLOCK_STATUS is a length and context ids.",
        "EXT-066",
        needs=[Ability.EXTENDED],
        also=["EXT-067"],
    ),
    never(
        "client-request.flush-has-no-range", "Offset and length of FLUSH are zero.", "CMD-079", needs=[Ability.FLUSH]
    ),
    never("client-request.disc-has-no-range", "Offset and length of DISC are zero.", "CMD-075", needs=[Ability.DISC]),
    never(
        "client-request.status-needs-contexts",
        "BLOCK_STATUS is sent only if a context is selected for this export.",
        "META-007",
        needs=STATUS,
        also=["META-001", "META-074"],
    ),
    never(
        "client-request.inside-the-export",
        "No request reaches past the end of the export, whatever its size.",
        "SIZE-038",
        needs=TRANSMITS,
    ),
    never(
        "client-request.honours-minimum-block",
        "Offsets and lengths are multiples of the minimum block size that was asked for.",
        "SIZE-036",
        needs=TRANSMITS,
        also=["SIZE-005"],
    ),
    never(
        "client-request.honours-maximum-payload",
        "No READ with a simple reply and no WRITE is longer than the maximum payload.",
        "SIZE-030",
        needs=TRANSMITS,
        also=["SIZE-005"],
    ),
    never("client-request.no-empty-read", "No READ is empty.", "CMD-003", needs=[Ability.READ]),
    never("client-request.no-empty-write", "No WRITE is empty.", "CMD-058", needs=[Ability.WRITE]),
    never("client-request.no-empty-trim", "No TRIM is empty.", "CMD-084", needs=[Ability.TRIM]),
    never("client-request.no-empty-write-zeroes", "No WRITE_ZEROES is empty.", "CMD-101", needs=[Ability.WRITE_ZEROES]),
    never("client-request.no-empty-status", "No BLOCK_STATUS is empty.", "CMD-141", needs=STATUS),
    never("client-request.nothing-after-disc", "Nothing is sent after DISC.", "CMD-074", needs=[Ability.DISC]),
)

DISTINCT_COOKIES = probe_of(
    "client-request.distinct-cookies",
    "Requests that wait for their replies have different cookies.",
    *delayed(Cmd.READ, Cmd.WRITE),
    proves=["REQ-010"],
    legal=True,
    ending=Ending.ANY,
    needs=TRANSMITS,
)


@check("client-request.aligned-to-512", proves=["SIZE-010", "COMPAT-018"], needs=TRANSMITS, legal=True, role="client")
def aligned_to_512(t: ClientTarget) -> None:
    """Where no block size was advertised, offsets and lengths are multiples of 512."""
    _ranged(t, lambda offset, length: not (offset % 512 or length % 512), "a multiple of 512 each")


@check("client-request.at-most-32-mib", proves=["SIZE-011"], needs=TRANSMITS, legal=True, role="client")
def at_most_32_mib(t: ClientTarget) -> None:
    """Where no maximum was advertised, READ and WRITE have 32 MiB at most."""
    seen = False
    for run, request in t.gallery.requests(Cmd.READ, Cmd.WRITE):
        seen = True
        if request.length > DEFAULT_MAXIMUM_PAYLOAD:
            t.transcript = run.transcript
            raise Complaint(f"{request.type} has {request.length} bytes", "32 MiB at most")
    if not seen:
        raise NotApplicable("the command sends neither READ nor WRITE")


@check(
    "client-request.within-32-bits",
    proves=["EXT-053"],
    needs=[Ability.EXTENDED, Ability.READ],
    legal=True,
    role="client",
)
def within_32_bits(t: ClientTarget) -> None:
    """Also an extended READ has less than 4 GiB."""
    for run, request in t.gallery.requests(Cmd.READ):
        if request.length >> 32:
            t.transcript = run.transcript
            raise Complaint(f"a READ has {request.length} bytes", "32 bits at most")


@check("client-request.fits-its-header", proves=["EXT-050"], needs=[Ability.EXTENDED], legal=True, role="client")
def fits_its_header(t: ClientTarget) -> None:
    """PAYLOAD_LEN is set on requests that have a payload, and not with a length of zero."""
    for run, request in t.gallery.requests():
        if isinstance(request, ExtendedRequest) and CmdFlag.PAYLOAD_LEN in request.flags and not request.length:
            t.transcript = run.transcript
            raise Complaint(f"{request.type} has PAYLOAD_LEN and a length of 0", "a payload")


@check("client-request.writes-only-if-writable", proves=["COMPAT-011"], needs=TRANSMITS, legal=True, role="client")
def writes_only_if_writable(t: ClientTarget) -> None:
    """Nothing is written to an export that is read-only."""
    if not (t.has(Ability.WRITE) or t.has(Ability.WRITE_ZEROES) or t.has(Ability.TRIM)):
        raise NotApplicable(Ability.WRITE.value)
    seen = t.gallery.seen("read-only")
    t.transcript = seen.transcript
    for talk in seen.talks:
        for request in talk.requests:
            if request.type in (Cmd.WRITE, Cmd.WRITE_ZEROES, Cmd.TRIM):
                raise Complaint(f"{request.type} is sent although READ_ONLY is set", "no such request")


@check(
    "client-request.one-connection-without-multi-conn", proves=["FLAG-024"], needs=TRANSMITS, legal=True, role="client"
)
def one_connection_without_multi_conn(t: ClientTarget) -> None:
    """Without CAN_MULTI_CONN the client does not spread its commands over connections."""
    seen = t.gallery.seen("few flags")
    t.transcript = seen.transcript
    busy = [talk for talk in seen.talks if any(request.type != Cmd.DISC for request in talk.requests)]
    many = [talk for talk in t.gallery.seen("full").talks if any(r.type != Cmd.DISC for r in talk.requests)]
    if len(many) < 2:
        raise NotApplicable("the command uses one connection at a time")
    if len(busy) > 1:
        raise Complaint(f"commands are sent on {len(busy)} connections", "one")


def _ranged(t: ClientTarget, fine: Callable[[int, int], bool], wanted: str) -> None:
    seen = False
    for run, request in t.gallery.requests(*_RANGED):
        seen = True
        filtered = request.type == Cmd.BLOCK_STATUS and CmdFlag.PAYLOAD_LEN in request.flags
        if not filtered and not fine(request.offset, request.length):
            t.transcript = run.transcript
            raise Complaint(f"{request.type} at {request.offset}, length {request.length}", wanted)
    if not seen:
        raise NotApplicable("the command sends no request about a range")


_RANGED = (Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS)
