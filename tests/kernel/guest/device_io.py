"""Input and output on block devices, in a process of its own: one that hangs there can be given up without harm.

The parent sends (operation, arguments) and gets (True, result) or (False, errno). Run as a script it is that process.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import pickle
import select
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any, BinaryIO, Self

BLKFLSBUF = 0x1261
BLKDISCARD = 0x1277
BLKZEROOUT = 0x127F
BLKGETSIZE64 = 0x80081272
BLKSSZGET = 0x1268
BLKROGET = 0x125E

WAIT_S = 15.0
KILL_S = 2.0


class Worker:
    """The process, as its parent sees it; one operation at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

        self.busy = False
        """Whether an operation is under way, or its outcome was not fetched."""

    def start(self, operation: str, *arguments: Any) -> None:
        """Begin an operation; `result` has its outcome."""
        self.busy = True
        assert self._process.stdin is not None
        pickle.dump((operation, arguments), self._process.stdin)
        self._process.stdin.flush()

    def finished(self, timeout_s: float) -> bool:
        """Whether the outcome is there, waiting until the timeout."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return bool(ready)

    def result(self, timeout_s: float = WAIT_S) -> Any:
        """Wait for the outcome.

        Raises:
            OSError: the operation failed with that number.
            TimeoutError: it is still under way.
        """
        if not self.finished(timeout_s):
            raise TimeoutError(f"the device did not answer in {timeout_s:g} s")
        assert self._process.stdout is not None
        succeeded, outcome = pickle.load(self._process.stdout)
        self.busy = False
        if not succeeded:
            raise OSError(outcome, os.strerror(outcome))
        return outcome

    def __call__(self, operation: str, *arguments: Any) -> Any:
        self.start(operation, *arguments)
        return self.result()

    def close(self) -> None:
        """End the process, which dies as soon as the device lets it go."""
        self._process.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.wait(KILL_S)
        self._process.stdin.close()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Operations:
    """What the process can do. Unless it says otherwise, each opens the device past the page cache, and closes it."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def read(self, path: str, offset: int, length: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, length) as buffer:  # direct transfers need aligned memory
                count = os.preadv(descriptor, [buffer], offset)
                return buffer[:count]
        finally:
            os.close(descriptor)

    def read_each(self, paths: list[str], offset: int, length: int) -> dict[str, int]:
        """Read from several devices at the same time; the outcomes are error numbers, 0 for success."""
        outcomes = {}

        def read_one(path: str) -> None:
            try:
                self.read(path, offset, length)
                outcomes[path] = 0
            except OSError as error:
                outcomes[path] = error.errno or errno.EIO

        threads = [threading.Thread(target=read_one, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    def write(self, path: str, offset: int, data: bytes, synchronous: bool = False) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | (os.O_DSYNC if synchronous else 0))
        try:
            with mmap.mmap(-1, len(data)) as buffer:
                buffer[:] = data
                return os.pwritev(descriptor, [buffer], offset)
        finally:
            os.close(descriptor)

    def write_and_sync(self, path: str, offset: int, data: bytes) -> None:
        """Through the page cache, then fsync."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.pwrite(descriptor, data, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def discard(self, path: str, offset: int, length: int) -> None:
        self._range(path, BLKDISCARD, offset, length)

    def zero_out(self, path: str, offset: int, length: int) -> None:
        self._range(path, BLKZEROOUT, offset, length)

    def sizes(self, path: str) -> tuple[int, int, bool]:
        """Size, logical block size, read-only."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = struct.unpack("=Q", fcntl.ioctl(descriptor, BLKGETSIZE64, bytes(8)))[0]
            block = struct.unpack("=i", fcntl.ioctl(descriptor, BLKSSZGET, bytes(4)))[0]
            read_only = struct.unpack("=i", fcntl.ioctl(descriptor, BLKROGET, bytes(4)))[0]
        finally:
            os.close(descriptor)
        return size, block, bool(read_only)

    def hold(self, path: str) -> None:
        """Keep the device open until `let_go`."""
        self._held[path] = os.open(path, os.O_RDONLY)

    def let_go(self, path: str) -> None:
        os.close(self._held.pop(path))

    def _range(self, path: str, request: int, offset: int, length: int) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.ioctl(descriptor, request, struct.pack("=QQ", offset, length))
        finally:
            os.close(descriptor)


def serve(requests: BinaryIO, outcomes: BinaryIO) -> None:
    operations = Operations()
    while True:
        try:
            operation, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            outcome = True, getattr(operations, operation)(*arguments)
        except OSError as error:
            outcome = False, error.errno or errno.EIO
        pickle.dump(outcome, outcomes)
        outcomes.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
