"""TLS between a connection's socket and its engine, correct or wrong on purpose. No socket and no clock in here.

What a rule can do needs no quirk: refusing STARTTLS or dropping FIXED_NEWSTYLE (a downgrade), and plaintext or the
end of the connection right behind the ACK, are rules for the option or the greeting; a wrong certificate is one of
the server's credentials. What is left are the deeds of the layer below NBD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

from nbdtest.errors import Disconnected
from nbdtest.net.tls import (
    ServerCredentials,
    ServerPSK,
    ServerX509,
    TLSClosed,
    TLSContext,
    TLSFailure,
    TLSPipe,
    VersionRange,
    server_context,
)
from nbdtest.net.tls.key_offer import ACCEPTANCE, KeyOffer
from nbdtest.wire import OPTION_MAGIC
from nbdtest.wire.layout import Readable

__all__ = ["TLSLayer", "TLSQuirks"]

_HEADER = 5  # of a TLS record: type, version, length
_BUFFER = 1 << 16
_OPTION_MAGIC = OPTION_MAGIC.to_bytes(8, "big")
# record: handshake, TLS 1.1, length; message: ServerHello, length, version, random, no session, ECDHE-ECDSA-AES128-SHA
_OLD_SERVER_HELLO = bytes.fromhex("16 0302 002a  02 000026 0302") + bytes(32) + bytes.fromhex("00 c009 00")


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSQuirks:
    """What the server does wrong about TLS. All off by default."""

    ignores_starttls: bool = False
    """Accepts STARTTLS and goes on in clear."""
    keeps_plaintext: bool = False
    """What came in clear behind STARTTLS is served as if it had come in TLS."""
    returns_to_clear: bool = False
    """Goes on in clear when TLS has failed or was closed, or when an option in clear comes instead of a TLS record."""
    greets_old_versions: bool = False
    """Answers a client that speaks no more than TLS 1.0 or 1.1 with a ServerHello."""
    greets: Callable[[KeyOffer], bool] | None = None
    """Accepts a key that is offered in TLS 1.3 if this is so, in a ServerHello that nothing follows."""
    hangs_up_on_return: bool = False
    """Ends the connection of a client that resumes an earlier session."""
    versions: VersionRange | None = None
    """Other versions of TLS than its credentials were set up for."""
    tickets: int = 0
    """So many session tickets follow its part of a TLS 1.3 handshake: legal, and what most servers on the web do."""
    handshake_records: int | None = None
    """So many of the server's records leave during the handshake, and then the connection is cut."""
    plain_in_handshake: bytes = b""
    """Sent in clear behind the server's first part of the handshake."""
    plain_in_session: bytes = b""
    """Sent in clear as soon as the handshake is over."""
    single_byte_records: bool = False
    """Every byte of plaintext is a record of its own: legal, and a test of the client's patience."""
    flipped_record: int = 0
    """The last bit of this record of the session (1 is the first) is flipped; 0 for none."""
    closes_after: int | None = None
    """After so many bytes of plaintext there comes close_notify and the end of the connection."""
    omits_close_notify: bool = False
    """Ends the connection without closing TLS."""

    @property
    def any(self) -> bool:
        """Whether anything is switched on."""
        return any(getattr(self, each.name) != each.default for each in fields(self))


class TLSLayer:
    """The TLS session of one connection.

    `over` says that the connection has to be ended once what `outgoing` gave has left; `failure` says why TLS failed,
    `client_closed` whether the client ended the session in order.
    """

    def __init__(self, context: TLSContext, quirks: TLSQuirks) -> None:
        if quirks.versions is not None or quirks.tickets:
            versions, tickets = quirks.versions or context.versions, quirks.tickets or context.tickets
            context = server_context(_of_server(context), versions, tickets=tickets)
        self.pipe = TLSPipe(context)
        self.over = False
        self.failure: TLSFailure | None = None
        self.client_closed = False
        self._quirks = quirks
        self._out: list[Readable] = []
        self._buffer = memoryview(bytearray(_BUFFER))
        self._records = 0
        self._plaintext = 0
        self._interrupted = False
        self._greeted = False

    def is_forsaken(self, data: Readable = b"") -> bool:
        """Whether a quirk makes the server go on in clear, now or because `data` arrived."""
        over = self.failure is not None or self.client_closed or bytes(data[:8]) == _OPTION_MAGIC
        return self._quirks.returns_to_clear and over

    def describe(self) -> str:
        """What was agreed on, for the journal."""
        identity = f", identity {self.pipe.psk_identity!r}" if self.pipe.psk_identity else ""
        certificate = ", client certificate" if self.pipe.peer_certificate else ""
        return f"{self.pipe.version}, {self.pipe.cipher}{identity}{certificate}"

    @property
    def established(self) -> bool:
        """Whether the handshake is over."""
        return self.pipe.established

    def incoming(self, data: Readable) -> Iterator[memoryview]:
        """Take in what arrived, and give the plaintext, piece by piece; each is valid until the next is asked for."""
        if not self._greeted and (hello := self._made_hello(bytes(data))):
            self._out.append(hello)
            self.over = True
        self._greeted = True
        if self.failure is None and not self.over:
            self.pipe.feed(bytes(data))
            yield from self._decrypted()

    def incoming_end(self, *, reset: bool = False) -> Iterator[memoryview]:
        """Take in that the client ended or reset the connection, and give what plaintext there still was."""
        if self.failure is None and not self.over:
            self.pipe.feed_eof(reset=reset)
            yield from self._decrypted()

    def encrypt(self, pieces: Iterable[Readable]) -> None:
        """Encrypt what the engine has to say."""
        for piece in pieces:
            if self.over or self.failure is not None:
                return
            self._encrypt(memoryview(piece))

    def outgoing(self) -> list[Readable]:
        """Take the bytes that have to leave now."""
        self._collect()
        out, self._out = self._out, []
        return out

    def goodbye(self) -> bytes:
        """The end of the session in bytes: close_notify, unless a quirk leaves it out."""
        if self._quirks.omits_close_notify or not self.established or self.over:
            return b""
        self.pipe.close_notify()
        return self.pipe.to_send()

    def _made_hello(self, data: bytes) -> bytes:
        """The ServerHello that a quirk answers a ClientHello with, b"" for none."""
        if self._quirks.greets_old_versions and _is_old_hello(data):
            return _OLD_SERVER_HELLO
        offer = KeyOffer.read(data) if self._quirks.greets else None
        return ACCEPTANCE if offer and self._quirks.greets and self._quirks.greets(offer) else b""

    def _decrypted(self) -> Iterator[memoryview]:
        try:
            if not self.established:
                complete = self.pipe.handshake()
                self._collect_handshake()
                if not complete or self.over:
                    return
                self._records = 0
                self.over = self._quirks.hangs_up_on_return and self.pipe.resumed
                self._out += [self._quirks.plain_in_session] if self._quirks.plain_in_session else []
            while not self.over and (count := self.pipe.read_into(self._buffer)):
                yield self._buffer[:count]
        except TLSFailure as failure:
            self.failure = failure
        except Disconnected as end:
            self.client_closed = isinstance(end, TLSClosed)

    def _encrypt(self, plaintext: memoryview) -> None:
        limit = self._quirks.closes_after
        if limit is not None:
            plaintext = plaintext[: limit - self._plaintext]
        self._plaintext += len(plaintext)
        step = 1 if self._quirks.single_byte_records else max(len(plaintext), 1)
        for at in range(0, len(plaintext), step):
            self.pipe.write(plaintext[at : at + step])
        if self._plaintext == limit:
            self.pipe.close_notify()
            self._collect()
            self.over = True

    def _collect(self) -> None:
        """Take over ciphertext of the session, or the alert of a handshake that failed."""
        ciphertext = self.pipe.to_send()
        wanted = self._quirks.flipped_record
        if self.over or not ciphertext:
            return
        if not wanted or not self.established or self._records >= wanted:
            self._out.append(ciphertext)
            return
        for record in _records(ciphertext):
            self._records += 1
            self._out.append(record[:-1] + bytes([record[-1] ^ 1]) if self._records == wanted else record)

    def _collect_handshake(self) -> None:
        """Take over our next part of the handshake, as far as the quirks let it through."""
        limit = self._quirks.handshake_records
        part = list(_records(self.pipe.to_send()))
        if limit is not None:
            part = part[: limit - self._records]
            self._records += len(part)
            self.over = self._records >= limit
        self._out += part
        if self._quirks.plain_in_handshake and part and not self._interrupted and not self.over:
            self._interrupted = True
            self._out.append(self._quirks.plain_in_handshake)


def _of_server(context: TLSContext) -> ServerCredentials:
    assert isinstance(context.credentials, ServerPSK | ServerX509), "the context of a server"
    return context.credentials


def _is_old_hello(data: bytes) -> bool:
    """Whether this is a ClientHello of TLS 1.0 or 1.1: the record's type, then the version in the message."""
    return data[:1] == b"\x16" and data[9:11] in (b"\x03\x01", b"\x03\x02")


def _records(ciphertext: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(ciphertext):
        length = _HEADER + int.from_bytes(ciphertext[at + 3 : at + _HEADER], "big")
        yield ciphertext[at : at + length]
        at += length
