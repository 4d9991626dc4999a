"""What a campaign has seen: kinds of requests, replies and options, what came of them, and which rules that exercised.

Kinds and outcomes are counted, not bytes. A session that shows a new one is worth starting from again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter

from nbdtest.conformance.negotiation import Answer as OptionAnswer
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.exchange import Answer
from nbdtest.fuzz.script import Mode, Way
from nbdtest.wire import Cmd, Errno, Opt, ReplyType

__all__ = ["Coverage"]

_ALWAYS = ("RPL-001", "RPL-005")
_BY_CHUNK = {
    ReplyType.NONE: ("RPL-052", "RPL-053"),
    ReplyType.OFFSET_DATA: ("RPL-060", "RPL-062", "RPL-063", "RPL-072", "CMD-031"),
    ReplyType.OFFSET_HOLE: ("RPL-062", "RPL-063", "RPL-065", "RPL-070", "RPL-072", "CMD-031"),
    ReplyType.BLOCK_STATUS: ("RPL-080", "RPL-081", "RPL-083", "RPL-086", "RPL-091", "META-006", "META-036", "CMD-151"),
    ReplyType.BLOCK_STATUS_EXT: (
        "RPL-080",
        "RPL-081",
        "RPL-083",
        "RPL-086",
        "RPL-091",
        "META-006",
        "META-036",
        "CMD-151",
    ),
    ReplyType.ERROR: ("RPL-102", "RPL-105", "RPL-106", "RPL-107", "ERR-001"),
    ReplyType.ERROR_OFFSET: ("RPL-102", "RPL-105", "RPL-106", "RPL-107", "RPL-109", "RPL-113", "ERR-001"),
}
_BY_OBJECTION = {
    "it reaches past the end": ("SIZE-040",),
    "the command is unknown": ("ERR-029",),
    "no metadata context was negotiated": ("META-008",),
    "the export is read-only": ("ERR-026",),
}
_BY_OPTION = {
    Opt.INFO: ("REP-008", "REP-014", "OPT-090", "CONV-004"),
    Opt.LIST_META_CONTEXT: ("META-020",),
    Opt.SET_META_CONTEXT: ("META-020", "META-021", "META-080"),
}
_EVERY_OPTION = ("OPT-012", "OPT-016", "CONV-006")
_UNKNOWN_OPTION = "COMPAT-005"

_type_of = attrgetter("type")


class Coverage:
    """Counts of what was sent and what came of it, by kind. Only grows."""

    def __init__(self) -> None:
        self._requests: dict[Mode, Counter[Cmd]] = {mode: Counter() for mode in Mode}
        self._unusual: Counter[tuple[Mode, Cmd, str, int, frozenset[int]]] = Counter()
        self._options: Counter[tuple[Opt, int]] = Counter()
        self._ends: Counter[Way] = Counter()

    def answered(self, mode: Mode, commands: Sequence[Command]) -> None:
        """These commands were answered, and the answers judged."""
        self._requests[mode].update(map(_type_of, commands))

    def noticed(self, mode: Mode, command: Command, objection: str, answer: Answer) -> None:
        """An answer was not just success: a refusal, or one in chunks."""
        kinds = frozenset(kind for _, kind, _ in answer.chunks)
        self._unusual[mode, command.type, objection, answer.error or 0, kinds] += 1

    def replied(self, answer: OptionAnswer) -> None:
        """An option was answered, and the answer judged."""
        self._options[answer.option.option, int(answer.final.type)] += 1

    def ended(self, way: Way) -> None:
        """A connection was left, and what the server did then was judged."""
        self._ends[way] += 1

    @property
    def size(self) -> int:
        """How many different things have been seen."""
        return sum(map(len, self._requests.values())) + len(self._unusual) + len(self._options) + len(self._ends)

    @property
    def requests(self) -> Counter[str]:
        """How many of each type were answered."""
        counts: Counter[str] = Counter()
        for kind, count in self.played.items():
            counts[str(kind) if kind.is_known else "unknown"] += count
        return counts

    @property
    def played(self) -> Counter[Cmd]:
        """How many commands of each type were answered."""
        return sum(self._requests.values(), Counter())

    @property
    def replies(self) -> Counter[str]:
        """How many answers were simple, or had a chunk of each type; how many were errors of each kind."""
        counts: Counter[str] = Counter()
        plain = Counter({mode: requests.total() for mode, requests in self._requests.items()})
        for (mode, _, _, error, kinds), count in self._unusual.items():
            plain[mode] -= count
            for kind in kinds:
                counts[str(ReplyType(kind))] += count
            if not kinds:
                counts[str(Errno(error)) if error else "simple"] += count
        # An answer that nobody took notice of is a simple one, or a READ in one chunk.
        for mode, count in plain.items():
            counts["simple" if mode is Mode.SIMPLE else "plain"] += max(0, count)
        return +counts

    @property
    def options(self) -> Counter[str]:
        """How many of each option were answered."""
        counts: Counter[str] = Counter()
        for (option, _), count in self._options.items():
            counts[str(option) if option.is_known else "unknown"] += count
        return counts

    @property
    def requirements(self) -> tuple[str, ...]:
        """The rules that something was held against, in order."""
        return tuple(sorted(set(self._exercised())))

    def _exercised(self) -> Iterator[str]:
        for mode, requests in self._requests.items():
            if requests:
                yield from _ALWAYS
            if Cmd.READ in requests and mode is not Mode.SIMPLE:
                yield from ("RPL-022", "RPL-036", "RPL-071", *_BY_CHUNK[ReplyType.OFFSET_DATA])
            if Cmd.BLOCK_STATUS in requests and mode is not Mode.SIMPLE:
                yield "META-009"
        for _, kind, objection, error, kinds in self._unusual:
            yield from _BY_OBJECTION.get(objection, ())
            if error:
                yield "ERR-001"
            if kind == Cmd.READ and len(kinds) > 1:
                yield "CMD-050"
            for chunk in kinds:
                yield from _BY_CHUNK.get(ReplyType(chunk), ())
        for option, _ in self._options:
            yield from _EVERY_OPTION
            yield from _BY_OPTION.get(option, ())
            if not option.is_known:
                yield _UNKNOWN_OPTION
        if Way.DISC in self._ends:
            yield from ("TERM-031", "CMD-076")
