"""`Buffer`: libnbd's persistent buffer for asynchronous commands. Knows no handle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, SupportsIndex, overload

__all__ = ["Buffer", "BytesLike", "readable_view", "writable_view"]

BytesLike = bytes | bytearray | memoryview


class Buffer:
    """Memory that lives as long as a command needs it.

    Besides libnbd's methods it can be indexed, sliced and iterated like a bytearray, and compared with bytes. From
    Python 3.12 on it also supports the buffer protocol, so that `memoryview(buffer)` works; before, use
    `memoryview(buffer.to_buffer())`.
    """

    # `_init` exists once the contents mean something; a buffer without it counts as zeroes. libnbd's tests look at it.
    __slots__ = ("__weakref__", "_init", "_o")

    _o: Any
    _init: bool

    def __init__(self, len: int) -> None:
        """Make a buffer of `len` bytes, which are zero until they are written."""
        self._o = bytearray(len)

    @classmethod
    def from_buffer(cls, buf: Any) -> Buffer:
        """Share the memory of `buf`, any contiguous object that supports the buffer protocol."""
        made = cls(0)
        made._o = buf._o if isinstance(buf, Buffer) else buf
        made._init = True
        return made

    @classmethod
    def from_bytearray(cls, ba: Any) -> Buffer:
        """Copy `ba`: whatever `bytearray(ba)` takes, that is bytes, an iterable of numbers, or a number of zeroes."""
        made = cls(0)
        made._o = bytearray(ba._o if isinstance(ba, Buffer) else ba)
        made._init = True
        return made

    def to_buffer(self) -> Any:
        """Return the object that holds the memory, not a copy."""
        self._init = True
        return self._o

    def to_bytearray(self) -> bytearray:
        """Return a copy."""
        self._init = True
        return bytearray(self._o)

    def size(self) -> int:
        """Return the length in bytes."""
        return len(self)

    def is_zero(self, offset: int = 0, size: int = -1) -> bool:
        """Whether `size` bytes from `offset` are all zero; a size of -1 means up to the end.

        Raises:
            IndexError: the range is not inside the buffer.
        """
        length = len(self)
        if size == 0:
            return True
        if not 0 <= offset <= length:
            raise IndexError("offset out of range")
        if size == -1:
            size = length - offset
        elif size < 0:
            raise IndexError("size cannot be negative, except -1 to mean to the end of the buffer")
        elif offset + size > length:
            raise IndexError("size out of range")
        if not hasattr(self, "_init"):
            return True
        with self._view() as view, view[offset : offset + size] as part:
            return not any(bytes(part[at : at + 4096]).strip(b"\0") for at in range(0, size, 4096))

    def _view(self) -> memoryview:
        return memoryview(self._o).cast("B")

    def __len__(self) -> int:
        return memoryview(self._o).nbytes

    @overload
    def __getitem__(self, at: SupportsIndex) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> bytearray: ...

    def __getitem__(self, at: SupportsIndex | slice) -> int | bytearray:
        with self._view() as view:
            found = view[at]
            return bytearray(found) if isinstance(found, memoryview) else found

    @overload
    def __setitem__(self, at: SupportsIndex, value: int) -> None: ...

    @overload
    def __setitem__(self, at: slice, value: BytesLike) -> None: ...

    def __setitem__(self, at: SupportsIndex | slice, value: int | BytesLike) -> None:
        with self._view() as view:
            view[at] = value  # type: ignore[index, assignment]  # the overloads pair them up
        self._init = True

    def __iter__(self) -> Iterator[int]:
        return iter(bytes(self._o))

    def __contains__(self, value: object) -> bool:
        return value in bytes(self._o)  # type: ignore[operator]  # bytes decides what it can contain

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Buffer):
            other = other._o
        if not isinstance(other, bytes | bytearray | memoryview):
            return NotImplemented
        return bytes(self._o) == other

    __hash__ = None  # type: ignore[assignment]  # mutable, like a bytearray

    def __buffer__(self, flags: int) -> memoryview:
        self._init = True
        return memoryview(self._o)

    def __repr__(self) -> str:
        return f"<Buffer of {len(self)} bytes>"


def writable_view(buffer: Any) -> memoryview:
    """The memory of a Buffer, or of any contiguous writable object, to be read into.

    Raises:
        TypeError: it has none.
        BufferError: it cannot be written to.
    """
    if isinstance(buffer, Buffer):
        buffer._init = True
        buffer = buffer._o
    view = _bytes_view(buffer)
    if view.readonly:
        raise BufferError("underlying buffer is not writable")
    return view


def readable_view(buffer: Any) -> memoryview:
    """The memory of a Buffer or of any contiguous object, to be sent.

    Raises:
        TypeError: it has none.
    """
    if isinstance(buffer, Buffer):
        buffer._init = True
        buffer = buffer._o
    return _bytes_view(buffer)


def _bytes_view(buffer: Any) -> memoryview:
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError("aio_buffer: expecting buffer or nbd.Buffer instance") from None
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if not view.contiguous:
        raise BufferError("memoryview: underlying buffer is not contiguous")
    return view.cast("B")
