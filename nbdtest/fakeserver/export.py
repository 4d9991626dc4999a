"""What a server offers: exports and the settings of the whole server, as frozen values."""

from __future__ import annotations

import enum
import os
from dataclasses import InitVar, dataclass, field
from typing import Any

from nbdtest.errors import UsageError
from nbdtest.fakeserver.contexts import Allocation, Context, TracksWrites
from nbdtest.fakeserver.quirks import Quirks
from nbdtest.fakeserver.tls import TLSQuirks
from nbdtest.model import CustomDisk, Disk, MemoryDisk
from nbdtest.wire import TransmissionFlag
from nbdtest.wire.limits import (
    DEFAULT_MAXIMUM_PAYLOAD,
    DEFAULT_PREFERRED_BLOCK,
    MAXIMUM_MINIMUM_BLOCK,
    MINIMUM_PREFERRED_BLOCK,
)

__all__ = ["DEFAULT_SIZE", "BlockSizes", "Export", "Settings", "Style", "TLSMode"]

DEFAULT_SIZE = 1 << 20


class Style(enum.StrEnum):
    """Which handshake the server speaks."""

    FIXED = "fixed"
    NEWSTYLE = "newstyle"
    """Without FIXED_NEWSTYLE: EXPORT_NAME is the only option."""
    OLDSTYLE = "oldstyle"


class TLSMode(enum.StrEnum):
    """How TLS is offered. Spec: proto.md "TLS support"."""

    NONE = "none"
    REQUIRED = "required"
    SELECTIVE = "selective"
    """Only exports with `tls_only` need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSizes:
    """Size constraints in bytes; `maximum` is the largest payload."""

    minimum: int = 1
    preferred: int = DEFAULT_PREFERRED_BLOCK
    maximum: int = DEFAULT_MAXIMUM_PAYLOAD

    def problem(self) -> str:
        """Say which rule the numbers break, "" for none. They may be served all the same: a tester can want that."""
        if self.minimum < 1 or self.minimum & (self.minimum - 1) or self.minimum > MAXIMUM_MINIMUM_BLOCK:
            return f"minimum {self.minimum} is no power of 2 up to 65536"
        if self.preferred & (self.preferred - 1) or self.preferred < max(self.minimum, MINIMUM_PREFERRED_BLOCK):
            return f"preferred {self.preferred} is no power of 2 from {max(self.minimum, MINIMUM_PREFERRED_BLOCK)} up"
        if self.maximum < self.preferred:
            return f"maximum {self.maximum} is smaller than preferred {self.preferred}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One disk under one name, and what the server says of it.

    `disk` is a `Disk` (such as `MemoryDisk(size, content)` or `FileDisk(path)`), or any object with
    `read(offset, length)` (see `CustomDisk`); else it is `size` bytes of memory.
    `flags` replaces the transmission flags that follow from the rest. With `block_sizes` the constraints are advertised
    and enforced; `insist_on_block_sizes` refuses clients that did not ask for them.
    """

    name: str = field(default="", kw_only=False)
    size: InitVar[int | None] = None
    disk: Any = None
    description: str = ""
    canonical_name: str | None = None
    read_only: bool = False
    rotational: bool = False
    multi_conn: bool = True
    can_flush: bool = True
    can_fua: bool = True
    can_trim: bool = True
    can_zero: bool = True
    can_fast_zero: bool = True
    can_cache: bool = True
    can_df: bool = True
    can_resize: bool = False
    flags: TransmissionFlag | None = None
    block_sizes: BlockSizes | None = None
    insist_on_block_sizes: bool = False
    contexts: tuple[Context, ...] = (Allocation(),)
    listed: bool = True
    tls_only: bool = False
    whole_reads: bool = False
    """Answer each structured READ by one chunk of data, as most servers do, instead of telling holes apart."""

    def __post_init__(self, size: int | None) -> None:
        disk = self.disk
        self._check_types()
        if size is not None and (type(size) is not int or not 0 <= size < 1 << 63):
            raise UsageError(f"size={size!r}: a number of bytes is needed, less than 2**63")
        if disk is None:
            disk = MemoryDisk(DEFAULT_SIZE if size is None else size)
        elif not isinstance(disk, Disk) or size is not None:
            disk = CustomDisk(disk, size)
        object.__setattr__(self, "disk", disk)
        if isinstance(disk, CustomDisk) and not disk.writable:
            object.__setattr__(self, "read_only", True)
        names = [context.name for context in self.contexts]
        if len(set(names)) < len(names):
            raise UsageError(f"export {self.name!r} has two contexts of one name: {', '.join(names)}")

    def _check_types(self) -> None:
        if isinstance(self.disk, str | os.PathLike):
            raise UsageError(f"disk={self.disk!r}: to serve a file, say disk=FileDisk({os.fspath(self.disk)!r})")
        if isinstance(self.disk, bytes | bytearray | memoryview):
            raise UsageError("disk= takes no bytes: say disk=MemoryDisk(size, content)")
        for name in ("name", "description"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name}={getattr(self, name)!r}: an export's {name} is a string")
        if not isinstance(self.block_sizes, BlockSizes | None):
            raise UsageError(f"block_sizes={self.block_sizes!r}: say block_sizes=BlockSizes(minimum=...)")
        for context in self.contexts:
            if not callable(getattr(context, "extents", None)):
                raise UsageError(f"{context!r} is no context: say Allocation(), DirtyBitmap(...) or UserContext(...)")

    @property
    def limits(self) -> BlockSizes:
        """The constraints that hold, advertised or default."""
        return self.block_sizes or BlockSizes()

    @property
    def trackers(self) -> tuple[TracksWrites, ...]:
        """The contexts that want to know of writes."""
        # Not isinstance(): for protocols that takes longer than a whole request.
        found: list[Any] = [context for context in self.contexts if callable(getattr(context, "written", None))]
        return tuple(found)

    def transmission_flags(self, *, structured: bool, extended: bool, contexts_selected: bool) -> TransmissionFlag:
        """The flags for a session in which these things have been negotiated."""
        if self.flags is not None:
            return self.flags
        writable = not self.read_only
        found = 0
        for flag, holds in (
            (TransmissionFlag.HAS_FLAGS, True),
            (TransmissionFlag.READ_ONLY, self.read_only),
            (TransmissionFlag.SEND_FLUSH, self.can_flush),
            (TransmissionFlag.SEND_FUA, self.can_fua),
            (TransmissionFlag.ROTATIONAL, self.rotational),
            (TransmissionFlag.SEND_TRIM, self.can_trim and writable),
            (TransmissionFlag.SEND_WRITE_ZEROES, self.can_zero and writable),
            # FLAG-020, EXT-017: DF means nothing to simple replies.
            (TransmissionFlag.SEND_DF, self.can_df and (structured or extended)),
            (TransmissionFlag.CAN_MULTI_CONN, self.multi_conn),
            (TransmissionFlag.SEND_RESIZE, self.can_resize and writable),
            (TransmissionFlag.SEND_CACHE, self.can_cache),
            # FLAG-029: never without SEND_WRITE_ZEROES.
            (TransmissionFlag.SEND_FAST_ZERO, self.can_fast_zero and self.can_zero and writable),
            # EXT-018, EXT-019
            (TransmissionFlag.BLOCK_STATUS_PAYLOAD, extended and contexts_selected),
        ):
            if holds:
                found |= int(flag)  # on plain numbers: a handshake has better things to do than to make flag objects
        return TransmissionFlag(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the whole server behaves. The first export is also the default one if none is named ""."""

    exports: tuple[Export, ...] = ()
    style: Style = Style.FIXED
    no_zeroes: bool = True
    structured_replies: bool = True
    extended_headers: bool = True
    meta_contexts: bool = True
    info_and_go: bool = True
    list_exports: bool = True
    tls_mode: TLSMode = TLSMode.NONE
    quirks: Quirks = field(default_factory=Quirks)
    tls_quirks: TLSQuirks = field(default_factory=TLSQuirks)

    def find(self, name: str) -> Export | None:
        """Find the export that a client means by `name`."""
        for export in self.exports:
            if export.name == name:
                return export
        return self.exports[0] if name == "" and self.exports else None
