"""What one row of the golden table holds."""

from dataclasses import dataclass

from nbdtest.wire import Message

__all__ = ["Golden"]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """`source` put `data` on a wire; it means `message`, and `dump` shows it as `line`."""

    source: str
    message: Message
    data: bytes
    line: str
