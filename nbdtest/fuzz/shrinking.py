"""Finds the smallest script that still fails in the same way. Knows no server: it asks a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.script import Hostile, Leave, Mode, Opening, Script, Send, Step
from nbdtest.wire.numbers import CmdFlag

__all__ = ["shrink"]

T = TypeVar("T")


def shrink(script: Script, fails: Callable[[Script], bool], *, attempts: int = 1000) -> Script:
    """Return a script as small as can be found with so many calls of `fails`, for which it is true.

    First commands go, in ever smaller groups, then what is around them, then what is left is made simpler.
    """
    budget = _Budget(fails, attempts)
    best = script
    while True:
        before = best
        best = _without_commands(best, budget)
        best = _first(best, _without_connections, budget)
        best = _first(best, _simpler, budget)
        if best == before or budget.left <= 0:
            return best


class _Budget:
    """Counts the attempts, and remembers those that were made."""

    def __init__(self, fails: Callable[[Script], bool], attempts: int) -> None:
        self._fails = fails
        self._seen: set[Script] = set()
        self.left = attempts

    def fails(self, script: Script) -> bool:
        if script in self._seen or self.left <= 0:
            return False
        self._seen.add(script)
        self.left -= 1
        return self._fails(script)


def _first(script: Script, candidates: Callable[[Script], Iterator[Script]], budget: _Budget) -> Script:
    """Take a candidate that fails, and go on with its candidates from the same place, until none does."""
    tried = 0
    while True:
        for number, candidate in enumerate(candidates(script)):
            if number >= tried and budget.fails(candidate):
                script, tried = candidate, number
                break
        else:
            return script


def _without_connections(script: Script) -> Iterator[Script]:
    """The script with less around its commands."""
    for number in range(len(script.steps)):
        yield _used(replace(script, steps=_without(script.steps, number)))
    if len(script.openings) > 1:
        yield Script(openings=script.openings[:1], steps=_joined(script.steps))
        yield Script(openings=script.openings[-1:], steps=_joined(script.steps))
    for number, opening in enumerate(script.openings):
        for simpler in _simpler_opening(opening):
            yield replace(script, openings=_with(script.openings, number, simpler))


def _simpler_opening(opening: Opening) -> Iterator[Opening]:
    for number in range(len(opening.options)):
        yield replace(opening, options=_without(opening.options, number))
    if opening.by_export_name:
        yield replace(opening, by_export_name=False)
    if opening.contexts:
        yield replace(opening, contexts=False)
    if opening.mode is not Mode.SIMPLE:
        yield replace(opening, mode=Mode.SIMPLE, contexts=False)
    if opening.mode is Mode.EXTENDED:
        yield replace(opening, mode=Mode.STRUCTURED)


def _without_commands(script: Script, budget: _Budget) -> Script:
    """Take out groups of commands, of half the number, a quarter, and so on down to single ones."""
    size = max(1, script.commands // 2)
    while True:
        at = 0
        while at < script.commands:
            candidate = _cut(script, at, at + size)
            if budget.fails(candidate):
                script = candidate
            else:
                at += size
        if size == 1:
            return script
        size = max(1, size // 2)


def _cut(script: Script, start: int, end: int) -> Script:
    """The script without its commands number `start` to `end`."""
    steps: list[Step] = []
    at = 0
    for step in script.steps:
        if isinstance(step, Send):
            kept = tuple(command for number, command in enumerate(step.commands, start=at) if not start <= number < end)
            at += len(step.commands)
            if kept:
                steps.append(replace(step, commands=kept))
        else:
            steps.append(step)
    return _used(replace(script, steps=tuple(steps)))


def _simpler(script: Script) -> Iterator[Script]:
    for number, step in enumerate(script.steps):
        if isinstance(step, Send):
            for at, command in enumerate(step.commands):
                for simpler in _simpler_command(command):
                    changed = replace(step, commands=_with(step.commands, at, simpler))
                    yield replace(script, steps=_with(script.steps, number, changed))
        elif isinstance(step, Hostile):
            for shorter in _shorter(step.data):
                yield replace(script, steps=_with(script.steps, number, replace(step, data=shorter)))


def _shorter(data: bytes) -> Iterator[bytes]:
    """The data without its second half, its first one, and so on down to sixteenths, or single bytes of a few."""
    for parts in (2, 4, 8, 16):
        size = len(data) // parts
        if size:
            yield from (data[:at] + data[at + size :] for at in range(len(data) - size, -1, -size))


def _simpler_command(command: Command) -> Iterator[Command]:
    if command.flags:
        yield replace(command, flags=CmdFlag(0))
    for offset in (0, command.offset // 4096 * 4096, command.offset // 512 * 512):
        if offset < command.offset:
            yield replace(command, offset=offset)
    for length in (1, 512, command.length // 2, command.length // 512 * 512, command.length - 1):
        if 0 < length < command.length:
            yield replace(command, length=length)
    if command.seed > 1:
        yield replace(command, seed=1)


def _used(script: Script) -> Script:
    """Drop connections that no step uses."""
    used = sorted({step.on for step in script.steps})
    if not used or len(used) == len(script.openings):
        return script
    number = {old: new for new, old in enumerate(used)}
    steps = tuple(replace(step, on=number[step.on]) for step in script.steps)
    return Script(openings=tuple(script.openings[old] for old in used), steps=steps)


def _joined(steps: Sequence[Step]) -> tuple[Step, ...]:
    """All commands on one connection, and how it ends."""
    commands = tuple(command for step in steps if isinstance(step, Send) for command in step.commands)
    ends = [replace(step, on=0) for step in steps if isinstance(step, Hostile | Leave)]
    return (Send(commands=commands), *ends[-1:])


def _without(items: tuple[T, ...], number: int) -> tuple[T, ...]:
    return items[:number] + items[number + 1 :]


def _with(items: tuple[T, ...], number: int, item: T) -> tuple[T, ...]:
    return (*items[:number], item, *items[number + 1 :])
