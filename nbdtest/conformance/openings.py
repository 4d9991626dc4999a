"""The ways in which a check opens a connection: as it comes, greeted, ready for options, in transmission, under TLS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.negotiation import Negotiation
from nbdtest.conformance.peer import Peer
from nbdtest.conformance.session import Session
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.errors import PeerViolation
from nbdtest.net.clock import monotonic_s
from nbdtest.wire import (
    CLISERV_MAGIC,
    OPTION_REPLY_MAGIC,
    ClientFlag,
    ExportName,
    ExportNameReply,
    ExportNameReplyPadded,
    GreetingStart,
    HandshakeFlag,
    Info,
    InfoBlockSize,
    NewstyleGreeting,
    OldstyleGreeting,
    Opt,
    Option,
    dump,
)

if TYPE_CHECKING:
    from nbdtest.conformance.target import ServerTarget

__all__ = ["Openings", "receive_greeting", "receive_size"]

_INFOS = (Info.EXPORT, Info.BLOCK_SIZE)


class Openings:
    """The ways in which a check opens a connection. Each is a context that ends with the connection cut."""

    def __init__(self, target: ServerTarget) -> None:
        self._target = target
        self._open: list[Peer] = []
        self._count = 0
        self.started_s = monotonic_s()

    def open(self) -> Peer:
        """Open a connection that stays open until it is closed or the check ends.

        Raises:
            TransportError: the server cannot be reached.
        """
        target = self._target
        peer = Peer(
            target.source.connect(target.timeout_s),
            target.transcript,
            number=self._count,
            started_s=self.started_s,
            timeout_s=target.timeout_s,
            quiet_s=target.quiet_s,
        )
        self._count += 1
        self._open.append(peer)
        return peer

    def close_all(self) -> None:
        """Cut every connection that is still open."""
        for peer in self._open:
            peer.close()
        self._open.clear()
        self._count = 0

    @contextmanager
    def connected(self) -> Iterator[Peer]:
        """A connection on which nothing has been exchanged; the target's greeting has not been read either."""
        peer = self.open()
        try:
            peer.preparing = False
            yield peer
        finally:
            peer.close()

    @contextmanager
    def greeted(self) -> Iterator[tuple[Peer, NewstyleGreeting | OldstyleGreeting]]:
        """A connection after the greeting; nothing has been sent."""
        peer = self.open()
        try:
            greeting = receive_greeting(peer)
            peer.preparing = False
            yield peer, greeting
        finally:
            peer.close()

    @contextmanager
    def negotiating(
        self, *, flags: int | None = None, structured: bool = False, clear: bool = False, slowly: bool = False
    ) -> Iterator[Negotiation]:
        """A handshake that is ready for options. `flags` are the client's, by default all that the server offers.

        Against a server that insists on TLS this is under TLS, unless `clear`. `structured` has structured replies
        agreed on. `slowly` sends single bytes.
        """
        peer = self.open()
        peer.slowly = slowly
        try:
            nego = self._negotiate(peer, flags)
            if not clear:
                self._protect_if_insisted_on(nego)
            if structured and not nego.option(Opt.STRUCTURED_REPLY).is_ack:
                raise NotApplicable(Capability.STRUCTURED.value)
            peer.preparing = False
            yield nego
        finally:
            peer.close()

    @contextmanager
    def transmitting(
        self,
        *,
        mode: str = "simple",
        contexts: Sequence[str] = (),
        export: str | None = None,
        infos: Sequence[int] = _INFOS,
        flags: int | None = None,
        by_export_name: bool = False,
        slowly: bool = False,
    ) -> Iterator[Session]:
        """A session in transmission: with GO, or with EXPORT_NAME if asked for or if GO is not served.

        Raises:
            NotApplicable: the server refuses the mode or the contexts.
            Complaint: the export cannot be opened.
        """
        peer = self.open()
        peer.slowly = slowly
        try:
            session = self._transmit(peer, mode, contexts, export, infos, flags, by_export_name)
            peer.preparing = False
            yield session
        finally:
            peer.close()

    def protect(self, nego: Negotiation) -> None:
        """Upgrade to TLS.

        Raises:
            NotApplicable: no credentials are known.
            Complaint: the server refuses.
        """
        source = self._target.source
        if not source.can_tls:
            raise NotApplicable(Capability.TLS_LAYER.value)
        answer = nego.option(Opt.STARTTLS)
        if not answer.is_ack:
            raise Complaint(f"OPT_STARTTLS is answered with {answer}", "an ACK", requirement="TLS-024")
        nego.peer.note(b"", "TLS handshake")
        nego.peer.stream = source.start_tls(nego.peer.stream, self._target.timeout_s)
        nego.structured = nego.extended = False
        nego.contexts = {}

    def begin_transmission(self, nego: Negotiation, name: str, infos: Sequence[int] = _INFOS) -> Session:
        """Send GO on `nego` and return the session; EXPORT_NAME if GO is not served.

        Raises:
            Complaint: it is refused, or says nothing of the export.
        """
        facts = self._target._facts
        if facts is not None and Capability.GO not in facts.capabilities:
            return self.begin_by_export_name(nego, name)
        answer = nego.go(name, infos)
        export = answer.export()
        if not answer.is_ack or export is None:
            raise Complaint(f"OPT_GO for {name!r} is answered with {answer}", "INFO_EXPORT and an ACK")
        mode = "extended" if nego.extended else "structured" if nego.structured else "simple"
        return Session(
            nego.peer,
            size=export.size,
            flags=export.flags,
            mode=mode,
            contexts=nego.contexts,
            block_size=answer.block_size(),
            unit=self._unit(answer.block_size()),
        )

    def begin_by_export_name(self, nego: Negotiation, name: str) -> Session:
        """Send EXPORT_NAME on `nego` and return the session.

        Raises:
            Complaint: it is answered with an option reply, or not at all.
        """
        nego.peer.send(Option(option=Opt.EXPORT_NAME, data=ExportName(name=name).encode()))
        agreed = ClientFlag.NO_ZEROES in nego.client_flags and HandshakeFlag.NO_ZEROES in nego.greeting.flags
        kind: type[ExportNameReply] | type[ExportNameReplyPadded]
        kind = ExportNameReply if agreed else ExportNameReplyPadded
        reply = nego.peer.receive(kind, begun=receive_size(nego.peer))
        mode = "structured" if nego.structured else "simple"
        contexts = nego.contexts
        return Session(
            nego.peer, size=reply.size, flags=reply.flags, mode=mode, contexts=contexts, unit=self._unit(None)
        )

    def _unit(self, told: InfoBlockSize | None) -> int:
        facts = self._target._facts
        known = told or (facts.block_size if facts else None)
        return max(512, known.minimum) if known else 512

    def _protect_if_insisted_on(self, nego: Negotiation) -> None:
        # TLS-021: without fixed newstyle there is no TLS, and a server may not insist on it.
        if Capability.FORCED_TLS in self._known() and ClientFlag.FIXED_NEWSTYLE in nego.client_flags:
            self.protect(nego)

    def _known(self) -> set[Capability]:
        facts = self._target._facts
        return facts.capabilities if facts else set()

    def _negotiate(self, peer: Peer, flags: int | None) -> Negotiation:
        greeting = receive_greeting(peer)
        if isinstance(greeting, OldstyleGreeting):
            raise NotApplicable(Capability.NEWSTYLE.value)
        nego = Negotiation(peer, greeting)
        nego.send_flags(ClientFlag(greeting.flags & 3 if flags is None else flags))
        return nego

    def _transmit(
        self,
        peer: Peer,
        mode: str,
        contexts: Sequence[str],
        export: str | None,
        infos: Sequence[int],
        flags: int | None,
        by_export_name: bool,
    ) -> Session:
        name = self._target.export if export is None else export
        greeting = receive_greeting(peer)
        if isinstance(greeting, OldstyleGreeting):
            if mode != "simple" or contexts or by_export_name:
                raise NotApplicable(Capability.NEWSTYLE.value)
            return Session(peer, size=greeting.size, flags=greeting.flags)
        nego = Negotiation(peer, greeting)
        nego.send_flags(ClientFlag(greeting.flags & 3 if flags is None else flags))
        self._protect_if_insisted_on(nego)
        if mode == "structured" and not nego.option(Opt.STRUCTURED_REPLY).is_ack:
            raise NotApplicable(Capability.STRUCTURED.value)
        if mode == "extended" and not nego.option(Opt.EXTENDED_HEADERS).is_ack:
            raise NotApplicable(Capability.EXTENDED.value)
        if contexts and not nego.set_meta(name, *contexts).contexts():
            raise NotApplicable(f"the server selects none of {', '.join(contexts)}")
        if by_export_name:
            return self.begin_by_export_name(nego, name)
        return self.begin_transmission(nego, name, infos)


def receive_size(peer: Peer) -> bytes:
    """Receive the first 8 bytes of the answer to EXPORT_NAME; the caller records them.

    Raises:
        Complaint: they begin an option reply, which must not be taken for the export's size.
    """
    data = peer.receive_bytes(8, wanted="the answer to OPT_EXPORT_NAME")
    if data == OPTION_REPLY_MAGIC.to_bytes(8, "big"):
        peer.note(data, "an option reply")
        raise Complaint("an option reply to OPT_EXPORT_NAME", "the size of the export", requirement="HS-014")
    return data


def receive_greeting(peer: Peer) -> NewstyleGreeting | OldstyleGreeting:
    """Receive a greeting of either style.

    Raises:
        Complaint: what came is neither.
    """
    start_bytes = peer.receive_bytes(16, wanted="a greeting")
    start = GreetingStart.decode(start_bytes)
    kind: type[NewstyleGreeting] | type[OldstyleGreeting]
    kind = OldstyleGreeting if start.style_magic == CLISERV_MAGIC else NewstyleGreeting
    try:
        data = start_bytes + peer.receive_bytes(kind.wire_size() - 16, wanted="the rest of the greeting")
        greeting = kind.decode(data)
    except PeerViolation as violation:
        peer.note(start_bytes, f"malformed: {violation}")
        raise Complaint(str(violation), "a greeting", requirement="HS-007") from None
    peer.note(data, dump(greeting))
    return greeting
