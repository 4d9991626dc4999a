"""Temporary directories with names short enough for Unix sockets, which go away however this process ends."""

import os
import secrets
import shutil
import tempfile
from types import TracebackType
from typing import Self

from nbdtest.errors import UsageError
from nbdtest.net.guardian import guardian
from nbdtest.net.sockets import UNIX_PATH_LIMIT

__all__ = ["ScratchDirectory"]

ROOM_FOR_NAMES = 40  # bytes that a name inside may have and still be a Unix socket's path


class ScratchDirectory:
    """A new directory that only this user can enter, in $TMPDIR or, when that is too long a name, in /tmp."""

    def __init__(self) -> None:
        self.path = _make()

    def file(self, name: str) -> str:
        """The path of `name` inside; nothing is created."""
        return os.path.join(self.path, name)

    def remove(self) -> None:
        """Delete it with all it holds. Any number of times."""
        shutil.rmtree(self.path, ignore_errors=True)
        guardian().drop_directory(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _make() -> str:
    for parent in (tempfile.gettempdir(), "/tmp"):
        path = os.path.join(parent, f"nbdt-{secrets.token_hex(6)}")
        if len(os.fsencode(path)) + ROOM_FOR_NAMES > UNIX_PATH_LIMIT:
            continue
        guardian().add_directory(path)  # first: a directory that nobody knows of must never exist
        try:
            os.mkdir(path, 0o700)
        except OSError:
            guardian().drop_directory(path)
            continue
        return path
    raise UsageError(f"no temporary directory can be made in {tempfile.gettempdir()} or /tmp")
