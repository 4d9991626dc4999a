"""From bytes to scripts: any byte string is a session, and a shorter or smaller one is a simpler session.

Both generators end here: Hypothesis, which shrinks the bytes, and a seeded source of random bytes for long runs. The
bytes of one command have a fixed length, so taking one out leaves the others as they were.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

from nbdtest.fuzz.commands import PERIOD, Command
from nbdtest.fuzz.ground import Ground
from nbdtest.fuzz.script import Hostile, Leave, Mode, Opening, Script, Send, Step, Way
from nbdtest.wire import (
    ClientFlags,
    Cmd,
    Info,
    InfoRequest,
    MetaContextRequest,
    Opt,
    Option,
    Request,
    TransmissionFlag,
)
from nbdtest.wire.mangle import flip
from nbdtest.wire.numbers import CmdFlag

__all__ = ["COMMAND_BYTES", "HEAD_BYTES", "commands_from", "script_from"]

_COMMAND = struct.Struct(">BBBBHH")
COMMAND_BYTES = _COMMAND.size
_ILLEGAL_FROM = 0xF0
"""First bytes of a command from here on stand for illegal ones."""
HEAD_BYTES = 8
"""What precedes the commands: modes, connections, options and the end."""

_DICTIONARY = (
    *(1 << bit for bit in (9, 12, 15, 16, 20, 25, 26, 31, 32, 33, 62, 63)),
    (1 << 15) - 1,
    (1 << 31) - 1,
    (1 << 32) - 1,
    (1 << 63) - 1,
    (1 << 64) - 512,
    (1 << 64) - 1,
)
"""Numbers at which arithmetic goes wrong."""
_UNKNOWN = tuple(Cmd(number) for number in (0x63, 0x7FFF, 0xFFFF, 9, 0x100, Cmd.RESIZE))


def script_from(data: bytes, ground: Ground) -> Script:
    """Decode a session for an export like `ground`."""
    head = data[:HEAD_BYTES].ljust(HEAD_BYTES, b"\0")
    count = 1 if head[0] < 0xC0 else 2 + head[0] % 2
    if ~ground.flags & (TransmissionFlag.CAN_MULTI_CONN | TransmissionFlag.SEND_FLUSH):
        count = 1
    openings = tuple(_opening(head[1 + number], head[4], ground) for number in range(count))
    steps: list[Step] = []
    commands = commands_from(data[HEAD_BYTES:], ground)
    if count == 1:
        steps.append(Send(commands=tuple(commands)))
    else:
        taken = tuple(commands)
        for number, start in enumerate(range(0, len(taken), 16)):
            steps.append(Send(on=number % count, commands=taken[start : start + 16]))
    if head[5] >= 0xF0:
        steps.append(Hostile(data=_hostile(head[6], head[7])))
    elif head[5] >= 0xE0:
        openings += (Opening(),)
        steps.insert(head[6] % 2, Hostile(on=count, data=_hostile_handshake(head[6], head[7]), early=True))
    elif head[5] >= 0x80:
        steps.append(Leave(way=tuple(Way)[head[6] % len(Way)]))
    return Script(openings=openings, steps=tuple(steps))


def _opening(choice: int, options: int, ground: Ground) -> Opening:
    mode = ground.modes[-1 - choice % len(ground.modes)]
    by_name = ground.by_export_name and mode is not Mode.EXTENDED and choice >= 0xF0
    return Opening(
        mode=mode,
        contexts=ground.contexts and mode is not Mode.SIMPLE and not choice & 0x10,
        by_export_name=by_name,
        options=tuple(_options(options)) if options >= 0xC0 else (),
    )


def _options(choice: int) -> Iterator[Option]:
    """A few options that have no right answer but leave the handshake in step."""
    kinds = (
        Option(option=Opt(0x7FFF_0000 + choice), data=b"x" * (choice % 64)),
        Option(option=Opt.INFO, data=InfoRequest(name="", infos=(Info.NAME, Info.BLOCK_SIZE, Info(99))).encode()),
        Option(option=Opt.LIST),
        Option(option=Opt.LIST_META_CONTEXT, data=MetaContextRequest(name="", queries=("base:", "x-y:")).encode()),
        Option(option=Opt.INFO, data=InfoRequest(name="no-such-export").encode() + b"\0"),
        Option(option=Opt.PEEK_EXPORT, data=bytes(choice % 8)),
        Option(option=Opt.SET_META_CONTEXT, data=MetaContextRequest(name="", queries=()).encode()),
        Option(option=Opt.INFO, data=InfoRequest(name="").encode()),
        Option(option=Opt.INFO, data=InfoRequest(name="n" * (256 + 240 * (choice % 17))).encode()),
    )
    yield kinds[choice % 9]
    if choice & 8:
        yield kinds[(choice >> 1) % 9]


def _hostile(choice: int, extra: int) -> bytes:
    """A request with one bit wrong, or the beginning of one."""
    request = Request(type=Cmd.READ, cookie=1, offset=0, length=512).encode()
    if choice < 0x40:
        return request[: 1 + extra % 27]
    if choice < 0xC0:
        return flip(request, (choice * 256 + extra) % 32)  # in the magic: there is no telling what it means
    return bytes([choice, extra]) * 14


def _hostile_handshake(choice: int, extra: int) -> bytes:
    """Client flags and an option that lies about lengths or ends too early."""
    flags = ClientFlags().encode()
    number = (Opt.GO, Opt.INFO, Opt.EXPORT_NAME, Opt.SET_META_CONTEXT, Opt.LIST, Opt(0x63))[choice % 6]
    request = InfoRequest(name="n" * (extra * 17)).encode()
    lie = (0xFFFF_FFFF, 0xFFFF_FFFC, 1 << 31, 32 << 20, extra, len(request) + 1)[(choice >> 3) % 6]
    whole = Option(option=number, data=request)
    if choice < 0x50:
        return flags + whole.encode(length=lie)
    if choice < 0xA0:
        inner = InfoRequest(name="n" * (extra * 5)).encode(name_length=lie)
        return flags + Option(option=number, data=inner).encode()
    return (flags + whole.encode())[:extra]


def commands_from(data: bytes, ground: Ground) -> Iterator[Command]:
    """Decode commands; bytes that are too few for one more are left over."""
    windows, unit, maximum = ground.windows, ground.unit, ground.maximum
    kinds = _kinds(ground)
    small = 512 if unit <= 512 else unit
    usable = len(data) - len(data) % COMMAND_BYTES
    for choice, flags, place, amount, near, far in _COMMAND.iter_unpack(data[:usable]):
        if choice >= _ILLEGAL_FROM:
            yield _illegal(choice, flags, place, amount, near, far, ground)
            continue
        kind, allowed = kinds[choice]
        flag = allowed[flags % len(allowed)]
        if kind is Cmd.FLUSH:
            yield Command(type=kind, flags=flag)
            continue
        if amount < 0xC0:
            length = (1 + amount % 4) * small
        elif amount < 0xE8:
            length = 1 + far % 4096
        elif amount < 0xF4:
            length = (1 << far % 16) + (far >> 8) % 3 - 1
        elif amount < 0xFE:
            length = 4096 * (1 + far % 16)
        else:
            length = 1 + far if far >= 0x1000 else (1 << 20) + far % 32
        start, end = windows[place % len(windows)]
        if place < 0xF0:
            offset = start + (near * 512 + (far if place & 0x20 else 0)) % (end - start)
        elif place < 0xF8:
            offset = end - (1 + near % 4096 if near & 1 else 512 * (1 + near % 8))
        else:
            offset = start + (near % 4096 if near & 1 else 0)
        offset = max(start, min(offset, end - 1)) // unit * unit
        length = max(unit, min(length, end - offset, maximum) // unit * unit)
        yield Command(
            type=kind, flags=flag, offset=offset, length=length, seed=near % PERIOD if kind is Cmd.WRITE else 0
        )


@cache
def _kinds(ground: Ground) -> tuple[tuple[Cmd, tuple[CmdFlag, ...]], ...]:
    """Which command a byte below `_ILLEGAL_FROM` stands for, and its flags to choose from; reads and writes often."""
    offered = ground.flags
    kinds = [Cmd.READ] * 4
    if ground.contexts:
        kinds.append(Cmd.BLOCK_STATUS)
    if offered & TransmissionFlag.SEND_FLUSH:
        kinds.append(Cmd.FLUSH)
    if offered & TransmissionFlag.SEND_CACHE:
        kinds.append(Cmd.CACHE)
    if ground.writable:
        kinds += [Cmd.WRITE] * 4
        if offered & TransmissionFlag.SEND_TRIM:
            kinds.append(Cmd.TRIM)
        if offered & TransmissionFlag.SEND_WRITE_ZEROES:
            kinds += [Cmd.WRITE_ZEROES] * 2
    flags = _flags(ground)
    return tuple((kind, flags[kind]) for kind in (kinds[choice % len(kinds)] for choice in range(_ILLEGAL_FROM)))


def _flags(ground: Ground) -> dict[Cmd, tuple[CmdFlag, ...]]:
    offered = ground.flags
    none = CmdFlag(0)
    fua = (none, none, none, CmdFlag.FUA) if offered & TransmissionFlag.SEND_FUA else (none,)
    zeroes = [*fua, CmdFlag.NO_HOLE]
    if offered & TransmissionFlag.SEND_FAST_ZERO:
        zeroes.append(CmdFlag.FAST_ZERO)
    return {
        Cmd.READ: (none, none, none, CmdFlag.DF) if offered & TransmissionFlag.SEND_DF else (none,),
        Cmd.WRITE: fua,
        Cmd.FLUSH: (none,),
        Cmd.TRIM: fua,
        Cmd.CACHE: (none,),
        Cmd.WRITE_ZEROES: tuple(zeroes),
        Cmd.BLOCK_STATUS: (none, CmdFlag.REQ_ONE),
    }


def _illegal(choice: int, flags: int, place: int, amount: int, near: int, far: int, ground: Ground) -> Command:
    """A command with something wrong: where it points, how long it is, its flags or its type.

    On a server whose data is not to be touched nothing is sent that could write.
    """
    kinds = [Cmd.READ, Cmd.BLOCK_STATUS, Cmd.CACHE, _UNKNOWN[near % len(_UNKNOWN)], Cmd.FLUSH]
    if ground.takes_writes:
        kinds += [Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES]
    kind = kinds[amount % len(kinds)]
    # Not PAYLOAD_LEN, which would make a server of extended headers wait for a payload.
    flag = CmdFlag(far & ~CmdFlag.PAYLOAD_LEN.value) if flags >= 0xE0 else CmdFlag(0)
    if kind == Cmd.WRITE or kind == Cmd.READ:
        length = (1 + place % 16) * 512 if place < 0xC0 else place % 3
    else:
        huge = place >= 0xE0
        length = ((1 << 20, 1 << 31, (1 << 32) - 1, (1 << 32) - 512) if huge else (512, 1, 0, 4096))[place % 4]
    if choice < 0xF8:
        offset = ground.size - (near % 3) * 256
    elif choice < 0xFE:
        offset = _DICTIONARY[near % len(_DICTIONARY)]
    else:
        offset = near * 512 % max(512, ground.size)
    if kind == Cmd.FLUSH:
        offset = length = 0
    if not 0 <= offset < 1 << 64:
        offset = 0
    seed = near % PERIOD if kind == Cmd.WRITE else 0
    return Command(type=kind, flags=flag, offset=offset, length=length, seed=seed)
