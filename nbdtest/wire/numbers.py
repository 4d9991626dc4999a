"""Every number of the protocol, as open enums: an unknown value keeps its number.

`str()` gives the specification's name without its NBD_ prefix (`CMD_READ`, or `CMD_0x63` for a value nobody assigned);
`repr()` gives Python that makes the value again (`Cmd.READ`, `Cmd(0x63)`). Nothing here knows the layout of messages.
"""

from __future__ import annotations

import enum
from typing import Self

__all__ = [
    "CLISERV_MAGIC",
    "EXTENDED_REPLY_MAGIC",
    "EXTENDED_REQUEST_MAGIC",
    "NBD_MAGIC",
    "OPTION_MAGIC",
    "OPTION_REPLY_MAGIC",
    "REQUEST_MAGIC",
    "SIMPLE_REPLY_MAGIC",
    "STRUCTURED_REPLY_MAGIC",
    "ClientFlag",
    "Cmd",
    "CmdFlag",
    "Errno",
    "HandshakeFlag",
    "Info",
    "Opt",
    "Rep",
    "ReplyFlag",
    "ReplyType",
    "State",
    "TransmissionFlag",
]

NBD_MAGIC = 0x4E42_444D_4147_4943
"""Opens every handshake: "NBDMAGIC"."""
CLISERV_MAGIC = 0x0000_4202_8186_1253
"""Second word of an oldstyle greeting."""
OPTION_MAGIC = 0x4948_4156_454F_5054
"""Second word of a newstyle greeting, first word of every option: "IHAVEOPT"."""
OPTION_REPLY_MAGIC = 0x0003_E889_0455_65A9
REQUEST_MAGIC = 0x2560_9513
SIMPLE_REPLY_MAGIC = 0x6744_6698
STRUCTURED_REPLY_MAGIC = 0x668E_33EF
EXTENDED_REQUEST_MAGIC = 0x21E4_1C71
EXTENDED_REPLY_MAGIC = 0x6E8A_278C


class Number(enum.IntEnum):
    """An unsigned integer with some named values; any other value is kept and printed as `PREFIX_0x…`."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or value < 0:
            return None
        unnamed = int.__new__(cls, value)
        unnamed._name_ = f"0x{value:x}"
        unnamed._value_ = value
        return unnamed

    @property
    def is_known(self) -> bool:
        """Whether the specification assigns this value."""
        return self._name_ in type(self).__members__

    def __str__(self) -> str:
        return f"{_PREFIXES[type(self).__name__]}{self._name_}"

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}.{self._name_}" if self.is_known else f"{name}({self._name_})"

    def __reduce_ex__(self, protocol: object) -> tuple[type[Self], tuple[int]]:
        return type(self), (int(self),)


class Flags(enum.IntFlag, boundary=enum.KEEP):
    """A bit set; bits without a name are kept and printed in hexadecimal."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        # enum remembers every value it has seen: those of somebody who sends random ones would fill the memory.
        found: Self | None = super()._missing_(value)
        if found is not None and int(found) & ~sum(cls):
            cls._value2member_map_.pop(int(found), None)
        return found

    def beyond(self, allowed: int) -> Self:
        """Return the bits that are not in `allowed`, those without a name too, which `& ~allowed` would forget."""
        return type(self)(int(self) & ~int(allowed))

    def names(self) -> list[str]:
        """Name the set bits from the lowest, unnamed ones as one hexadecimal number at the end."""
        named = [flag for flag in type(self) if flag in self]
        rest = int(self) & ~sum(named)
        return [str(flag.name) for flag in named] + ([f"0x{rest:x}"] if rest else [])

    def __str__(self) -> str:
        return "|".join(self.names()) or "0"

    def __repr__(self) -> str:
        name = type(self).__name__
        parts = [f"{name}({part})" if part.startswith("0x") else f"{name}.{part}" for part in self.names()]
        return " | ".join(parts) or f"{name}(0)"

    def __reduce_ex__(self, protocol: object) -> tuple[type[Self], tuple[int]]:
        return type(self), (int(self),)


class HandshakeFlag(Flags):
    """What the server offers in its newstyle greeting (16 bits)."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class ClientFlag(Flags):
    """What the client takes of that offer (32 bits)."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class Opt(Number):
    """Options of the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    PEEK_EXPORT = 4
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class Rep(Number):
    """Option reply types; bit 31 marks an error, and an error is always the last reply to its option."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x8000_0001
    ERR_POLICY = 0x8000_0002
    ERR_INVALID = 0x8000_0003
    ERR_PLATFORM = 0x8000_0004
    ERR_TLS_REQD = 0x8000_0005
    ERR_UNKNOWN = 0x8000_0006
    ERR_SHUTDOWN = 0x8000_0007
    ERR_BLOCK_SIZE_REQD = 0x8000_0008
    ERR_TOO_BIG = 0x8000_0009
    ERR_EXT_HEADER_REQD = 0x8000_000A

    @property
    def is_error(self) -> bool:
        """Whether bit 31 is set."""
        return bool(self & 0x8000_0000)


class Info(Number):
    """Information types of OPT_INFO and OPT_GO."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(Flags):
    """What an export offers (16 bits)."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11
    BLOCK_STATUS_PAYLOAD = 1 << 12


class Cmd(Number):
    """Requests of the transmission phase."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7
    RESIZE = 8


class CmdFlag(Flags):
    """Flags of a request (16 bits)."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4
    PAYLOAD_LEN = 1 << 5


class ReplyFlag(Flags):
    """Flags of a structured or extended reply chunk (16 bits)."""

    DONE = 1 << 0


class ReplyType(Number):
    """Types of a reply chunk; bit 15 marks an error."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    BLOCK_STATUS_EXT = 6
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002

    @property
    def is_error(self) -> bool:
        """Whether bit 15 is set."""
        return bool(self & 0x8000)


class Errno(Number):
    """Error values of replies. They are the protocol's own numbers, whatever the machine's errno values are."""

    OK = 0
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


class State(Flags):
    """Status bits of an extent in the metadata context base:allocation."""

    HOLE = 1 << 0
    ZERO = 1 << 1


_PREFIXES = {"Opt": "OPT_", "Rep": "REP_", "Info": "INFO_", "Cmd": "CMD_", "ReplyType": "REPLY_TYPE_", "Errno": ""}
