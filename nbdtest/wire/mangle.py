"""Deliberate damage to encoded bytes, by position. Damage by field is `Message.encode(magic=…, length=…)`."""

from __future__ import annotations

from nbdtest.errors import UsageError

__all__ = ["cut", "flip", "insert", "overwrite"]


def cut(data: bytes, after: int) -> bytes:
    """Keep the first `after` bytes, or all but the last `-after` when it is negative."""
    return data[:after]


def flip(data: bytes, bit: int) -> bytes:
    """Invert one bit; bit 0 is the most significant of the first byte.

    Raises:
        UsageError: the data has no such bit.
    """
    if not 0 <= bit < 8 * len(data):
        raise UsageError(f"bit {bit} wanted: the data has {8 * len(data)}")
    changed = bytearray(data)
    changed[bit // 8] ^= 0x80 >> bit % 8
    return bytes(changed)


def insert(data: bytes, at: int, extra: bytes) -> bytes:
    """Put `extra` in front of position `at`."""
    return data[:at] + extra + data[at:]


def overwrite(data: bytes, at: int, replacement: bytes) -> bytes:
    """Replace the bytes from position `at`.

    Raises:
        UsageError: the replacement reaches past the end.
    """
    if at < 0 or at + len(replacement) > len(data):
        raise UsageError(f"bytes {at}..{at + len(replacement)} wanted: the data has {len(data)}")
    return data[:at] + replacement + data[at + len(replacement) :]
