"""What went over connections, in order: the one record that failures print, files keep and replays read.

A transcript stores bytes and what the recorder made of them; it does not parse, open files or read a clock.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nbdtest.errors import UsageError
from nbdtest.wire.dump import hexdump

__all__ = ["Record", "Sender", "Transcript"]


class Sender(enum.StrEnum):
    """Which side acted."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that one side did on one connection.

    `data` are the bytes that went out (b"" for an event such as "FIN"); `summary` is the decoded message or the event
    in words; `time_s` counts from the start of the transcript.
    """

    connection: int = 0
    sender: Sender
    time_s: float = 0.0
    data: bytes = b""
    summary: str = ""


class Transcript:
    """Records in the order in which they were made."""

    __slots__ = ("records",)

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records = list(records)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def add(self, record: Record) -> None:
        """Append one record."""
        self.records.append(record)

    def format(self, *, hex_limit: int = 64, last: int | None = None) -> str:
        """Draw the sequence, client on the left; at most `hex_limit` bytes of each record, only the `last` records."""
        shown = self.records if last is None else self.records[-last:]
        lines = [f"… {len(self.records) - len(shown)} earlier records"] if len(shown) < len(self.records) else []
        several = len({record.connection for record in self.records}) > 1
        for record in shown:
            arrow = "client -->" if record.sender is Sender.CLIENT else "<-- server"
            where = f" [{record.connection}]" if several else ""
            lines.append(f"{record.time_s:9.4f}{where} {arrow} {record.summary or f'{len(record.data)} bytes'}")
            if record.data and hex_limit:
                lines.append(hexdump(record.data, limit=hex_limit, indent=" " * 5))  # fits 80 columns, indented
        return "\n".join(lines)

    def sent_by(self, sender: Sender, connection: int | None = None) -> bytes:
        """Join everything that `sender` sent, on all connections or on one."""
        return b"".join(
            record.data
            for record in self.records
            if record.sender is sender and connection in (None, record.connection)
        )

    def to_json_lines(self) -> str:
        """Save as one JSON object a line."""
        return "".join(
            json.dumps(
                {
                    "connection": record.connection,
                    "sender": record.sender.value,
                    "time_s": round(record.time_s, 6),
                    "data": record.data.hex(),
                    "summary": record.summary,
                }
            )
            + "\n"
            for record in self.records
        )

    @classmethod
    def from_json_lines(cls, text: str) -> Transcript:
        """Load what `to_json_lines` saved.

        Raises:
            UsageError: a line is not such a record; the message names the line.
        """
        records = []
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                row = json.loads(line)
                records.append(
                    Record(
                        connection=int(row["connection"]),
                        sender=Sender(row["sender"]),
                        time_s=float(row["time_s"]),
                        data=bytes.fromhex(row["data"]),
                        summary=str(row["summary"]),
                    )
                )
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                raise UsageError(f"line {number} is no transcript record ({error}): {line[:80]}") from error
        return cls(records)
