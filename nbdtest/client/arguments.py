"""Arguments as libnbd's binding takes them: what has a wrong type raises Python's own errors before anything else is
looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["callback", "file_name", "integer", "seconds", "string", "string_list", "u32", "u64"]

F = TypeVar("F", bound=Callable[..., Any])


def string(name: str, value: str) -> str:
    """Text without NUL.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"argument {name!r} must be str, not {_type(value)}")
    if "\0" in value:
        raise ValueError("embedded null character")
    return value


def file_name(name: str, value: str | bytes | os.PathLike[Any]) -> str:
    """A path, also as bytes or a path object.

    Raises:
        TypeError, ValueError: it is none.
    """
    try:
        path = os.fsdecode(value)
    except TypeError:
        raise TypeError(f"argument {name!r} must be str, bytes or os.PathLike object, not {_type(value)}") from None
    if "\0" in path:
        raise ValueError("embedded null byte")
    return path


def string_list(name: str, value: Sequence[str]) -> list[str]:
    """A list of strings: really a list, because a str is also a sequence of str.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(value, list):
        raise TypeError("expecting a list parameter")
    return [string(f"{name}[{at}]", item) for at, item in enumerate(value)]


def u64(name: str, value: int) -> int:
    """An integer taken modulo 2**64, as the binding does."""
    return _index(name, value) & 0xFFFF_FFFF_FFFF_FFFF


def u32(name: str, value: int) -> int:
    """An integer taken modulo 2**32, as the binding does."""
    return _index(name, value) & 0xFFFF_FFFF


def integer(name: str, value: int) -> int:
    """An integer that a C int holds.

    Raises:
        OverflowError: it does not.
    """
    number = _index(name, value)
    if not -(1 << 31) <= number < 1 << 31:
        raise OverflowError(f"argument {name!r} does not fit a C int")
    return number


def length(name: str, value: int) -> int:
    """A number of bytes.

    Raises:
        ValueError: it is negative.
    """
    number = _index(name, value)
    if number < 0:
        raise ValueError(f"argument {name!r} must not be negative")
    return number


def seconds(name: str, value: float) -> float:
    """A duration.

    Raises:
        TypeError, ValueError: it is no number, or none that a duration can be.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"argument {name!r} must be a number, not {_type(value)}")
    if not value >= 0:
        raise ValueError(f"argument {name!r} must not be negative")
    return float(value)


def callback(name: str, value: F) -> F:
    """Something that can be called.

    Raises:
        TypeError: it cannot.
    """
    if not callable(value):
        raise TypeError(f"callback parameter {name} is not callable")
    return value


def _index(name: str, value: int) -> int:
    try:
        return value.__index__()
    except AttributeError:
        raise TypeError(f"argument {name!r} must be an integer, not {_type(value)}") from None


def _type(value: object) -> str:
    return type(value).__name__
