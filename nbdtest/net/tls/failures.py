"""What goes wrong in TLS, said so that a reader knows which side refused what, as far as it can be known.

OpenSSL's reason codes and TLS's alerts become exceptions here. Many servers close without an alert; then only a guess
can be offered, and it is marked as one by its question mark.
"""

import re
import ssl
from typing import TypedDict

from nbdtest.errors import Disconnected, TransportError
from nbdtest.net.tls.context import Side, TLSContext
from nbdtest.net.tls.credentials import X509

__all__ = [
    "HandshakeFailed",
    "TLSBroken",
    "TLSClosed",
    "TLSFailure",
    "TLSTruncated",
    "explain_handshake",
    "explain_session",
    "handshake_cut",
    "is_cut",
]


class TLSFailure(TransportError):
    """TLS itself failed.

    `refused_by` is the side that gave up, or None when the connection just ended; `alert` is what the peer said, in
    TLS's words such as "certificate expired", or ""; `reason` is OpenSSL's code, or "".
    """

    def __init__(self, message: str, *, refused_by: Side | None = None, alert: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.refused_by = refused_by
        self.alert = alert
        self.reason = reason


class HandshakeFailed(TLSFailure):
    """No TLS session came about. The connection cannot go on: NBD wants both sides to end it."""


class TLSBroken(TLSFailure):
    """An established TLS session was ended by an alert, or by bytes that do not belong to it."""


class TLSClosed(Disconnected):
    """The peer ended the TLS session in order, with close_notify. On TLS 1.3 this is also how its half of a
    connection ends."""


class TLSTruncated(Disconnected):
    """The peer ended the connection without close_notify: what had been sent may have been cut by somebody else."""


_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_ALERT_(\w+)")

_TEXT_ONLY = re.compile(r"\[SSL\] ([a-z0-9 ]+) \(_ssl\.c")

_KEY_GUESS = "wrong key or unknown identity?"
_KIND_GUESS = "does it use another kind of credentials?"
_ALERT_SIZE = 7
"""Bytes of an alert in clear; less than any message of a handshake."""

# What the peer's alerts say of us, beyond their own words
_ALERTS = {
    "unknown ca": "it does not trust the CA that signed our certificate",
    "certificate expired": "our certificate is not valid now",
    "certificate required": "it demands a certificate and we sent none",
    "protocol version": "it does not speak our versions of TLS",
}
_KEY_ALERTS = frozenset(
    {
        "decrypt error",
        "unknown psk identity",
        "handshake failure",
        "illegal parameter",
        "bad record mac",
        "internal error",
    }
)
_CERTIFICATE_ALERTS = frozenset({"handshake failure", "bad certificate", "access denied", "certificate unknown"})

_NOT_TLS = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "PACKET_LENGTH_TOO_LONG",
        "UNKNOWN_PROTOCOL",
        "BAD_RECORD_TYPE",
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "ENCRYPTED_LENGTH_TOO_LONG",
        "RECORD_LENGTH_MISMATCH",
        "RECORD_TOO_SMALL",
    }
)
_LOCAL = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the {peer} sent no certificate, and one is demanded",
    "BINDER_DOES_NOT_VERIFY": "the {peer} has another key for this identity",
    "PSK_IDENTITY_NOT_FOUND": "the {peer}'s identity is unknown",
    "UNSUPPORTED_PROTOCOL": "the {peer} offers no version of TLS that we accept",
    "DECRYPTION_FAILED_OR_BAD_RECORD_MAC": "a record from the {peer} does not decrypt",
}
_NO_COMMON_GROUND = frozenset({"NO_SHARED_CIPHER", "NO_SUITABLE_SIGNATURE_ALGORITHM"})


def explain_handshake(error: ssl.SSLError, context: TLSContext, *, identity: str = "") -> HandshakeFailed:
    """The exception for OpenSSL's `error` in a handshake; `identity` is the one that a PSK client claimed to our
    server."""
    peer, reason = context.side.peer, _reason(error)
    if alert := _ALERT.fullmatch(reason):
        return HandshakeFailed(**_refused_by_peer(context, alert[1], early=True), reason=reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        if context.uses_psk:
            text = f"the {peer} answered with a certificate instead of proving that it knows the key"
        else:
            text = f"the {peer}'s certificate is refused: {error.verify_message.rstrip('.')}"
    elif reason in _NO_COMMON_GROUND:
        wanted = "a pre-shared key that we know" if context.uses_psk else "a suite that our certificate allows"
        claimed = f"; it claims to be {identity!r}" if identity else ""
        text = f"the {peer} does not offer {wanted}{claimed}"
    else:
        text = _local(reason, error, peer, "in the TLS handshake")
        if context.uses_psk and reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC":
            text += f": {_KEY_GUESS}"
    return HandshakeFailed(text, refused_by=context.side, reason=reason)


def explain_session(error: ssl.SSLError, context: TLSContext, *, nothing_yet: bool) -> TLSBroken:
    """The exception for OpenSSL's `error` after the handshake; `nothing_yet` while nothing has been received in the
    session.

    Then an alert is still the peer's answer to the handshake: on TLS 1.3 the client is done before the server.
    """
    reason = _reason(error)
    if alert := _ALERT.fullmatch(reason):
        return TLSBroken(**_refused_by_peer(context, alert[1], early=nothing_yet), reason=reason)
    text = _local(reason, error, context.side.peer, "in the TLS session")
    return TLSBroken(text, refused_by=context.side, reason=reason)


def handshake_cut(context: TLSContext, *, reset: bool, received: int) -> HandshakeFailed:
    """The exception for a connection that ended in the handshake, after `received` bytes of the peer's part."""
    how = "reset" if reset else "closed"
    where = f"after {received} bytes of its part" if received else "before it sent anything"
    guess = f": {found}" if (found := _why_cut(context, received)) else ""
    return HandshakeFailed(f"the {context.side.peer} {how} the connection in the TLS handshake, {where}{guess}")


def _why_cut(context: TLSContext, received: int) -> str:
    """What the peer may have found wrong with us when it left without a word, "" if anything."""
    told = received > _ALERT_SIZE
    if context.side is Side.SERVER:
        return "does it refuse our certificate?" if told and not context.uses_psk else ""
    if context.uses_psk:
        # In TLS 1.2 the server has to speak before it can learn whether we know the key.
        only_old = context.versions.maximum is ssl.TLSVersion.TLSv1_2
        return _KEY_GUESS if told or not only_old else _KIND_GUESS
    return "does it refuse our certificate, or the lack of one, or want a pre-shared key?" if told else _KIND_GUESS


def is_cut(error: ssl.SSLError) -> bool:
    """Whether the connection ended without close_notify. Python before 3.11.4 has no class of its own for that."""
    return isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"


class _Refusal(TypedDict):
    message: str
    refused_by: Side
    alert: str


def _refused_by_peer(context: TLSContext, code: str, *, early: bool) -> _Refusal:
    alert = code.lower().replace("_", " ")
    text = f"the {context.side.peer} {'refused TLS' if early else 'ended the TLS session'}: {alert}"
    if early and context.uses_psk and alert in _KEY_ALERTS:
        text += f" ({_KEY_GUESS})"
    elif early and isinstance(context.credentials, X509) and alert in _CERTIFICATE_ALERTS:
        text += " (does it demand another certificate, or a pre-shared key?)"
    elif early and alert in _ALERTS:
        text += f" ({_ALERTS[alert]})"
    refused_by = Side.SERVER if context.side is Side.CLIENT else Side.CLIENT
    return _Refusal(message=text, refused_by=refused_by, alert=alert)


def _reason(error: ssl.SSLError) -> str:
    if not error.reason and (text := _TEXT_ONLY.search(str(error))):
        # Python's table of names lacks some codes, among them the alert about an unknown identity; OpenSSL's text is
        # there.
        return text[1].upper().replace(" ", "_")
    return error.reason or ""


def _local(reason: str, error: ssl.SSLError, peer: str, stage: str) -> str:
    if reason in _NOT_TLS:
        return f"the {peer} sent bytes that are not TLS {stage}"
    if reason in _LOCAL:
        return _LOCAL[reason].format(peer=peer)
    return f"the {peer} broke TLS {stage}: {reason.replace('_', ' ').lower() or error}"
