"""From a script to the bytes that its client sends, and back: what a mutator changes, and what becomes of that.

Bytes that still are a session as any client may hold it become one whose every answer is judged. Of all others only
the server's survival is asked.
"""

from __future__ import annotations

from collections.abc import Iterator

from nbdtest.errors import PeerViolation
from nbdtest.fuzz.commands import MOST_PAYLOAD, Command
from nbdtest.fuzz.etiquette import may_be_left
from nbdtest.fuzz.ground import CHANGING, WITHOUT_RANGE, Ground
from nbdtest.fuzz.script import Hostile, Leave, Mode, Opening, Script, Send, Step, Way
from nbdtest.wire import (
    ClientFlag,
    ClientFlags,
    Cmd,
    CmdFlag,
    ExportName,
    ExtendedRequest,
    InfoRequest,
    MetaContextRequest,
    Opt,
    Option,
    OptionHeader,
    Request,
    decode_option_data,
)

__all__ = ["messages_of", "script_of"]

_NO_OPTION_BEFORE_OTHERS = (Opt.EXPORT_NAME, Opt.ABORT, Opt.GO, Opt.STARTTLS)
_FIRST_COOKIE = 1


def messages_of(script: Script, export: str) -> list[bytes]:
    """Return what the first client of `script` sends, message by message, from the client flags on."""
    visitors = [step.data for step in script.steps if isinstance(step, Hostile) and step.early]
    if visitors:
        return visitors[:1]
    opening = script.openings[0]
    flags = ClientFlag.FIXED_NEWSTYLE if opening.padded else ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES
    messages = [ClientFlags(flags=flags).encode()]
    options = list(_options_of(opening, export))
    messages += [option.encode() for option in options]
    extended = any(option.option == Opt.EXTENDED_HEADERS for option in options)
    cookie = _FIRST_COOKIE
    for step in script.steps:
        if step.on:
            continue
        match step:
            case Send(commands=commands):
                for command in commands:
                    messages.append(command.encode(cookie, extended=extended))
                    cookie += 1
            case Hostile(data=data):
                messages.append(data)
            case Leave(way=Way.DISC):
                messages.append(Command(type=Cmd.DISC).encode(cookie, extended=extended))
    return messages


def script_of(stream: bytes, ground: Ground, export: str) -> Script | None:
    """Make the session of a client that sends these bytes after the greeting.

    None if they could change a disk that is not to be changed.
    """
    try:
        return _legal(stream, ground, export)
    except PeerViolation:
        if not ground.takes_writes:
            return None
        return Script(steps=(Hostile(data=stream, early=True), Send()))


def _options_of(opening: Opening, export: str) -> Iterator[Option]:
    yield from opening.options
    if opening.mode is not Mode.SIMPLE:
        yield Option(option=Opt.EXTENDED_HEADERS if opening.mode is Mode.EXTENDED else Opt.STRUCTURED_REPLY)
    if opening.contexts:
        request = MetaContextRequest(name=export, queries=("base:allocation",))
        yield Option(option=Opt.SET_META_CONTEXT, data=request.encode())
    if opening.by_export_name:
        yield Option(option=Opt.EXPORT_NAME, data=ExportName(name=export).encode())
    else:
        yield Option(option=Opt.GO, data=InfoRequest(name=export).encode())


def _legal(stream: bytes, ground: Ground, export: str) -> Script:
    """Read a session that can be judged.

    Raises:
        PeerViolation: it breaks a rule, or its replies could not be told apart.
    """
    flags = ClientFlags.decode(stream[:4]).flags
    if flags | ClientFlag.NO_ZEROES != ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES:
        raise PeerViolation(f"client flags {flags!r}")
    at = 4
    options: list[Option] = []
    while not options or options[-1].option not in (Opt.GO, Opt.EXPORT_NAME):
        header = OptionHeader.decode(stream[at : at + 16])
        at += 16 + header.length
        if at > len(stream):
            raise PeerViolation("an option ends too early")
        options.append(Option(option=header.option, data=stream[at - header.length : at]))
    last = options.pop()
    opened = decode_option_data(last)
    if not isinstance(opened, ExportName | InfoRequest) or opened.name != export:
        raise PeerViolation(f"{last!r} opens another export")
    if any(option.option in _NO_OPTION_BEFORE_OTHERS or may_be_left(option) for option in options):
        raise PeerViolation("an option that ends the handshake, or breaks a rule")
    by_name = last.option == Opt.EXPORT_NAME
    agreed = [option.option for option in options]
    if Opt.SET_META_CONTEXT in agreed and agreed[0] not in (Opt.STRUCTURED_REPLY, Opt.EXTENDED_HEADERS):
        raise PeerViolation("contexts are selected before it is certain that they can be")
    # What the server makes of a request for both is its own affair: then nobody knows how long a request is.
    if Opt.EXTENDED_HEADERS in agreed and (by_name or Opt.STRUCTURED_REPLY in agreed):
        raise PeerViolation("no telling what has been agreed on")
    if Opt.EXTENDED_HEADERS in agreed and Mode.EXTENDED not in ground.modes:
        raise PeerViolation("extended headers are not served")
    opening = Opening(by_export_name=by_name, padded=not flags & ClientFlag.NO_ZEROES, options=tuple(options))
    steps = tuple(_steps(stream[at:], ground, extended=Opt.EXTENDED_HEADERS in agreed))
    return Script(openings=(opening,), steps=steps)


def _steps(data: bytes, ground: Ground, *, extended: bool) -> Iterator[Step]:
    commands: list[Command] = []
    at, left = 0, False
    kind: type[Request] | type[ExtendedRequest] = ExtendedRequest if extended else Request
    while at < len(data):
        request = kind.decode(data[at : at + kind.wire_size()])
        at += kind.wire_size()
        command = _command(request, data[at : at + 1], ground)
        if command.type == Cmd.WRITE:
            at += command.length
        if at > len(data) or left:
            raise PeerViolation("a payload ends too early, or something follows DISC")
        left = command.type == Cmd.DISC
        if not left:
            commands.append(command)
    yield Send(commands=tuple(commands))
    if left:
        yield Leave(way=Way.DISC)


def _command(request: Request | ExtendedRequest, payload: bytes, ground: Ground) -> Command:
    """The command of which this is the request; a WRITE's payload is the pattern that begins with its first byte."""
    flags = request.flags
    if request.type == Cmd.WRITE:
        flags = CmdFlag(flags & ~CmdFlag.PAYLOAD_LEN)
    if flags & CmdFlag.PAYLOAD_LEN:
        raise PeerViolation("a payload where none belongs")
    if request.type in WITHOUT_RANGE and (request.offset or request.length):
        raise PeerViolation("a range where none belongs")
    if request.type in (Cmd.READ, Cmd.WRITE) and request.length > MOST_PAYLOAD:
        raise PeerViolation("more than is worth judging")
    if request.type in CHANGING and not ground.takes_writes:
        raise PeerViolation("it would change the disk")
    seed = payload[0] if request.type == Cmd.WRITE and payload else 0
    return Command(type=request.type, flags=flags, offset=request.offset, length=request.length, seed=seed)
