"""From actions to messages: how the same answer is framed by what was negotiated. Pure.

Actions that are about time or the connection pass through unchanged; the engine carries them out.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from nbdtest.errors import UsageError
from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.damage import Mangle
from nbdtest.fakeserver.export import Export, Settings, Style
from nbdtest.fakeserver.outgoing import Outgoing
from nbdtest.model import Disk, DiskError, MemoryDisk
from nbdtest.wire import (
    BlockStatus,
    BlockStatusExt,
    Cmd,
    CmdFlag,
    Errno,
    ErrorChunk,
    ErrorOffset,
    ErrorText,
    ExportNameReply,
    ExportNameReplyPadded,
    ExtendedReply,
    ExtendedReplyHeader,
    HandshakeFlag,
    InfoBlockSize,
    InfoDescription,
    InfoExport,
    InfoName,
    InfoOther,
    Message,
    MetaContext,
    NewstyleGreeting,
    OffsetHole,
    OldstyleGreeting,
    Opt,
    OptionReply,
    Rep,
    ReplyFlag,
    ReplyType,
    ServerExport,
    SimpleReply,
    StructuredReply,
    StructuredReplyHeader,
    TransmissionFlag,
)
from nbdtest.wire.layout import Readable
from nbdtest.wire.limits import MAXIMUM_STRING

__all__ = ["Asked", "Frames", "Reply", "handshake_flags", "render_greeting", "render_option_reply"]

_NO_FLAGS = CmdFlag(0)
_CONTENT = (actions.Data, actions.Hole)
_CHUNKS = (*_CONTENT, actions.Error, actions.Status, actions.NoData, actions.Chunk)


class Frames(enum.Enum):
    """How replies are framed."""

    SIMPLE = "simple"
    STRUCTURED = "structured"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request and what its answer depends on. `length` is that of the effect, also for a payload-filtered request."""

    type: Cmd
    cookie: int
    offset: int = 0
    length: int = 0
    flags: CmdFlag = _NO_FLAGS
    payload: Readable = b""
    frames: Frames = Frames.SIMPLE
    contexts: Mapping[str, int] = field(default_factory=dict)
    """The selected contexts and their ids."""
    wanted: tuple[int, ...] | None = None
    """The ids that a payload-filtered BLOCK_STATUS asks for."""
    export: str = ""
    """The name of the export that is served."""


class Reply:
    """Renders the plan of one reply, action by action, so that what is sent late is read late."""

    __slots__ = ("_asked", "_disk", "_failure", "_last", "_plan", "_started")

    def __init__(self, plan: Plan, asked: Asked, disk: Disk, *, complete: bool = True) -> None:
        """`complete` says that the last chunk gets DONE, unless one of the actions says when."""
        self._plan = plan
        self._asked = asked
        self._disk = disk
        self._started = False
        bare = [_bare(action) for action in plan]
        self._failure = next((action for action in bare if isinstance(action, actions.Error)), None)
        explicit = any(_says_when_done(action) for action in bare)
        chunks = [at for at, action in enumerate(bare) if isinstance(action, _CHUNKS)]
        self._last = chunks[-1] if chunks and complete and not explicit else -1

    def steps(self) -> Iterator[Outgoing | Action]:
        """Give messages, and the actions that are not messages, in order."""
        for at, action in enumerate(self._plan):
            bare = self._readable(_bare(action))
            for step in self._render(bare, done=at == self._last):
                yield _with_damage(action, step) if isinstance(step, Outgoing) else step

    def _readable(self, action: Action) -> Action:
        """Read from a disk that may fail, before anything is said: data, or the error in their place."""
        if not isinstance(action, actions.Data) or action.content is not None or isinstance(self._disk, MemoryDisk):
            return action
        try:
            return replace(action, content=b"".join(self._content(action)))
        except DiskError as error:
            failure = actions.Error(error.errno, at=error.offset, message=error.text, done=action.done)
            self._failure = self._failure or failure
            return failure

    def _render(self, action: Action, *, done: bool) -> Iterator[Outgoing | Action]:
        match action:
            case actions.Raw(data=data):
                yield Outgoing(tail=(data,))
            case actions.Simple(errno=errno, content=content, cookie=cookie):
                reply = SimpleReply(error=errno, cookie=self._asked.cookie if cookie is None else cookie)
                yield Outgoing(message=reply, tail=(content,) if content else ())
            case actions.Data() | actions.Hole() | actions.Error() | actions.NoData() if (
                self._asked.frames is Frames.SIMPLE
            ):
                yield from self._simple(action)
            case _ if isinstance(action, _CHUNKS):
                yield self._chunk(action, done)
            case _:
                yield action

    def _simple(self, action: Action) -> Iterator[Outgoing]:
        """A simple reply is one header and the bytes; an error anywhere in the plan makes it an error reply.

        RPL-016, CMD-013: no data after an error.
        """
        tail: list[Readable] = []
        if self._failure is None:
            match action:
                case actions.Data():
                    tail = self._content(action)
                case actions.Hole(length=length):
                    tail = [bytes(self._asked.length if length is None else length)]
        if not self._started:
            self._started = True
            errno = self._failure.errno if self._failure is not None else Errno.OK
            yield Outgoing(message=SimpleReply(error=errno, cookie=self._asked.cookie), tail=tail)
        elif tail:
            yield Outgoing(tail=tail)

    def _chunk(self, action: Action, done: bool) -> Outgoing:
        flags = ReplyFlag.DONE if done else ReplyFlag(0)
        match action:
            case actions.Chunk(type=type_, payload=payload):
                return self._framed(flags if action.flags is None else action.flags, type_, payload)
            case actions.Data():
                flags = _flags(action.done, flags)
                content = self._content(action)
                at = self._asked.offset if action.at is None else action.at
                return self._bulk(flags, at, content)
            case actions.Hole(at=at_, length=length):
                hole = OffsetHole(
                    offset=self._asked.offset if at_ is None else at_,
                    length=self._asked.length if length is None else length,
                )
                return self._framed(_flags(action.done, flags), ReplyType.OFFSET_HOLE, hole.encode())
            case actions.Error(errno=errno, at=None, message=message):
                chunk = ErrorChunk(error=errno, message=message)
                return self._framed(_flags(action.done, flags), ReplyType.ERROR, chunk.encode())
            case actions.Error(errno=errno, at=int(at_), message=message):
                placed = ErrorOffset(error=errno, message=message, offset=at_)
                return self._framed(_flags(action.done, flags), ReplyType.ERROR_OFFSET, placed.encode())
            case actions.Status(context=context, extents=extents):
                id_ = self._asked.contexts.get(context, 0) if isinstance(context, str) else context
                flags = _flags(action.done, flags)
                if self._asked.frames is Frames.EXTENDED:
                    wide = BlockStatusExt(context_id=id_, extents=extents)
                    return self._framed(flags, ReplyType.BLOCK_STATUS_EXT, wide.encode())
                return self._framed(
                    flags, ReplyType.BLOCK_STATUS, BlockStatus(context_id=id_, extents=extents).encode()
                )
            case actions.NoData():
                return self._framed(_flags(action.done, flags), ReplyType.NONE, b"")
        raise UsageError(f"{action!r} is no chunk")

    def _framed(self, flags: ReplyFlag, type_: ReplyType, payload: bytes) -> Outgoing:
        cookie = self._asked.cookie
        if self._asked.frames is Frames.EXTENDED:
            return Outgoing(
                message=ExtendedReply(
                    flags=flags, type=type_, cookie=cookie, offset=self._asked.offset, payload=payload
                )
            )
        return Outgoing(message=StructuredReply(flags=flags, type=type_, cookie=cookie, payload=payload))

    def _bulk(self, flags: ReplyFlag, at: int, content: list[Readable]) -> Outgoing:
        length = 8 + sum(len(piece) for piece in content)
        type_, cookie = ReplyType.OFFSET_DATA, self._asked.cookie
        if self._asked.frames is Frames.EXTENDED:
            header: Message = ExtendedReplyHeader(
                flags=flags, type=type_, cookie=cookie, offset=self._asked.offset, length=length
            )
        else:
            header = StructuredReplyHeader(flags=flags, type=type_, cookie=cookie, length=length)
        return Outgoing(message=header, tail=(at.to_bytes(8, "big"), *content))

    def _content(self, action: actions.Data) -> list[Readable]:
        if action.content is not None:
            return [action.content]
        at = self._asked.offset if action.at is None else action.at
        end = self._asked.offset + self._asked.length
        length = max(end - at, 0) if action.length is None else action.length
        # What a rule wants from beyond the end is zeroes.
        inside = max(min(length, self._disk.size - at), 0)
        pieces: list[Readable] = []
        if inside:
            if isinstance(self._disk, MemoryDisk):
                pieces.extend(self._disk.pieces(at, inside))
            else:
                pieces.append(self._disk.read(at, inside))
        if length > inside:
            pieces.append(bytes(length - inside))
        return pieces


def handshake_flags(settings: Settings) -> HandshakeFlag:
    """The flags of a correct newstyle greeting."""
    flags = HandshakeFlag.FIXED_NEWSTYLE if settings.style is Style.FIXED else HandshakeFlag(0)
    return flags | HandshakeFlag.NO_ZEROES if settings.no_zeroes else flags


def render_greeting(action: Action, settings: Settings) -> Outgoing | Action:
    """Make the greeting, or give the action back if it is no message."""
    bare = _bare(action)
    made: Message
    match bare:
        case actions.Greeting(flags=flags):
            made = NewstyleGreeting(flags=handshake_flags(settings) if flags is None else flags)
        case actions.OldstyleGreeting(size=size, flags=transmission):
            export = settings.find("")
            offered = TransmissionFlag(0)
            if export is not None:
                offered = export.transmission_flags(structured=False, extended=False, contexts_selected=False)
            made = OldstyleGreeting(
                size=(export.disk.size if export is not None else 0) if size is None else size,
                flags=offered if transmission is None else transmission,
            )
        case actions.Raw(data=data):
            return _with_damage(action, Outgoing(tail=(data,)))
        case _:
            return bare
    return _with_damage(action, Outgoing(message=made))


def render_option_reply(
    action: Action, option: Opt, export: Export | None, flags: TransmissionFlag
) -> Outgoing | Action:
    """Make one reply to `option`, or give the action back if it is no message.

    `export` is what the option is about, with its transmission `flags` in this session.
    """
    bare = _bare(action)
    size = export.disk.size if export is not None else 0
    limits = export.limits if export is not None else None
    body: Message
    match bare:
        case actions.Raw(data=data):
            return _with_damage(action, Outgoing(tail=(data,)))
        case actions.ExportReply():
            kind = ExportNameReplyPadded if bare.padded else ExportNameReply
            answer = kind(
                size=size if bare.size is None else bare.size, flags=flags if bare.flags is None else bare.flags
            )
            return _with_damage(action, Outgoing(message=answer))
        case actions.OptReply():
            type_, echoed = bare.type, option if bare.option is None else bare.option
            return _with_damage(action, Outgoing(message=OptionReply(option=echoed, type=type_, data=bare.data)))
        case actions.Ack():
            return _with_damage(action, Outgoing(message=OptionReply(option=option, type=Rep.ACK)))
        case actions.OptError(type=type_, text=text):
            # CONV-006: no string is longer than 4096 bytes, also not one that quotes the client.
            return _with_damage(
                action,
                Outgoing(
                    message=OptionReply(option=option, type=type_, data=ErrorText(text=text).encode()[:MAXIMUM_STRING])
                ),
            )
        case actions.InfoExport():
            type_ = Rep.INFO
            body = InfoExport(
                size=size if bare.size is None else bare.size, flags=flags if bare.flags is None else bare.flags
            )
        case actions.InfoName(name=name):
            type_ = Rep.INFO
            body = InfoName(name=_canonical(export) if name is None else name)
        case actions.InfoDescription(description=text_):
            type_ = Rep.INFO
            body = InfoDescription(description=(export.description if export else "") if text_ is None else text_)
        case actions.InfoBlockSize(minimum=minimum, preferred=preferred, maximum=maximum):
            type_ = Rep.INFO
            body = InfoBlockSize(
                minimum=(limits.minimum if limits else 1) if minimum is None else minimum,
                preferred=(limits.preferred if limits else 4096) if preferred is None else preferred,
                maximum=(limits.maximum if limits else 32 << 20) if maximum is None else maximum,
            )
        case actions.InfoOther(info=info, data=data):
            type_, body = Rep.INFO, InfoOther(info=info, data=data)
        case actions.ServerExport(name=listed, description=description):
            type_, body = Rep.SERVER, ServerExport(name=listed, description=description)
        case actions.MetaContext(name=context, id=id_):
            type_, body = Rep.META_CONTEXT, MetaContext(id=id_, name=context)
        case _:
            return bare
    return _with_damage(action, Outgoing(message=OptionReply(option=option, type=type_, data=body.encode())))


def _canonical(export: Export | None) -> str:
    if export is None:
        return ""
    return export.name if export.canonical_name is None else export.canonical_name


def _with_damage(action: Action, made: Outgoing) -> Outgoing:
    damage = _damage(action)
    return replace(made, damage=damage) if damage else made


def _damage(action: Action) -> tuple[Mangle, ...]:
    """All damage around an action, the innermost first."""
    found: list[Mangle] = []
    while isinstance(action, Mangle):
        found.insert(0, action)
        action = action.of
    return tuple(found)


def _bare(action: Action) -> Action:
    while isinstance(action, Mangle):
        action = action.of
    return action


def _flags(done: bool | None, default: ReplyFlag) -> ReplyFlag:
    if done is None:
        return default
    return ReplyFlag.DONE if done else ReplyFlag(0)


def _says_when_done(action: Action) -> bool:
    return getattr(action, "done", None) is not None or getattr(action, "flags", None) is not None
