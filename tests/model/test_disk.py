"""MemoryDisk against a bytearray, what it says of its extents, and how little memory it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.errors import UsageError
from nbdtest.model import DATA, HOLE, ZERO, Disk, DiskError, MemoryDisk
from nbdtest.model.disk import SLAB
from nbdtest.wire import Errno, Extent, State

SIZE = 2 * SLAB + 1000
places = st.one_of(st.integers(0, SIZE), st.integers(SLAB - 600, SLAB + 600), st.integers(SIZE - 600, SIZE))
changes = st.one_of(
    st.tuples(st.just("write"), places, st.binary(max_size=1500)),
    st.tuples(st.sampled_from(["zero", "allocate", "trim"]), places, st.one_of(st.integers(0, 1500), places)),
)


def applied(disk: MemoryDisk, plain: bytearray, change: tuple[str, int, bytes | int]) -> None:
    kind, offset, what = change
    if isinstance(what, bytes):
        what = what[: SIZE - offset]
        disk.write(offset, what)
        plain[offset : offset + len(what)] = what
        return
    length = min(what, SIZE - offset)
    if kind == "trim":
        disk.trim(offset, length)
    else:
        disk.zero(offset, length, allocate=kind == "allocate")
    plain[offset : offset + length] = bytes(length)


@given(st.lists(changes, max_size=8))
def test_it_reads_what_was_written_and_its_extents_are_true(steps: list[tuple[str, int, bytes | int]]) -> None:
    disk, plain = MemoryDisk(SIZE), bytearray(SIZE)
    for step in steps:
        applied(disk, plain, step)
    assert disk.read(0, SIZE) == plain
    at = 0
    for extent in disk.extents(0, SIZE):
        if extent.status & State.ZERO:
            assert not any(plain[at : at + extent.length])
        at += extent.length
    assert at == SIZE


@given(st.lists(changes, max_size=8), places, st.integers(0, 2000))
def test_what_was_allocated_is_no_hole(steps: list[tuple[str, int, bytes | int]], offset: int, length: int) -> None:
    disk, plain = MemoryDisk(SIZE), bytearray(SIZE)
    for step in steps:
        applied(disk, plain, step)
    length = min(length, SIZE - offset)
    disk.zero(offset, length, allocate=True)
    assert not any(extent.status & State.HOLE for extent in disk.extents(offset, length))


def test_it_is_a_disk() -> None:
    assert isinstance(MemoryDisk(0), Disk)


def test_status_tells_hole_zero_and_data_apart() -> None:
    disk = MemoryDisk(8192, b"x" * 512)
    disk.zero(1024, 512, allocate=True)
    assert disk.extents(0, 8192) == [
        Extent(512, DATA),
        Extent(512, HOLE),
        Extent(512, ZERO),
        Extent(6656, HOLE),
    ]


def test_a_block_with_any_data_is_data() -> None:
    disk = MemoryDisk(4096)
    disk.write(700, b"x")
    assert disk.extents(0, 4096) == [Extent(512, HOLE), Extent(512, DATA), Extent(3072, HOLE)]


def test_a_huge_disk_costs_nothing_until_it_is_written() -> None:
    disk = MemoryDisk((1 << 63) - 1)
    disk.write((1 << 63) - 513, b"end")
    assert disk.read((1 << 63) - 513, 4) == b"end\0"
    disk.zero(0, (1 << 63) - 1)
    assert disk.allocated() == 0


def test_a_full_memory_is_enospc_and_earlier_data_stay() -> None:
    disk = MemoryDisk(4 * SLAB, limit=2 * SLAB)
    disk.write(0, b"a")
    disk.write(SLAB, b"b")
    with pytest.raises(DiskError, match="memory limit") as caught:
        disk.write(2 * SLAB, b"c")
    assert caught.value.errno == Errno.ENOSPC
    assert disk.read(SLAB, 1) == b"b"


def test_a_view_sees_later_writes_and_outlives_a_trim() -> None:
    disk = MemoryDisk(SLAB, b"old")
    (view,) = disk.pieces(0, 3)
    disk.write(0, b"new")
    assert bytes(view) == b"new"
    disk.trim(0, SLAB)
    assert disk.read(0, 3) == bytes(3)


def test_shrinking_forgets() -> None:
    disk = MemoryDisk(4096, b"x" * 4096)
    disk.resize(1000)
    disk.resize(4096)
    assert disk.read(0, 4096) == b"x" * 1000 + bytes(3096)


def test_content_has_to_fit() -> None:
    with pytest.raises(UsageError, match="5 bytes of content on a disk of 4 bytes"):
        MemoryDisk(4, b"12345")
