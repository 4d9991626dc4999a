"""What options and option replies say, as real peers sent them.

Made by `tests.wire.capture`, then read against the specification.
"""

# ruff: noqa: E501  (a captured line stands as it was shown)

from nbdtest.wire import (
    ErrorText,
    ExportName,
    Info,
    InfoBlockSize,
    InfoDescription,
    InfoExport,
    InfoName,
    InfoOther,
    InfoRequest,
    MetaContext,
    MetaContextRequest,
    Nothing,
    OtherData,
    ServerExport,
    TransmissionFlag,
)
from tests.wire.golden.row import Golden

ROWS = (
    Golden(
        source="libnbd 1.14.2",
        message=Nothing(),
        data=(b""),
        line="Nothing",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=MetaContextRequest(name="", queries=("base:allocation",)),
        data=(
            b"\x00\x00\x00\x00"  # name_length
            b"\x00\x00\x00\x01"  # query_count
            b"\x00\x00\x00\x0f"  # queries[0].query_length
            b"base:allocation"  # queries[0].query
        ),
        line='MetaContextRequest name="" queries=["base:allocation"]',
    ),
    Golden(
        source="libnbd 1.14.2",
        message=InfoRequest(name="", infos=(Info.BLOCK_SIZE, Info.NAME, Info.DESCRIPTION)),
        data=(
            b"\x00\x00\x00\x00"  # name_length
            b"\x00\x03"  # info_count
            b"\x00\x03"  # infos[0].info
            b"\x00\x01"  # infos[1].info
            b"\x00\x02"  # infos[2].info
        ),
        line='InfoRequest name="" infos=[INFO_BLOCK_SIZE, INFO_NAME, INFO_DESCRIPTION]',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=MetaContext(id=1, name="base:allocation"),
        data=(
            b"\x00\x00\x00\x01"  # id
            b"base:allocation"  # name
        ),
        line='MetaContext id=1 name="base:allocation"',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=InfoExport(
            size=1048576,
            flags=TransmissionFlag.HAS_FLAGS
            | TransmissionFlag.SEND_FLUSH
            | TransmissionFlag.SEND_FUA
            | TransmissionFlag.SEND_TRIM
            | TransmissionFlag.SEND_WRITE_ZEROES
            | TransmissionFlag.SEND_DF
            | TransmissionFlag.CAN_MULTI_CONN
            | TransmissionFlag.SEND_CACHE
            | TransmissionFlag.SEND_FAST_ZERO,
        ),
        data=(
            b"\x00\x00"  # info
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # size
            b"\x0d\xed"  # flags
        ),
        line="InfoExport size=1048576 flags=HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|SEND_DF|CAN_MULTI_CONN|SEND_CACHE|SEND_FAST_ZERO",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=InfoBlockSize(minimum=1, preferred=4096, maximum=33554432),
        data=(
            b"\x00\x03"  # info
            b"\x00\x00\x00\x01"  # minimum
            b"\x00\x00\x10\x00"  # preferred
            b"\x02\x00\x00\x00"  # maximum
        ),
        line="InfoBlockSize minimum=1 preferred=4096 maximum=33554432",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=InfoName(name=""),
        data=(
            b"\x00\x01"  # info
        ),
        line='InfoName name=""',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=InfoDescription(description="scratch disk"),
        data=(
            b"\x00\x02"  # info
            b"scratch disk"  # description
        ),
        line='InfoDescription description="scratch disk"',
    ),
    Golden(
        source="libnbd 1.14.2",
        message=MetaContextRequest(name="nowhere", queries=("base:",)),
        data=(
            b"\x00\x00\x00\x07"  # name_length
            b"nowhere"  # name
            b"\x00\x00\x00\x01"  # query_count
            b"\x00\x00\x00\x05"  # queries[0].query_length
            b"base:"  # queries[0].query
        ),
        line='MetaContextRequest name="nowhere" queries=["base:"]',
    ),
    Golden(
        source="libnbd 1.14.2",
        message=InfoRequest(name="nowhere", infos=(Info.BLOCK_SIZE, Info.NAME, Info.DESCRIPTION)),
        data=(
            b"\x00\x00\x00\x07"  # name_length
            b"nowhere"  # name
            b"\x00\x03"  # info_count
            b"\x00\x03"  # infos[0].info
            b"\x00\x01"  # infos[1].info
            b"\x00\x02"  # infos[2].info
        ),
        line='InfoRequest name="nowhere" infos=[INFO_BLOCK_SIZE, INFO_NAME, INFO_DESCRIPTION]',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=ServerExport(name="", description="scratch disk"),
        data=(
            b"\x00\x00\x00\x00"  # name_length
            b"scratch disk"  # description
        ),
        line='ServerExport name="" description="scratch disk"',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=ErrorText(text=""),
        data=(b""),
        line='ErrorText text=""',
    ),
    Golden(
        source="libnbd 1.14.2",
        message=ExportName(name=""),
        data=(b""),
        line='ExportName name=""',
    ),
    Golden(
        source="libnbd 1.14.2",
        message=MetaContextRequest(name="", queries=("base:allocation", "qemu:allocation-depth")),
        data=(
            b"\x00\x00\x00\x00"  # name_length
            b"\x00\x00\x00\x02"  # query_count
            b"\x00\x00\x00\x0f"  # queries[0].query_length
            b"base:allocation"  # queries[0].query
            b"\x00\x00\x00\x15"  # queries[1].query_length
            b"qemu:allocation-depth"  # queries[1].query
        ),
        line='MetaContextRequest name="" queries=["base:allocation", "qemu:allocation-depth"]',
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=ServerExport(name="disk", description=""),
        data=(
            b"\x00\x00\x00\x04"  # name_length
            b"disk"  # name
        ),
        line='ServerExport name="disk" description=""',
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=ErrorText(text="export '' not present"),
        data=(
            b"export '' not present"  # text
        ),
        line="ErrorText text=\"export '' not present\"",
    ),
    Golden(
        source="extension-resize: the draft's text, no peer has it",
        message=InfoExport(size=1048576, flags=TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_RESIZE),
        data=(
            b"\x00\x00"  # info
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # size
            b"\x02\x01"  # flags
        ),
        line="InfoExport size=1048576 flags=HAS_FLAGS|SEND_RESIZE",
    ),
    Golden(
        source="proto.md: its text, no known peer sends it",
        message=InfoOther(info=Info(0x63), data=b"x1"),
        data=(
            b"\x00\x63"  # info
            b"\x78\x31"  # data
        ),
        line="InfoOther info=INFO_0x63 data=78 31",
    ),
    Golden(
        source="proto.md: its text, no known peer sends it",
        message=InfoName(name="disk"),
        data=(
            b"\x00\x01"  # info
            b"disk"  # name
        ),
        line='InfoName name="disk"',
    ),
    Golden(
        source="proto.md: its text, no known peer sends it",
        message=ServerExport(name="disk", description="scratch disk"),
        data=(
            b"\x00\x00\x00\x04"  # name_length
            b"disk"  # name
            b"scratch disk"  # description
        ),
        line='ServerExport name="disk" description="scratch disk"',
    ),
    Golden(
        source="proto.md: its text, no known peer sends it",
        message=OtherData(data=b"\x01\x02"),
        data=(
            b"\x01\x02"  # data
        ),
        line="OtherData data=01 02",
    ),
)
