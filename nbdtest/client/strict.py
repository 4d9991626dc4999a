"""What is checked before a command is sent, in libnbd's order; the first rule that is broken says why. Pure.

`set_strict_mode` switches groups of these checks off, so that a test can send what a careful client would not.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from nbdtest.client.constants import CMD_FLAG, STRICT
from nbdtest.client.engine import Engine
from nbdtest.client.errors import Failure
from nbdtest.client.settings import MAX_REQUEST_SIZE
from nbdtest.wire import Cmd, TransmissionFlag

__all__ = ["check_command", "check_filter", "check_flags", "check_request"]

NARROW_LIMIT = 0xFFFF_FFFF
# Plain integers: Python's flags are slow.
COMMANDS = STRICT.COMMANDS.value
FLAGS = STRICT.FLAGS.value
BOUNDS = STRICT.BOUNDS.value
ZERO_SIZE = STRICT.ZERO_SIZE.value
ALIGN = STRICT.ALIGN.value
PAYLOAD = STRICT.PAYLOAD.value
AUTO_FLAG = STRICT.AUTO_FLAG.value
PAYLOAD_LEN = CMD_FLAG.PAYLOAD_LEN.value
READ_ONLY = TransmissionFlag.READ_ONLY.value


@dataclass(frozen=True, slots=True)
class Demand:
    """Something that has to be true of the export: `flag` set (or clear, if `absent`), when `when` is among the
    command's flags.
    """

    flag: int
    text: str
    number: int = errno.EINVAL
    absent: bool = False
    when: int = 0


_WRITABLE = Demand(READ_ONLY, "server does not support write operations", errno.EPERM, absent=True)
_FUA = Demand(TransmissionFlag.SEND_FUA.value, "server does not support the FUA flag", when=CMD_FLAG.FUA.value)
_DF = Demand(TransmissionFlag.SEND_DF.value, "server does not support the DF flag", when=CMD_FLAG.DF.value)
_FAST_ZERO = Demand(
    TransmissionFlag.SEND_FAST_ZERO.value, "server does not support the fast zero flag", when=CMD_FLAG.FAST_ZERO.value
)


def _operation(flag: TransmissionFlag, name: str) -> Demand:
    return Demand(flag.value, f"server does not support {name} operations")


_DEMANDS: dict[int, tuple[Demand, ...]] = {
    Cmd.READ: (_DF,),
    Cmd.WRITE: (_WRITABLE, _FUA),
    Cmd.FLUSH: (_operation(TransmissionFlag.SEND_FLUSH, "flush"),),
    Cmd.TRIM: (_operation(TransmissionFlag.SEND_TRIM, "trim"), _WRITABLE, _FUA),
    Cmd.WRITE_ZEROES: (_operation(TransmissionFlag.SEND_WRITE_ZEROES, "zero"), _WRITABLE, _FUA, _FAST_ZERO),
    Cmd.CACHE: (_operation(TransmissionFlag.SEND_CACHE, "cache"),),
}

_OUT_OF_BOUNDS: dict[int, int] = {
    Cmd.READ: errno.EINVAL,
    Cmd.WRITE: errno.ENOSPC,
    Cmd.TRIM: errno.ENOSPC,
    Cmd.WRITE_ZEROES: errno.ENOSPC,
    Cmd.CACHE: errno.EINVAL,
    Cmd.BLOCK_STATUS: errno.EINVAL,
}
"""The errno of a range outside the export; commands without a range are not here."""


def check_flags(strict: int, flags: int, allowed: int) -> None:
    """Refuse flags that a call does not take.

    Raises:
        Failure: `flags` has others than `allowed`, or, when not strict about flags, more than 16 bits.
    """
    mask = allowed if strict & FLAGS else 0xFFFF
    if flags & ~mask:
        raise Failure(f"flags: invalid value for flag: 0x{flags:x}", errno.EINVAL)


def check_command(engine: Engine, type_: int, flags: int) -> int:
    """Refuse what the server has not offered, and return the flags with PAYLOAD_LEN as the connection wants it.

    Raises:
        Failure: the server has not offered it.
    """
    strict = engine.settings.strict
    if type_ == Cmd.WRITE and strict & AUTO_FLAG:
        flags = flags | PAYLOAD_LEN if engine.extended else flags & ~PAYLOAD_LEN
    if strict & COMMANDS:
        offered = engine.export.flags
        for demand in _DEMANDS.get(type_, ()):
            if (not demand.when or flags & demand.when) and bool(offered & demand.flag) is demand.absent:
                raise Failure(demand.text, demand.number)
        if type_ == Cmd.WRITE and bool(flags & PAYLOAD_LEN) != engine.extended:
            raise Failure("incorrect setting for PAYLOAD_LEN flag", errno.EINVAL)
        if type_ == Cmd.BLOCK_STATUS:
            _check_contexts(engine)
    return flags


def _check_contexts(engine: Engine) -> None:
    if not engine.structured:
        raise Failure("server does not support structured replies", errno.ENOTSUP)
    if not engine.meta_valid or not engine.contexts:
        raise Failure(
            "did not negotiate any metadata contexts, either you did not call nbd_add_meta_context before "
            "connecting or the server does not support it",
            errno.ENOTSUP,
        )


def check_filter(engine: Engine, flags: int, contexts: list[str]) -> tuple[int, list[int]]:
    """Refuse a filter that cannot be sent; return the flags and the ids of `contexts`.

    Raises:
        Failure: the server has not offered filters, or a context has not been negotiated.
    """
    strict = engine.settings.strict
    if strict & AUTO_FLAG:
        if not engine.extended:
            raise Failure("server does not support extended headers", errno.ENOTSUP)
        flags |= PAYLOAD_LEN
    if strict & COMMANDS:
        if not engine.export.flags & TransmissionFlag.BLOCK_STATUS_PAYLOAD.value:
            raise Failure("server does not support the block status payload flag", errno.EINVAL)
        if not flags & PAYLOAD_LEN:
            raise Failure("incorrect setting for PAYLOAD_LEN flag", errno.EINVAL)
    negotiated = {name: number for number, name in reversed(engine.contexts)} if engine.meta_valid else {}
    for name in contexts:
        if name not in negotiated:
            raise Failure(f"context {name} not negotiated", errno.EINVAL)
    return flags, [negotiated[name] for name in contexts]


def check_request(engine: Engine, type_: int, offset: int, count: int, *, filter_size: int | None = None) -> None:
    """Refuse a range or a size that must not be sent.

    Raises:
        Failure: the first rule that is broken.
    """
    if engine.disconnecting:
        raise Failure("cannot request more commands after NBD_CMD_DISC", errno.EINVAL)
    strict, export = engine.settings.strict, engine.export
    beyond = _OUT_OF_BOUNDS.get(type_)
    if beyond is not None:
        if strict & ZERO_SIZE and not count:
            raise Failure("count cannot be 0", errno.EINVAL)
        if strict & BOUNDS and offset + count > export.size:
            raise Failure("request out of bounds", beyond)
        if export.minimum and strict & ALIGN and (offset | count) & (export.minimum - 1):
            raise Failure("request is unaligned", errno.EINVAL)
    payload_strict = bool(strict & PAYLOAD)
    if filter_size is not None:
        if filter_size > MAX_REQUEST_SIZE or (payload_strict and filter_size > export.payload_maximum):
            raise Failure("filter set too large", errno.ERANGE)
    elif type_ in (Cmd.READ, Cmd.WRITE):
        if type_ == Cmd.WRITE and payload_strict and count > export.payload_maximum:
            raise Failure(f"request too large: maximum payload size is {export.payload_maximum}", errno.ERANGE)
        if count > MAX_REQUEST_SIZE:
            raise Failure(f"request too large: maximum request size is {MAX_REQUEST_SIZE}", errno.ERANGE)
    elif not engine.extended and count > NARROW_LIMIT:
        raise Failure(f"request too large: maximum request size is {NARROW_LIMIT}", errno.ERANGE)
