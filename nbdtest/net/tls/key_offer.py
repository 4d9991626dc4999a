"""The ClientHello that offers a pre-shared key in TLS 1.3, made and read by hand.

For what OpenSSL does not send and a server may meet all the same: the empty key, and identities of any length. A key
is offered by proving it (RFC 8446, 4.2.11.2), so whether it is accepted shows in the ServerHello: nothing here goes
beyond that message.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

__all__ = ["ACCEPTANCE", "KeyOffer", "accepts_key", "key_offer"]

_HANDSHAKE = 22
_CLIENT_HELLO, _SERVER_HELLO = 1, 2
_PRE_SHARED_KEY = 0x0029
_SUITES = bytes.fromhex("1301 1303")  # AES-128-GCM and ChaCha20, with SHA-256 as every plain key has it
_FIXED = 4 + 2 + 32
"""The beginning of both messages: type and length, version, random."""
_DIGEST = 32
_RECORD = 1 << 14
_BINDERS = 2 + 1 + _DIGEST
"""The length of the list, the length of the only binder, the binder."""

ACCEPTANCE = bytes.fromhex(
    # record: handshake, TLS 1.2, length; message: ServerHello, length, version, random, no session, AES-128-GCM
    "16 0303 0060  02 00005c 0303" + "5a" * 32 + "00 1301 00"
    # 52 bytes of extensions: TLS 1.3, a key share of X25519, and the first of the offered keys
    "0034 002b 0002 0304  0033 0024 001d 0020" + "09" + "00" * 31 + "0029 0002 0000"
)
"""A ServerHello that accepts the key of any offer, and that nothing follows."""


@dataclass(frozen=True, slots=True)
class KeyOffer:
    """A ClientHello as it was received: who the client claims to be, and which key it proves."""

    identity: bytes
    _message: bytes

    @classmethod
    def read(cls, records: bytes) -> KeyOffer | None:
        """Read the records of a ClientHello; None if they hold no whole one, or none with one key alone."""
        message = _message_in(records, _CLIENT_HELLO)
        at = _FIXED + 1 + int.from_bytes(message[_FIXED : _FIXED + 1], "big")  # version, random, session
        at += 2 + int.from_bytes(message[at : at + 2], "big")  # suites
        at += 1 + int.from_bytes(message[at : at + 1], "big")  # compression
        offered = _extensions(message[at:]).get(_PRE_SHARED_KEY, b"")
        listed, length = int.from_bytes(offered[:2], "big"), int.from_bytes(offered[2:4], "big")
        if listed != 2 + length + 4 or len(offered) != 2 + listed + _BINDERS or not message.endswith(offered):
            return None
        return cls(offered[4 : 4 + length], message)

    def proves(self, key: bytes) -> bool:
        """Whether the client has shown that it knows this key."""
        return hmac.compare_digest(self._message[-_DIGEST:], _binder(key, self._message[:-_BINDERS]))


def key_offer(identity: bytes, key: bytes, randomness: bytes) -> bytes:
    """The records of a ClientHello that claims an identity of any length and proves a key of any length.

    `randomness` is 64 bytes: the client's random, and its share of the key exchange.
    """
    random, share = randomness[:32], randomness[32:64]
    listed = struct.pack("!H", len(identity)) + identity + bytes(4)  # its age is 0
    extensions = b"".join(
        struct.pack("!HH", number, len(body)) + body
        for number, body in (
            (0x002B, bytes.fromhex("02 0304")),  # TLS 1.3
            (0x000A, bytes.fromhex("0002 001d")),  # X25519
            (0x0033, bytes.fromhex("0024 001d 0020") + share),
            (0x002D, bytes.fromhex("01 01")),  # the key, and an exchange of new ones
        )
    )
    pre_shared_key = struct.pack("!H", len(listed)) + listed
    extensions += struct.pack("!HH", _PRE_SHARED_KEY, len(pre_shared_key) + _BINDERS) + pre_shared_key
    body = b"\x03\x03" + random + b"\0" + struct.pack("!H", len(_SUITES)) + _SUITES + b"\1\0"
    body += struct.pack("!H", len(extensions) + _BINDERS) + extensions
    message = struct.pack("!I", _CLIENT_HELLO << 24 | len(body) + _BINDERS) + body
    binders = struct.pack("!HB", 1 + _DIGEST, _DIGEST) + _binder(key, message)
    return _records_of(message + binders)


def accepts_key(answer: bytes) -> bool:
    """Whether the answer to an offer begins with a ServerHello that accepts the key."""
    message = _message_in(answer, _SERVER_HELLO)
    at = _FIXED + 1 + int.from_bytes(message[_FIXED : _FIXED + 1], "big")  # version, random, session
    at += 2 + 1  # suite, compression
    return _PRE_SHARED_KEY in _extensions(message[at:])


def _records_of(message: bytes) -> bytes:
    """A handshake message in clear, in as many records as it takes."""
    pieces = [message[at : at + _RECORD] for at in range(0, len(message), _RECORD)]
    return b"".join(struct.pack("!BHH", _HANDSHAKE, 0x0301, len(piece)) + piece for piece in pieces)


def _binder(key: bytes, message: bytes) -> bytes:
    """The proof of the key: an HMAC over the message up to where the proofs stand (RFC 8446, 4.2.11.2 and 7.1)."""
    early = hmac.digest(bytes(_DIGEST), key, "sha256")
    binder_key = _expanded(early, b"ext binder", hashlib.sha256(b"").digest())
    return hmac.digest(_expanded(binder_key, b"finished", b""), hashlib.sha256(message).digest(), "sha256")


def _expanded(secret: bytes, label: bytes, context: bytes) -> bytes:
    label = b"tls13 " + label
    info = struct.pack("!HB", _DIGEST, len(label)) + label + struct.pack("!B", len(context)) + context
    return hmac.digest(secret, info + b"\1", "sha256")


def _message_in(records: bytes, type_: int) -> bytes:
    """The first handshake message, whole and of this type, b"" if there is none."""
    found, at = b"", 0
    while records[at : at + 1] == bytes([_HANDSHAKE]):
        length = int.from_bytes(records[at + 3 : at + 5], "big")
        found += records[at + 5 : at + 5 + length]
        at += 5 + length
    end = 4 + int.from_bytes(found[1:4], "big")
    return found[:end] if found[:1] == bytes([type_]) and len(found) >= end else b""


def _extensions(block: bytes) -> dict[int, bytes]:
    """What a message's block of extensions holds, by number; a broken block as far as it goes."""
    found, at = {}, 2
    while len(block) >= at + 4:
        number, length = struct.unpack_from("!HH", block, at)
        found[number] = block[at + 4 : at + 4 + length]
        at += 4 + length
    return found
