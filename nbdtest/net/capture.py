"""What a process printed, in bounded memory: the beginning and the end of it.

Pure; who reads the pipe is not known here.
"""

import threading

__all__ = ["Capture"]

KEPT_BYTES = 32 << 10  # of the beginning, and again of the end


class Capture:
    """Output of any size, of which the first and the last `kept` bytes stay. One thread feeds it, any thread looks."""

    def __init__(self, kept: int = KEPT_BYTES) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def feed(self, output: bytes) -> None:
        """Add what the process printed next."""
        with self._lock:
            self.total += len(output)
            room = self._kept - len(self._head)
            self._head += output[:room]
            self._tail += output[room:]
            if len(self._tail) > 2 * self._kept:
                del self._tail[: -self._kept]

    def bytes(self) -> bytes:
        """The output; where some was dropped, a line that says how much."""
        with self._lock:
            tail = bytes(self._tail[-self._kept :])
            dropped = self.total - len(self._head) - len(tail)
            gap = b"\n[... %d bytes left out ...]\n" % dropped if dropped else b""
            return bytes(self._head) + gap + tail

    def text(self) -> str:
        """The output as text; bytes that are no UTF-8 are replaced."""
        return self.bytes().decode("utf-8", "replace")
