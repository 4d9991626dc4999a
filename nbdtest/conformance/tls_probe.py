"""TLS as a tester starts it: with the target's own credentials, with wrong ones, with one version, or with bytes made
by hand.

A handshake that fails is an answer like any other here, so it is returned and not raised.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.expect import expect
from nbdtest.conformance.negotiation import Negotiation
from nbdtest.conformance.peer import Peer
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import Complaint, NoAnswer, NotApplicable
from nbdtest.errors import Disconnected, TimedOut, TransportError
from nbdtest.net.clock import Deadline
from nbdtest.net.tls import PSK, ClientCredentials, TLSPipe, TLSTruncated, VersionRange, client_context, start_tls
from nbdtest.net.tls.credentials import CA_CERT, CA_CRL
from nbdtest.net.tls.key_offer import accepts_key, key_offer
from nbdtest.wire import OPTION_REPLY_MAGIC, Opt

__all__ = [
    "ALERT_RECORD",
    "HANDSHAKE_RECORD",
    "begin_handshake",
    "client_hello",
    "expect_goodbye",
    "expect_no_option_reply",
    "known_key",
    "protect",
    "revoked_client",
    "shake_hands",
    "starting_tls",
    "takes_key",
    "under_tls",
    "unwanted_clients",
    "wrong_credentials",
]

ALERT_RECORD = 21
HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1
# Suites that TLS 1.0 and 1.1 have: ECDHE, DHE and RSA with AES-CBC, then the same with a pre-shared key
_OLD_SUITES = (0xC009, 0xC013, 0xC00A, 0xC014, 0x0033, 0x0039, 0x002F, 0x0035, 0xC035, 0x0090, 0x008C, 0x008D)
# supported_groups: secp256r1, secp384r1; ec_point_formats: uncompressed; renegotiation_info: none
_EXTENSIONS = bytes.fromhex("000a0006000400170018000b00020100ff01000100")


def client_hello(version: int, randomness: bytes) -> bytes:
    """A ClientHello record that offers nothing newer than `version` (0x0301 is TLS 1.0, 0x0302 is 1.1).

    Made by hand, because no current TLS library still sends one. `randomness` is 32 bytes.
    """
    suites = struct.pack(f"!{len(_OLD_SUITES)}H", *_OLD_SUITES)
    body = struct.pack("!H32sBH", version, randomness, 0, len(suites)) + suites + b"\1\0"
    body += len(_EXTENSIONS).to_bytes(2, "big") + _EXTENSIONS
    message = struct.pack("!I", _CLIENT_HELLO << 24 | len(body)) + body
    return struct.pack("!BHH", HANDSHAKE_RECORD, 0x0301, len(message)) + message


def wrong_credentials(t: ServerTarget) -> Iterator[tuple[str, ClientCredentials]]:
    """Credentials with which no handshake may succeed, each with what is wrong about them.

    With certificates it is our side that refuses, by expecting another name: what a server demands of its clients is
    its own business.
    """
    right = _credentials(t)
    if isinstance(right, PSK):
        yield "a wrong key", replace(right, key=bytes(byte ^ 0x55 for byte in right.key))
        yield "an unknown identity", replace(right, identity="nbdtest-nobody")
        yield "an identity that begins with a known one", replace(right, identity=f"{right.identity}-2")
    else:
        yield "a client that expects another name", replace(right, hostname="nbdtest.invalid", verify_peer=True)


def unwanted_clients(t: ServerTarget) -> Iterator[tuple[str, ClientCredentials]]:
    """Clients that no server may let in which demands certificates of them, the one without any first.

    The throw-away certificates of `{pki}` have their flawed siblings beside them.

    Raises:
        NotApplicable: there are none.
    """
    right = _credentials(t)
    if isinstance(right, PSK):
        raise NotApplicable("the server has keys, no certificates")
    beside = Path(right.directory or "").parent
    for name, what in (
        ("ca-only", "no certificate"),
        ("wrong-ca", "a stranger's certificate"),
        ("expired", "a certificate that has expired"),
        ("not-yet-valid", "a certificate that is not valid yet"),
    ):
        if not (beside / name / CA_CERT).is_file():
            raise NotApplicable("no flawed certificates for clients are known")
        yield what, replace(right, directory=str(beside / name))


def revoked_client(t: ServerTarget) -> ClientCredentials:
    """A client whose certificate is on the list of the revoked ones, which the server has beside its own certificate.

    Raises:
        NotApplicable: there is none.
    """
    right = _credentials(t)
    if isinstance(right, PSK):
        raise NotApplicable("the server has keys, no certificates")
    own = Path(right.directory or "")
    if not ((own / CA_CRL).is_file() and (own.parent / "revoked" / CA_CERT).is_file()):
        raise NotApplicable("no certificate is known to be revoked")
    return replace(right, directory=str(own.parent / "revoked"))


@contextmanager
def starting_tls(t: ServerTarget, *before: int) -> Iterator[Negotiation]:
    """A handshake whose STARTTLS has been accepted; the options `before` were sent first, whatever the answers.

    Raises:
        Complaint: STARTTLS was refused.
    """
    with t.peer.negotiating(clear=True) as nego:
        for option in before:
            nego.option(option)
        answer = nego.option(Opt.STARTTLS)
        if not answer.is_ack:
            raise Complaint(f"{Opt.STARTTLS} is answered with {answer}", "an ACK", requirement="TLS-024")
        yield nego


@contextmanager
def under_tls(
    t: ServerTarget, versions: VersionRange | None = None, *, requirement: str = "TLS-026"
) -> Iterator[Negotiation]:
    """A handshake that is protected and ready for options.

    Raises:
        Complaint: the server refuses, or cannot do it in these versions.
    """
    with starting_tls(t) as nego:
        protect(t, nego, versions, requirement=requirement)
        yield nego


def protect(
    t: ServerTarget,
    nego: Negotiation,
    versions: VersionRange | None = None,
    *,
    requirement: str = "TLS-026",
    earlier: TLSPipe | None = None,
) -> None:
    """Do the TLS handshake with the right credentials.

    Raises:
        Complaint: it fails.
    """
    if failure := shake_hands(t, nego, versions=versions, earlier=earlier):
        raise Complaint(f"the TLS handshake fails: {failure}", "a TLS session", requirement=requirement)


def shake_hands(
    t: ServerTarget,
    nego: Negotiation,
    *,
    credentials: ClientCredentials | None = None,
    versions: VersionRange | None = None,
    earlier: TLSPipe | None = None,
) -> TransportError | None:
    """Do the TLS handshake and protect the connection; when it fails, leave the connection open and return why.

    With an `earlier` session, whose credentials and versions then count, the client offers to resume that.

    Raises:
        NoAnswer: it neither succeeds nor fails within the time limit.
    """
    context = earlier.context if earlier else client_context(credentials or _credentials(t), versions)
    session = earlier.session if earlier else None
    peer = nego.peer
    peer.note(b"", "TLS handshake, offering to resume a session" if session else "TLS handshake")
    try:
        peer.stream = start_tls(peer.stream, context, Deadline(t.timeout_s), session=session)
    except TimedOut:
        raise NoAnswer(f"the TLS handshake is not over after {t.timeout_s:g} s", "its success or failure") from None
    except TransportError as failure:
        peer.note(b"", f"TLS handshake failed: {failure}")
        return failure
    nego.structured = nego.extended = False
    nego.contexts = {}
    return None


def begin_handshake(t: ServerTarget, nego: Negotiation) -> None:
    """Send a ClientHello and wait for the beginning of the answer; the connection is left as it is then."""
    pipe = TLSPipe(client_context(_credentials(t)))
    pipe.handshake()
    nego.peer.send(pipe.to_send(), summary="ClientHello")
    nego.peer.note(nego.peer.receive_unless_ended(), "the server's part of the handshake")


def takes_key(t: ServerTarget, what: str, identity: bytes, key: bytes) -> bool:
    """Whether the server accepts this key of this identity in TLS 1.3; complain if it goes on in clear."""
    with starting_tls(t) as nego:
        nego.peer.send(key_offer(identity, key, t.random.randbytes(64)), summary=f"ClientHello with {what}")
        nego.peer.half_close()  # the server has what it needs to answer, and no reason to wait
        answer = nego.peer.receive_to_end()
    expect_no_option_reply(answer, f"a ClientHello with {what}")
    return accepts_key(answer)


def known_key(t: ServerTarget) -> tuple[bytes, bytes]:
    """An identity that the server knows, and its key, which it is seen to take from a ClientHello made by hand.

    Raises:
        NotApplicable: it has certificates, or takes no keys in TLS 1.3.
    """
    right = _credentials(t)
    if not isinstance(right, PSK):
        raise NotApplicable("the server has certificates, no keys")
    identity = right.identity.encode()
    if not takes_key(t, "the right key", identity, right.key):
        raise NotApplicable("the server does not take the right key in a TLS 1.3 handshake made by hand")
    return identity, right.key


def expect_no_option_reply(seen: bytes, after: str) -> None:
    """Complain if the server has gone on with the NBD handshake in clear."""
    served = OPTION_REPLY_MAGIC.to_bytes(8, "big") in seen
    expect(not served, f"after {after} there comes an option reply in clear", "the end of the connection")


def expect_goodbye(peer: Peer, after: str) -> None:
    """Complain unless the connection ends, and TLS is closed before."""
    deadline = Deadline(peer.timeout_s)
    try:
        while True:
            peer.note(peer.stream.receive_some(4096, deadline), "bytes before the end")
    except TLSTruncated as end:
        peer.note(b"", "end of connection without close_notify")
        how = "resets" if end.reset else "closes"
        raise Complaint(f"after {after} the server {how} the connection without closing TLS", "close_notify") from None
    except TimedOut:
        seen = f"after {after} the connection is still open after {peer.timeout_s:g} s"
        raise NoAnswer(seen, "close_notify and the end of the connection") from None
    except Disconnected:
        peer.note(b"", "close_notify")


def _credentials(t: ServerTarget) -> ClientCredentials:
    if (found := t.source.credentials) is None:
        raise NotApplicable(Capability.TLS_LAYER.value)
    return found
