"""Strategies for commands around the boundaries of an export, where servers get their arithmetic wrong."""

from __future__ import annotations

from hypothesis import strategies as st

from nbdtest.fuzz.commands import MOST_PAYLOAD, PERIOD, Command, pattern
from nbdtest.wire import Cmd, TransmissionFlag
from nbdtest.wire.numbers import CmdFlag

__all__ = ["Command", "commands", "legal_commands", "pattern"]

_NEEDS = {
    Cmd.FLUSH: TransmissionFlag.SEND_FLUSH,
    Cmd.TRIM: TransmissionFlag.SEND_TRIM,
    Cmd.CACHE: TransmissionFlag.SEND_CACHE,
    Cmd.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
}
_CHANGES_DATA = {Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES}
_seeds = st.integers(0, PERIOD - 1)
_HAS_RANGE = {Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS}


def legal_commands(
    size: int,
    flags: TransmissionFlag,
    *,
    minimum: int = 1,
    maximum: int = MOST_PAYLOAD,
    contexts: bool = False,
) -> st.SearchStrategy[Command]:
    """Generate commands that a client may send to an export of `size` bytes that advertises `flags`.

    Offsets and lengths are multiples of `minimum`, payloads have at most `maximum` bytes, and nothing has the length 0.
    BLOCK_STATUS is among them if `contexts` were selected.
    """
    room = size >= minimum
    writable = not flags & TransmissionFlag.READ_ONLY
    offered = {Cmd.READ: True, Cmd.BLOCK_STATUS: contexts, Cmd.WRITE: True}
    offered |= {kind: bool(flags & needed) for kind, needed in _NEEDS.items()}
    kinds = [
        kind
        for kind, there in offered.items()
        if there and (room or kind not in _HAS_RANGE) and (writable or kind not in _CHANGES_DATA)
    ]
    if not kinds:
        return st.nothing()
    blocks = size // minimum
    payload_blocks = max(1, min(maximum, MOST_PAYLOAD) // minimum)

    @st.composite
    def command(draw: st.DrawFn) -> Command:
        kind = draw(st.sampled_from(kinds))
        chosen = draw(_legal_flags(kind, flags))
        if kind not in _HAS_RANGE:
            return Command(type=kind, flags=chosen)
        most = payload_blocks if kind in (Cmd.READ, Cmd.WRITE) else (1 << 32) // minimum - 1
        start = draw(_near(0, blocks - 1))
        count = draw(_near(1, min(blocks - start, most)))
        length = count * minimum
        seed = draw(_seeds) if kind == Cmd.WRITE else 0
        return Command(type=kind, flags=chosen, offset=start * minimum, length=length, seed=seed)

    return command()


def commands(size: int) -> st.SearchStrategy[Command]:
    """Generate commands legal and illegal: any type and flags, ranges across, at and far behind the end.

    A WRITE carries as many bytes as its length says, so the stream stays in step; lengths of WRITE and READ stay small.
    """
    edges = {0, 1, 511, 512, size // 2, size - 1, size, size + 1, 1 << 31, (1 << 32) - 1, 1 << 32}
    edges |= {(1 << 63) - 1, 1 << 63, (1 << 64) - 512, (1 << 64) - 1}
    offsets = st.one_of(st.sampled_from(sorted(edge for edge in edges if edge >= 0)), st.integers(0, size + 4096))
    short = st.one_of(st.sampled_from([0, 1, 511, 512, 513, 4096, MOST_PAYLOAD]), st.integers(0, MOST_PAYLOAD))
    long = st.one_of(short, st.sampled_from([size, size + 1, 1 << 31, (1 << 32) - 1]).filter(lambda n: n < 1 << 32))
    kinds = st.one_of(
        st.sampled_from([kind for kind in Cmd if kind != Cmd.DISC]),
        st.integers(9, 0xFFFF).map(Cmd),
    )

    @st.composite
    def command(draw: st.DrawFn) -> Command:
        kind = draw(kinds)
        flags = draw(st.one_of(st.just(0), st.integers(0, 0x1F), st.integers(0, 0xFFFF)).map(CmdFlag))
        length = draw(short if kind in (Cmd.READ, Cmd.WRITE) else long)
        seed = draw(_seeds) if kind == Cmd.WRITE else 0
        return Command(type=kind, flags=flags, offset=draw(offsets), length=length, seed=seed)

    return command()


def _near(low: int, high: int) -> st.SearchStrategy[int]:
    """Generate integers of [low, high], the ends and their neighbours often."""
    ends = sorted({number for number in (low, low + 1, high - 1, high) if low <= number <= high})
    return st.one_of(st.sampled_from(ends), st.integers(low, high))


def _legal_flags(kind: Cmd, offered: TransmissionFlag) -> st.SearchStrategy[CmdFlag]:
    allowed = []
    if offered & TransmissionFlag.SEND_FUA and kind in _CHANGES_DATA:
        allowed.append(CmdFlag.FUA)
    if kind == Cmd.READ and offered & TransmissionFlag.SEND_DF:
        allowed.append(CmdFlag.DF)
    if kind == Cmd.BLOCK_STATUS:
        allowed.append(CmdFlag.REQ_ONE)
    if kind == Cmd.WRITE_ZEROES:
        allowed.append(CmdFlag.NO_HOLE)
        if offered & TransmissionFlag.SEND_FAST_ZERO:
            allowed.append(CmdFlag.FAST_ZERO)
    if not allowed:
        return st.just(CmdFlag(0))
    return st.sets(st.sampled_from(allowed)).map(lambda chosen: CmdFlag(sum(chosen)))
