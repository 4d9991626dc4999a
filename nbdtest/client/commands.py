"""A command on its way: what was asked, who wants to hear of it, and how far its reply has come.

Knows neither sockets nor handles.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from ctypes import c_int
from typing import Any, TypeAlias

from nbdtest.client.intervals import Intervals
from nbdtest.wire import Cmd, Errno

__all__ = [
    "ChunkCallback",
    "Command",
    "CompletionCallback",
    "ContextCallback",
    "DebugCallback",
    "Extent64Callback",
    "ExtentCallback",
    "ListCallback",
    "clear",
    "local_errno",
]

CompletionCallback: TypeAlias = Callable[[c_int], object]
"""Called with the error (0: success), once; returning 1 retires the command."""
ChunkCallback: TypeAlias = Callable[[memoryview, int, int, c_int], object]
"""Called with a read-only view, the absolute offset, READ_DATA, READ_HOLE or READ_ERROR, and the error so far."""
ExtentCallback: TypeAlias = Callable[[str, int, list[int], c_int], object]
"""Called with the context, the offset, [length, flags, length, flags, ...], and the error so far."""
Extent64Callback: TypeAlias = Callable[[str, int, list[tuple[int, int]], c_int], object]
"""Called with the context, the offset, [(length, flags), ...], and the error so far."""
ListCallback: TypeAlias = Callable[[str, str], object]
"""Called with an export's name and description."""
ContextCallback: TypeAlias = Callable[[str], object]
"""Called with the name of a metadata context."""
DebugCallback: TypeAlias = Callable[[str, str], object]
"""Called with the API call and the message."""

_LOCAL = {
    Errno.OK: 0,
    Errno.EPERM: errno.EPERM,
    Errno.EIO: errno.EIO,
    Errno.ENOMEM: errno.ENOMEM,
    Errno.ENOSPC: errno.ENOSPC,
    Errno.EOVERFLOW: errno.EOVERFLOW,
    Errno.ENOTSUP: errno.ENOTSUP,
    Errno.ESHUTDOWN: errno.ESHUTDOWN,
}
_LOCAL_ERRNO = {int(number): local for number, local in _LOCAL.items()}
_NAMES = {
    Cmd.READ: "read",
    Cmd.WRITE: "write",
    Cmd.DISC: "disconnect",
    Cmd.FLUSH: "flush",
    Cmd.TRIM: "trim",
    Cmd.CACHE: "cache",
    Cmd.WRITE_ZEROES: "write-zeroes",
    Cmd.BLOCK_STATUS: "block-status",
}
_WITH_PAYLOAD = (Cmd.WRITE.value, Cmd.BLOCK_STATUS.value)  # a BLOCK_STATUS that filters its contexts has a view
_ZEROES = memoryview(bytes(1 << 16))


def local_errno(number: int) -> int:
    """This machine's errno for an error value of the protocol; EINVAL for one that the protocol does not define."""
    return _LOCAL_ERRNO.get(number, errno.EINVAL)


def clear(view: memoryview) -> None:
    """Fill `view` with zeroes."""
    size = len(view)
    if size <= len(_ZEROES):
        view[:] = _ZEROES[:size]
        return
    for at in range(0, size, len(_ZEROES)):
        part = view[at : at + len(_ZEROES)]
        part[:] = _ZEROES[: len(part)]


class Command:
    """One request and what has come back for it. `view` is the caller's buffer: filled by a read, sent by a write."""

    # Most commands need few of these, and many commands are made: what is not given stays with the class.
    cookie = 0
    error = 0
    whole = False
    """Whether every byte of a read has arrived."""
    arrived: Intervals | None = None
    """Which bytes of a read have arrived, as far as `whole` does not say it."""
    cut_off = False
    """Whether the connection ended before the reply was complete."""
    raised: BaseException | None = None
    """What a callback of this command raised first."""
    chunk: ChunkCallback | None = None
    extent: Callable[..., Any] | None = None
    wide = False
    has_payload = False
    """Whether `view` is sent although commands of this type have no payload."""

    ordinary: bool
    """Whether nothing has come for it yet and one plain reply would do: the express lane may take that."""

    def __init__(
        self,
        type_: int,
        offset: int,
        count: int,
        flags: int = 0,
        view: memoryview | None = None,
        completion: CompletionCallback | None = None,
        *,
        chunk: ChunkCallback | None = None,
        extent: Callable[..., Any] | None = None,
        wide: bool = False,
    ) -> None:
        self.type = type_
        self.offset = offset
        self.count = count
        self.flags = flags
        self.view = view
        self.completion = completion
        self.ordinary = chunk is None
        if chunk is not None:
            self.chunk = chunk
        if extent is not None:
            self.extent, self.wide = extent, wide

    @classmethod
    def block_status(
        cls,
        offset: int,
        count: int,
        flags: int,
        extent: Callable[..., Any],
        *,
        wide: bool = False,
        payload: bytes | None = None,
        completion: CompletionCallback | None = None,
    ) -> Command:
        """A BLOCK_STATUS; `payload` filters the contexts, and its length is then the request's."""
        view = None if payload is None else memoryview(payload)
        length = count if payload is None else len(payload)
        return cls(Cmd.BLOCK_STATUS, offset, length, flags, view, completion, extent=extent, wide=wide)

    @classmethod
    def read(
        cls,
        view: memoryview,
        offset: int,
        flags: int = 0,
        *,
        chunk: ChunkCallback | None = None,
        completion: CompletionCallback | None = None,
    ) -> Command:
        """A READ into `view`."""
        return cls(Cmd.READ, offset, len(view), flags, view, completion, chunk=chunk)

    @property
    def name(self) -> str:
        """What error messages call it."""
        return _NAMES.get(Cmd(self.type), str(Cmd(self.type)))

    @property
    def payload(self) -> memoryview | None:
        """What is sent after the header."""
        return self.view if self.has_payload or self.type in _WITH_PAYLOAD else None

    def fail(self, number: int) -> None:
        """Note an error, unless there is an earlier one."""
        self.ordinary = False
        if not self.error:
            self.error = number

    def take_data(self, start: int, end: int) -> None:
        """Note that [start, end) of the buffer has been filled; twice the same byte is the server's fault."""
        self.ordinary = False
        if end - start == self.count and self.arrived is None:
            self.whole = True
            self.arrived = Intervals()
            self.arrived.add(start, end)
            return
        if self.arrived is None:
            self.arrived = Intervals()
        if not self.arrived.add(start, end):
            # RPL-063: content chunks of one reply do not overlap.
            self.fail(errno.EPROTO)
        self.whole = self.arrived.total == self.count

    def settle(self) -> None:
        """The reply is complete: a read that did not get all its bytes has failed, and what it lacks is zero."""
        if self.type != Cmd.READ or self.view is None or self.whole:
            return
        if self.count:
            self.fail(errno.EPROTO)
        self.clear_missing()

    def clear_missing(self) -> None:
        """Fill with zeroes what the server did not send, so that nobody takes old memory for data."""
        if self.view is None or self.type != Cmd.READ:
            return
        if self.arrived is None:
            clear(self.view)
            return
        for start, end in self.arrived.gaps(0, self.count):
            clear(self.view[start:end])
