"""What a client said, connection by connection, as typed messages read back from a transcript. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from nbdtest.wire import (
    EXTENDED_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ClientFlag,
    ClientFlags,
    Cmd,
    ExtendedRequest,
    Opt,
    Option,
    OptionHeader,
    Record,
    Request,
    Sender,
    Transcript,
)

__all__ = ["AnyRequest", "Talk", "talks_in"]

AnyRequest: TypeAlias = Request | ExtendedRequest
_REPLIES = {magic.to_bytes(4, "big") for magic in (SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, EXTENDED_REPLY_MAGIC)}
_COOKIE = slice(8, 16)
"""Where the cookie stands in a reply of any form."""


@dataclass(slots=True)
class Talk:
    """What a client said on one connection."""

    number: int
    flags: ClientFlag | None = None
    options: list[Option] = field(default_factory=list)
    """Of an option that is too long to be kept in a transcript, the number alone."""
    requests: list[AnyRequest] = field(default_factory=list)
    order: list[tuple[str, int]] = field(default_factory=list)
    """("request", cookie) and ("reply", cookie) in the order in which they came and went; for each chunk a reply."""

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

    def take(self, record: Record) -> None:
        """Take in the next record of the connection."""
        data = record.data
        if record.sender is Sender.SERVER:
            if data[:4] in _REPLIES and len(data) >= _COOKIE.stop:
                self.order.append(("reply", int.from_bytes(data[_COOKIE], "big")))
            return
        match record.summary.partition(" ")[0]:
            case ClientFlags.__name__:
                self.flags = ClientFlags.decode(data).flags
            case Option.__name__ | OptionHeader.__name__:
                header = OptionHeader.decode(data[: OptionHeader.wire_size()])
                kept = data[OptionHeader.wire_size() :]
                self.options.append(Option(option=header.option, data=kept if len(kept) == header.length else b""))
            case Request.__name__ | ExtendedRequest.__name__ as name:
                kind = Request if name == Request.__name__ else ExtendedRequest
                request = kind.decode(data[: kind.wire_size()])
                self.requests.append(request)
                self.order.append(("request", request.cookie))


def talks_in(transcript: Transcript) -> tuple[Talk, ...]:
    """Read what was said on each connection, in the order in which they were made."""
    talks: dict[int, Talk] = {}
    for record in transcript:
        talks.setdefault(record.connection, Talk(record.connection)).take(record)
    return tuple(talks.values())
