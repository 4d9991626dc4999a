"""What the kernel logs while we call it: the only place where it says why an argument is invalid."""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ["KernelLog"]

PATH = "/dev/kmsg"
RECORD_BYTES = 8192
KEEP_LINES = 3


class KernelLog:
    """A reader of the messages that come after it was made; it sees nothing where the log may not be read."""

    def __init__(self, path: str = PATH) -> None:
        self._descriptor = -1
        with suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def new_lines(self) -> list[str]:
        """Return the messages that came since the last call, oldest first."""
        lines = []
        while self._descriptor >= 0:
            try:
                record = os.read(self._descriptor, RECORD_BYTES)
            except BrokenPipeError:
                continue  # older records were overwritten meanwhile: the next read goes on behind the gap
            except OSError:
                break
            if not record:
                break
            lines.append(record.decode(errors="replace").partition(";")[2].partition("\n")[0])
        return lines

    def about_nbd(self) -> str:
        """Return the last few new messages of the driver in one line."""
        return "; ".join([line for line in self.new_lines() if "nbd" in line][-KEEP_LINES:])

    def close(self) -> None:
        """Release the descriptor. Any number of times."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
