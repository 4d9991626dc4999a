"""One side of a TLS session without a socket: ciphertext in and out, plaintext in and out. It never waits and reads
no clock.

The same object serves client and server, blocking and event-driven drivers, and a test that wants to cut, flip or
delay ciphertext:
    pipe.feed(ciphertext from the wire); count = pipe.read_into(buffer)
    pipe.write(plaintext); wire.send(pipe.to_send())
What `to_send` returns has to be sent also after a failed call: it may hold the alert that tells the peer why.
"""

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeAlias, cast

from nbdtest.errors import TransportError, UsageError
from nbdtest.net.tls.context import Side, TLSContext
from nbdtest.net.tls.failures import (
    HandshakeFailed,
    TLSBroken,
    TLSClosed,
    TLSTruncated,
    explain_handshake,
    explain_session,
    handshake_cut,
    is_cut,
)

__all__ = ["PIECE", "TLSPipe"]

PIECE = 1 << 16
"""Plaintext bytes to encrypt at a time: more only makes the ciphertext fall out of the processor's cache before it is
sent."""

_RECORD = 1 << 14

_Bytes: TypeAlias = bytes | bytearray | memoryview
_Failure: TypeAlias = HandshakeFailed | TLSBroken | TLSClosed | TLSTruncated


class TLSPipe:
    """A TLS session of one connection. Not for two threads at once.

    A client that hands in an earlier `session`, of a connection with the same context, offers to resume it.
    """

    def __init__(self, context: TLSContext, *, session: ssl.SSLSession | None = None) -> None:
        self.context = context
        # A list instead of a method of ours: the callback must not refer to this pipe, because the way back (SSLObject,
        # SSLContext, callback) leads through C, where the garbage collector sees no cycle.
        self._claimed: list[str] = []
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.for_connection(self._claimed.append).wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=context.side is Side.SERVER,
            server_hostname=context.server_hostname,
            session=session,
        )
        self._decrypt = cast("Callable[[int, memoryview], int]", self._ssl.read)  # with a buffer it returns a count
        self.to_send: Callable[[], bytes] = self._outgoing.read
        """Take the ciphertext that is due to the peer, b"" if none."""
        self.is_dry = True
        """Whether `read_into` has nothing to give or to tell before more is fed. False if in doubt."""
        self._established = False
        self._version = ""
        self._cipher = ""
        self._certificate: bytes | None = None
        self._fed = 0
        self._decrypted = 0
        self._reset = False
        self._failure: _Failure | None = None
        self._said_goodbye = False
        self._kept = bytearray()

    @property
    def established(self) -> bool:
        """Whether the handshake is complete on our side."""
        return self._established

    @property
    def version(self) -> str:
        """ "TLSv1.2" or "TLSv1.3"; "" before the handshake."""
        return self._version

    @property
    def cipher(self) -> str:
        """OpenSSL's name of the suite in use; "" before the handshake."""
        return self._cipher

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER, verified or not; None if it sent none."""
        return self._certificate

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection can be resumed from. In TLS 1.3 a ticket makes it one, which comes with the first
        data."""
        return self._ssl.session

    @property
    def resumed(self) -> bool:
        """Whether an earlier session was resumed."""
        return bool(self._ssl.session_reused)

    @property
    def psk_identity(self) -> str:
        """The identity that a PSK client claimed, known to a server when the handshake is over or has failed; "" if
        none."""
        return self._claimed[-1] if self._claimed else ""

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete, False when `feed` has to bring more.

        On TLS 1.3 a client is done before the server has looked at its certificate: a refusal comes with the first
        `read_into`.

        Raises:
            HandshakeFailed: from now on every call raises it.
        """
        if self._established:
            return True
        self._raise_failure()
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            if is_cut(error) or isinstance(error, ssl.SSLZeroReturnError):
                raise self._failed(handshake_cut(self.context, reset=self._reset, received=self._fed)) from error
            raise self._failed(explain_handshake(error, self.context, identity=self.psk_identity)) from error
        # Noted now: after an alert OpenSSL does not tell any more what was agreed on.
        self._version, self._cipher = self._ssl.version() or "", (self._ssl.cipher() or ("",))[0]
        self._certificate = self._ssl.getpeercert(binary_form=True)
        if self.context.uses_psk and self._certificate is not None:
            # Cannot happen with the settings of client_context; if it ever does, nobody has proved anything.
            text = f"the {self.context.side.peer} showed a certificate although a pre-shared key was asked for"
            raise self._failed(HandshakeFailed(text, refused_by=self.context.side))
        self._established = True
        return True

    def feed(self, ciphertext: _Bytes) -> None:
        """Take what arrived from the peer."""
        self._fed += self._incoming.write(ciphertext)
        self.is_dry = False

    def feed_eof(self, *, reset: bool = False) -> None:
        """Take note that nothing more will arrive, because of a reset or an ordinary end."""
        self._reset = reset
        self._incoming.write_eof()
        self.is_dry = False

    @property
    def pending_to_send(self) -> int:
        """Bytes that `to_send` would return."""
        return self._outgoing.pending

    @property
    def pending(self) -> int:
        """Plaintext bytes that are decrypted already. There may be more behind them: only `read_into` can tell."""
        return len(self._kept) + self._ssl.pending() if self._established else 0

    @property
    def silent(self) -> bool:
        """Whether the peer has not said anything in the session yet."""
        return self._decrypted == 0

    @property
    def undecrypted(self) -> int:
        """Ciphertext bytes that were fed and not looked at yet: whole records, the beginning of one, or both."""
        return self._incoming.pending

    def write(self, *pieces: _Bytes) -> None:
        """Encrypt all of the pieces; `to_send` has the ciphertext.

        Raises:
            UsageError: the handshake is not complete, or our side of the session is closed.
        """
        for piece in pieces if len(pieces) == 1 and len(pieces[0]) <= PIECE else _records(pieces):
            self._encrypt(piece)

    def encrypt(self, *pieces: _Bytes) -> Iterator[bytes]:
        """Encrypt the pieces and give the ciphertext of about PIECE bytes at a time, to be sent before the next is
        asked for."""
        for piece in _records(pieces):
            self._encrypt(piece)
            yield self.to_send()

    def read_into(self, buffer: bytearray | memoryview) -> int:
        """Decrypt into `buffer` as much as is there and fits, and return how many bytes; 0 when `feed` has to bring
        more.

        Raises:
            TLSClosed: the peer sent close_notify, and everything before it has been read.
            TLSTruncated: the connection ended without close_notify, and everything before that has been read.
            TLSBroken: an alert, or bytes that do not belong to the session.
        """
        if not self._established:
            raise UsageError("the TLS handshake is not complete: nothing can be read yet")
        if self.is_dry:
            return 0
        if self._kept:
            view = memoryview(buffer)
            count = min(len(self._kept), view.nbytes)
            view[:count] = self._kept[:count]
            del self._kept[:count]
            return count
        self._raise_failure()
        rest = memoryview(buffer)
        wanted, have = rest.nbytes, 0
        decrypt, incoming = self._decrypt, self._incoming
        try:
            while have < wanted:
                count = decrypt(wanted - have, rest)
                if not count:
                    self._note_end(self._closed(have))
                    break
                have += count
                if not incoming.pending and not incoming.eof and not self._ssl.pending():
                    self.is_dry = True  # asking once more would cost an exception
                    break
                rest = rest[count:]
        except ssl.SSLWantReadError:
            self.is_dry = not incoming.pending
        except ssl.SSLZeroReturnError:
            self._note_end(self._closed(have))
        except ssl.SSLError as error:
            if is_cut(error):
                self._note_end(self._truncated(have))
            else:
                self._note_end(explain_session(error, self.context, nothing_yet=self._decrypted + have == 0))
        self._decrypted += have
        if not have:
            self._raise_failure()
        return have

    def close_notify(self) -> None:
        """End our direction of the session: `to_send` has the notice. The peer's direction can still be read, any
        number of calls."""
        if not self._established or self._said_goodbye or isinstance(self._failure, TLSBroken):
            return
        self._keep_what_came()
        self._said_goodbye = True
        with suppress(ssl.SSLError):  # the peer's own notice has not come yet, or something else has: reading will tell
            self._ssl.unwrap()

    def _keep_what_came(self) -> None:
        # OpenSSL's shutdown looks for the peer's notice, and throws away the data that it meets on the way.
        kept, buffer = bytearray(), bytearray(_RECORD)
        with suppress(TransportError):  # whoever reads is told
            while count := self.read_into(buffer):
                kept += buffer[:count]
        self._kept = kept
        self.is_dry = self.is_dry and not kept

    def _encrypt(self, piece: _Bytes) -> None:
        if not self._established:
            raise UsageError("the TLS handshake is not complete: nothing can be written yet")
        if self._said_goodbye:
            raise UsageError("our side of the TLS session is closed: nothing can be written any more")
        try:
            self._ssl.write(piece)
        except ssl.SSLError as error:
            raise self._failed(explain_session(error, self.context, nothing_yet=self._decrypted == 0)) from error

    def _truncated(self, have: int) -> TLSTruncated:
        how = "reset" if self._reset else "closed"
        text = f"the {self.context.side.peer} {how} the connection without closing the TLS session"
        return TLSTruncated(text + self._suspicion(have), reset=self._reset)

    def _closed(self, have: int) -> TLSClosed:
        return TLSClosed(f"the {self.context.side.peer} closed the TLS session{self._suspicion(have)}")

    def _suspicion(self, have: int) -> str:
        """TLS 1.3 lets the client finish first, so that silence may be the server's answer to the handshake."""
        if self.context.side is Side.SERVER or self._decrypted or have:
            return ""
        refused = "identity" if self.context.uses_psk else "certificate, or the lack of one"
        return f" before it sent anything in it: does it refuse our {refused}?"

    def _failed(self, failure: _Failure) -> _Failure:
        self._note_end(failure)
        return failure

    def _note_end(self, failure: _Failure) -> None:
        # The bytes before the end are delivered first; the end is told by the next call.
        self._failure = failure
        self.is_dry = False

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _records(pieces: Iterable[_Bytes]) -> Iterator[_Bytes]:
    """The pieces cut so that none is longer than PIECE; short ones are joined, as each would be a record of its own."""
    views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    if len(views) > 1 and sum(view.nbytes for view in views) <= PIECE:
        yield b"".join(views)
        return
    for view in views:
        for start in range(0, view.nbytes, PIECE):
            yield view[start : start + PIECE]
