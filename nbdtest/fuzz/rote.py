"""Handshakes by rote: what was said and judged once is said again, and judged again only if the answer is another.

Most of the time that a connection takes would go into a handshake that has been seen a thousand times.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from nbdtest.conformance.session import Session
from nbdtest.net.clock import Deadline
from nbdtest.net.stream import BytesLike, SocketStream, WritableBuffer
from nbdtest.wire import Record, Sender

__all__ = ["Resumed", "Rote"]

_PATIENCE = struct.pack("@ll", 0, 200_000)
"""How long to wait for an answer of the known length, as a timeval: then it may be a shorter one."""


class Rote:
    """A handshake that led to `session`: in turns, what was sent and what came."""

    def __init__(self, session: Session, records: Iterable[Record]) -> None:
        self.flags = session.flags
        self.mode = session.mode
        self.contexts = session.contexts
        self._turns: list[tuple[bytes, bytes]] = []
        sent = came = b""
        for record in records:
            if record.sender is Sender.SERVER:
                came += record.data
            else:
                if came:
                    self._turns.append((sent, came))
                    sent = came = b""
                sent += record.data
        self._turns.append((sent, came))

    def repeat(self, stream: SocketStream) -> Resumed | None:
        """Go through the handshake on a new connection; None if every answer was the same.

        Otherwise the handshake can be taken up from its beginning on what is returned, which has taken over the socket.
        """
        sent, received = b"", b""
        peer = stream.raw_socket
        if peer.gettimeout() is not None:
            peer.setblocking(True)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        for question, expected in self._turns:
            answer = b""
            sent += question
            try:
                if question:
                    peer.sendall(question)
                answer = peer.recv(len(expected), socket.MSG_WAITALL)
            except OSError:
                pass  # nothing in time, or an end, which the handshake that is taken up will run into as well
            received += answer
            if answer != expected:
                return Resumed(stream, sent, received)
        return None


class Resumed(SocketStream):
    """A connection on which something has been exchanged already: that comes again, and is not sent again."""

    def __init__(self, stream: SocketStream, sent: bytes, received: bytes) -> None:
        super().__init__(stream.detach(), timeout_s=stream.timeout_s)
        self._sent = sent
        self.unread = received

    def receive_into(self, buffer: WritableBuffer, deadline: Deadline | None = None, *, what: str = "") -> int:
        if not self.unread:
            return super().receive_into(buffer, deadline, what=what)
        view = memoryview(buffer).cast("B")
        count = min(len(self.unread), view.nbytes)
        view[:count] = self.unread[:count]
        self.unread = self.unread[count:]
        return count

    def send_all(self, *pieces: BytesLike, deadline: Deadline | None = None) -> None:
        data = b"".join(pieces)
        before, self._sent = self._sent, self._sent[len(data) :]
        super().send_all(data[len(before) :], deadline=deadline)
