"""Frames of the handshake: greetings, client flags, options and option replies. What options say is in `options`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nbdtest.wire import numbers
from nbdtest.wire.layout import Blob, Constant, Integer, Layout, Length, Message, Rest
from nbdtest.wire.limits import OLDSTYLE_PADDING
from nbdtest.wire.numbers import ClientFlag, HandshakeFlag, Opt, Rep, TransmissionFlag

__all__ = [
    "ClientFlags",
    "ExportNameReply",
    "ExportNameReplyPadded",
    "GreetingStart",
    "NewstyleGreeting",
    "OldstyleGreeting",
    "Option",
    "OptionHeader",
    "OptionReply",
    "OptionReplyHeader",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class GreetingStart(Message):
    """The first 16 bytes of any greeting; the second word is CLISERV_MAGIC (oldstyle) or OPTION_MAGIC (newstyle)."""

    nbd_magic: int = numbers.NBD_MAGIC
    style_magic: int
    LAYOUT: ClassVar = Layout(Integer("nbd_magic", 8), Integer("style_magic", 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class OldstyleGreeting(Message):
    """The whole handshake of an oldstyle server, 152 bytes. Spec: proto.md "Oldstyle negotiation"."""

    size: int
    handshake_flags: HandshakeFlag = HandshakeFlag(0)
    flags: TransmissionFlag
    reserved: bytes = bytes(OLDSTYLE_PADDING)
    LAYOUT: ClassVar = Layout(
        Constant("nbd_magic", 8, numbers.NBD_MAGIC),
        Constant("cliserv_magic", 8, numbers.CLISERV_MAGIC),
        Integer("size", 8),
        Integer("handshake_flags", 2, HandshakeFlag),
        Integer("flags", 2, TransmissionFlag),
        Blob("reserved", OLDSTYLE_PADDING),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewstyleGreeting(Message):
    """A newstyle server's first 18 bytes. Spec: proto.md "Newstyle negotiation"."""

    flags: HandshakeFlag = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
    LAYOUT: ClassVar = Layout(
        Constant("nbd_magic", 8, numbers.NBD_MAGIC),
        Constant("option_magic", 8, numbers.OPTION_MAGIC),
        Integer("flags", 2, HandshakeFlag),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFlags(Message):
    """The client's answer to a newstyle greeting."""

    flags: ClientFlag = ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES
    LAYOUT: ClassVar = Layout(Integer("flags", 4, ClientFlag))


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionHeader(Message):
    """The first 16 bytes of an option; `length` bytes of data follow."""

    option: Opt
    length: int
    LAYOUT: ClassVar = Layout(
        Constant("magic", 8, numbers.OPTION_MAGIC),
        Integer("option", 4, Opt),
        Integer("length", 4),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Option(Message):
    """One option of the client with its data. Spec: proto.md "Fixed newstyle negotiation"."""

    option: Opt
    data: bytes = b""
    LAYOUT: ClassVar = Layout(
        Constant("magic", 8, numbers.OPTION_MAGIC),
        Integer("option", 4, Opt),
        Length("length", 4, of="data"),
        Rest("data"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionReplyHeader(Message):
    """The first 20 bytes of an option reply; `length` bytes of data follow."""

    option: Opt
    type: Rep
    length: int
    LAYOUT: ClassVar = Layout(
        Constant("magic", 8, numbers.OPTION_REPLY_MAGIC),
        Integer("option", 4, Opt),
        Integer("type", 4, Rep),
        Integer("length", 4),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionReply(Message):
    """One reply of the server to an option. Spec: proto.md "Option reply types"."""

    option: Opt
    type: Rep
    data: bytes = b""
    LAYOUT: ClassVar = Layout(
        Constant("magic", 8, numbers.OPTION_REPLY_MAGIC),
        Integer("option", 4, Opt),
        Integer("type", 4, Rep),
        Length("length", 4, of="data"),
        Rest("data"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportNameReply(Message):
    """The answer to OPT_EXPORT_NAME when NO_ZEROES was agreed, 10 bytes."""

    size: int
    flags: TransmissionFlag
    LAYOUT: ClassVar = Layout(Integer("size", 8), Integer("flags", 2, TransmissionFlag))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportNameReplyPadded(Message):
    """The answer to OPT_EXPORT_NAME without NO_ZEROES, 134 bytes."""

    size: int
    flags: TransmissionFlag
    reserved: bytes = bytes(OLDSTYLE_PADDING)
    LAYOUT: ClassVar = Layout(
        Integer("size", 8), Integer("flags", 2, TransmissionFlag), Blob("reserved", OLDSTYLE_PADDING)
    )
