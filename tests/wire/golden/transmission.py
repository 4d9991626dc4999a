"""Frames of the transmission phase, as real peers sent them.

Made by `tests.wire.capture`, then read against the specification.
"""

# ruff: noqa: E501  (a captured line stands as it was shown)

from nbdtest.wire import (
    Cmd,
    CmdFlag,
    Errno,
    ExtendedReply,
    ExtendedRequest,
    ReplyFlag,
    ReplyType,
    Request,
    SimpleReply,
    StructuredReply,
)
from tests.wire.golden.row import Golden

ROWS = (
    Golden(
        source="libnbd 1.14.2",
        message=Request(type=Cmd.READ, cookie=1, offset=0, length=16),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x00"  # flags
            b"\x00\x00"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x10"  # length
        ),
        line="Request flags=0 type=CMD_READ cookie=0x1 offset=0 length=16",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Request(type=Cmd.FLUSH, cookie=2, offset=0, length=0),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x00"  # flags
            b"\x00\x03"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x02"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00"  # length
        ),
        line="Request flags=0 type=CMD_FLUSH cookie=0x2 offset=0 length=0",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Request(type=Cmd.BLOCK_STATUS, cookie=3, offset=0, length=1048576),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x00"  # flags
            b"\x00\x07"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x03"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x10\x00\x00"  # length
        ),
        line="Request flags=0 type=CMD_BLOCK_STATUS cookie=0x3 offset=0 length=1048576",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Request(flags=CmdFlag.FUA, type=Cmd.WRITE, cookie=4, offset=512, length=8),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x01"  # flags
            b"\x00\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x04"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x02\x00"  # offset
            b"\x00\x00\x00\x08"  # length
        ),
        line="Request flags=FUA type=CMD_WRITE cookie=0x4 offset=512 length=8",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Request(type=Cmd.TRIM, cookie=5, offset=65536, length=4096),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x00"  # flags
            b"\x00\x04"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x05"  # cookie
            b"\x00\x00\x00\x00\x00\x01\x00\x00"  # offset
            b"\x00\x00\x10\x00"  # length
        ),
        line="Request flags=0 type=CMD_TRIM cookie=0x5 offset=65536 length=4096",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Request(flags=CmdFlag.NO_HOLE, type=Cmd.WRITE_ZEROES, cookie=6, offset=131072, length=4096),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x02"  # flags
            b"\x00\x06"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x06"  # cookie
            b"\x00\x00\x00\x00\x00\x02\x00\x00"  # offset
            b"\x00\x00\x10\x00"  # length
        ),
        line="Request flags=NO_HOLE type=CMD_WRITE_ZEROES cookie=0x6 offset=131072 length=4096",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Request(type=Cmd.CACHE, cookie=7, offset=0, length=4096),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x00"  # flags
            b"\x00\x05"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x07"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x10\x00"  # length
        ),
        line="Request flags=0 type=CMD_CACHE cookie=0x7 offset=0 length=4096",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Request(type=Cmd.DISC, cookie=8, offset=0, length=0),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x00"  # flags
            b"\x00\x02"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x08"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00"  # length
        ),
        line="Request flags=0 type=CMD_DISC cookie=0x8 offset=0 length=0",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=StructuredReply(
            flags=ReplyFlag.DONE,
            type=ReplyType.OFFSET_DATA,
            cookie=1,
            payload=b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        ),
        data=(
            b"\x66\x8e\x33\xef"  # magic
            b"\x00\x01"  # flags
            b"\x00\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x18"  # length
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # data
        ),
        line="StructuredReply flags=DONE type=REPLY_TYPE_OFFSET_DATA cookie=0x1 | OffsetData offset=0 data=00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=SimpleReply(error=Errno.OK, cookie=2),
        data=(
            b"\x67\x44\x66\x98"  # magic
            b"\x00\x00\x00\x00"  # error
            b"\x00\x00\x00\x00\x00\x00\x00\x02"  # cookie
        ),
        line="SimpleReply error=OK cookie=0x2",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=StructuredReply(
            flags=ReplyFlag.DONE,
            type=ReplyType.BLOCK_STATUS,
            cookie=3,
            payload=b"\x00\x00\x00\x01\x00\x10\x00\x00\x00\x00\x00\x03",
        ),
        data=(
            b"\x66\x8e\x33\xef"  # magic
            b"\x00\x01"  # flags
            b"\x00\x05"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x03"  # cookie
            b"\x00\x00\x00\x0c"  # length
            b"\x00\x00\x00\x01"  # context_id
            b"\x00\x10\x00\x00"  # extents[0].length
            b"\x00\x00\x00\x03"  # extents[0].status
        ),
        line="StructuredReply flags=DONE type=REPLY_TYPE_BLOCK_STATUS cookie=0x3 | BlockStatus context_id=1 extents=[1048576:0x3]",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Request(type=Cmd.WRITE, cookie=2, offset=0, length=1),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x00"  # flags
            b"\x00\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x02"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x01"  # length
        ),
        line="Request flags=0 type=CMD_WRITE cookie=0x2 offset=0 length=1",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=StructuredReply(
            flags=ReplyFlag.DONE, type=ReplyType.ERROR, cookie=1, payload=b"\x00\x00\x00\x05\x00\x00"
        ),
        data=(
            b"\x66\x8e\x33\xef"  # magic
            b"\x00\x01"  # flags
            b"\x80\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x06"  # length
            b"\x00\x00\x00\x05"  # error
            b"\x00\x00"  # message_length
        ),
        line='StructuredReply flags=DONE type=REPLY_TYPE_ERROR cookie=0x1 | ErrorChunk error=EIO message=""',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=SimpleReply(error=Errno.EIO, cookie=2),
        data=(
            b"\x67\x44\x66\x98"  # magic
            b"\x00\x00\x00\x05"  # error
            b"\x00\x00\x00\x00\x00\x00\x00\x02"  # cookie
        ),
        line="SimpleReply error=EIO cookie=0x2",
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=StructuredReply(
            type=ReplyType.OFFSET_DATA,
            cookie=2,
            payload=b"\x00\x00\x00\x00\x00\x00\xff\xf8\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff",
        ),
        data=(
            b"\x66\x8e\x33\xef"  # magic
            b"\x00\x00"  # flags
            b"\x00\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x02"  # cookie
            b"\x00\x00\x00\x10"  # length
            b"\x00\x00\x00\x00\x00\x00\xff\xf8"  # offset
            b"\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff"  # data
        ),
        line="StructuredReply flags=0 type=REPLY_TYPE_OFFSET_DATA cookie=0x2 | OffsetData offset=65528 data=f8 f9 fa fb fc fd fe ff",
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=StructuredReply(
            flags=ReplyFlag.DONE,
            type=ReplyType.OFFSET_HOLE,
            cookie=2,
            payload=b"\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x08",
        ),
        data=(
            b"\x66\x8e\x33\xef"  # magic
            b"\x00\x01"  # flags
            b"\x00\x02"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x02"  # cookie
            b"\x00\x00\x00\x0c"  # length
            b"\x00\x00\x00\x00\x00\x01\x00\x00"  # offset
            b"\x00\x00\x00\x08"  # length
        ),
        line="StructuredReply flags=DONE type=REPLY_TYPE_OFFSET_HOLE cookie=0x2 | OffsetHole offset=65536 length=8",
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=StructuredReply(
            type=ReplyType.BLOCK_STATUS,
            cookie=4,
            payload=b"\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x0f\x00\x00\x00\x00\x00\x03",
        ),
        data=(
            b"\x66\x8e\x33\xef"  # magic
            b"\x00\x00"  # flags
            b"\x00\x05"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x04"  # cookie
            b"\x00\x00\x00\x14"  # length
            b"\x00\x00\x00\x00"  # context_id
            b"\x00\x01\x00\x00"  # extents[0].length
            b"\x00\x00\x00\x00"  # extents[0].status
            b"\x00\x0f\x00\x00"  # extents[1].length
            b"\x00\x00\x00\x03"  # extents[1].status
        ),
        line="StructuredReply flags=0 type=REPLY_TYPE_BLOCK_STATUS cookie=0x4 | BlockStatus context_id=0 extents=[65536:0x0, 983040:0x3]",
    ),
    Golden(
        source="nbd-server 3.24",
        message=SimpleReply(error=Errno.EINVAL, cookie=3),
        data=(
            b"\x67\x44\x66\x98"  # magic
            b"\x00\x00\x00\x16"  # error
            b"\x00\x00\x00\x00\x00\x00\x00\x03"  # cookie
        ),
        line="SimpleReply error=EINVAL cookie=0x3",
    ),
    Golden(
        source="qemu-io 7.2.22",
        message=Request(
            flags=CmdFlag.FUA | CmdFlag.NO_HOLE, type=Cmd.WRITE_ZEROES, cookie=94806291881936, offset=4096, length=4096
        ),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x03"  # flags
            b"\x00\x06"  # type
            b"\x00\x00\x56\x39\xcf\x59\x9f\xd0"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x10\x00"  # offset
            b"\x00\x00\x10\x00"  # length
        ),
        line="Request flags=FUA|NO_HOLE type=CMD_WRITE_ZEROES cookie=0x5639cf599fd0 offset=4096 length=4096",
    ),
    Golden(
        source="libnbd 1.22.2",
        message=ExtendedRequest(type=Cmd.READ, cookie=1, offset=0, length=16),
        data=(
            b"\x21\xe4\x1c\x71"  # magic
            b"\x00\x00"  # flags
            b"\x00\x00"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x10"  # length
        ),
        line="ExtendedRequest flags=0 type=CMD_READ cookie=0x1 offset=0 length=16",
    ),
    Golden(
        source="libnbd 1.22.2",
        message=ExtendedRequest(type=Cmd.BLOCK_STATUS, cookie=4, offset=0, length=1048576),
        data=(
            b"\x21\xe4\x1c\x71"  # magic
            b"\x00\x00"  # flags
            b"\x00\x07"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x04"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # length
        ),
        line="ExtendedRequest flags=0 type=CMD_BLOCK_STATUS cookie=0x4 offset=0 length=1048576",
    ),
    Golden(
        source="libnbd 1.22.2",
        message=ExtendedRequest(
            flags=CmdFlag.FUA | CmdFlag.PAYLOAD_LEN, type=Cmd.WRITE, cookie=5, offset=512, length=8
        ),
        data=(
            b"\x21\xe4\x1c\x71"  # magic
            b"\x00\x21"  # flags
            b"\x00\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x05"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x02\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x08"  # length
        ),
        line="ExtendedRequest flags=FUA|PAYLOAD_LEN type=CMD_WRITE cookie=0x5 offset=512 length=8",
    ),
    Golden(
        source="libnbd 1.22.2",
        message=ExtendedRequest(flags=CmdFlag.NO_HOLE, type=Cmd.WRITE_ZEROES, cookie=7, offset=131072, length=4096),
        data=(
            b"\x21\xe4\x1c\x71"  # magic
            b"\x00\x02"  # flags
            b"\x00\x06"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x07"  # cookie
            b"\x00\x00\x00\x00\x00\x02\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x10\x00"  # length
        ),
        line="ExtendedRequest flags=NO_HOLE type=CMD_WRITE_ZEROES cookie=0x7 offset=131072 length=4096",
    ),
    Golden(
        source="libnbd 1.22.2",
        message=ExtendedRequest(flags=CmdFlag.PAYLOAD_LEN, type=Cmd.BLOCK_STATUS, cookie=9, offset=0, length=12),
        data=(
            b"\x21\xe4\x1c\x71"  # magic
            b"\x00\x20"  # flags
            b"\x00\x07"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x09"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x0c"  # length
        ),
        line="ExtendedRequest flags=PAYLOAD_LEN type=CMD_BLOCK_STATUS cookie=0x9 offset=0 length=12",
    ),
    Golden(
        source="libnbd 1.22.2",
        message=ExtendedRequest(type=Cmd.DISC, cookie=10, offset=0, length=0),
        data=(
            b"\x21\xe4\x1c\x71"  # magic
            b"\x00\x00"  # flags
            b"\x00\x02"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x0a"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # length
        ),
        line="ExtendedRequest flags=0 type=CMD_DISC cookie=0xa offset=0 length=0",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=ExtendedReply(
            flags=ReplyFlag.DONE,
            type=ReplyType.OFFSET_DATA,
            cookie=1,
            offset=0,
            payload=b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f",
        ),
        data=(
            b"\x6e\x8a\x27\x8c"  # magic
            b"\x00\x01"  # flags
            b"\x00\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x18"  # length
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"  # data
        ),
        line="ExtendedReply flags=DONE type=REPLY_TYPE_OFFSET_DATA cookie=0x1 offset=0 | OffsetData offset=0 data=00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=ExtendedReply(
            type=ReplyType.OFFSET_DATA,
            cookie=2,
            offset=65528,
            payload=b"\x00\x00\x00\x00\x00\x00\xff\xf8\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff",
        ),
        data=(
            b"\x6e\x8a\x27\x8c"  # magic
            b"\x00\x00"  # flags
            b"\x00\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x02"  # cookie
            b"\x00\x00\x00\x00\x00\x00\xff\xf8"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x10"  # length
            b"\x00\x00\x00\x00\x00\x00\xff\xf8"  # offset
            b"\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff"  # data
        ),
        line="ExtendedReply flags=0 type=REPLY_TYPE_OFFSET_DATA cookie=0x2 offset=65528 | OffsetData offset=65528 data=f8 f9 fa fb fc fd fe ff",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=ExtendedReply(
            flags=ReplyFlag.DONE,
            type=ReplyType.OFFSET_HOLE,
            cookie=2,
            offset=65528,
            payload=b"\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x08",
        ),
        data=(
            b"\x6e\x8a\x27\x8c"  # magic
            b"\x00\x01"  # flags
            b"\x00\x02"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x02"  # cookie
            b"\x00\x00\x00\x00\x00\x00\xff\xf8"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x0c"  # length
            b"\x00\x00\x00\x00\x00\x01\x00\x00"  # offset
            b"\x00\x00\x00\x08"  # length
        ),
        line="ExtendedReply flags=DONE type=REPLY_TYPE_OFFSET_HOLE cookie=0x2 offset=65528 | OffsetHole offset=65536 length=8",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=ExtendedReply(flags=ReplyFlag.DONE, type=ReplyType.NONE, cookie=3, offset=0),
        data=(
            b"\x6e\x8a\x27\x8c"  # magic
            b"\x00\x01"  # flags
            b"\x00\x00"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x03"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # length
        ),
        line="ExtendedReply flags=DONE type=REPLY_TYPE_NONE cookie=0x3 offset=0 payload=(empty)",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=ExtendedReply(
            type=ReplyType.BLOCK_STATUS_EXT,
            cookie=4,
            offset=0,
            payload=b"\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0f\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03",
        ),
        data=(
            b"\x6e\x8a\x27\x8c"  # magic
            b"\x00\x00"  # flags
            b"\x00\x06"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x04"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x28"  # length
            b"\x00\x00\x00\x00"  # context_id
            b"\x00\x00\x00\x02"  # extent_count
            b"\x00\x00\x00\x00\x00\x01\x00\x00"  # extents[0].length
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # extents[0].status
            b"\x00\x00\x00\x00\x00\x0f\x00\x00"  # extents[1].length
            b"\x00\x00\x00\x00\x00\x00\x00\x03"  # extents[1].status
        ),
        line="ExtendedReply flags=0 type=REPLY_TYPE_BLOCK_STATUS_EXT cookie=0x4 offset=0 | BlockStatusExt context_id=0 extents=[65536:0x0, 983040:0x3]",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=ExtendedReply(
            flags=ReplyFlag.DONE,
            type=ReplyType.BLOCK_STATUS_EXT,
            cookie=4,
            offset=0,
            payload=b"\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
        ),
        data=(
            b"\x6e\x8a\x27\x8c"  # magic
            b"\x00\x01"  # flags
            b"\x00\x06"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x04"  # cookie
            b"\x00\x00\x00\x00\x00\x00\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x18"  # length
            b"\x00\x00\x00\x01"  # context_id
            b"\x00\x00\x00\x01"  # extent_count
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # extents[0].length
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # extents[0].status
        ),
        line="ExtendedReply flags=DONE type=REPLY_TYPE_BLOCK_STATUS_EXT cookie=0x4 offset=0 | BlockStatusExt context_id=1 extents=[1048576:0x1]",
    ),
    Golden(
        source="qemu-nbd 10.0.13",
        message=ExtendedReply(
            flags=ReplyFlag.DONE,
            type=ReplyType.ERROR,
            cookie=1,
            offset=1048576,
            payload=b"\x00\x00\x00\x16\x00:operation past EOF; From: 1048576, Len: 512, Size: 1048576",
        ),
        data=(
            b"\x6e\x8a\x27\x8c"  # magic
            b"\x00\x01"  # flags
            b"\x80\x01"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # offset
            b"\x00\x00\x00\x00\x00\x00\x00\x40"  # length
            b"\x00\x00\x00\x16"  # error
            b"\x00\x3a"  # message_length
            b"operation past EOF; From: 1048576, Len: 512, Size: 1048576"  # message
        ),
        line='ExtendedReply flags=DONE type=REPLY_TYPE_ERROR cookie=0x1 offset=1048576 | ErrorChunk error=EINVAL message="operation past EOF; From: 1048576, Len: 512, Size: 1048576"',
    ),
    Golden(
        source="nbd-server 3.26.1",
        message=StructuredReply(flags=ReplyFlag.DONE, type=ReplyType.NONE, cookie=1),
        data=(
            b"\x66\x8e\x33\xef"  # magic
            b"\x00\x01"  # flags
            b"\x00\x00"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x00"  # length
        ),
        line="StructuredReply flags=DONE type=REPLY_TYPE_NONE cookie=0x1 payload=(empty)",
    ),
    Golden(
        source="extension-resize: the draft's text, no peer has it",
        message=Request(type=Cmd.RESIZE, cookie=1, offset=2097152, length=0),
        data=(
            b"\x25\x60\x95\x13"  # magic
            b"\x00\x00"  # flags
            b"\x00\x08"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x00\x00\x20\x00\x00"  # offset
            b"\x00\x00\x00\x00"  # length
        ),
        line="Request flags=0 type=CMD_RESIZE cookie=0x1 offset=2097152 length=0",
    ),
    Golden(
        source="proto.md: its text, no known peer sends it",
        message=StructuredReply(
            flags=ReplyFlag.DONE,
            type=ReplyType.ERROR_OFFSET,
            cookie=1,
            payload=b"\x00\x00\x00\x05\x00\nbad sector\x00\x00\x00\x00\x00\x00\x10\x00",
        ),
        data=(
            b"\x66\x8e\x33\xef"  # magic
            b"\x00\x01"  # flags
            b"\x80\x02"  # type
            b"\x00\x00\x00\x00\x00\x00\x00\x01"  # cookie
            b"\x00\x00\x00\x18"  # length
            b"\x00\x00\x00\x05"  # error
            b"\x00\x0a"  # message_length
            b"bad sector"  # message
            b"\x00\x00\x00\x00\x00\x00\x10\x00"  # offset
        ),
        line='StructuredReply flags=DONE type=REPLY_TYPE_ERROR_OFFSET cookie=0x1 | ErrorOffset error=EIO message="bad sector" offset=4096',
    ),
)
