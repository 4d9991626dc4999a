"""Small damage to what a client sends: bits, bytes, whole messages, and numbers at which arithmetic goes wrong.

Messages are changed near their beginning, where their fields are; a payload is as good as any other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from nbdtest.wire import Cmd, Opt
from nbdtest.wire.mangle import flip, insert, overwrite
from nbdtest.wire.numbers import EXTENDED_REQUEST_MAGIC, OPTION_MAGIC, REQUEST_MAGIC

__all__ = ["DICTIONARY", "mutated"]

_FIELDS_END = 64
_MOST_CHANGES = 4
_LONGEST = 1 << 20

DICTIONARY: tuple[bytes, ...] = (
    OPTION_MAGIC.to_bytes(8, "big"),
    REQUEST_MAGIC.to_bytes(4, "big"),
    EXTENDED_REQUEST_MAGIC.to_bytes(4, "big"),
    *(int(number).to_bytes(4, "big") for number in Opt),
    *(int(number).to_bytes(2, "big") for number in Cmd),
    *(number.to_bytes(2, "big") for number in (0, 1, 0x7FFF, 0xFFFF)),
    *(number.to_bytes(4, "big") for number in (0, 1, 512, 4095, 4096, 4097, 1 << 20, 32 << 20, 1 << 31)),
    *((0xFFFF_FFFF - number).to_bytes(4, "big") for number in (0, 3, 7, 511)),
    *(number.to_bytes(8, "big") for number in (0, 1 << 32, 1 << 63, (1 << 63) - 512, (1 << 64) - 512, (1 << 64) - 1)),
    b"base:allocation",
    b"base:",
    b"\0",
)
"""The protocol's magic numbers and names, and boundary values, in the widths of its fields."""


def mutated(messages: Sequence[bytes], others: Sequence[bytes], source: random.Random) -> bytes:
    """Join `messages` with a few changes; whole messages may come from `others`."""
    changed = list(messages)
    for _ in range(source.randint(1, _MOST_CHANGES)):
        at = source.randrange(len(changed))
        match source.randrange(8):
            case 0:
                changed.insert(at, changed[at])
            case 1 if len(changed) > 1:
                del changed[at]
            case 2 if others:
                changed.insert(at + 1, source.choice(others))
            case _:
                changed[at] = _damaged(changed[at], source)
    return b"".join(changed)[:_LONGEST]


def _damaged(message: bytes, source: random.Random) -> bytes:
    """Change one message by a bit, a byte, a piece or a number."""
    at = source.randrange(min(len(message), _FIELDS_END) + 1)
    word = source.choice(DICTIONARY)
    match source.randrange(6):
        case 0 if at < len(message):
            return flip(message, 8 * at + source.randrange(8))
        case 1:
            return insert(message, at, word)
        case 2:
            return message[:at] + message[at + source.choice((1, 2, 4, 8)) :]
        case 3:
            end = at + source.choice((1, 4, 8, 16))
            return message[:end] + message[at:]
    at = source.randrange(0, _FIELDS_END, 2)
    return overwrite(message, at, word) if at + len(word) <= len(message) else message[:at]
