"""libnbd's constants: the names that programs use, as enums whose members equal libnbd's integers.

`TLS_REQUIRE` is `TLS.REQUIRE` is 2 to every comparison, mask and format. What goes over the wire is in
`nbdtest.wire.numbers`.
"""

from __future__ import annotations

import enum
from typing import Any, Final

__all__ = [
    "AIO_DIRECTION",
    "AIO_DIRECTION_BOTH",
    "AIO_DIRECTION_READ",
    "AIO_DIRECTION_WRITE",
    "ALLOW_TRANSPORT",
    "ALLOW_TRANSPORT_MASK",
    "ALLOW_TRANSPORT_SSH",
    "ALLOW_TRANSPORT_TCP",
    "ALLOW_TRANSPORT_UNIX",
    "ALLOW_TRANSPORT_VSOCK",
    "CMD_FLAG",
    "CMD_FLAG_DF",
    "CMD_FLAG_FAST_ZERO",
    "CMD_FLAG_FUA",
    "CMD_FLAG_MASK",
    "CMD_FLAG_NO_HOLE",
    "CMD_FLAG_PAYLOAD_LEN",
    "CMD_FLAG_REQ_ONE",
    "CONTEXT_BASE_ALLOCATION",
    "CONTEXT_QEMU_ALLOCATION_DEPTH",
    "CONTEXT_QEMU_DIRTY_BITMAP",
    "HANDSHAKE_FLAG",
    "HANDSHAKE_FLAG_FIXED_NEWSTYLE",
    "HANDSHAKE_FLAG_MASK",
    "HANDSHAKE_FLAG_NO_ZEROES",
    "NAMESPACE_BASE",
    "NAMESPACE_QEMU",
    "READ",
    "READ_DATA",
    "READ_ERROR",
    "READ_HOLE",
    "SHUTDOWN",
    "SHUTDOWN_ABANDON_PENDING",
    "SHUTDOWN_MASK",
    "SIZE",
    "SIZE_MAXIMUM",
    "SIZE_MINIMUM",
    "SIZE_PAYLOAD",
    "SIZE_PREFERRED",
    "STATE_DIRTY",
    "STATE_HOLE",
    "STATE_ZERO",
    "STRICT",
    "STRICT_ALIGN",
    "STRICT_AUTO_FLAG",
    "STRICT_BOUNDS",
    "STRICT_COMMANDS",
    "STRICT_FLAGS",
    "STRICT_MASK",
    "STRICT_PAYLOAD",
    "STRICT_ZERO_SIZE",
    "TLS",
    "TLS_ALLOW",
    "TLS_DISABLE",
    "TLS_REQUIRE",
]


def _invert(self: enum.IntFlag) -> Any:
    """Every other bit, as of a plain integer; Python's own flags keep to the bits that have names."""
    return ~int(self)


class TLS(enum.IntEnum):
    """Whether the connection is encrypted (`set_tls`)."""

    DISABLE = 0
    ALLOW = 1
    REQUIRE = 2


class SIZE(enum.IntEnum):
    """Which size constraint `get_block_size` returns."""

    MINIMUM = 0
    PREFERRED = 1
    MAXIMUM = 2
    PAYLOAD = 3


class CMD_FLAG(enum.IntFlag):  # noqa: N801 - libnbd's name for the group
    """Flags of a command."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4
    PAYLOAD_LEN = 1 << 5
    __invert__ = _invert


class HANDSHAKE_FLAG(enum.IntFlag):  # noqa: N801 - libnbd's name for the group
    """Handshake flags that the client takes when the server offers them (`set_handshake_flags`)."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1
    __invert__ = _invert


class STRICT(enum.IntFlag):
    """What is checked before anything is sent (`set_strict_mode`)."""

    COMMANDS = 1 << 0
    FLAGS = 1 << 1
    BOUNDS = 1 << 2
    ZERO_SIZE = 1 << 3
    ALIGN = 1 << 4
    PAYLOAD = 1 << 5
    AUTO_FLAG = 1 << 6
    __invert__ = _invert


class ALLOW_TRANSPORT(enum.IntFlag):  # noqa: N801 - libnbd's name for the group
    """Transports that `connect_uri` may use (`set_uri_allow_transports`)."""

    TCP = 1 << 0
    UNIX = 1 << 1
    VSOCK = 1 << 2
    SSH = 1 << 3
    __invert__ = _invert


class SHUTDOWN(enum.IntFlag):
    """Flags of `shutdown`."""

    ABANDON_PENDING = 1 << 16
    __invert__ = _invert


class AIO_DIRECTION(enum.IntFlag):  # noqa: N801 - libnbd's name for the group
    """What the handle waits for (`aio_get_direction`)."""

    READ = 1
    WRITE = 2
    BOTH = 3
    __invert__ = _invert


class READ(enum.IntEnum):
    """What a chunk callback is told about its chunk."""

    DATA = 1
    HOLE = 2
    ERROR = 3


TLS_DISABLE: Final = TLS.DISABLE
TLS_ALLOW: Final = TLS.ALLOW
TLS_REQUIRE: Final = TLS.REQUIRE

SIZE_MINIMUM: Final = SIZE.MINIMUM
SIZE_PREFERRED: Final = SIZE.PREFERRED
SIZE_MAXIMUM: Final = SIZE.MAXIMUM
SIZE_PAYLOAD: Final = SIZE.PAYLOAD

CMD_FLAG_FUA: Final = CMD_FLAG.FUA
CMD_FLAG_NO_HOLE: Final = CMD_FLAG.NO_HOLE
CMD_FLAG_DF: Final = CMD_FLAG.DF
CMD_FLAG_REQ_ONE: Final = CMD_FLAG.REQ_ONE
CMD_FLAG_FAST_ZERO: Final = CMD_FLAG.FAST_ZERO
CMD_FLAG_PAYLOAD_LEN: Final = CMD_FLAG.PAYLOAD_LEN
CMD_FLAG_MASK: Final = CMD_FLAG(0x3F)

HANDSHAKE_FLAG_FIXED_NEWSTYLE: Final = HANDSHAKE_FLAG.FIXED_NEWSTYLE
HANDSHAKE_FLAG_NO_ZEROES: Final = HANDSHAKE_FLAG.NO_ZEROES
HANDSHAKE_FLAG_MASK: Final = HANDSHAKE_FLAG(0x03)

STRICT_COMMANDS: Final = STRICT.COMMANDS
STRICT_FLAGS: Final = STRICT.FLAGS
STRICT_BOUNDS: Final = STRICT.BOUNDS
STRICT_ZERO_SIZE: Final = STRICT.ZERO_SIZE
STRICT_ALIGN: Final = STRICT.ALIGN
STRICT_PAYLOAD: Final = STRICT.PAYLOAD
STRICT_AUTO_FLAG: Final = STRICT.AUTO_FLAG
STRICT_MASK: Final = STRICT(0x7F)

ALLOW_TRANSPORT_TCP: Final = ALLOW_TRANSPORT.TCP
ALLOW_TRANSPORT_UNIX: Final = ALLOW_TRANSPORT.UNIX
ALLOW_TRANSPORT_VSOCK: Final = ALLOW_TRANSPORT.VSOCK
ALLOW_TRANSPORT_SSH: Final = ALLOW_TRANSPORT.SSH
ALLOW_TRANSPORT_MASK: Final = ALLOW_TRANSPORT(0x0F)

SHUTDOWN_ABANDON_PENDING: Final = SHUTDOWN.ABANDON_PENDING
SHUTDOWN_MASK: Final = SHUTDOWN(0x10000)

AIO_DIRECTION_READ: Final = AIO_DIRECTION.READ
AIO_DIRECTION_WRITE: Final = AIO_DIRECTION.WRITE
AIO_DIRECTION_BOTH: Final = AIO_DIRECTION.BOTH

READ_DATA: Final = READ.DATA
READ_HOLE: Final = READ.HOLE
READ_ERROR: Final = READ.ERROR

NAMESPACE_BASE: Final = "base:"
CONTEXT_BASE_ALLOCATION: Final = "base:allocation"
STATE_HOLE: Final = 1
STATE_ZERO: Final = 2
NAMESPACE_QEMU: Final = "qemu:"
CONTEXT_QEMU_DIRTY_BITMAP: Final = "qemu:dirty-bitmap:"
STATE_DIRTY: Final = 1
CONTEXT_QEMU_ALLOCATION_DEPTH: Final = "qemu:allocation-depth"
