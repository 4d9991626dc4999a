"""Credentials become an `ssl.SSLContext`: which versions, suites and checks, for either side.

The settings are those that work with GnuTLS (nbdkit, qemu, nbd-server, libnbd) on the other side, and that leave no
way around the check.
"""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from nbdtest.errors import UsageError
from nbdtest.net.tls import credentials as files
from nbdtest.net.tls import psk
from nbdtest.net.tls.credentials import PSK, X509, ClientCredentials, ServerCredentials, ServerPSK
from nbdtest.net.tls.priority import VersionRange

__all__ = ["PSK_CIPHERS", "Side", "TLSContext", "client_context", "server_context"]

PSK_CIPHERS = "kECDHEPSK+CHACHA20:kDHEPSK+AESGCM:kDHEPSK+CHACHA20:kECDHEPSK+AES:!SHA1:!eNULL"
"""The suites of TLS 1.2 with a PSK and forward secrecy. The aliases include suites without encryption, hence !eNULL.
It does not rule TLS 1.3: a plain PSK is one for SHA-256 there, so the suite is TLS_CHACHA20_POLY1305_SHA256 or
TLS_AES_128_GCM_SHA256."""

_NO_CHECK_TIME = ssl.VerifyFlags(0x20_0000)
"""X509_V_FLAG_NO_CHECK_TIME, for which `ssl` has no name."""

AnyCredentials = ClientCredentials | ServerCredentials


class Side(Enum):
    """Which side of TLS we are."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> str:
        """What the other side is called in messages."""
        return "server" if self is Side.CLIENT else "client"


@dataclass(frozen=True, slots=True)
class TLSContext:
    """One side's settings, good for any number of connections."""

    side: Side
    credentials: AnyCredentials
    versions: VersionRange
    tickets: int
    _shared: ssl.SSLContext

    @property
    def server_hostname(self) -> str | None:
        """The name to check and to send as SNI."""
        return self.credentials.hostname if isinstance(self.credentials, X509) else None

    @property
    def uses_psk(self) -> bool:
        """Whether both sides prove that they know a key, and certificates play no part."""
        return isinstance(self.credentials, PSK | ServerPSK)

    def for_connection(self, saw_identity: Callable[[str], None]) -> ssl.SSLContext:
        """The SSLContext for one connection; `saw_identity` is told which identity a PSK client claims.

        It must not refer to the connection: Python cannot collect that cycle.
        """
        if not isinstance(self.credentials, ServerPSK):
            return self._shared
        keys = self.credentials.keys

        def key_of(identity: str | None) -> bytes:
            saw_identity(identity or "")
            return keys.get(identity or "", b"")

        made = _bare(Side.SERVER, self.versions, self.tickets)
        made.set_ciphers(PSK_CIPHERS)
        psk.set_server_callback(made, key_of)
        return made


def client_context(credentials: ClientCredentials, versions: VersionRange | None = None) -> TLSContext:
    """Settings of a client.

    Raises:
        UsageError: a certificate, key or list cannot be used; the message names the file.
        PSKUnavailable: a PSK is asked for on a Python that cannot do it.
    """
    versions = versions or VersionRange()
    made = _bare(Side.CLIENT, versions, 0)
    if isinstance(credentials, PSK):
        # CERT_REQUIRED without any CA: a server that answers with a certificate instead of proving the key is
        # refused. With CERT_NONE, TLS 1.3 would let it pass: the man in the middle needs no more than a certificate
        # of his own making.
        made.check_hostname = False
        made.verify_mode = ssl.CERT_REQUIRED
        made.set_ciphers(PSK_CIPHERS)
        answer = (credentials.identity, credentials.key)
        psk.set_client_callback(made, lambda _hint: answer)
    else:
        made.check_hostname = credentials.verify_peer and credentials.hostname is not None
        made.verify_mode = ssl.CERT_REQUIRED if credentials.verify_peer else ssl.CERT_NONE
        directory = None if credentials.directory is None else Path(credentials.directory)
        if directory is not None and _readable(directory / files.CA_CERT):
            _trust(made, directory)
            if _readable(directory / files.CLIENT_CERT) and _readable(directory / files.CLIENT_KEY):
                _present(made, directory / files.CLIENT_CERT, directory / files.CLIENT_KEY)
        else:
            made.set_default_verify_paths()
    return TLSContext(Side.CLIENT, credentials, versions, 0, made)


def server_context(
    credentials: ServerCredentials, versions: VersionRange | None = None, *, tickets: int = 0
) -> TLSContext:
    """Settings of a server. `tickets` is how many session tickets it sends after a TLS 1.3 handshake: none, unless a
    test wants some.

    Raises:
        UsageError: a certificate, key or list is missing or cannot be used; the message names the file.
        PSKUnavailable: a PSK is asked for on a Python that cannot do it.
    """
    versions = versions or VersionRange()
    made = _bare(Side.SERVER, versions, tickets)
    if isinstance(credentials, ServerPSK):
        psk.set_server_callback(
            made, lambda _identity: b""
        )  # fails here and now where PSK is impossible; see for_connection
    else:
        directory = Path(credentials.directory)
        _present(made, directory / files.SERVER_CERT, directory / files.SERVER_KEY)
        if credentials.verify_peer:
            _trust(made, directory, use_list=credentials.use_list)
            made.verify_mode = ssl.CERT_REQUIRED
        if credentials.any_time:
            made.verify_flags |= _NO_CHECK_TIME
    return TLSContext(Side.SERVER, credentials, versions, tickets, made)


def _bare(side: Side, versions: VersionRange, tickets: int) -> ssl.SSLContext:
    # Not create_default_context(): it trusts the system's CAs and, from 3.13, checks certificates more strictly than
    # GnuTLS does.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side is Side.CLIENT else ssl.PROTOCOL_TLS_SERVER)
    # Python before 3.11.4 takes an end without close_notify for an ordinary one, and so would hide a truncation.
    made.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    made.minimum_version = versions.minimum
    made.maximum_version = versions.maximum
    if side is Side.SERVER:
        made.num_tickets = tickets
    return made


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK)


def _trust(made: ssl.SSLContext, directory: Path, *, use_list: bool = True) -> None:
    _load(made, directory / files.CA_CERT)
    if use_list and _readable(directory / files.CA_CRL):
        # Only with a list at hand: the flag alone makes OpenSSL refuse every certificate ("unable to get certificate
        # CRL").
        _load(made, directory / files.CA_CRL)
        made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _load(made: ssl.SSLContext, path: Path) -> None:
    try:
        made.load_verify_locations(path)
    except ssl.SSLError as error:
        raise UsageError(f"{path}: {_what(error)}") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _present(made: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
    asked = False

    def no_password() -> str:
        nonlocal asked
        asked = True
        return ""

    try:
        # Without a password function OpenSSL would ask on the terminal.
        made.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if asked:
            raise UsageError(f"{key}: the key is protected by a password, which is not supported") from error
        raise UsageError(f"{certificate}, {key}: {_what(error)}") from error


def _what(error: ssl.SSLError) -> str:
    return (error.reason or "OpenSSL cannot read it").replace("_", " ").lower()
