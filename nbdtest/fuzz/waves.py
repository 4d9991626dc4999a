"""Which commands may be in flight together: those whose outcome does not depend on their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.ground import CHANGING, WITHOUT_RANGE
from nbdtest.wire import Cmd

__all__ = ["waves"]

_MOST_IN_FLIGHT = 128
_MOST_BYTES_IN_FLIGHT = 96 << 10
"""In each direction: less than a socket's buffers hold, so that neither side waits for the other for ever."""


def waves(commands: Sequence[Command]) -> Iterator[list[Command]]:
    """Cut `commands` into groups whose outcome does not depend on the order in which a server carries them out."""
    wave: list[Command] = []
    reads: list[tuple[int, int]] = []
    changes: list[tuple[int, int]] = []
    there = back = 0
    for command in commands:
        kind, start, length = command.type, command.offset, command.length
        end = start + length
        ranged = kind not in WITHOUT_RANGE
        changing = kind in CHANGING
        if kind is Cmd.WRITE:
            there += length
        elif kind is Cmd.READ:
            back += length
        if wave and (
            len(wave) == _MOST_IN_FLIGHT
            or there > _MOST_BYTES_IN_FLIGHT
            or back > _MOST_BYTES_IN_FLIGHT
            or (ranged and (_touches(start, end, changes) or (changing and _touches(start, end, reads))))
        ):
            yield wave
            wave, reads, changes = [], [], []
            there = length if kind is Cmd.WRITE else 0
            back = length if kind is Cmd.READ else 0
        wave.append(command)
        if ranged:
            (changes if changing else reads).append((start, end))
    if wave:
        yield wave


def _touches(start: int, end: int, ranges: list[tuple[int, int]]) -> bool:
    for first, last in ranges:  # noqa: SIM110 - any() with a generator takes three times as long
        if start < last and first < end:
            return True
    return False
