"""TLS on top of a blocking stream: the same contract, encrypted.

The session is a `TLSPipe`; this only moves its ciphertext through the stream below and waits where the pipe cannot.
"""

import ssl
from contextlib import suppress

from nbdtest.errors import Disconnected, TransportError
from nbdtest.net.clock import Deadline
from nbdtest.net.stream import Arrival, BytesLike, Stream, WritableBuffer
from nbdtest.net.tls.context import TLSContext
from nbdtest.net.tls.failures import HandshakeFailed
from nbdtest.net.tls.pipe import PIECE, TLSPipe

__all__ = ["TLSStream", "start_tls"]

_PEEKED = 1 << 14  # plaintext of one record


class TLSStream(Stream):
    """A stream whose handshake is complete; made by `start_tls`. It owns the stream below.

    The end of the peer's direction raises `TLSClosed` (close_notify) or `TLSTruncated` (none), both a `Disconnected`.
    """

    def __init__(self, lower: Stream, pipe: TLSPipe) -> None:
        self.lower = lower
        self.pipe = pipe
        self.timeout_s = lower.timeout_s
        self._ciphertext = memoryview(bytearray(PIECE))
        self._peeked = bytearray()
        self._ended = False

    def fileno(self) -> int:
        """The descriptor of the stream below. That it is silent does not mean that nothing can be received: see
        `arrival`."""
        return self.lower.fileno()

    @property
    def can_reset(self) -> bool:
        return self.lower.can_reset

    def receive_into(self, buffer: WritableBuffer, deadline: Deadline | None = None, *, what: str = "") -> int:
        if self._peeked:
            count = min(len(self._peeked), memoryview(buffer).nbytes)
            memoryview(buffer)[:count] = self._peeked[:count]
            del self._peeked[:count]
            return count
        deadline = deadline or Deadline(self.timeout_s)
        while not (count := self._read(buffer)):
            self._fill(deadline, what)
        return count

    def send_all(self, *pieces: BytesLike, deadline: Deadline | None = None) -> None:
        deadline = deadline or Deadline(self.timeout_s)
        for ciphertext in self.pipe.encrypt(*pieces):
            self.lower.send_all(ciphertext, deadline=deadline)

    def arrival(self, within: float) -> Arrival:
        deadline = Deadline(within)
        if self._peeked:
            return Arrival.BYTES
        buffer = bytearray(_PEEKED)
        try:
            while not (count := self._read(buffer)):
                if self.lower.arrival(deadline.remaining()) is Arrival.NOTHING:
                    return Arrival.NOTHING
                self._fill(deadline, "")
        except Disconnected:
            return Arrival.END
        self._peeked += buffer[:count]
        return Arrival.BYTES

    def half_close(self) -> None:
        self._close_notify()
        self.lower.half_close()

    def close_session(self) -> Stream:
        """End our direction of the TLS session and give back the stream below, which stays open; this one is over.

        TLS knows no way back to clear, so only a tester does this.
        """
        self._ended = True
        self._close_notify()
        return self.lower

    def cut(self, *, rst: bool = False) -> None:
        self.lower.cut(rst=rst)

    def close(self) -> None:
        """End the TLS session if that is possible without waiting, and release the descriptor."""
        if not self._ended and self.lower.fileno() >= 0:
            self._ended = True
            self._close_notify()
        self.lower.close()

    def interrupt(self) -> None:
        self.lower.interrupt()

    def _close_notify(self) -> None:
        self.pipe.close_notify()
        with suppress(TransportError):  # the peer has gone, or does not read
            self._flush(Deadline(0))

    def _read(self, buffer: WritableBuffer) -> int:
        try:
            return self.pipe.read_into(buffer)
        finally:
            if self.pipe.pending_to_send:  # an answer of TLS itself, or the alert
                with suppress(
                    TransportError
                ):  # what was received matters more than that the peer has stopped listening
                    self._flush(Deadline(self.timeout_s))

    def _fill(self, deadline: Deadline, what: str) -> None:
        try:
            count = self.lower.receive_into(self._ciphertext, deadline, what=what)
        except Disconnected as error:
            self.pipe.feed_eof(reset=error.reset)
        else:
            self.pipe.feed(self._ciphertext[:count])

    def _flush(self, deadline: Deadline) -> None:
        if ciphertext := self.pipe.to_send():
            self.lower.send_all(ciphertext, deadline=deadline)


def start_tls(
    lower: Stream,
    context: TLSContext,
    deadline: Deadline | None = None,
    *,
    received: bytes = b"",
    session: ssl.SSLSession | None = None,
) -> TLSStream:
    """Do the handshake and return the encrypted stream. `received` is what has been read of the peer's part already,
    `session` an earlier one that a client offers to resume.

    Raises:
        HandshakeFailed: no session came about; the alert has been sent, and `lower` is left for the caller to close.
        TimedOut: the peer does not take part.
    """
    deadline = deadline or Deadline(lower.timeout_s)
    pipe = TLSPipe(context, session=session)
    pipe.feed(received)
    buffer = memoryview(bytearray(PIECE))
    while True:
        try:
            complete = pipe.handshake()
        except HandshakeFailed:
            with suppress(TransportError):
                lower.send_all(pipe.to_send(), deadline=deadline)
            raise
        if pipe.pending_to_send:
            # A peer that closes while we send has often said why: that is still there to be received.
            with suppress(Disconnected):
                lower.send_all(pipe.to_send(), deadline=deadline)
        if complete:
            return TLSStream(lower, pipe)
        try:
            count = lower.receive_into(buffer, deadline, what=f"the {context.side.peer}'s part of the TLS handshake")
        except Disconnected as error:
            pipe.feed_eof(reset=error.reset)
        else:
            pipe.feed(buffer[:count])
