"""Short sessions of the kinds that random commands do not make: talkative handshakes, rude visitors, odd lengths.

They are drawn from a seeded source. What they hold is what broke servers before: many options and strange ones, names
as long as names may be, clients that leave before they have said anything, requests around the sizes of buffers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from nbdtest.fuzz.commands import PERIOD, Command
from nbdtest.fuzz.decoding import COMMAND_BYTES, commands_from
from nbdtest.fuzz.ground import Ground
from nbdtest.fuzz.script import Hostile, Mode, Opening, Script, Send
from nbdtest.wire import (
    ClientFlags,
    Cmd,
    ExportName,
    Info,
    InfoRequest,
    MetaContextRequest,
    Opt,
    Option,
)

__all__ = ["visit"]

_STRANGER = "nbdtest-no-such-export"
_LENGTHS_OF_NAMES = (255, 256, 1024, 3000, 3000, 4096, 4096)
_QUERIES: tuple[tuple[str, ...], ...] = (
    ("base:allocation",),
    ("base:allocation",),
    ("base:allocation",),
    (),
    ("base:",),
    ("base:no-such-leaf",),
    ("nbdtest:nothing",),
    ("base:allocation", "nbdtest:nothing"),
)
_INFOS = ((), (Info.BLOCK_SIZE,), (Info.NAME, Info.DESCRIPTION), (Info.EXPORT, Info.BLOCK_SIZE), (Info(0x7FFF),))
_SELDOM = 24
_IN_A_ROW = 20
"""So many options in a row every server should take. TERM-013"""
_SIZES_OF_BUFFERS = (9, 10, 12, 15, 16, 18, 20, 20, 21)
"""As powers of two."""
_MANY_TIMES = 12


def visit(source: random.Random, ground: Ground, names: Sequence[str]) -> Script:
    """Make a session for the first of the exports `names`, which is like `ground`."""
    choice = source.randrange(8)
    if choice < 4:
        return _talk(source, ground, names)
    if choice < 6:
        return _rude_visitors(source)
    return _lengths(source, ground)


def _talk(source: random.Random, ground: Ground, names: Sequence[str]) -> Script:
    """Many options before GO or EXPORT_NAME, then a few commands to see what came of it."""
    options: list[Option] = []
    slowly = source.randrange(_SELDOM) == 0  # byte by byte takes its time: only what has to be sent
    by_name = ground.by_export_name and source.randrange(6) == 0
    if Mode.STRUCTURED in ground.modes and not by_name and source.randrange(4):
        options.append(Option(option=Opt.STRUCTURED_REPLY))
    if source.randrange(8) == 0:
        options += [Option(option=Opt(0x7FFF_0000 + number)) for number in range(_IN_A_ROW)]
    options += [_option(source, names) for _ in range(source.choice((1, 2, 3, 6)))]
    if ground.tls and source.randrange(2):
        # What was agreed on in clear has to be forgotten, and may be agreed on anew.
        again = [Option(option=Opt.STRUCTURED_REPLY)] * source.randrange(2)
        at = source.randrange(len(options) + 1)
        options[at:at] = [Option(option=Opt.STARTTLS), *again]
    opening = Opening(
        by_export_name=by_name,
        padded=by_name and bool(source.randrange(2)),
        slowly=slowly,
        options=() if slowly else tuple(options),
    )
    commands = list(commands_from(source.randbytes(3 * COMMAND_BYTES), ground))
    if ground.contexts:
        commands.insert(0, Command(type=Cmd.BLOCK_STATUS, length=max(512, ground.unit)))
    return Script(openings=(opening,), steps=(Send(commands=tuple(commands)),))


def _option(source: random.Random, names: Sequence[str]) -> Option:
    known = source.choice(names)
    long = "n" * source.choice(_LENGTHS_OF_NAMES)
    name = source.choice((names[0], known, _STRANGER, known + "\0x", long, long))
    match source.randrange(8):
        case 0:
            return Option(option=Opt.LIST)
        case 1:
            return Option(option=Opt(source.choice((0x63, 0x7FFF_FFFF))), data=b"x" * source.choice((0, 1, 8, 1000)))
        case 2:
            return Option(option=Opt.LIST_META_CONTEXT, data=_request(source, name))
        case 3 | 4:
            return Option(option=Opt.SET_META_CONTEXT, data=_request(source, source.choice((known, name))))
        case _:
            return Option(option=Opt.INFO, data=InfoRequest(name=name, infos=source.choice(_INFOS)).encode())


def _request(source: random.Random, name: str) -> bytes:
    return MetaContextRequest(name=name, queries=source.choice(_QUERIES)).encode()


def _rude_visitors(source: random.Random) -> Script:
    """Clients that leave in the middle of the handshake, one after the other."""
    flags = ClientFlags().encode()
    if source.randrange(3) == 0:
        return _after(Hostile(data=source.choice((b"", flags)), early=True), count=5)
    long = Option(option=Opt.INFO, data=InfoRequest(name="n" * source.choice(_LENGTHS_OF_NAMES)).encode())
    departures = (
        flags + long.encode()[: source.randrange(1, 40)],
        flags + long.encode(length=source.choice((0xFFFF_FFFF, 1 << 31, 32 << 20))),
        flags + Option(option=Opt.EXPORT_NAME, data=ExportName(name=_STRANGER).encode()).encode(),
        flags + Option(option=Opt.EXPORT_NAME).encode(length=0xFFFF_FFFF),
    )
    return _after(Hostile(data=source.choice(departures), early=True), count=source.choice((1, 3)))


def _after(visitor: Hostile, *, count: int) -> Script:
    """A session in which somebody comes so many times before."""
    return Script(steps=(*[visitor] * count, Send()))


def _lengths(source: random.Random, ground: Ground) -> Script:
    """Requests around the sizes of buffers and the borders of blocks, some of them many times over."""
    commands: list[Command] = []
    kinds: Sequence[Cmd] = (Cmd.READ, Cmd.WRITE) if ground.writable else (Cmd.READ,)
    for _ in range(source.choice((2, 4, 6))):
        about = 1 << source.choice(_SIZES_OF_BUFFERS)
        length = about + source.choice((0, 0, 0, -1, 1, 16))
        offset = about * source.randrange(4) + source.choice((0, 0, 1, -1))
        length = max(ground.unit, min(length, ground.maximum, ground.size) // ground.unit * ground.unit)
        offset = max(0, min(offset, ground.size - length)) // ground.unit * ground.unit
        kind = source.choice(kinds)
        seed = source.randrange(PERIOD) if kind is Cmd.WRITE else 0
        command = Command(type=kind, offset=offset, length=length, seed=seed)
        commands += [command] * (_MANY_TIMES if source.randrange(4) == 0 else 1)
        if kind is Cmd.WRITE:
            commands.append(Command(type=Cmd.READ, offset=offset, length=length))
    return Script(openings=(Opening(mode=source.choice(ground.modes)),), steps=(Send(commands=tuple(commands)),))
