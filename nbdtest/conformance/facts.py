"""What a target can do, found out once by asking it. Checks never depend on each other, only on this.

Asking is lenient: an answer that is missing or malformed means "cannot", and the check for that rule says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.expect import UNKNOWN_OPTION
from nbdtest.conformance.negotiation import Answer
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.errors import PeerViolation
from nbdtest.net.stream import SocketStream
from nbdtest.wire import (
    HandshakeFlag,
    Info,
    InfoBlockSize,
    NewstyleGreeting,
    OldstyleGreeting,
    Opt,
    Rep,
    ServerExport,
    TransmissionFlag,
)

if TYPE_CHECKING:
    from nbdtest.conformance.target import ServerTarget

__all__ = ["Facts", "probe"]

_NO_FLAGS = TransmissionFlag(0)


@dataclass(slots=True)
class Facts:
    """What was found out. `trouble` says why nothing could be, "" if all went well."""

    trouble: str = ""
    greeting: NewstyleGreeting | OldstyleGreeting | None = None
    size: int = 0
    flags: TransmissionFlag = _NO_FLAGS
    structured_flags: TransmissionFlag = _NO_FLAGS
    block_size: InfoBlockSize | None = None
    contexts: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    capabilities: set[Capability] = field(default_factory=set)

    @property
    def minimum_block(self) -> int:
        """What offsets and lengths have to be multiples of."""
        return self.block_size.minimum if self.block_size and self.block_size.minimum else 1

    @property
    def maximum_payload(self) -> int:
        """The largest READ or WRITE that the server has to serve."""
        return max(self.block_size.maximum, self.minimum_block) if self.block_size else 32 << 20


_BY_FLAG = {
    TransmissionFlag.SEND_FLUSH: Capability.FLUSH,
    TransmissionFlag.SEND_FUA: Capability.FUA,
    TransmissionFlag.SEND_TRIM: Capability.TRIM,
    TransmissionFlag.SEND_WRITE_ZEROES: Capability.WRITE_ZEROES,
    TransmissionFlag.SEND_FAST_ZERO: Capability.FAST_ZERO,
    TransmissionFlag.SEND_CACHE: Capability.CACHE,
    TransmissionFlag.CAN_MULTI_CONN: Capability.MULTI_CONN,
    TransmissionFlag.SEND_RESIZE: Capability.RESIZE,
    TransmissionFlag.READ_ONLY: Capability.READ_ONLY,
}
_BY_SIZE = {
    64 << 10: Capability.SIZE_64K,
    1 << 20: Capability.SIZE_1M,
    33 << 20: Capability.SIZE_33M,
    (4 << 30) + 1: Capability.SIZE_OVER_4G,
}


def probe(target: ServerTarget, facts: Facts) -> None:
    """Find out what `target` can do, and write it into `facts`.

    Raises:
        TransportError: it cannot be reached.
    """
    has = facts.capabilities
    try:
        with target.peer.greeted() as (peer, greeting):
            facts.greeting = greeting
            if isinstance(peer.stream, SocketStream) and peer.stream.can_reset:
                has.add(Capability.TCP)
    except (Complaint, PeerViolation) as problem:
        facts.trouble = f"this is no NBD server: {problem}"
        return
    if target.source.vitals() is not None:
        has.add(Capability.OWN_PROCESS)
    if isinstance(greeting, OldstyleGreeting):
        has.add(Capability.OLDSTYLE)
        has.add(Capability.CLEAR)
        _export(facts, greeting.size, greeting.flags)
    else:
        _newstyle(target, facts, greeting)
    if target.bad_range is not None:
        has.add(Capability.BAD_RANGE)
    _second_connection(target, facts)
    if target.source.writable:
        has.add(Capability.MAY_WRITE)
    if target.source.writable and Capability.EXPORT in has and Capability.READ_ONLY not in has:
        has.add(Capability.WRITABLE)


def _newstyle(target: ServerTarget, facts: Facts, greeting: NewstyleGreeting) -> None:
    has = facts.capabilities
    offered = greeting.flags
    has.add(Capability.NEWSTYLE)
    has.add(Capability.NO_ZEROES if HandshakeFlag.NO_ZEROES in offered else Capability.WITHOUT_NO_ZEROES)
    if HandshakeFlag.FIXED_NEWSTYLE in offered:
        has.add(Capability.FIXED_NEWSTYLE)
        _tls(target, facts)
        _export_by_go(target, facts)
        _names(target, facts)
        _structured(target, facts)
        _extended(target, facts)
    if Capability.FORCED_TLS not in has or target.source.can_tls:
        _export_by_name(target, facts)


def _tls(target: ServerTarget, facts: Facts) -> None:
    has = facts.capabilities
    starttls = _ask(target, Opt.STARTTLS, clear=True)
    if starttls is None or not starttls.is_ack:
        has.update({Capability.NOTLS, Capability.CLEAR})
        return
    has.add(Capability.TLS)
    if target.source.can_tls:
        has.add(Capability.TLS_LAYER)
    unknown = _ask(target, UNKNOWN_OPTION, clear=True)
    if unknown is not None and unknown.final.type == Rep.ERR_TLS_REQD:
        has.add(Capability.FORCED_TLS)
    else:
        has.update({Capability.SELECTIVE_TLS, Capability.CLEAR})


def _export_by_go(target: ServerTarget, facts: Facts) -> None:
    has = facts.capabilities
    with _tolerant(), target.peer.negotiating() as nego:
        if nego.info(target.export, (Info.EXPORT, Info.BLOCK_SIZE)).is_ack:
            has.add(Capability.INFO)
    # Anew: there are servers that serve GO, and hang up on whoever asks for INFO.
    with _tolerant(), target.peer.negotiating() as nego:
        answer = nego.go(target.export, (Info.EXPORT, Info.BLOCK_SIZE))
        export = answer.export()
        if answer.is_ack and export is not None:
            has.add(Capability.GO)
            facts.block_size = answer.block_size()
            has.add(Capability.BLOCK_SIZE if facts.block_size else Capability.WITHOUT_BLOCK_SIZE)
            _export(facts, export.size, export.flags)


def _export(facts: Facts, size: int, flags: TransmissionFlag) -> None:
    has = facts.capabilities
    facts.size, facts.flags = size, flags
    if size >= 512:
        has.add(Capability.EXPORT)
    has.update(capability for flag, capability in _BY_FLAG.items() if flag in flags)
    has.update(capability for least, capability in _BY_SIZE.items() if size >= least)
    if TransmissionFlag.SEND_FAST_ZERO not in flags:
        has.add(Capability.WITHOUT_FAST_ZERO)
    has.add(Capability.BYTE_ACCESS if facts.minimum_block == 1 else Capability.MINIMUM_BLOCK)


def _names(target: ServerTarget, facts: Facts) -> None:
    has = facts.capabilities
    accepts_any = False
    if has & {Capability.INFO, Capability.GO}:
        with _tolerant(), target.peer.negotiating() as nego:
            accepts_any = nego.info(target.unknown_export).is_ack
    elif Capability.CLEAR in has:
        with _tolerant(), target.peer.transmitting(by_export_name=True, export=target.unknown_export):
            accepts_any = True
    if not accepts_any:
        has.add(Capability.NAMES_MATTER)
    listing = _ask(target, Opt.LIST)
    if listing is not None and listing.is_ack:
        has.add(Capability.LIST)
        facts.exports = tuple(_listed(listing))
        if len(set(facts.exports)) > 1:
            has.add(Capability.SECOND_EXPORT)


def _listed(listing: Answer) -> Iterator[str]:
    for part in listing.parts:
        with _tolerant():
            yield ServerExport.decode(part.data).name


def _structured(target: ServerTarget, facts: Facts) -> None:
    has = facts.capabilities
    with _tolerant(), target.peer.negotiating() as nego:
        if not nego.option(Opt.STRUCTURED_REPLY).is_ack:
            return
        has.add(Capability.STRUCTURED)
        everything = nego.list_meta(target.export)
        chosen = nego.set_meta(target.export, "base:allocation")
        if everything.is_ack or chosen.is_ack:
            has.add(Capability.META)
        if "base:allocation" in chosen.contexts():
            has.add(Capability.BASE_ALLOCATION)
        others = [name for name in everything.contexts() if name != "base:allocation" and not name.endswith(":")]
        both = nego.set_meta(target.export, "base:allocation", *others) if others else chosen
        facts.contexts = tuple(both.contexts())
        if len(facts.contexts) > 1:
            has.add(Capability.OTHER_CONTEXT)
        export = nego.go(target.export).export()
        if export is not None:
            facts.structured_flags = export.flags
            if TransmissionFlag.SEND_DF in export.flags and export.size >= 512:
                has.add(Capability.DF)


def _extended(target: ServerTarget, facts: Facts) -> None:
    has = facts.capabilities
    with _tolerant(), target.peer.negotiating() as nego:
        if nego.option(Opt.EXTENDED_HEADERS).is_ack:
            has.add(Capability.EXTENDED)
            nego.set_meta(target.export, "base:allocation")
            export = nego.go(target.export).export()
            if export is not None and TransmissionFlag.BLOCK_STATUS_PAYLOAD in export.flags:
                has.add(Capability.STATUS_PAYLOAD)


def _export_by_name(target: ServerTarget, facts: Facts) -> None:
    with _tolerant(), target.peer.transmitting(by_export_name=True) as session:
        facts.capabilities.add(Capability.EXPORT_NAME)
        if Capability.EXPORT not in facts.capabilities:
            _export(facts, session.size, session.flags)


def _second_connection(target: ServerTarget, facts: Facts) -> None:
    if target.source.per_connection or Capability.EXPORT not in facts.capabilities:
        return
    with _tolerant(), target.peer.transmitting(), target.peer.transmitting():
        facts.capabilities.add(Capability.SECOND_CONNECTION)


def _ask(target: ServerTarget, option: int, *, clear: bool = False) -> Answer | None:
    with _tolerant(), target.peer.negotiating(clear=clear) as nego:
        return nego.option(option)
    return None


def _tolerant() -> suppress:
    return suppress(Complaint, PeerViolation, NotApplicable)
