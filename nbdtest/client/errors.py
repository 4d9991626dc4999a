"""What the client raises: libnbd's `Error` and `ClosedHandle`, and the `Failure` that becomes an `Error` at the edge
of a call.
"""

from __future__ import annotations

import errno
import os

__all__ = ["ClosedHandle", "Error", "Failure", "TLSError"]


class Error(Exception):
    """A call failed: what happened, with the name of the call in front, and an errno value, 0 when none applies."""

    def __init__(self, string: str, errnum: int = 0) -> None:
        super().__init__(string, errnum)

    @property
    def string(self) -> str:
        """The message: `nbd_CALL: what happened: strerror`."""
        return str(self.args[0])

    @property
    def errnum(self) -> int:
        """The errno value, or 0."""
        return int(self.args[1])

    @property
    def errno(self) -> str | None:
        """The name of the errno value, such as "EINVAL"; None when there is none."""
        return errno.errorcode.get(self.errnum)

    def __str__(self) -> str:
        return f"{self.string} ({self.errno})" if self.errno else self.string


class ClosedHandle(ValueError):
    """A method was called on a handle after its `close`."""


class TLSError(OSError):
    """A system call's work could not be done because of TLS; there is no number for that."""


class Failure(Exception):
    """What went wrong, before the call that has to report it is known."""

    def __init__(self, text: str, errnum: int = 0) -> None:
        super().__init__(text, errnum)
        self.text = text
        self.errnum = errnum

    @classmethod
    def of_os(cls, what: str, error: OSError) -> Failure:
        """`what` failed in the operating system, or in TLS.

        Raises:
            OSError: it did not; `error` comes from a signal handler, which is how some programs limit the time.
        """
        if error.errno is None and not isinstance(error, TLSError):
            raise error
        return cls(what if error.errno else f"{what}: {error}", error.errno or 0)

    def in_call(self, call: str) -> Error:
        """The error that `call` raises."""
        reason = f": {os.strerror(self.errnum)}" if self.errnum else ""
        return Error(f"nbd_{call}: {self.text}{reason}", self.errnum)
