"""Block status payloads, turned into what extent callbacks expect. Pure."""

from __future__ import annotations

import errno
import struct

from nbdtest.client.settings import MAX_REQUEST_SIZE

__all__ = ["cook_extents", "count_is_consistent", "status_length_fits"]

NARROW_LIMIT = (1 << 32) - 1
WIDE_LIMIT = (1 << 63) - 1
# What stands for a length that the callback's type cannot express: the limit, less one request, so that it stays
# aligned.
NARROW_CUT = (1 << 32) - MAX_REQUEST_SIZE
WIDE_CUT = (1 << 63) - MAX_REQUEST_SIZE

_NARROW = struct.Struct(">II")
_HEADERS = {False: 4, True: 8}
_ITEMS = {False: 8, True: 16}


def status_length_fits(wide: bool, length: int) -> bool:
    """Whether a payload of `length` bytes can be a context id (and a count, when wide) and whole extents, at least
    one.
    """
    rest = length - _HEADERS[wide]
    return rest >= _ITEMS[wide] and rest % _ITEMS[wide] == 0


def count_is_consistent(wide: bool, payload: bytes | bytearray) -> bool:
    """Whether the count in a wide payload is the number of extents that follow."""
    return not wide or int.from_bytes(payload[4:8], "big") == (len(payload) - 8) // 16


def cook_extents(
    payload: bytes | bytearray, *, from_wide: bool, to_wide: bool, room: int
) -> tuple[list[int] | list[tuple[int, int]], int]:
    """Give the extents of `payload` in the callback's form, and the errno value that they deserve (0: none).

    The form is [length, flags, ...], or [(length, flags), ...] if `to_wide`. `room` is the number of bytes between the
    request's offset and the end of the export: no extent reaches further. A list that breaks a rule ends where it does;
    only a list that does not progress, or that leaves the export, is an error, because servers may truncate anyway.
    """
    if len(payload) == 12:  # most often: one extent, 32-bit
        length, status = _NARROW.unpack_from(payload, 4)
        if 0 < length <= room:
            return ([(length, status)] if to_wide else [length, status]), 0
    at = _HEADERS[from_wide]
    count = (len(payload) - at) // (8 if from_wide else 4)
    values = struct.unpack_from(f">{count}{'Q' if from_wide else 'I'}", payload, at)
    lengths, flags = values[::2], values[1::2]
    total = sum(lengths)
    fits = not from_wide or (to_wide and total <= WIDE_LIMIT) or max(values) <= NARROW_LIMIT
    if fits and total <= room and 0 not in lengths:
        return (list(zip(lengths, flags, strict=True)) if to_wide else list(values)), 0
    return _cook(lengths, flags, to_wide=to_wide, room=room)


def _cook(
    lengths: tuple[int, ...], flags: tuple[int, ...], *, to_wide: bool, room: int
) -> tuple[list[int] | list[tuple[int, int]], int]:
    pairs: list[tuple[int, int]] = []
    error = 0
    total = 0
    for length, status in zip(lengths, flags, strict=True):
        last = False
        if length > WIDE_LIMIT:
            length, last = WIDE_CUT, True
        if not to_wide and length > NARROW_LIMIT:
            length, last = NARROW_CUT, True
        if not to_wide and status > NARROW_LIMIT:
            if pairs:
                break
            error = error or errno.EOVERFLOW
            status, last = status & NARROW_LIMIT, True
        if length > room - total:
            length, last = room - total, True
            error = error or errno.EPROTO
        if length == 0:
            if pairs:
                break
            error = error or errno.EPROTO
            last = True
        total += length
        pairs.append((length, status))
        if last:
            break
    if to_wide:
        return pairs, error
    return [number for pair in pairs for number in pair], error
