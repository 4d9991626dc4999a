"""Credentials for TLS as frozen values, and the files they come from.

The directory rules and file names are libnbd's and nbdkit's; the key file is that of GnuTLS's psktool. Nothing here
knows OpenSSL: a value is checked for what every implementation can carry, and certificates are only read when a
context is made of them.
"""

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from nbdtest.errors import UsageError

__all__ = [
    "CA_CERT",
    "CA_CRL",
    "CLIENT_CERT",
    "CLIENT_KEY",
    "IDENTITY_LIMIT",
    "KEY_LIMIT",
    "PSK",
    "SERVER_CERT",
    "SERVER_KEY",
    "X509",
    "ClientCredentials",
    "ServerCredentials",
    "ServerPSK",
    "ServerX509",
    "default_directory",
    "default_identity",
]

CA_CERT = "ca-cert.pem"
CA_CRL = "ca-crl.pem"
CLIENT_CERT = "client-cert.pem"
CLIENT_KEY = "client-key.pem"
SERVER_CERT = "server-cert.pem"
SERVER_KEY = "server-key.pem"

IDENTITY_LIMIT = 255
"""Bytes of a PSK identity that OpenSSL takes; a longer one fails deep in the handshake, without a reason."""

KEY_LIMIT = 512
"""Bytes of a PSK key that OpenSSL takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509:
    """A client that checks the server's certificate, and may have one of its own.

    `directory` holds CA_CERT, and if the client has a certificate CLIENT_CERT and CLIENT_KEY; CA_CRL is used when it
    is there. Without a directory, or without a CA_CERT in it, the system's certificate authorities decide and the
    client has no certificate. `hostname` is the name or IP address that the certificate must carry; None checks the
    chain only, which is right for a Unix socket. It is also the name sent as SNI. `verify_peer=False` accepts any
    certificate.
    """

    directory: str | None = None
    hostname: str | None = None
    verify_peer: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerX509:
    """A server with SERVER_CERT and SERVER_KEY of `directory`.

    `verify_peer` demands a certificate of every client, signed by CA_CERT and not in CA_CRL, if there is one. Mistakes,
    for tests of clients' certificates: with `any_time` it may have expired or not be valid yet, without `use_list` it
    may have been revoked.
    """

    directory: str
    verify_peer: bool = False
    any_time: bool = False
    use_list: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PSK:
    """A client that knows one key.

    Raises:
        UsageError: the identity is empty, too long or cannot stand in a key file, or the key is empty or too long.
    """

    identity: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check(self.identity, self.key, "")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], identity: str) -> "PSK":
        """The key of `identity`: that of the first line of the file that begins with "IDENTITY:" and has a key.

        Raises:
            UsageError: the file cannot be read, or has no such line, or the key in it is not hexadecimal.
        """
        if not identity:
            raise UsageError("the PSK identity (username) is empty")
        prefix = identity.encode("utf-8", "surrogateescape") + b":"
        for number, line in _lines(path):
            if line.startswith(prefix) and len(line) > len(prefix):
                return cls(identity=identity, key=_key(line[len(prefix) :], f"{os.fspath(path)}:{number}"))
        raise UsageError(f"{os.fspath(path)}: username {identity} was not found in PSK file")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPSK:
    """A server that knows the keys of some identities.

    Raises:
        UsageError: there is no key, or one that `PSK` would refuse.
    """

    keys: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise UsageError("a PSK server needs at least one key")
        for identity, key in self.keys.items():
            _check(identity, key, "")
        object.__setattr__(self, "keys", MappingProxyType(dict(self.keys)))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "ServerPSK":
        """All keys of a file: lines of identity, colon and hexadecimal key; empty lines and those that begin with "#
        " are skipped.

        An identity that stands there twice has the first key. "#" followed by hexadecimal digits is GnuTLS's spelling
        of an identity's bytes.

        Raises:
            UsageError: the file cannot be read, has no key, or a line that is none.
        """
        keys: dict[str, bytes] = {}
        for number, line in _lines(path):
            where = f"{os.fspath(path)}:{number}"
            if not line.strip() or line.startswith(b"# "):
                continue
            name, colon, key = line.partition(b":")
            if not colon:
                raise UsageError(f"{where}: a line of a PSK file is identity:hexkey, this one has no colon")
            identity = _identity(name, where)
            found = _key(key, where)
            _check(identity, found, f"{where}: ")
            keys.setdefault(identity, found)
        if not keys:
            raise UsageError(f"{os.fspath(path)}: there is no key in this PSK file")
        return cls(keys=keys)


ClientCredentials: TypeAlias = X509 | PSK
ServerCredentials: TypeAlias = ServerX509 | ServerPSK


def default_directory(
    *, home: str | os.PathLike[str] | None = None, root: bool | None = None, system: str = "/etc"
) -> str | None:
    """Where a client looks for certificates when it was told nothing: the first of libnbd's places that has a
    readable CA_CERT, or None.

    For root that is /etc/pki/libnbd, for everybody else ~/.pki/libnbd and then ~/.config/pki/libnbd.
    """
    if root is None:
        root = os.geteuid() == 0
    if root:
        places = [Path(system, "pki", "libnbd")]
    else:
        own = Path(home) if home is not None else Path(os.environ.get("HOME") or os.path.expanduser("~"))
        places = [own / ".pki" / "libnbd", own / ".config" / "pki" / "libnbd"]
    return next((str(place) for place in places if os.access(place / CA_CERT, os.R_OK)), None)


def default_identity() -> str:
    """The PSK identity of a client that was told none: the login name (URI-018).

    Raises:
        UsageError: it is not known.
    """
    try:
        return os.environ.get("LOGNAME") or getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError(f"could not get user name: {error}") from None


def _lines(path: str | os.PathLike[str]) -> list[tuple[int, bytes]]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"open: {os.fspath(path)}: {error.strerror}") from error
    return [(number, line.removesuffix(b"\r")) for number, line in enumerate(content.split(b"\n"), 1)]


def _identity(name: bytes, where: str) -> str:
    if name.startswith(b"#"):
        try:
            name = bytes.fromhex(name[1:].decode("ascii"))
        except ValueError:
            raise UsageError(f"{where}: after '#' the identity must be written in hexadecimal") from None
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{where}: the identity is not UTF-8, which TLS in Python cannot carry") from None


def _key(text: bytes, where: str) -> bytes:
    try:
        # fromhex() would let blanks between the digits pass, which GnuTLS does not.
        if b" " in text or b"\t" in text:
            raise ValueError
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise UsageError(f"{where}: the key is not an even number of hexadecimal digits") from None


def _check(identity: str, key: bytes, where: str) -> None:
    # Everything refused here would otherwise fail inside the handshake, where OpenSSL says no more than "internal
    # error".
    try:
        encoded = identity.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            f"{where}the PSK identity {identity!r} is not UTF-8, which TLS in Python cannot carry"
        ) from None
    if not encoded:
        raise UsageError(f"{where}the PSK identity (username) is empty")
    if len(encoded) > IDENTITY_LIMIT:
        raise UsageError(f"{where}the PSK identity has {len(encoded)} bytes, at most {IDENTITY_LIMIT} are possible")
    if b"\0" in encoded:
        raise UsageError(f"{where}the PSK identity contains a NUL byte")
    if not 1 <= len(key) <= KEY_LIMIT:
        raise UsageError(f"{where}the PSK key of {identity!r} has {len(key)} bytes, it must be 1 to {KEY_LIMIT}")
