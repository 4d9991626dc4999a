"""The handshake as a tester drives it: any option with any data, and all replies to it, read without judging them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nbdtest.conformance.peer import Peer
from nbdtest.conformance.verdict import Complaint
from nbdtest.errors import PeerViolation
from nbdtest.wire import (
    ClientFlag,
    ClientFlags,
    ErrorText,
    Info,
    InfoBlockSize,
    InfoExport,
    InfoRequest,
    Message,
    MetaContext,
    MetaContextRequest,
    NewstyleGreeting,
    Opt,
    Option,
    OptionReply,
    OptionReplyHeader,
    Rep,
    dump,
)

__all__ = ["Answer", "Negotiation", "describe"]

_LONGEST_REPLY = 1 << 20
_MOST_REPLIES = 1000


def describe(reply: OptionReply) -> str:
    """Name a reply for people: its type, and the text of an error."""
    try:
        text = ErrorText.decode(reply.data).text if reply.type.is_error else ""
    except PeerViolation:
        text = ""
    return f"{reply.type} ({text[:100]})" if text else str(reply.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Everything that came in reply to one option, up to and including the final reply."""

    option: Option
    replies: tuple[OptionReply, ...]

    @property
    def final(self) -> OptionReply:
        """The reply that ended it: an ACK or an error."""
        return self.replies[-1]

    @property
    def parts(self) -> tuple[OptionReply, ...]:
        """The replies before the final one."""
        return self.replies[:-1]

    @property
    def is_ack(self) -> bool:
        """Whether the option was accepted."""
        return self.final.type == Rep.ACK

    def infos(self, info: Info) -> tuple[bytes, ...]:
        """The data of every REP_INFO of this information type, type included."""
        prefix = info.to_bytes(2, "big")
        return tuple(part.data for part in self.parts if part.type == Rep.INFO and part.data[:2] == prefix)

    def export(self) -> InfoExport | None:
        """The first INFO_EXPORT that is long enough."""
        return next((InfoExport.decode(data[:12]) for data in self.infos(Info.EXPORT) if len(data) >= 12), None)

    def block_size(self) -> InfoBlockSize | None:
        """The first INFO_BLOCK_SIZE that is long enough."""
        return next((InfoBlockSize.decode(data[:14]) for data in self.infos(Info.BLOCK_SIZE) if len(data) >= 14), None)

    def contexts(self) -> dict[str, int]:
        """Name and id of every well-formed REP_META_CONTEXT."""
        found = {}
        for part in self.parts:
            if part.type == Rep.META_CONTEXT and len(part.data) >= 4:
                context = MetaContext.decode(part.data)
                found[context.name] = context.id
        return found

    def __str__(self) -> str:
        return ", ".join(describe(reply) for reply in self.replies)


class Negotiation:
    """A newstyle handshake after the greeting. Nothing is sent but what the check asks for."""

    def __init__(self, peer: Peer, greeting: NewstyleGreeting) -> None:
        self.peer = peer
        self.greeting = greeting
        self.client_flags = ClientFlag(0)
        self.structured = False
        self.extended = False
        self.contexts: dict[str, int] = {}

    def send_flags(self, flags: ClientFlag) -> None:
        """Send the client flags."""
        self.client_flags = flags
        self.peer.send(ClientFlags(flags=flags))

    def send_option(self, option: int, data: bytes | Message = b"", **overrides: int | bytes) -> Option:
        """Send an option without waiting; `overrides` writes fields of its header otherwise (`length=`, `magic=`)."""
        sent = Option(option=Opt(option), data=data if isinstance(data, bytes) else data.encode())
        if overrides:
            changed = ", ".join(f"{name}={value!r:.40}" for name, value in overrides.items())
            self.peer.send(sent.encode(**overrides), summary=f"{dump(sent)} with {changed}")
        else:
            self.peer.send(sent)
        return sent

    def receive_reply(self) -> OptionReply:
        """Receive one option reply, whatever it says.

        Raises:
            Complaint: no option reply came, or one that is absurdly long.
        """
        head = self.peer.receive_bytes(OptionReplyHeader.wire_size(), wanted="an option reply")
        try:
            header = OptionReplyHeader.decode(head)
        except PeerViolation as violation:
            self.peer.note(head, f"malformed: {violation}")
            raise Complaint(str(violation), "an option reply", requirement="OPT-011") from None
        if header.length > _LONGEST_REPLY:
            self.peer.note(head, dump(header))
            raise Complaint(f"an option reply of {header.length} bytes", f"at most {_LONGEST_REPLY}")
        try:
            data = self.peer.receive_bytes(header.length, wanted="the data of the reply") if header.length else b""
        except Complaint:
            self.peer.note(head, dump(header))
            raise
        reply = OptionReply(option=header.option, type=header.type, data=data)
        self.peer.note(head + data, dump(reply))
        return reply

    def receive_answer(self, option: Option) -> Answer:
        """Receive the replies to `option` up to the final one, which is an ACK or an error."""
        replies: list[OptionReply] = []
        while not replies or not (replies[-1].type == Rep.ACK or replies[-1].type.is_error):
            if len(replies) == _MOST_REPLIES:
                raise Complaint(f"{_MOST_REPLIES} replies to one option", "a final reply", requirement="OPT-018")
            replies.append(self.receive_reply())
        answer = Answer(option=option, replies=tuple(replies))
        self._follow(answer)
        return answer

    def option(self, option: int, data: bytes | Message = b"", **overrides: int | bytes) -> Answer:
        """Send an option and receive its answer."""
        return self.receive_answer(self.send_option(option, data, **overrides))

    def info(self, name: str, infos: Sequence[int] = (), *, option: Opt = Opt.INFO) -> Answer:
        """Ask about an export."""
        return self.option(option, InfoRequest(name=name, infos=tuple(Info(info) for info in infos)))

    def go(self, name: str, infos: Sequence[int] = ()) -> Answer:
        """Ask for transmission with an export; a `session` can begin if the answer is an ACK."""
        return self.info(name, infos, option=Opt.GO)

    def set_meta(self, name: str, *queries: str) -> Answer:
        """Select metadata contexts of an export."""
        return self.option(Opt.SET_META_CONTEXT, MetaContextRequest(name=name, queries=queries))

    def list_meta(self, name: str, *queries: str) -> Answer:
        """List metadata contexts of an export."""
        return self.option(Opt.LIST_META_CONTEXT, MetaContextRequest(name=name, queries=queries))

    def _follow(self, answer: Answer) -> None:
        """Keep what the answer agreed on, so that a session reads replies as they were negotiated."""
        match answer.option.option:
            case Opt.STRUCTURED_REPLY if answer.is_ack:
                self.structured = True
            case Opt.EXTENDED_HEADERS if answer.is_ack:
                self.extended = True
            case Opt.SET_META_CONTEXT:
                self.contexts = answer.contexts() if answer.is_ack else {}
