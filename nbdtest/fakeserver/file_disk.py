"""A disk in an ordinary file, sparse where the file system is."""

from __future__ import annotations

import ctypes
import errno
import os

from nbdtest.errors import UsageError
from nbdtest.model import DATA, HOLE, DiskError
from nbdtest.model.custom_disk import as_nbd_errno
from nbdtest.wire import Errno, Extent
from nbdtest.wire.layout import Readable

__all__ = ["FileDisk"]

_ZEROES = bytes(1 << 20)
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02


class FileDisk:
    """The contents of a file. Reads and writes go to their place directly, so several threads may use it."""

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        """Open the file, which has to exist.

        Raises:
            UsageError: it cannot be opened.
        """
        self.path = os.fspath(path)
        try:
            self._file = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"cannot open {self.path}: {error.strerror}") from error

    @property
    def size(self) -> int:
        return os.lseek(self._file, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        data = b""
        try:
            while len(data) < length:
                more = os.pread(self._file, length - len(data), offset + len(data))
                if not more:
                    raise DiskError(Errno.EIO, "the file has become shorter", offset=offset + len(data))
                data = data + more if data else more
        except OSError as error:
            raise _disk_error(error) from error
        return data

    def write(self, offset: int, data: Readable) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self._file, view, offset)
                offset += done
                view = view[done:]
        except OSError as error:
            raise _disk_error(error) from error

    def zero(self, offset: int, length: int, *, allocate: bool = False, fast: bool = False) -> None:
        if not allocate and self._punch(offset, length):
            return
        if fast:
            raise DiskError(Errno.ENOTSUP, "this file cannot be zeroed faster than by writing")
        while length:
            count = min(length, len(_ZEROES))
            self.write(offset, _ZEROES[:count])
            offset += count
            length -= count

    def trim(self, offset: int, length: int) -> None:
        self._punch(offset, length)

    def flush(self) -> None:
        try:
            os.fdatasync(self._file)
        except OSError as error:
            raise _disk_error(error) from error

    def extents(self, offset: int, length: int) -> list[Extent]:
        found = []
        end = offset + length
        while offset < end:
            is_hole, until = self._status_at(offset)
            until = min(until, end)
            found.append(Extent(until - offset, int(HOLE if is_hole else DATA)))
            offset = until
        return found

    def resize(self, size: int) -> None:
        try:
            os.ftruncate(self._file, size)
        except OSError as error:
            raise _disk_error(error) from error

    def close(self) -> None:
        """Close the file. Any number of times."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __repr__(self) -> str:
        return f"FileDisk({self.path!r})"

    def _status_at(self, offset: int) -> tuple[bool, int]:
        """Whether there is a hole, and where that ends."""
        try:
            data = os.lseek(self._file, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here on
                return True, self.size
            raise _disk_error(error) from error
        if data > offset:
            return True, data
        return False, os.lseek(self._file, offset, os.SEEK_HOLE)

    def _punch(self, offset: int, length: int) -> bool:
        """Make a hole; False if this file system cannot."""
        if not length:
            return True
        fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
        if fallocate is None:
            return False
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if fallocate(self._file, _PUNCH_HOLE | _KEEP_SIZE, offset, length) == 0:
            return True
        failure = ctypes.get_errno()
        if failure in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        raise _disk_error(OSError(failure, os.strerror(failure)))


def _disk_error(error: OSError) -> DiskError:
    return DiskError(as_nbd_errno(error), error.strerror or str(error))
