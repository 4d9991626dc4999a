"""A client for tests of the engine: it says bytes and decodes what comes back, without sockets, threads or time."""

from __future__ import annotations

from typing import Any

from nbdtest.fakeserver import Engine, Export, Journal, RuleBook, Settings
from nbdtest.fakeserver.outbox import End
from nbdtest.model import MemoryDisk
from nbdtest.wire import (
    ClientFlag,
    ClientFlags,
    Cmd,
    CmdFlag,
    ExtendedReply,
    ExtendedReplyHeader,
    ExtendedRequest,
    Info,
    InfoRequest,
    Message,
    MetaContextRequest,
    Opt,
    Option,
    OptionReply,
    OptionReplyHeader,
    Rep,
    Request,
    SimpleReply,
    StructuredReply,
    StructuredReplyHeader,
    decode_option_reply_data,
)

FIXED = ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES


class Talk:
    """One connection to an engine. `received` holds what has not been decoded yet."""

    def __init__(self, *exports: Export, size: int = 1 << 20, rules: RuleBook | None = None, **settings: Any) -> None:
        self.journal = Journal()
        self.rules = rules or RuleBook()
        self.settings = Settings(exports=exports or (Export(disk=MemoryDisk(size)),), **settings)
        self.engine = Engine(self.settings, self.rules, self.journal)
        self.received = bytearray()
        self.now = 0.0
        self.end: End | None = None
        self._cookie = 0
        self._extended = False

    @property
    def disk(self) -> MemoryDisk:
        disk = self.settings.exports[0].disk
        assert isinstance(disk, MemoryDisk)
        return disk

    @property
    def violations(self) -> list[str]:
        """The requirement ids that the client has broken, in order."""
        return [noted.violation.requirement for noted in self.journal.violations]

    def start(self) -> Talk:
        self.engine.start(self.now)
        self._collect()
        return self

    def say(self, *data: bytes | Message) -> bytes:
        """Say this in one piece, and give all that came back and was not taken before."""
        self.engine.receive(b"".join(each if isinstance(each, bytes) else each.encode() for each in data), self.now)
        self._collect()
        return bytes(self.received)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self._collect()

    def hang_up(self) -> None:
        self.engine.receive_end(self.now)
        self._collect()

    def take(self, count: int | None = None) -> bytes:
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    # The handshake.

    def greeted(self, flags: ClientFlag = FIXED) -> Talk:
        """Go through the greeting."""
        self.start()
        self.take()
        self.say(ClientFlags(flags=flags))
        return self

    def option(self, option: Opt, data: bytes | Message = b"") -> list[OptionReply]:
        """Send an option, and give the replies."""
        self.say(Option(option=option, data=data if isinstance(data, bytes) else data.encode()))
        return self.option_replies()

    def option_replies(self) -> list[OptionReply]:
        replies = []
        while len(self.received) >= OptionReplyHeader.wire_size():
            header = OptionReplyHeader.decode(self.received[: OptionReplyHeader.wire_size()])
            replies.append(OptionReply.decode(self.take(OptionReplyHeader.wire_size() + header.length)))
        return replies

    def go(self, name: str = "", *infos: Info) -> list[Message]:
        """Open an export by GO, and give what the replies say."""
        replies = self.option(Opt.GO, InfoRequest(name=name, infos=infos))
        assert replies[-1].type == Rep.ACK, replies
        return [decode_option_reply_data(reply) for reply in replies[:-1]]

    def open(self, *, structured: bool = False, extended: bool = False, contexts: tuple[str, ...] = ()) -> Talk:
        """Go through the whole handshake."""
        self.greeted()
        if structured:
            assert self.option(Opt.STRUCTURED_REPLY)[0].type == Rep.ACK
        if extended:
            assert self.option(Opt.EXTENDED_HEADERS)[0].type == Rep.ACK
            self._extended = True
        if contexts:
            self.option(Opt.SET_META_CONTEXT, MetaContextRequest(queries=contexts))
        self.go()
        return self

    # Transmission.

    def request(self, type_: Cmd, offset: int = 0, length: int = 0, *, flags: int = 0, payload: bytes = b"") -> int:
        """Send a request, and give its cookie."""
        self._cookie += 1
        if type_ == Cmd.WRITE and not length:
            length = len(payload)
        if self._extended and payload:
            flags |= CmdFlag.PAYLOAD_LEN
            length = len(payload)
        kind = ExtendedRequest if self._extended else Request
        self.say(
            kind(type=type_, cookie=self._cookie, offset=offset, length=length, flags=CmdFlag(flags)).encode() + payload
        )
        return self._cookie

    def simple(self, data: int = 0) -> tuple[SimpleReply, bytes]:
        """Take a simple reply and so much data."""
        reply = SimpleReply.decode(self.take(SimpleReply.wire_size()))
        return reply, self.take(data)

    def chunks(self) -> list[StructuredReply | ExtendedReply]:
        """Take all chunks."""
        found: list[StructuredReply | ExtendedReply] = []
        while self.received:
            if self._extended:
                wide = ExtendedReplyHeader.decode(self.received[:32])
                found.append(ExtendedReply.decode(self.take(32 + wide.length)))
            else:
                header = StructuredReplyHeader.decode(self.received[:20])
                found.append(StructuredReply.decode(self.take(20 + header.length)))
        return found

    def _collect(self) -> None:
        while pieces := self.engine.data_to_send(self.now):
            for piece in pieces:
                self.received += piece
        self.end = self.engine.end
