"""A test's own object as a disk: only `read` and a size have to be there, the rest is made up from what it has."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from nbdtest.errors import UsageError
from nbdtest.model.disk import DATA, DiskError
from nbdtest.wire import Errno, Extent
from nbdtest.wire.layout import Readable

__all__ = ["CustomDisk", "as_nbd_errno"]

_NBD_ERRNO = {
    "EPERM": Errno.EPERM,
    "EACCES": Errno.EPERM,
    "EROFS": Errno.EPERM,
    "EIO": Errno.EIO,
    "ENOMEM": Errno.ENOMEM,
    "EINVAL": Errno.EINVAL,
    "ENOSPC": Errno.ENOSPC,
    "EDQUOT": Errno.ENOSPC,  # ERR-021
    "EFBIG": Errno.ENOSPC,
    "EOVERFLOW": Errno.EOVERFLOW,
    "ENOTSUP": Errno.ENOTSUP,
    "EOPNOTSUPP": Errno.ENOTSUP,
    "ESHUTDOWN": Errno.ESHUTDOWN,
}
_ZEROES = bytes(1 << 20)


def as_nbd_errno(error: OSError) -> Errno:
    """Translate the machine's errno into the protocol's; what has no counterpart is EIO."""
    return _NBD_ERRNO.get(errno.errorcode.get(error.errno or 0, ""), Errno.EIO)


class CustomDisk:
    """Serves `backend`, an object with `read(offset, length)` and perhaps `size`, `write(offset, data)`,
    `zero(offset, length)`, `trim(offset, length)`, `flush()`, `extents(offset, length)` and `resize(size)`.

    An `OSError` or `DiskError` that it raises becomes the client's error. `extents` gives pairs (length, status).
    """

    def __init__(self, backend: Any, size: int | None = None) -> None:
        if not callable(getattr(backend, "read", None)):
            raise UsageError(f"{type(backend).__name__} has no read(offset, length): it cannot be a disk")
        if size is None and not isinstance(getattr(backend, "size", None), int):
            raise UsageError(f"{type(backend).__name__} has no integer size: give one with size=")
        self.backend = backend
        self._size = size

    @property
    def size(self) -> int:
        return int(self.backend.size) if self._size is None else self._size

    @property
    def writable(self) -> bool:
        """Whether the object can be written to."""
        return self._method("write") is not None

    def read(self, offset: int, length: int) -> Readable:
        with _as_disk_error():
            data: Readable = self.backend.read(offset, length)
        if len(data) != length:
            raise DiskError(Errno.EIO, f"{len(data)} bytes were read instead of {length}", offset=offset)
        return data

    def write(self, offset: int, data: Readable) -> None:
        method = self._method("write")
        if method is None:
            raise DiskError(Errno.EPERM, "this disk cannot be written to")
        with _as_disk_error():
            method(offset, data)

    def zero(self, offset: int, length: int, *, allocate: bool = False, fast: bool = False) -> None:
        method = self._method("zero")
        if method is not None and not allocate:
            with _as_disk_error():
                method(offset, length)
            return
        if fast:
            raise DiskError(Errno.ENOTSUP, "zeroing is no faster than writing here")
        while length:
            count = min(length, len(_ZEROES))
            self.write(offset, _ZEROES[:count])
            offset += count
            length -= count

    def trim(self, offset: int, length: int) -> None:
        self._call("trim", offset, length)

    def flush(self) -> None:
        self._call("flush")

    def extents(self, offset: int, length: int) -> list[Extent]:
        method = self._method("extents")
        if method is None:
            return [Extent(length, int(DATA))]
        with _as_disk_error():
            return list(_fitted(method(offset, length), length))

    def resize(self, size: int) -> None:
        method = self._method("resize")
        if method is None:
            raise DiskError(Errno.EPERM, "this disk cannot be resized")
        with _as_disk_error():
            method(size)
        if self._size is not None:
            self._size = size

    def __repr__(self) -> str:
        return f"CustomDisk({self.backend!r})"

    def _method(self, name: str) -> Callable[..., Any] | None:
        found = getattr(self.backend, name, None)
        return found if callable(found) else None

    def _call(self, name: str, *arguments: int) -> None:
        method = self._method(name)
        if method is not None:
            with _as_disk_error():
                method(*arguments)


@contextmanager
def _as_disk_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(as_nbd_errno(error), error.strerror or os.strerror(error.errno or 0)) from error


def _fitted(extents: Iterable[Extent | tuple[int, int]], length: int) -> Iterator[Extent]:
    """Cut or fill up what the object said, so that it adds up to `length`."""
    for extent in extents:
        size, status = (extent.length, extent.status) if isinstance(extent, Extent) else extent
        size = min(size, length)
        if size > 0:
            yield Extent(size, status)
            length -= size
    if length:
        yield Extent(length, int(DATA))
