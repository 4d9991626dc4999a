"""TLS for either side, with certificates or pre-shared keys, on the standard library's `ssl`.

Credentials are values (`X509`, `PSK`, `ServerX509`, `ServerPSK`); `client_context` and `server_context` check and
load them; a `TLSPipe` is one connection's session without a socket, `start_tls` makes an encrypted `Stream` of a
blocking one. Nothing here knows NBD: when TLS may start, and that nothing else was read before, is the business of
the layers above.
"""

from nbdtest.net.tls.context import Side, TLSContext, client_context, server_context
from nbdtest.net.tls.credentials import (
    PSK,
    X509,
    ClientCredentials,
    ServerCredentials,
    ServerPSK,
    ServerX509,
    default_directory,
    default_identity,
)
from nbdtest.net.tls.failures import HandshakeFailed, TLSBroken, TLSClosed, TLSFailure, TLSTruncated
from nbdtest.net.tls.pipe import PIECE, TLSPipe
from nbdtest.net.tls.priority import VersionRange, parse_priority
from nbdtest.net.tls.psk import PSKSupport, PSKUnavailable, psk_support
from nbdtest.net.tls.stream import TLSStream, start_tls

__all__ = [
    "PIECE",
    "PSK",
    "X509",
    "ClientCredentials",
    "HandshakeFailed",
    "PSKSupport",
    "PSKUnavailable",
    "ServerCredentials",
    "ServerPSK",
    "ServerX509",
    "Side",
    "TLSBroken",
    "TLSClosed",
    "TLSContext",
    "TLSFailure",
    "TLSPipe",
    "TLSStream",
    "TLSTruncated",
    "VersionRange",
    "client_context",
    "default_directory",
    "default_identity",
    "parse_priority",
    "psk_support",
    "server_context",
    "start_tls",
]
