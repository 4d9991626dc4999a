"""What a session stands on: the facts of an export that decide which commands are legal there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.target import ServerTarget
from nbdtest.errors import UsageError
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.script import Hostile, Mode, Script, Send, Step
from nbdtest.wire import Cmd, CmdFlag, TransmissionFlag
from nbdtest.wire.numbers import EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC

__all__ = ["CHANGING", "WINDOW", "WITHOUT_RANGE", "Ground", "Law", "survey"]

WINDOW = 4 << 20
"""Sessions work in the first and the last so many bytes of an export: their contents can be kept in mind."""

_OFFERED = {
    Cmd.READ: TransmissionFlag(0),
    Cmd.WRITE: TransmissionFlag(0),
    Cmd.FLUSH: TransmissionFlag.SEND_FLUSH,
    Cmd.TRIM: TransmissionFlag.SEND_TRIM,
    Cmd.CACHE: TransmissionFlag.SEND_CACHE,
    Cmd.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
}
CHANGING = frozenset({Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES})
"""The commands after which the disk is another."""
_REQUEST_TO_WRITE = re.compile(
    b"(?:%s|%s)..(?:%s)"
    % (
        re.escape(REQUEST_MAGIC.to_bytes(4, "big")),
        re.escape(EXTENDED_REQUEST_MAGIC.to_bytes(4, "big")),
        b"|".join(re.escape(int(kind).to_bytes(2, "big")) for kind in sorted(CHANGING)),
    ),
    re.DOTALL,
)
"""Magic, flags and type of a request that changes the disk, anywhere in bytes that make no sense otherwise."""
_CARRIES = frozenset({Cmd.READ, Cmd.WRITE})
WITHOUT_RANGE = frozenset({Cmd.FLUSH, Cmd.DISC})
"""The commands that concern no range of the export."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """An export as a fuzzer sees it. `unit` is the alignment; `maximum` the largest payload that has to be served."""

    size: int
    flags: TransmissionFlag
    unit: int = 1
    maximum: int = 32 << 20
    modes: tuple[Mode, ...] = (Mode.SIMPLE,)
    contexts: bool = False
    by_export_name: bool = False
    writable: bool = False
    tls: bool = False
    """Whether TLS may begin in the middle of a handshake; where it has to begin, every session begins it."""

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """The stretches that sessions work in, as (start, end)."""
        size = self.size - self.size % self.unit
        if size <= 2 * WINDOW:
            return ((0, size),)
        return (0, WINDOW), (size - WINDOW - size % WINDOW % self.unit, size)

    @property
    def read_only(self) -> bool:
        """Whether writes have to be refused."""
        return bool(self.flags & TransmissionFlag.READ_ONLY)

    @property
    def takes_writes(self) -> bool:
        """Whether requests that write may be sent: the disk may be changed, or they have to be refused."""
        return self.writable or self.read_only

    def bears(self, script: Script) -> bool:
        """Whether `script` may be played: not if it could change a disk that is not to be changed."""
        return self.takes_writes or not any(map(_could_write, script.steps))


class Law:
    """Which commands are legal on one connection: what was advertised there, and whether contexts were selected."""

    def __init__(self, ground: Ground, flags: TransmissionFlag, *, contexts: bool) -> None:
        self._size = ground.size
        self._odd = ground.unit - 1
        self._maximum = ground.maximum
        self._read_only = bool(flags & TransmissionFlag.READ_ONLY)
        self._flags = _belonging(flags)
        self._offered = _offered(flags, contexts)

    def objection(self, command: Command) -> str:
        """Say why `command` is not legal here, "" if it is."""
        kind, offset, length = command.type, command.offset, command.length
        if kind not in self._offered:
            if kind == Cmd.BLOCK_STATUS:
                return "no metadata context was negotiated"
            return "the command is not offered" if kind in _OFFERED else "the command is unknown"
        if self._read_only and kind in CHANGING:
            return "the export is read-only"
        ranged = kind not in WITHOUT_RANGE
        if ranged and offset + length > self._size:
            return "it reaches past the end"
        if command.flags not in self._flags[kind]:
            return "a flag does not belong there"
        if ranged:
            if not length:
                return "it has no length"
            if (offset | length) & self._odd:
                return "it is misaligned"
            if length > self._maximum and kind in _CARRIES:
                return "its payload is too large"
        return ""


def _could_write(step: Step) -> bool:
    if isinstance(step, Send):
        return any(command.type in CHANGING for command in step.commands)
    return isinstance(step, Hostile) and _REQUEST_TO_WRITE.search(step.data) is not None


@cache
def _offered(advertised: TransmissionFlag, contexts: bool) -> frozenset[int]:
    kinds = {int(kind) for kind, needed in _OFFERED.items() if not needed & ~advertised}
    return frozenset(kinds | {Cmd.BLOCK_STATUS.value} if contexts else kinds)


@cache
def _belonging(advertised: TransmissionFlag) -> dict[int, frozenset[int]]:
    """Which flags each command may carry, as numbers: arithmetic with flags is slow, and every command is looked at."""
    everywhere = CmdFlag.FUA.value if advertised & TransmissionFlag.SEND_FUA else 0
    allowed = {int(kind): everywhere for kind in Cmd}
    if advertised & TransmissionFlag.SEND_DF:
        allowed[Cmd.READ] |= CmdFlag.DF.value
    if advertised & TransmissionFlag.SEND_FAST_ZERO:
        allowed[Cmd.WRITE_ZEROES] |= CmdFlag.FAST_ZERO.value
    allowed[Cmd.WRITE_ZEROES] |= CmdFlag.NO_HOLE.value
    allowed[Cmd.BLOCK_STATUS] |= CmdFlag.REQ_ONE.value
    return {
        kind: frozenset(number for number in range(most + 1) if not number & ~most) for kind, most in allowed.items()
    }


def survey(target: ServerTarget) -> Ground:
    """Find out what a session can do with `target`.

    Raises:
        TransportError: it cannot be reached.
        UsageError: it has no export that can be opened.
    """
    facts = target.facts
    if facts.trouble or Capability.EXPORT not in facts.capabilities:
        raise UsageError(f"{target.source.name}: {facts.trouble or 'no export can be opened'}")
    structured = Capability.STRUCTURED in facts.capabilities
    return Ground(
        size=facts.size,
        flags=facts.structured_flags | facts.flags if structured else facts.flags,
        unit=facts.minimum_block,
        maximum=min(facts.maximum_payload, 32 << 20),
        modes=tuple(Mode(mode) for mode in target.modes),
        contexts="base:allocation" in facts.contexts,
        by_export_name=Capability.FIXED_NEWSTYLE in facts.capabilities,
        tls={Capability.SELECTIVE_TLS, Capability.TLS_LAYER} <= facts.capabilities,
        writable=target.source.writable and Capability.READ_ONLY not in facts.capabilities,
    )
