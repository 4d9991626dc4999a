"""Everything that a fake server received, sent and noticed: cheap to write down, decoded only when somebody looks."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nbdtest.errors import PeerViolation
from nbdtest.fakeserver.outgoing import Outgoing
from nbdtest.fakeserver.violations import Violation
from nbdtest.wire import Message, Record, Sender, Transcript, dump
from nbdtest.wire.layout import Readable

__all__ = ["Journal", "Noted"]

KEPT_RECORDS = 20_000
KEPT_BYTES = 4096
MOST_VIOLATIONS = 1000

_What: TypeAlias = Message | str
_Entry: TypeAlias = tuple[int, Sender, float, bytes, int, _What]
_Exchange: TypeAlias = tuple[int, float, bytes, bytes, tuple[type[Message], type[Message]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A client's violation, and on which connection."""

    connection: int
    violation: Violation

    def __str__(self) -> str:
        return f"connection {self.connection}: {self.violation}"


class Journal:
    """The journal of one server. Only the newest records are kept, and of each only the first bytes."""

    def __init__(
        self,
        *,
        records: int = KEPT_RECORDS,
        bytes_each: int = KEPT_BYTES,
        began: float = 0.0,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self.violations: list[Noted] = []
        self.problems: list[str] = []
        """Exceptions in scripts, rules and disks of the test, with their tracebacks."""
        self.echoes = echo is not None
        """Whether every record is told at once."""
        self._entries: deque[_Entry | _Exchange] = deque(maxlen=records)
        self._bytes_each = bytes_each
        self._began = began
        self._echo = echo
        self._echo_lock = threading.Lock()

    # What engines and drivers write.

    def received(self, connection: int, now: float, data: Readable, message: Message | str) -> None:
        """Take down a message of the client."""
        if len(data) > self._bytes_each and isinstance(message, Message):
            message = dump(message)  # the bytes that are not kept must not be kept by the message either
        self._add((connection, Sender.CLIENT, now, bytes(data[: self._bytes_each]), len(data), message))

    def sent(self, connection: int, now: float, pieces: Sequence[Readable], outgoing: Outgoing) -> None:
        """Take down what is put on its way; nothing, if a cut has swallowed all of it."""
        if not pieces:
            return
        kept = b"".join([bytes(piece[: self._bytes_each]) for piece in pieces])[: self._bytes_each]
        length = sum(map(len, pieces))
        plain = length <= self._bytes_each and not outgoing.tail and not outgoing.damage
        what = outgoing.message if plain and outgoing.message is not None else outgoing.summary()
        self._add((connection, Sender.SERVER, now, kept, length, what))

    @property
    def exchanges(self) -> Callable[[_Exchange], None]:
        """A function that takes down an ordinary request and its reply, in as little time as possible: connection,
        time, the two headers as bytes, and their classes, which decode them only if somebody looks."""
        return self._entries.append

    def event(self, connection: int, now: float, text: str, *, by_client: bool = False) -> None:
        """Take down something that is not bytes."""
        self._add((connection, Sender.CLIENT if by_client else Sender.SERVER, now, b"", 0, text))

    def violation(self, connection: int, now: float, violation: Violation) -> None:
        """Take down what the client did wrong."""
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(Noted(connection=connection, violation=violation))
        self._add((connection, Sender.CLIENT, now, b"", 0, f"VIOLATION {violation}"))

    def problem(self, connection: int, now: float, error: BaseException, where: str) -> None:
        """Take down an exception of the test's own code."""
        self.problems.append(f"{where}, connection {connection}:\n{''.join(traceback.format_exception(error))}")
        self._add((connection, Sender.SERVER, now, b"", 0, f"EXCEPTION in {where}: {error!r}"))

    def empty_copy(self) -> Journal:
        """Make an empty journal that keeps as much of each record."""
        return Journal(records=KEPT_RECORDS, bytes_each=self._bytes_each)

    def repeat(self, notes: Journal, connection: int, now: float) -> None:
        """Take down once more what stands in `notes`, for another connection at another time."""
        for entry in notes._entries:
            if len(entry) == 6:
                self._add((connection, entry[1], now, entry[3], entry[4], entry[5]))
        for noted in notes.violations:
            if len(self.violations) < MOST_VIOLATIONS:
                self.violations.append(Noted(connection=connection, violation=noted.violation))

    # What people read.

    @property
    def binding_violations(self) -> list[Noted]:
        """What clients MUST not have done."""
        return [noted for noted in self.violations if noted.violation.binding]

    def transcript(self) -> Transcript:
        """Decode what is kept."""
        return Transcript(record for entry in list(self._entries) for record in self._records(entry))

    def format(self, *, last: int | None = 60, hex_limit: int = 48) -> str:
        """Draw the newest records as a sequence."""
        return self.transcript().format(last=last, hex_limit=hex_limit)

    def __len__(self) -> int:
        return len(self._entries)

    def _add(self, entry: _Entry) -> None:
        self._entries.append(entry)
        if self._echo is not None:
            record = self._record(entry)
            arrow = "<--" if record.sender is Sender.SERVER else "-->"
            with self._echo_lock:
                self._echo(f"{record.time_s:.6f} [{record.connection}] {arrow} {record.summary}")

    def _records(self, entry: _Entry | _Exchange) -> list[Record]:
        if len(entry) == 6:
            return [self._record(entry)]
        connection, now, request, reply, (asked, answered) = entry
        return [
            self._record((connection, sender, now, data, len(data), _decoded(kind, data)))
            for sender, data, kind in ((Sender.CLIENT, request, asked), (Sender.SERVER, reply, answered))
        ]

    def _record(self, entry: _Entry) -> Record:
        connection, sender, now, data, length, what = entry
        summary = what if isinstance(what, str) else dump(what)
        if length > len(data):
            summary += f" ({length} bytes, the first {len(data)} are kept)"
        return Record(connection=connection, sender=sender, time_s=now - self._began, data=data, summary=summary)


def _decoded(kind: type[Message], data: bytes) -> Message | str:
    try:
        return kind.decode(data[: kind.wire_size()])
    except PeerViolation as problem:
        return str(problem)
