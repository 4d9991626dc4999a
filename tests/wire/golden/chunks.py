"""Payloads of reply chunks and of a filtering request, as real peers sent them.

Made by `tests.wire.capture`, then read against the specification.
"""

from nbdtest.wire import (
    BlockStatus,
    BlockStatusExt,
    Errno,
    ErrorChunk,
    ErrorOffset,
    Extent,
    OffsetData,
    OffsetHole,
    OtherChunk,
    StatusFilter,
)
from tests.wire.golden.row import Golden

ROWS = (
    Golden(
        source="nbdkit 1.32.5",
        message=OffsetData(offset=0, data=b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
        data=(
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # data
        ),
        line="OffsetData offset=0 data=00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=BlockStatus(context_id=1, extents=(Extent(length=1048576, status=3),)),
        data=(
            b"\x00\x00\x00\x01"  # context_id
            b"\x00\x10\x00\x00"  # extents[0].length
            b"\x00\x00\x00\x03"  # extents[0].status
        ),
        line="BlockStatus context_id=1 extents=[1048576:0x3]",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=ErrorChunk(error=Errno.EIO, message=""),
        data=(
            b"\x00\x00\x00\x05"  # error
            b"\x00\x00"  # message_length
        ),
        line='ErrorChunk error=EIO message=""',
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=OffsetHole(offset=65536, length=8),
        data=(
            b"\x00\x00\x00\x00\x00\x01\x00\x00"  # offset
            b"\x00\x00\x00\x08"  # length
        ),
        line="OffsetHole offset=65536 length=8",
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=BlockStatus(context_id=0, extents=(Extent(length=65536, status=0), Extent(length=983040, status=3))),
        data=(
            b"\x00\x00\x00\x00"  # context_id
            b"\x00\x01\x00\x00"  # extents[0].length
            b"\x00\x00\x00\x00"  # extents[0].status
            b"\x00\x0f\x00\x00"  # extents[1].length
            b"\x00\x00\x00\x03"  # extents[1].status
        ),
        line="BlockStatus context_id=0 extents=[65536:0x0, 983040:0x3]",
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=ErrorChunk(error=Errno.EINVAL, message="operation past EOF; From: 1048576, Len: 512, Size: 1048576"),
        data=(
            b"\x00\x00\x00\x16"  # error
            b"\x00\x3a"  # message_length
            b"operation past EOF; From: 1048576, Len: 512, Size: 1048576"  # message
        ),
        line='ErrorChunk error=EINVAL message="operation past EOF; From: 1048576, Len: 512, Size: 1048576"',
    ),
    Golden(
        source="libnbd 1.22.2",
        message=StatusFilter(length=4096, context_ids=(0,)),
        data=(
            b"\x00\x00\x00\x00\x00\x00\x10\x00"  # length
            b"\x00\x00\x00\x00"  # context_ids[0].context_id
        ),
        line="StatusFilter length=4096 context_ids=[0]",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=BlockStatusExt(context_id=0, extents=(Extent(length=65536, status=0), Extent(length=983040, status=3))),
        data=(
            b"\x00\x00\x00\x00"  # context_id
            b"\x00\x00\x00\x02"  # extent_count
            b"\x00\x00\x00\x00\x00\x01\x00\x00"  # extents[0].length
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # extents[0].status
            b"\x00\x00\x00\x00\x00\x0f\x00\x00"  # extents[1].length
            b"\x00\x00\x00\x00\x00\x00\x00\x03"  # extents[1].status
        ),
        line="BlockStatusExt context_id=0 extents=[65536:0x0, 983040:0x3]",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=BlockStatusExt(context_id=1, extents=(Extent(length=1048576, status=1),)),
        data=(
            b"\x00\x00\x00\x01"  # context_id
            b"\x00\x00\x00\x01"  # extent_count
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # extents[0].length
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # extents[0].status
        ),
        line="BlockStatusExt context_id=1 extents=[1048576:0x1]",
    ),
    Golden(
        source="proto.md: its text, no known peer sends it",
        message=ErrorOffset(error=Errno.EIO, message="bad sector", offset=4096),
        data=(
            b"\x00\x00\x00\x05"  # error
            b"\x00\x0a"  # message_length
            b"bad sector"  # message
            b"\x00\x00\x00\x00\x00\x00\x10\x00"  # offset
        ),
        line='ErrorOffset error=EIO message="bad sector" offset=4096',
    ),
    Golden(
        source="proto.md: its text, no known peer sends it",
        message=OtherChunk(data=b"abcd"),
        data=(
            b"abcd"  # data
        ),
        line="OtherChunk data=61 62 63 64",
    ),
)
