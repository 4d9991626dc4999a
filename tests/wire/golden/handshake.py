"""Frames of the handshake, as real peers sent them.

Made by `tests.wire.capture`, then read against the specification.
"""

# ruff: noqa: E501  (a captured line stands as it was shown)

from nbdtest.wire import (
    ClientFlag,
    ClientFlags,
    ExportNameReply,
    ExportNameReplyPadded,
    HandshakeFlag,
    NewstyleGreeting,
    OldstyleGreeting,
    Opt,
    Option,
    OptionReply,
    Rep,
    TransmissionFlag,
)
from tests.wire.golden.row import Golden

ROWS = (
    Golden(
        source="libnbd 1.14.2",
        message=ClientFlags(flags=ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES),
        data=(
            b"\x00\x00\x00\x03"  # flags
        ),
        line="ClientFlags flags=FIXED_NEWSTYLE|NO_ZEROES",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Option(option=Opt.STRUCTURED_REPLY),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x08"  # option
            b"\x00\x00\x00\x00"  # length
        ),
        line="Option option=OPT_STRUCTURED_REPLY data=(empty)",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Option(
            option=Opt.SET_META_CONTEXT, data=b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation"
        ),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x0a"  # option
            b"\x00\x00\x00\x1b"  # length
            b"\x00\x00\x00\x00"  # name_length
            b"\x00\x00\x00\x01"  # query_count
            b"\x00\x00\x00\x0f"  # queries[0].query_length
            b"base:allocation"  # queries[0].query
        ),
        line='Option option=OPT_SET_META_CONTEXT | MetaContextRequest name="" queries=["base:allocation"]',
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Option(option=Opt.GO, data=b"\x00\x00\x00\x00\x00\x03\x00\x03\x00\x01\x00\x02"),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x07"  # option
            b"\x00\x00\x00\x0c"  # length
            b"\x00\x00\x00\x00"  # name_length
            b"\x00\x03"  # info_count
            b"\x00\x03"  # infos[0].info
            b"\x00\x01"  # infos[1].info
            b"\x00\x02"  # infos[2].info
        ),
        line='Option option=OPT_GO | InfoRequest name="" infos=[INFO_BLOCK_SIZE, INFO_NAME, INFO_DESCRIPTION]',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=NewstyleGreeting(flags=HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES),
        data=(
            b"NBDMAGIC"  # nbd_magic
            b"IHAVEOPT"  # option_magic
            b"\x00\x03"  # flags
        ),
        line="NewstyleGreeting flags=FIXED_NEWSTYLE|NO_ZEROES",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(
            option=Opt.SET_META_CONTEXT, type=Rep.META_CONTEXT, data=b"\x00\x00\x00\x01base:allocation"
        ),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x0a"  # option
            b"\x00\x00\x00\x04"  # type
            b"\x00\x00\x00\x13"  # length
            b"\x00\x00\x00\x01"  # id
            b"base:allocation"  # name
        ),
        line='OptionReply option=OPT_SET_META_CONTEXT type=REP_META_CONTEXT | MetaContext id=1 name="base:allocation"',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.GO, type=Rep.INFO, data=b"\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\r\xed"),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x07"  # option
            b"\x00\x00\x00\x03"  # type
            b"\x00\x00\x00\x0c"  # length
            b"\x00\x00"  # info
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # size
            b"\x0d\xed"  # flags
        ),
        line="OptionReply option=OPT_GO type=REP_INFO | InfoExport size=1048576 flags=HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|SEND_DF|CAN_MULTI_CONN|SEND_CACHE|SEND_FAST_ZERO",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(
            option=Opt.GO, type=Rep.INFO, data=b"\x00\x03\x00\x00\x00\x01\x00\x00\x10\x00\x02\x00\x00\x00"
        ),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x07"  # option
            b"\x00\x00\x00\x03"  # type
            b"\x00\x00\x00\x0e"  # length
            b"\x00\x03"  # info
            b"\x00\x00\x00\x01"  # minimum
            b"\x00\x00\x10\x00"  # preferred
            b"\x02\x00\x00\x00"  # maximum
        ),
        line="OptionReply option=OPT_GO type=REP_INFO | InfoBlockSize minimum=1 preferred=4096 maximum=33554432",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.GO, type=Rep.INFO, data=b"\x00\x01"),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x07"  # option
            b"\x00\x00\x00\x03"  # type
            b"\x00\x00\x00\x02"  # length
            b"\x00\x01"  # info
        ),
        line='OptionReply option=OPT_GO type=REP_INFO | InfoName name=""',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.GO, type=Rep.INFO, data=b"\x00\x02scratch disk"),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x07"  # option
            b"\x00\x00\x00\x03"  # type
            b"\x00\x00\x00\x0e"  # length
            b"\x00\x02"  # info
            b"scratch disk"  # description
        ),
        line='OptionReply option=OPT_GO type=REP_INFO | InfoDescription description="scratch disk"',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.GO, type=Rep.ACK),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x07"  # option
            b"\x00\x00\x00\x01"  # type
            b"\x00\x00\x00\x00"  # length
        ),
        line="OptionReply option=OPT_GO type=REP_ACK data=(empty)",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Option(option=Opt.LIST),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x03"  # option
            b"\x00\x00\x00\x00"  # length
        ),
        line="Option option=OPT_LIST data=(empty)",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Option(option=Opt.LIST_META_CONTEXT, data=b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x05base:"),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x09"  # option
            b"\x00\x00\x00\x11"  # length
            b"\x00\x00\x00\x00"  # name_length
            b"\x00\x00\x00\x01"  # query_count
            b"\x00\x00\x00\x05"  # queries[0].query_length
            b"base:"  # queries[0].query
        ),
        line='Option option=OPT_LIST_META_CONTEXT | MetaContextRequest name="" queries=["base:"]',
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Option(option=Opt.INFO, data=b"\x00\x00\x00\x07nowhere\x00\x03\x00\x03\x00\x01\x00\x02"),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x06"  # option
            b"\x00\x00\x00\x13"  # length
            b"\x00\x00\x00\x07"  # name_length
            b"nowhere"  # name
            b"\x00\x03"  # info_count
            b"\x00\x03"  # infos[0].info
            b"\x00\x01"  # infos[1].info
            b"\x00\x02"  # infos[2].info
        ),
        line='Option option=OPT_INFO | InfoRequest name="nowhere" infos=[INFO_BLOCK_SIZE, INFO_NAME, INFO_DESCRIPTION]',
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Option(option=Opt.ABORT),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x02"  # option
            b"\x00\x00\x00\x00"  # length
        ),
        line="Option option=OPT_ABORT data=(empty)",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.LIST, type=Rep.SERVER, data=b"\x00\x00\x00\x00scratch disk"),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x03"  # option
            b"\x00\x00\x00\x02"  # type
            b"\x00\x00\x00\x10"  # length
            b"\x00\x00\x00\x00"  # name_length
            b"scratch disk"  # description
        ),
        line='OptionReply option=OPT_LIST type=REP_SERVER | ServerExport name="" description="scratch disk"',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(
            option=Opt.LIST_META_CONTEXT, type=Rep.META_CONTEXT, data=b"\x00\x00\x00\x00base:allocation"
        ),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x09"  # option
            b"\x00\x00\x00\x04"  # type
            b"\x00\x00\x00\x13"  # length
            b"\x00\x00\x00\x00"  # id
            b"base:allocation"  # name
        ),
        line='OptionReply option=OPT_LIST_META_CONTEXT type=REP_META_CONTEXT | MetaContext id=0 name="base:allocation"',
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.INFO, type=Rep.ERR_UNKNOWN),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x06"  # option
            b"\x80\x00\x00\x06"  # type
            b"\x00\x00\x00\x00"  # length
        ),
        line="OptionReply option=OPT_INFO type=REP_ERR_UNKNOWN data=(empty)",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.ABORT, type=Rep.ACK),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x02"  # option
            b"\x00\x00\x00\x01"  # type
            b"\x00\x00\x00\x00"  # length
        ),
        line="OptionReply option=OPT_ABORT type=REP_ACK data=(empty)",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.LIST, type=Rep.ERR_TLS_REQD),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x03"  # option
            b"\x80\x00\x00\x05"  # type
            b"\x00\x00\x00\x00"  # length
        ),
        line="OptionReply option=OPT_LIST type=REP_ERR_TLS_REQD data=(empty)",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=ClientFlags(flags=ClientFlag(0)),
        data=(
            b"\x00\x00\x00\x00"  # flags
        ),
        line="ClientFlags flags=0",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=Option(option=Opt.EXPORT_NAME),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x01"  # option
            b"\x00\x00\x00\x00"  # length
        ),
        line="Option option=OPT_EXPORT_NAME data=(empty)",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=NewstyleGreeting(flags=HandshakeFlag(0)),
        data=(
            b"NBDMAGIC"  # nbd_magic
            b"IHAVEOPT"  # option_magic
            b"\x00\x00"  # flags
        ),
        line="NewstyleGreeting flags=0",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=ExportNameReplyPadded(
            size=1048576,
            flags=TransmissionFlag.HAS_FLAGS
            | TransmissionFlag.SEND_FLUSH
            | TransmissionFlag.SEND_FUA
            | TransmissionFlag.SEND_TRIM
            | TransmissionFlag.SEND_WRITE_ZEROES
            | TransmissionFlag.CAN_MULTI_CONN
            | TransmissionFlag.SEND_CACHE
            | TransmissionFlag.SEND_FAST_ZERO,
        ),
        data=(
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # size
            b"\x0d\x6d" + bytes(124)  # flags  # reserved
        ),
        line="ExportNameReplyPadded size=1048576 flags=HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|CAN_MULTI_CONN|SEND_CACHE|SEND_FAST_ZERO reserved=zeroes",
    ),
    Golden(
        source="libnbd 1.14.2",
        message=ClientFlags(flags=ClientFlag.NO_ZEROES),
        data=(
            b"\x00\x00\x00\x02"  # flags
        ),
        line="ClientFlags flags=NO_ZEROES",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=NewstyleGreeting(flags=HandshakeFlag.NO_ZEROES),
        data=(
            b"NBDMAGIC"  # nbd_magic
            b"IHAVEOPT"  # option_magic
            b"\x00\x02"  # flags
        ),
        line="NewstyleGreeting flags=NO_ZEROES",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=ExportNameReply(
            size=1048576,
            flags=TransmissionFlag.HAS_FLAGS
            | TransmissionFlag.SEND_FLUSH
            | TransmissionFlag.SEND_FUA
            | TransmissionFlag.SEND_TRIM
            | TransmissionFlag.SEND_WRITE_ZEROES
            | TransmissionFlag.CAN_MULTI_CONN
            | TransmissionFlag.SEND_CACHE
            | TransmissionFlag.SEND_FAST_ZERO,
        ),
        data=(
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # size
            b"\x0d\x6d"  # flags
        ),
        line="ExportNameReply size=1048576 flags=HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|CAN_MULTI_CONN|SEND_CACHE|SEND_FAST_ZERO",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OptionReply(option=Opt.STRUCTURED_REPLY, type=Rep.ERR_UNSUP),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x08"  # option
            b"\x80\x00\x00\x01"  # type
            b"\x00\x00\x00\x00"  # length
        ),
        line="OptionReply option=OPT_STRUCTURED_REPLY type=REP_ERR_UNSUP data=(empty)",
    ),
    Golden(
        source="nbdkit 1.32.5",
        message=OldstyleGreeting(
            size=1048576,
            flags=TransmissionFlag.HAS_FLAGS
            | TransmissionFlag.SEND_FLUSH
            | TransmissionFlag.SEND_FUA
            | TransmissionFlag.SEND_TRIM
            | TransmissionFlag.SEND_WRITE_ZEROES
            | TransmissionFlag.CAN_MULTI_CONN
            | TransmissionFlag.SEND_CACHE
            | TransmissionFlag.SEND_FAST_ZERO,
        ),
        data=(
            b"NBDMAGIC"  # nbd_magic
            b"\x00\x00\x42\x02\x81\x86\x12\x53"  # cliserv_magic
            b"\x00\x00\x00\x00\x00\x10\x00\x00"  # size
            b"\x00\x00"  # handshake_flags
            b"\x0d\x6d" + bytes(124)  # flags  # reserved
        ),
        line="OldstyleGreeting size=1048576 handshake_flags=0 flags=HAS_FLAGS|SEND_FLUSH|SEND_FUA|SEND_TRIM|SEND_WRITE_ZEROES|CAN_MULTI_CONN|SEND_CACHE|SEND_FAST_ZERO reserved=zeroes",
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=OptionReply(option=Opt.LIST_META_CONTEXT, type=Rep.ERR_UNKNOWN, data=b"export '' not present"),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x09"  # option
            b"\x80\x00\x00\x06"  # type
            b"\x00\x00\x00\x15"  # length
            b"export '' not present"  # text
        ),
        line="OptionReply option=OPT_LIST_META_CONTEXT type=REP_ERR_UNKNOWN | ErrorText text=\"export '' not present\"",
    ),
    Golden(
        source="qemu-nbd 7.2.22",
        message=OptionReply(option=Opt.INFO, type=Rep.ERR_UNKNOWN, data=b"export 'nowhere' not present"),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x06"  # option
            b"\x80\x00\x00\x06"  # type
            b"\x00\x00\x00\x1c"  # length
            b"export 'nowhere' not present"  # text
        ),
        line="OptionReply option=OPT_INFO type=REP_ERR_UNKNOWN | ErrorText text=\"export 'nowhere' not present\"",
    ),
    Golden(
        source="nbd-server 3.24",
        message=OptionReply(
            option=Opt.STRUCTURED_REPLY,
            type=Rep.ERR_UNSUP,
            data=b"The given option is unknown to this server implementation",
        ),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x08"  # option
            b"\x80\x00\x00\x01"  # type
            b"\x00\x00\x00\x39"  # length
            b"The given option is unknown to this server implementation"  # text
        ),
        line='OptionReply option=OPT_STRUCTURED_REPLY type=REP_ERR_UNSUP | ErrorText text="The given option is unknown to this server implementation"',
    ),
    Golden(
        source="libnbd 1.22.2",
        message=Option(option=Opt.EXTENDED_HEADERS),
        data=(
            b"IHAVEOPT"  # magic
            b"\x00\x00\x00\x0b"  # option
            b"\x00\x00\x00\x00"  # length
        ),
        line="Option option=OPT_EXTENDED_HEADERS data=(empty)",
    ),
    Golden(
        source="nbd-server 3.26.1",
        message=OptionReply(
            option=Opt.EXTENDED_HEADERS,
            type=Rep.ERR_UNSUP,
            data=b"The given option is unknown to this server implementation",
        ),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x0b"  # option
            b"\x80\x00\x00\x01"  # type
            b"\x00\x00\x00\x39"  # length
            b"The given option is unknown to this server implementation"  # text
        ),
        line='OptionReply option=OPT_EXTENDED_HEADERS type=REP_ERR_UNSUP | ErrorText text="The given option is unknown to this server implementation"',
    ),
    Golden(
        source="nbdkit 1.42.3",
        message=OptionReply(option=Opt.EXTENDED_HEADERS, type=Rep.ERR_UNSUP),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x0b"  # option
            b"\x80\x00\x00\x01"  # type
            b"\x00\x00\x00\x00"  # length
        ),
        line="OptionReply option=OPT_EXTENDED_HEADERS type=REP_ERR_UNSUP data=(empty)",
    ),
    Golden(
        source="proto.md: its text, no known peer sends it",
        message=OptionReply(option=Opt.GO, type=Rep.ERR_BLOCK_SIZE_REQD),
        data=(
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9"  # magic
            b"\x00\x00\x00\x07"  # option
            b"\x80\x00\x00\x08"  # type
            b"\x00\x00\x00\x00"  # length
        ),
        line="OptionReply option=OPT_GO type=REP_ERR_BLOCK_SIZE_REQD data=(empty)",
    ),
)
