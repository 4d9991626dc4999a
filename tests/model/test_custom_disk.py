"""A test's own object as a disk: what is made up for it, and what its errors become."""

import errno

import pytest

from nbdtest.errors import UsageError
from nbdtest.model import CustomDisk, DiskError
from nbdtest.wire import Errno, Extent


class ReadOnly:
    size = 1 << 20

    def read(self, offset: int, length: int) -> bytes:
        return b"r" * length


class Recorder(ReadOnly):
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def write(self, offset: int, data: bytes) -> None:
        self.calls.append(("write", offset, len(data)))

    def zero(self, offset: int, length: int) -> None:
        self.calls.append(("zero", offset, length))

    def extents(self, offset: int, length: int) -> list[tuple[int, int]]:
        return [(4096, 3)]


class Failing(ReadOnly):
    def __init__(self, number: int) -> None:
        self.number = number

    def read(self, offset: int, length: int) -> bytes:
        raise OSError(self.number, "no")


def test_an_object_without_write_is_not_writable() -> None:
    disk = CustomDisk(ReadOnly())
    assert not disk.writable
    with pytest.raises(DiskError) as caught:
        disk.write(0, b"x")
    assert caught.value.errno == Errno.EPERM


def test_zeroes_are_written_where_there_is_no_zero_method() -> None:
    class Plain(ReadOnly):
        def __init__(self) -> None:
            self.written = 0

        def write(self, offset: int, data: bytes) -> None:
            assert not any(data)
            self.written += len(data)

    plain = Plain()
    CustomDisk(plain).zero(0, (1 << 20) + 5)
    assert plain.written == (1 << 20) + 5


def test_fast_zero_without_a_zero_method_is_enotsup() -> None:
    with pytest.raises(DiskError) as caught:
        CustomDisk(ReadOnly()).zero(0, 512, fast=True)
    assert caught.value.errno == Errno.ENOTSUP


def test_zero_method_is_for_holes_only() -> None:
    recorder = Recorder()
    disk = CustomDisk(recorder)
    disk.zero(0, 512)
    disk.zero(512, 512, allocate=True)
    assert recorder.calls == [("zero", 0, 512), ("write", 512, 512)]


def test_extents_are_fitted_to_the_range() -> None:
    assert CustomDisk(Recorder()).extents(0, 1000) == [Extent(1000, 3)]
    assert CustomDisk(Recorder()).extents(0, 8192) == [Extent(4096, 3), Extent(4096, 0)]
    assert CustomDisk(ReadOnly()).extents(0, 8192) == [Extent(8192, 0)]


@pytest.mark.parametrize(
    ("machine", "protocol"),
    [
        (errno.EIO, Errno.EIO),
        (errno.EROFS, Errno.EPERM),
        (errno.EDQUOT, Errno.ENOSPC),
        (errno.EFBIG, Errno.ENOSPC),
        (errno.ESHUTDOWN, Errno.ESHUTDOWN),
        (errno.ENOENT, Errno.EIO),
    ],
)
def test_errors_are_translated(machine: int, protocol: Errno) -> None:
    with pytest.raises(DiskError) as caught:
        CustomDisk(Failing(machine)).read(0, 1)
    assert caught.value.errno == protocol


def test_a_short_read_is_eio() -> None:
    class Short(ReadOnly):
        def read(self, offset: int, length: int) -> bytes:
            return b""

    with pytest.raises(DiskError, match="0 bytes were read instead of 7"):
        CustomDisk(Short()).read(0, 7)


@pytest.mark.parametrize("backend", [object(), "text"])
def test_what_cannot_be_read_is_no_disk(backend: object) -> None:
    with pytest.raises(UsageError, match="no read"):
        CustomDisk(backend, 10)


def test_a_size_is_needed() -> None:
    class Sizeless:
        def read(self, offset: int, length: int) -> bytes:
            return bytes(length)

    with pytest.raises(UsageError, match="size="):
        CustomDisk(Sizeless())
    assert CustomDisk(Sizeless(), 7).size == 7
