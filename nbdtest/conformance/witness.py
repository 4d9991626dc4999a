"""A fake server's journal that also keeps, connection by connection, what the client sent as typed messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from nbdtest.fakeserver import Journal
from nbdtest.fakeserver.outgoing import Outgoing
from nbdtest.wire import (
    ClientFlag,
    ClientFlags,
    Cmd,
    ExtendedReply,
    ExtendedReplyHeader,
    ExtendedRequest,
    Message,
    Opt,
    Option,
    OptionHeader,
    Readable,
    Request,
    SimpleReply,
    StructuredReply,
    StructuredReplyHeader,
)

__all__ = ["AnyRequest", "Talk", "Witness"]

AnyRequest: TypeAlias = Request | ExtendedRequest
_Reply = (SimpleReply, StructuredReply, StructuredReplyHeader, ExtendedReply, ExtendedReplyHeader)


@dataclass(slots=True)
class Talk:
    """What a client said on one connection."""

    number: int
    flags: ClientFlag | None = None
    options: list[Option] = field(default_factory=list)
    requests: list[AnyRequest] = field(default_factory=list)
    order: list[tuple[str, int]] = field(default_factory=list)
    """("request", cookie) and ("reply", cookie) in the order in which they came and went; for each chunk a reply."""
    received_bytes: int = 0
    ended: bool = False
    """Whether the client ended the connection, and not the server."""

    @property
    def last_option(self) -> Opt | None:
        """The number of the last option, None if there was none."""
        return self.options[-1].option if self.options else None

    @property
    def disconnected(self) -> bool:
        """Whether the client took its leave: with CMD_DISC, or with OPT_ABORT before transmission."""
        if self.requests:
            return self.requests[-1].type == Cmd.DISC
        return self.last_option == Opt.ABORT

    def sent(self, what: Opt | Cmd) -> bool:
        """Whether the client sent this option or command."""
        if isinstance(what, Opt):
            return any(option.option == what for option in self.options)
        return any(request.type == what for request in self.requests)


class Witness(Journal):
    """The journal of one run of a client."""

    def __init__(self, began: float) -> None:
        super().__init__(began=began)
        self.talks: dict[int, Talk] = {}

    def talk(self, connection: int) -> Talk:
        """The talk on a connection, from the first mention of it."""
        return self.talks.setdefault(connection, Talk(connection))

    def received(self, connection: int, now: float, data: Readable, message: Message | str) -> None:
        """Take down a message of the client."""
        super().received(connection, now, data, message)
        talk = self.talk(connection)
        talk.received_bytes += len(data)
        match message:
            case ClientFlags(flags=flags):
                talk.flags = flags
            case Option():
                talk.options.append(message)
            case OptionHeader(option=option):
                talk.options.append(Option(option=option))
            case Request() | ExtendedRequest():
                talk.requests.append(message)
                talk.order.append(("request", message.cookie))

    def sent(self, connection: int, now: float, pieces: Sequence[Readable], outgoing: Outgoing) -> None:
        """Take down what is put on its way."""
        super().sent(connection, now, pieces, outgoing)
        if pieces and isinstance(outgoing.message, _Reply):
            self.talk(connection).order.append(("reply", outgoing.message.cookie))

    def exchange(
        self, connection: int, now: float, request: bytes, reply: bytes, kinds: tuple[type[Message], type[Message]]
    ) -> None:
        """Take down an ordinary request and its reply."""
        super().exchange(connection, now, request, reply, kinds)
        talk = self.talk(connection)
        talk.received_bytes += len(request)
        decoded = kinds[0].decode(request[: kinds[0].wire_size()])
        assert isinstance(decoded, Request | ExtendedRequest)
        talk.requests.append(decoded)
        talk.order += [("request", decoded.cookie), ("reply", decoded.cookie)]

    def event(self, connection: int, now: float, text: str, *, by_client: bool = False) -> None:
        """Take down something that is not bytes."""
        super().event(connection, now, text, by_client=by_client)
        self.talk(connection).ended |= by_client
