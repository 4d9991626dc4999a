"""A raw connection to the target: any bytes out, exact bytes in, everything written down, nothing waited for too long.

It knows messages only to describe them in the transcript; what may follow what is in `negotiation` and `session`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from nbdtest.conformance.verdict import Hangup, NoAnswer
from nbdtest.errors import Disconnected, PeerViolation, TimedOut, TransportError
from nbdtest.net.clock import Deadline, monotonic_s, pause
from nbdtest.net.stream import Arrival, Stream
from nbdtest.net.tls import TLSStream
from nbdtest.wire import Message, Record, Sender, Transcript, dump, shorten

__all__ = ["Peer"]

_BETWEEN_PIECES_S = 0.0002
_M = TypeVar("_M", bound=Message)


class Peer:
    """One connection. `quiet_s` is how long silence has to last to count as silence: absence cannot be proved.

    Every failure to get an answer is a complaint about the target: `Hangup` or `NoAnswer`. A hangup is tolerable, for a
    check whose probe is illegal, once the check has set `preparing` to False, which the openers in `target` do.
    """

    def __init__(
        self,
        stream: Stream,
        transcript: Transcript,
        *,
        number: int = 0,
        started_s: float = 0.0,
        timeout_s: float = 5.0,
        quiet_s: float = 0.05,
    ) -> None:
        self.stream = stream
        self.transcript = transcript
        self.number = number
        self.timeout_s = timeout_s
        self.quiet_s = quiet_s
        self.preparing = True
        self.slowly = False
        self._started_s = started_s
        self._outbox: list[tuple[bytes, str]] | None = None

    def send(self, *messages: Message | bytes, summary: str = "") -> None:
        """Send messages and bytes in one go, or byte by byte when `slowly` is set."""
        parts = [(part, summary) if isinstance(part, bytes) else (part.encode(), dump(part)) for part in messages]
        if self._outbox is not None:
            self._outbox += parts
            return
        self._send(parts)

    def hold(self) -> None:
        """Keep back what is sent from now on, until `release`."""
        self._outbox = []

    def release(self, *, pieces: Sequence[int] = ()) -> None:
        """Send what was kept back: in one piece, or cut at the positions `pieces`."""
        parts, self._outbox = self._outbox or [], None
        self._send(parts, pieces)

    def receive(self, message: type[_M], *, wanted: str = "", begun: bytes = b"") -> _M:
        """Receive one message of fixed size; `begun` is what has been received of it.

        Raises:
            Hangup, NoAnswer: it did not come.
            PeerViolation: a constant in it is wrong; its bytes are received and recorded.
        """
        data = begun + self.receive_bytes(message.wire_size() - len(begun), wanted=wanted or message.__name__)
        try:
            found = message.decode(data)
        except PeerViolation as violation:
            self.note(data, f"malformed: {violation}")
            raise
        self.note(data, dump(found))
        return found

    def receive_bytes(self, count: int, *, wanted: str) -> bytes:
        """Receive exactly `count` bytes; the caller records them with `note`."""
        try:
            return self.stream.receive_exact(count, Deadline(self.timeout_s), what=wanted)
        except Disconnected as error:
            raise self._hung_up(error, wanted) from None
        except TimedOut as error:
            if error.received:
                self.note(error.received, "incomplete")
            got = f"only {shorten(error.received)}" if error.received else "nothing"
            raise NoAnswer(f"{got} came in {self.timeout_s:g} s", wanted) from None

    def note(self, data: bytes, summary: str, sender: Sender = Sender.SERVER) -> None:
        """Write down something that was exchanged, or an event without bytes."""
        self.transcript.add(
            Record(
                connection=self.number,
                sender=sender,
                time_s=monotonic_s() - self._started_s,
                data=data,
                summary=summary,
            )
        )

    def stays_silent(self) -> bool:
        """Whether the connection stays open and nothing arrives for `quiet_s`; what arrives is written down."""
        arrival = self.stream.arrival(self.quiet_s)
        if arrival is Arrival.BYTES:
            self.note(self.stream.receive_some(4096), "unexpected bytes")
        elif arrival is Arrival.END:
            self.note(b"", "end of connection")
        return arrival is Arrival.NOTHING

    def receive_if_any(self) -> bytes:
        """Receive what comes within `quiet_s`; b"" if nothing does, or the end."""
        if self.stream.arrival(self.quiet_s) is Arrival.NOTHING:
            return b""
        return self.receive_unless_ended()

    def is_over(self) -> bool:
        """Whether the target has ended the connection by now."""
        return self.stream.arrival(0) is Arrival.END

    def receive_to_end(self, *, limit: int = 1 << 20) -> bytes:
        """Receive what is left until the target ends the connection.

        Raises:
            NoAnswer: it does not within the time limit.
        """
        try:
            rest = self.stream.receive_to_end(limit, Deadline(self.timeout_s))
        except TimedOut as error:
            if error.received:
                self.note(error.received, "bytes")
            raise NoAnswer(
                f"the connection is still open after {self.timeout_s:g} s", "the end of the connection"
            ) from None
        if rest:
            self.note(rest, "bytes before the end")
        self.note(b"", "end of connection")
        return rest

    def receive_unless_ended(self) -> bytes:
        """Receive what comes next, b"" if that is the end of the connection.

        Raises:
            NoAnswer: neither happens within the time limit.
        """
        try:
            data = self.stream.receive_some(4096, Deadline(self.timeout_s))
        except Disconnected as error:
            self.note(b"", "RST" if error.reset else "FIN")
            return b""
        except TimedOut:
            seen = f"nothing came and the connection is still open after {self.timeout_s:g} s"
            raise NoAnswer(seen, "the end of the connection") from None
        self.note(data, "unexpected bytes")
        return data

    def is_ended(self) -> bool:
        """Whether the target ends the connection within the time limit, whatever it sends before."""
        try:
            self.receive_to_end()
        except NoAnswer:
            return False
        return True

    def half_close(self) -> None:
        """End our direction only."""
        self.note(b"", "FIN", Sender.CLIENT)
        self.stream.half_close()

    def cut(self, *, rst: bool = False) -> None:
        """Vanish, by RST where the transport has one."""
        self.note(b"", "RST" if rst and self.stream.can_reset else "FIN", Sender.CLIENT)
        self.stream.cut(rst=rst)

    def close(self) -> None:
        """Give the connection up without a word, of TLS neither. Any number of times."""
        (self.stream.lower if isinstance(self.stream, TLSStream) else self.stream).close()

    def _send(self, parts: Sequence[tuple[bytes, str]], cuts: Sequence[int] = ()) -> None:
        for data, summary in parts:
            self.note(data, summary, Sender.CLIENT)
        joined = b"".join(data for data, _ in parts)
        ends = range(1, len(joined) + 1) if self.slowly else [*cuts, len(joined)]
        pieces = [joined[first:end] for first, end in pairwise([0, *ends])]
        try:
            for piece in pieces:
                self.stream.send_all(piece, deadline=Deadline(self.timeout_s))
                if len(pieces) > 1:
                    pause(_BETWEEN_PIECES_S)  # or they would often be read together
        except Disconnected as error:
            # What the target said before it hung up may still be unread; a reset has thrown it away, so do not look.
            raise self._hung_up(error, "") from None
        except TimedOut:
            raise NoAnswer(f"the server stopped reading for {self.timeout_s:g} s", "the request to be read") from None

    def _hung_up(self, error: TransportError, wanted: str) -> Hangup:
        received = error.received if isinstance(error, Disconnected) else b""
        if received:
            self.note(received, "incomplete")
        reset = isinstance(error, Disconnected) and error.reset
        self.note(b"", "RST" if reset else "FIN")
        how = "reset" if reset else "closed"
        got = f" after {shorten(received)}" if received else ""
        return Hangup(f"the server {how} the connection{got}", wanted, tolerable=not self.preparing)
