"""What stands in the data of options and option replies, and which of it belongs to which number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbdtest.errors import PeerViolation
from nbdtest.wire.handshake import Option, OptionReply
from nbdtest.wire.layout import Constant, Count, Integer, Items, Layout, Length, Message, Rest, Text
from nbdtest.wire.numbers import Info, Opt, Rep, TransmissionFlag

__all__ = [
    "ErrorText",
    "ExportName",
    "InfoBlockSize",
    "InfoDescription",
    "InfoExport",
    "InfoName",
    "InfoOther",
    "InfoRequest",
    "MetaContext",
    "MetaContextRequest",
    "Nothing",
    "OtherData",
    "ServerExport",
    "decode_option_data",
    "decode_option_reply_data",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing(Message):
    """No data at all: the options LIST, STARTTLS, STRUCTURED_REPLY, EXTENDED_HEADERS and the reply ACK."""

    LAYOUT: ClassVar = Layout()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportName(Message):
    """Data of OPT_EXPORT_NAME: the name and nothing else; "" is the default export."""

    name: str
    LAYOUT: ClassVar = Layout(Text("name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoRequest(Message):
    """Data of OPT_INFO and OPT_GO: the export's name and the information wanted about it."""

    name: str = ""
    infos: tuple[Info, ...] = ()
    LAYOUT: ClassVar = Layout(
        Length("name_length", 4, of="name"),
        Text("name"),
        Count("info_count", 2, of="infos"),
        Items("infos", Layout(Integer("info", 2, Info))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaContextRequest(Message):
    """Data of OPT_LIST_META_CONTEXT and OPT_SET_META_CONTEXT. Spec: proto.md "Metadata querying"."""

    name: str = ""
    queries: tuple[str, ...] = ()
    LAYOUT: ClassVar = Layout(
        Length("name_length", 4, of="name"),
        Text("name"),
        Count("query_count", 4, of="queries"),
        Items("queries", Layout(Length("query_length", 4, of="query"), Text("query"))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerExport(Message):
    """Data of REP_SERVER: one export of the list, with text for humans."""

    name: str
    description: str = ""
    LAYOUT: ClassVar = Layout(Length("name_length", 4, of="name"), Text("name"), Text("description"))


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoExport(Message):
    """Data of REP_INFO with INFO_EXPORT: size in bytes and transmission flags."""

    size: int
    flags: TransmissionFlag
    LAYOUT: ClassVar = Layout(
        Constant("info", 2, Info.EXPORT), Integer("size", 8), Integer("flags", 2, TransmissionFlag)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoName(Message):
    """Data of REP_INFO with INFO_NAME: the export's canonical name."""

    name: str
    LAYOUT: ClassVar = Layout(Constant("info", 2, Info.NAME), Text("name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoDescription(Message):
    """Data of REP_INFO with INFO_DESCRIPTION: text for humans."""

    description: str
    LAYOUT: ClassVar = Layout(Constant("info", 2, Info.DESCRIPTION), Text("description"))


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoBlockSize(Message):
    """Data of REP_INFO with INFO_BLOCK_SIZE: `maximum` is the largest payload, 0xffffffff for no limit."""

    minimum: int
    preferred: int
    maximum: int
    LAYOUT: ClassVar = Layout(
        Constant("info", 2, Info.BLOCK_SIZE), Integer("minimum", 4), Integer("preferred", 4), Integer("maximum", 4)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoOther(Message):
    """Data of REP_INFO with an information type that has no class of its own."""

    info: Info
    data: bytes = b""
    LAYOUT: ClassVar = Layout(Integer("info", 2, Info), Rest("data"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaContext(Message):
    """Data of REP_META_CONTEXT: a context and the id that block status replies use for it."""

    id: int = 0
    name: str
    LAYOUT: ClassVar = Layout(Integer("id", 4), Text("name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorText(Message):
    """Data of an error reply: text for humans, or nothing."""

    text: str = ""
    LAYOUT: ClassVar = Layout(Text("text"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherData(Message):
    """Data of an option or option reply whose meaning nobody assigned."""

    data: bytes
    LAYOUT: ClassVar = Layout(Rest("data"))


_OPTION_DATA: dict[Opt, type[Message]] = {
    Opt.EXPORT_NAME: ExportName,
    Opt.LIST: Nothing,
    Opt.STARTTLS: Nothing,
    Opt.INFO: InfoRequest,
    Opt.GO: InfoRequest,
    Opt.STRUCTURED_REPLY: Nothing,
    Opt.LIST_META_CONTEXT: MetaContextRequest,
    Opt.SET_META_CONTEXT: MetaContextRequest,
    Opt.EXTENDED_HEADERS: Nothing,
}
_REPLY_DATA: dict[Rep, type[Message]] = {Rep.ACK: Nothing, Rep.SERVER: ServerExport, Rep.META_CONTEXT: MetaContext}
_INFO_DATA: dict[Info, type[Message]] = {
    Info.EXPORT: InfoExport,
    Info.NAME: InfoName,
    Info.DESCRIPTION: InfoDescription,
    Info.BLOCK_SIZE: InfoBlockSize,
}


def decode_option_data(option: Option) -> Message:
    """Read the data of `option` as its number demands.

    OPT_ABORT may carry surplus data and an unknown option may carry anything: both come back as bytes.

    Raises:
        PeerViolation: the data does not have the layout that the option demands.
    """
    return _OPTION_DATA.get(option.option, OtherData).decode(option.data)


def decode_option_reply_data(reply: OptionReply) -> Message:
    """Read the data of `reply` as its type demands.

    Raises:
        PeerViolation: the data does not have the layout that the reply type demands.
    """
    if reply.type.is_error:
        return ErrorText.decode(reply.data)
    if reply.type == Rep.INFO:
        if len(reply.data) < 2:
            raise PeerViolation(
                f"REP_INFO with {len(reply.data)} bytes of data: at least 2 wanted", requirement="REP-013"
            )
        return _INFO_DATA.get(Info(int.from_bytes(reply.data[:2], "big")), InfoOther).decode(reply.data)
    return _REPLY_DATA.get(reply.type, OtherData).decode(reply.data)
