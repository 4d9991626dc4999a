"""Commands and command flags in general: the matrix of both, error values, and that errors end nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.expect import expect, expect_error, expect_in_step, expect_success
from nbdtest.conformance.replies import Reply
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, CmdFlag, Errno, TransmissionFlag

EXPORT = [Capability.EXPORT]
_LISTED = {Errno.EPERM, Errno.EIO, Errno.ENOMEM, Errno.EINVAL, Errno.ENOSPC, Errno.EOVERFLOW, Errno.ENOTSUP, 108}
_OFFERED_BY = {
    Cmd.WRITE: Capability.WRITABLE,
    Cmd.FLUSH: Capability.FLUSH,
    Cmd.TRIM: Capability.TRIM,
    Cmd.CACHE: Capability.CACHE,
    Cmd.WRITE_ZEROES: Capability.WRITE_ZEROES,
    Cmd.BLOCK_STATUS: Capability.BASE_ALLOCATION,
}
_WRITING = {Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES}
_OWN_FLAGS = {
    Cmd.READ: CmdFlag.FUA | CmdFlag.DF,
    Cmd.WRITE: CmdFlag.FUA,
    Cmd.FLUSH: CmdFlag.FUA,
    Cmd.TRIM: CmdFlag.FUA,
    Cmd.CACHE: CmdFlag.FUA,
    Cmd.WRITE_ZEROES: CmdFlag.FUA | CmdFlag.NO_HOLE | CmdFlag.FAST_ZERO,
    Cmd.BLOCK_STATUS: CmdFlag.FUA | CmdFlag.REQ_ONE,
}
"""Which flags each command may have; FUA is accepted on all. Spec: proto.md "Command flags"."""
_ASSIGNED = 6
"""How many bits of command flags have a meaning."""


def send(t: ServerTarget, session: Session, type: Cmd, *, flags: int = 0) -> Reply:
    """Send a command with everything else as it should be, on the first unit of the export."""
    if type == Cmd.FLUSH:
        return session.flush(flags=flags)
    if type == Cmd.WRITE:
        return session.write(0, bytes(t.unit), flags=flags)
    return session.command(type, 0, t.unit, flags=flags)


def offered(t: ServerTarget, type: Cmd) -> None:
    """Skip where the command is not offered, or may not be sent."""
    if type in _OFFERED_BY and not t.has(_OFFERED_BY[type]):
        raise NotApplicable(_OFFERED_BY[type].value)


def sessions(t: ServerTarget, type: Cmd) -> Iterator[Session]:
    """A session in every mode in which the command can be sent."""
    for mode in t.modes:
        if type == Cmd.BLOCK_STATUS:
            if mode != "simple":
                with t.peer.transmitting(mode=mode, contexts=["base:allocation"]) as session:
                    yield session
        else:
            with t.peer.transmitting(mode=mode) as session:
                yield session


def fua_is_accepted(type: Cmd) -> Check:
    """FUA on one command."""
    name = type.name.lower().replace("_", "-")

    @check(
        f"flag.fua-on-{name}",
        proves=["FLAG-042"],
        needs=[*EXPORT, Capability.FUA],
        legal=True,
        writes=type in _WRITING,
        doc=f"{type} takes the flag FUA where SEND_FUA is offered: it is answered as without it.",
    )
    def run(t: ServerTarget) -> None:
        offered(t, type)
        for session in sessions(t, type):
            plain = send(t, session, type)
            reply = send(t, session, type, flags=CmdFlag.FUA)
            expect(reply.error == plain.error, f"{type} with FUA: {reply}", f"as without it: {plain}")

    return run


def foreign_flag_is_refused(type: Cmd) -> Check:
    """Flags of other commands on one command."""
    name = type.name.lower().replace("_", "-")
    foreign = [flag for flag in CmdFlag if flag not in _OWN_FLAGS[type] and flag != CmdFlag.PAYLOAD_LEN]

    @check(
        f"flag.foreign-on-{name}",
        proves=["ERR-031"],
        needs=EXPORT,
        legal=False,
        writes=type in _WRITING,
        doc=f"{type} with a flag of another command ({', '.join(map(str, foreign))}) fails with EINVAL.",
    )
    def run(t: ServerTarget) -> None:
        offered(t, type)
        for session in sessions(t, type):
            for flag in foreign:
                expect_error(send(t, session, type, flags=flag), Errno.EINVAL)
            expect_in_step(session)

    return run


def unknown_flag_is_refused(type: Cmd) -> Check:
    """Unassigned flags on one command."""
    name = type.name.lower().replace("_", "-")

    @check(
        f"flag.unknown-on-{name}",
        proves=["ERR-030"],
        needs=EXPORT,
        legal=False,
        writes=type in _WRITING,
        doc=f"{type} with a flag that nobody assigned fails with EINVAL.",
    )
    def run(t: ServerTarget) -> None:
        offered(t, type)
        for session in sessions(t, type):
            unassigned = [1 << bit for bit in range(_ASSIGNED, 16)]
            if session.mode != "extended":
                unassigned.append(int(CmdFlag.PAYLOAD_LEN))  # which extended headers alone assign
            for flag in unassigned:
                expect_error(send(t, session, type, flags=flag), Errno.EINVAL)
            expect_in_step(session)

    return run


def own_flags_go_together(type: Cmd) -> Check:
    """All combinations of the flags that one command may have."""
    name = type.name.lower().replace("_", "-")

    @check(
        f"flag.together-on-{name}",
        proves=["FLAG-042", *(["FLAG-048"] if type == Cmd.WRITE_ZEROES else [])],
        needs=EXPORT,
        legal=True,
        writes=type in _WRITING,
        doc=f"{type} takes any two and more of its flags together ({', '.join(map(str, _flags_of(type)))}).",
    )
    def run(t: ServerTarget) -> None:
        offered(t, type)
        for session in sessions(t, type):
            offers = [flag for flag in _flags_of(type) if _may_be_used(t, session, flag)]
            usable = [flag for flag in offers if send(t, session, type, flags=flag).error != Errno.EINVAL]
            if len(usable) < 2:
                continue
            for count in range(2, len(usable) + 1):
                for chosen in combinations(usable, count):
                    flags = CmdFlag(sum(chosen))
                    reply = send(t, session, type, flags=flags)
                    expect(reply.error != Errno.EINVAL, f"{type} with {flags}: {reply}", "not EINVAL")

    return run


def _flags_of(type: Cmd) -> list[CmdFlag]:
    return [flag for flag in CmdFlag if flag in _OWN_FLAGS[type]]


def _may_be_used(t: ServerTarget, session: Session, flag: CmdFlag) -> bool:
    """Whether the session's export offers a flag that is a command's own."""
    match flag:
        case CmdFlag.FUA:
            return t.has(Capability.FUA)
        case CmdFlag.FAST_ZERO:
            return t.has(Capability.FAST_ZERO)
        case CmdFlag.DF:
            return TransmissionFlag.SEND_DF in session.flags
    return True


FUA_IS_ACCEPTED = tuple(map(fua_is_accepted, _OWN_FLAGS))
OWN_FLAGS_GO_TOGETHER = tuple(map(own_flags_go_together, (Cmd.READ, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS)))
FOREIGN_FLAG_IS_REFUSED = tuple(map(foreign_flag_is_refused, _OWN_FLAGS))
UNKNOWN_FLAG_IS_REFUSED = tuple(map(unknown_flag_is_refused, _OWN_FLAGS))


@check("command.unknown-is-einval", proves=["ERR-029", "ERR-005"], needs=EXPORT, legal=False)
def unknown_is_einval(t: ServerTarget) -> None:
    """A command that nobody assigned fails with EINVAL, and the session goes on."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            for type in (0x7FFF, 0xFFFF, 100):
                expect_error(session.command(type, 0, 0), Errno.EINVAL)
                expect_in_step(session)


@check("command.unknown-with-length-is-einval", proves=["ERR-029", "RPL-016"], needs=EXPORT, legal=False)
def unknown_with_length_is_einval(t: ServerTarget) -> None:
    """The length of an unknown command is no payload: the next request is read where it begins."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            expect_error(session.command(0x7FFF, 0, t.unit))
            expect_in_step(session)


@check("command.resize-is-einval", proves=["CMD-160", "FLAG-025"], needs=[*EXPORT, Capability.MAY_WRITE], legal=False)
def resize_is_einval(t: ServerTarget) -> None:
    """RESIZE where it is not offered fails, and changes no size."""
    if t.has(Capability.RESIZE):
        raise NotApplicable("the export offers RESIZE")
    with t.peer.transmitting() as session:
        expect_error(session.command(Cmd.RESIZE, t.unit, 0), Errno.EINVAL, value="ERR-029")
        expect_in_step(session)
    with t.peer.transmitting() as session:
        expect(session.size == t.size, f"the size is {session.size} after a refused RESIZE", str(t.size))


@check("command.errors-keep-the-session", proves=["TERM-041"], needs=EXPORT, legal=True)
def errors_keep_the_session(t: ServerTarget) -> None:
    """No refused request ends the session."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            for type, offset, length, flags in (
                (0x7FFF, 0, 0, 0),
                (Cmd.READ, 0, t.unit, 0x8000),
                (Cmd.READ, t.past_end, t.unit, 0),
                (Cmd.READ, 1 << 63, t.unit, 0),
                (Cmd.CACHE, t.past_end, t.unit, 0),
                (Cmd.BLOCK_STATUS, t.past_end, t.unit, 0),
                (Cmd.READ, 0, 0, 0),
            ):
                session.command(type, offset, length, flags=flags)
                expect_in_step(session)


@check("command.write-errors-keep-the-session", proves=["TERM-041"], legal=True, writes=True)
def write_errors_keep_the_session(t: ServerTarget) -> None:
    """No refused request that would have written ends the session."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            for offset in (t.past_end, 1 << 63):
                session.write(offset, bytes(t.unit))
                expect_in_step(session)
                for type in (Cmd.TRIM, Cmd.WRITE_ZEROES):
                    session.command(type, offset, t.unit)
                    expect_in_step(session)


@check("error.listed-values", proves=["ERR-001", "ERR-007", "RPL-013"], needs=EXPORT, legal=True)
def listed_values(t: ServerTarget) -> None:
    """An error value is one of those that the specification lists."""
    for reply in t.gallery.replies(succeeded=False):
        value = int(reply.error)
        expect(value in _LISTED, f"error {value} in reply to {reply.request.type}", "a listed value")


@check("error.enotsup-only-for-fast-zero", proves=["ERR-028"], needs=EXPORT, legal=True)
def enotsup_only_for_fast_zero(t: ServerTarget) -> None:
    """ENOTSUP is for FAST_ZERO alone."""
    for reply in t.gallery.replies(succeeded=False):
        expect(reply.error != Errno.ENOTSUP, f"ENOTSUP in reply to {reply.request.type}")


@check("error.eoverflow-only-for-long", proves=["ERR-027"], needs=EXPORT, legal=True)
def eoverflow_only_for_long(t: ServerTarget) -> None:
    """EOVERFLOW is for requests that are too long, not for those past the end."""
    for reply in t.gallery.replies(succeeded=False):
        expect(reply.error != Errno.EOVERFLOW, f"EOVERFLOW for {reply.request.length} bytes of {reply.request.type}")


@check("error.no-enomem", proves=["ERR-033"], needs=EXPORT, legal=True)
def no_enomem(t: ServerTarget) -> None:
    """ENOMEM is avoided, also for a READ of the largest payload that has to be served."""
    length = min(t.size, t.facts.maximum_payload, 32 << 20) // t.unit * t.unit
    with t.peer.transmitting() as session:
        expect(session.read(0, length).error != Errno.ENOMEM, f"ENOMEM for a READ of {length} bytes")


def advertised_command_works(flag: TransmissionFlag, type: Cmd, capability: Capability) -> Check:
    """One flag of the export, and the command that it stands for."""

    @check(
        f"promise.{flag.name.lower().replace('_', '-')}",  # type: ignore[union-attr]  # a single flag has a name
        proves=["FLAG-003"],
        needs=[*EXPORT, capability],
        legal=True,
        writes=type in _WRITING,
        doc=f"Where {flag} is advertised, {type} is not refused as unknown.",
    )
    def run(t: ServerTarget) -> None:
        for mode in t.modes:
            with t.peer.transmitting(mode=mode) as session:
                reply = send(t, session, type)
                expect(reply.error != Errno.EINVAL, f"{type} is answered with {reply}", "not EINVAL")

    return run


PROMISES = tuple(
    advertised_command_works(*row)
    for row in (
        (TransmissionFlag.SEND_FLUSH, Cmd.FLUSH, Capability.FLUSH),
        (TransmissionFlag.SEND_TRIM, Cmd.TRIM, Capability.TRIM),
        (TransmissionFlag.SEND_WRITE_ZEROES, Cmd.WRITE_ZEROES, Capability.WRITE_ZEROES),
    )
)


@check("promise.df", proves=["FLAG-003"], needs=[Capability.DF, Capability.STRUCTURED], legal=True)
def promise_df(t: ServerTarget) -> None:
    """Where SEND_DF is advertised, READ takes DF."""
    with t.peer.transmitting(mode="structured") as session:
        expect_success(session.read(0, t.unit, flags=CmdFlag.DF))


@check("promise.no-resize", proves=["FLAG-025", "RSZ-001"], needs=EXPORT, legal=True)
def promise_no_resize(t: ServerTarget) -> None:
    """A server that advertises RESIZE knows the command."""
    with t.peer.transmitting() as session:
        if TransmissionFlag.SEND_RESIZE in session.flags and t.has(Capability.WRITABLE):
            reply = session.command(Cmd.RESIZE, t.size, 0)
            expect(reply.error != Errno.EINVAL, f"RESIZE to the present size is answered with {reply}")


@check("promise.no-status-payload", proves=["FLAG-032", "EXT-018"], needs=EXPORT, legal=True)
def promise_no_status_payload(t: ServerTarget) -> None:
    """BLOCK_STATUS_PAYLOAD is advertised only with extended headers."""
    for mode in ("simple", "structured"):
        if mode in t.modes:
            with t.peer.transmitting(mode=mode) as session:
                offered = TransmissionFlag.BLOCK_STATUS_PAYLOAD in session.flags
                expect(not offered, f"flags {session.flags} without extended headers")


@check("promise.flush-and-fua", proves=["COMPAT-020"], needs=[Capability.WRITABLE], legal=True, level=Level.SHOULD)
def promise_flush_and_fua(t: ServerTarget) -> None:
    """A writable export offers FLUSH and FUA, so that data can be kept safe."""
    lacking = [capability.value for capability in (Capability.FLUSH, Capability.FUA) if not t.has(capability)]
    expect(not lacking, "; ".join(lacking))


@check(
    "reply.known-magic",
    proves=["RPL-001", "RPL-012", "MAGIC-002", "MAGIC-005", "RPL-035"],
    needs=EXPORT,
    legal=True,
)
def known_magic(t: ServerTarget) -> None:
    """Every reply begins with the magic of its kind: in a session without extended headers never with theirs."""
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            expect_in_step(session)
            session.command(0x7FFF, 0, 0)
            expect_in_step(session)
