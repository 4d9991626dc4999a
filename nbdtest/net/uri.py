"""NBD URIs: text to value and back. Pure.

`split` does the syntax (RFC 3986), `NBDURI.parse` the meaning (NBD's doc/uri.md). What a client does about TLS files or
unknown parameters is not known here.
"""

import re
import socket
from dataclasses import dataclass
from enum import Enum
from typing import Self
from urllib.parse import quote, unquote

from nbdtest.errors import UsageError
from nbdtest.net.addresses import CID_HOST, NBD_PORT, Address, TCPAddress, UnixAddress, VsockAddress

__all__ = ["NBDURI", "SCHEMES", "Scheme", "URIError", "URIParts", "URIProblem", "split"]

DEFAULT_HOST = "localhost"

# RFC 3986 appendix B, with the authority told apart from an absent one. No component may hold what the appendix would
# swallow silently, so each is checked against its own characters afterwards.
_COMPONENTS = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_AUTHORITY = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\[\]]*\]|[^:\[\]@]*)(?::(?P<port>[^@\[\]]*))?")
_UNRESERVED = r"A-Za-z0-9._~\-"
_SUB_DELIMS = "!$&'()*+,;="
_ESCAPE = "%[0-9A-Fa-f]{2}"
_USER = re.compile(f"(?:[{_UNRESERVED}{_SUB_DELIMS}:]|{_ESCAPE})*")
_NAME = re.compile(f"(?:[{_UNRESERVED}{_SUB_DELIMS}]|{_ESCAPE})*")
_PATH = re.compile(f"(?:[{_UNRESERVED}{_SUB_DELIMS}:@/]|{_ESCAPE})*")
_QUERY = re.compile(f"(?:[{_UNRESERVED}{_SUB_DELIMS}:@/?]|{_ESCAPE})*")


class URIProblem(Enum):
    """What is wrong with an NBD URI."""

    SYNTAX = "no RFC 3986 URI"
    NO_SCHEME = "no scheme"
    NO_AUTHORITY_MARK = "no // after the scheme"
    UNKNOWN_SCHEME = "unknown scheme"
    SOCKET_MISSING = "socket parameter missing"
    SOCKET_UNEXPECTED = "socket parameter without a Unix scheme"
    HOST = "unusable host"
    PORT = "unusable port"
    EXPORT = "unusable export name"
    PARAMETER = "unusable parameter"
    FRAGMENT = "fragment"


class URIError(UsageError):
    """The text is no usable NBD URI. `uri` is the text, or None when a value was put together wrongly."""

    def __init__(self, problem: URIProblem, message: str, *, uri: str | None = None) -> None:
        super().__init__(message if uri is None else f"{message} in NBD URI {uri!r}")
        self.problem = problem
        self.uri = uri
        self.reason = message


@dataclass(frozen=True, slots=True, kw_only=True)
class URIParts:
    """The components of a URI as they were written, still percent-encoded; None: the component is absent."""

    scheme: str | None
    user: str | None
    host: str | None
    port: str | None
    path: str
    query: str | None
    fragment: str | None

    def parameters(self) -> list[tuple[str, str]]:
        """The decoded name=value pairs of the query, in order; a missing "=" means an empty value."""
        pairs = (piece.partition("=") for piece in (self.query or "").split("&") if piece)
        return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """What the scheme of an NBD URI means."""

    name: str
    transport: str
    """ "tcp", "unix", "vsock" or "ssh"."""
    tls: bool


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme(name="nbd", transport="tcp", tls=False),
        Scheme(name="nbds", transport="tcp", tls=True),
        Scheme(name="nbd+unix", transport="unix", tls=False),
        Scheme(name="nbds+unix", transport="unix", tls=True),
        Scheme(name="nbd+vsock", transport="vsock", tls=False),
        Scheme(name="nbds+vsock", transport="vsock", tls=True),
        Scheme(name="nbd+ssh", transport="ssh", tls=False),
        Scheme(name="nbds+ssh", transport="ssh", tls=True),
    )
}
"""The schemes of doc/uri.md, and those that libnbd adds, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NBDURI:
    """An NBD URI, decoded. Bytes that are no UTF-8 are surrogate-escaped, as Python does for file names."""

    scheme: str = "nbd"
    user: str | None = None
    host: str = ""
    """Without brackets; empty: the client's default."""
    port: int | None = None
    export: str = ""
    socket: str | None = None
    """The path of the Unix socket; a leading NUL means the abstract namespace."""
    parameters: tuple[tuple[str, str], ...] = ()
    """The other query parameters, in order, as they were spelled."""

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            known = ", ".join(SCHEMES)
            raise URIError(URIProblem.UNKNOWN_SCHEME, f"unknown scheme {self.scheme!r} (known: {known})")
        self._check_socket()
        self._check_authority()
        if "\0" in self.export:  # URI-024
            raise URIError(URIProblem.EXPORT, f"NUL in the export name {self.export!r}")
        for name, _ in self.parameters:
            if not name or name.lower() == "socket":
                raise URIError(URIProblem.PARAMETER, f"a parameter cannot be called {name!r} here")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Decode an NBD URI.

        Raises:
            URIError: it is none; `problem` says why.
        """
        parts = split(text)
        try:
            return cls._of(parts)
        except URIError as error:
            raise URIError(error.problem, error.reason, uri=text) from None

    @classmethod
    def of(cls, address: Address, *, export: str = "", tls: bool = False, user: str | None = None) -> Self:
        """The URI of an export at `address`."""
        s = "s" if tls else ""
        if isinstance(address, UnixAddress):
            return cls(scheme=f"nbd{s}+unix", socket=address.path, export=export, user=user)
        if isinstance(address, VsockAddress):
            return cls(scheme=f"nbd{s}+vsock", host=str(address.cid), port=address.port, export=export, user=user)
        return cls(scheme=f"nbd{s}", host=address.host, port=address.port, export=export, user=user)

    @property
    def transport(self) -> str:
        """How the server is reached: "tcp", "unix", "vsock" or "ssh"."""
        return SCHEMES[self.scheme].transport

    @property
    def tls(self) -> bool:
        """Whether the connection must be encrypted."""
        return SCHEMES[self.scheme].tls

    @property
    def address(self) -> Address:
        """Where to connect to, with the defaults filled in.

        Raises:
            UsageError: an ssh URI, which is reached by running a command.
        """
        port = NBD_PORT if self.port is None else self.port  # URI-016
        match self.transport:
            case "unix":
                return UnixAddress(self.socket or "")
            case "vsock":
                return VsockAddress(int(self.host) if self.host else CID_HOST, port)
            case "tcp":
                return TCPAddress(self.host or DEFAULT_HOST, port)
        raise UsageError(f"{self} is reached by running ssh, it has no address")

    def parameter(self, name: str) -> str | None:
        """The value of a query parameter other than `socket`, named in any case; the last one counts."""
        values = [value for key, value in self.parameters if key.lower() == name.lower()]
        return values[-1] if values else None

    def __str__(self) -> str:
        """The URI as text: `NBDURI.parse(str(uri)) == uri`."""
        user = "" if self.user is None else f"{_encoded(self.user)}@"
        host = f"[{_encoded(self.host, keep=':')}]" if ":" in self.host else _encoded(self.host)
        port = "" if self.port is None else f":{self.port}"
        path = f"/{_encoded(self.export, keep='/')}" if self.export or self.socket is not None else ""
        pairs = [] if self.socket is None else [("socket", self.socket)]
        pairs += self.parameters
        query = "&".join(f"{_encoded(name)}={_encoded(value, keep='/:@,')}" for name, value in pairs)
        return f"{self.scheme}://{user}{host}{port}{path}{'?' if query else ''}{query}"

    @classmethod
    def _of(cls, parts: URIParts) -> Self:
        if parts.scheme is None:
            raise URIError(URIProblem.NO_SCHEME, "no scheme (such as nbd:// or nbd+unix://)")
        scheme = parts.scheme.lower()
        if scheme in SCHEMES and parts.host is None:
            raise URIError(URIProblem.NO_AUTHORITY_MARK, f"no // after {scheme}:")
        if parts.fragment is not None:
            raise URIError(URIProblem.FRAGMENT, "a fragment (write # as %23)")
        pairs = parts.parameters()
        sockets = [value for name, value in pairs if name.lower() == "socket"]
        return cls(
            scheme=scheme,
            user=None if parts.user is None else _decoded(parts.user),
            host=_host(parts.host or ""),
            port=_port(parts.port),
            export=_decoded(parts.path.removeprefix("/")),  # URI-021: one slash only, nothing is normalised
            socket=sockets[-1] if sockets else None,
            parameters=tuple((name, value) for name, value in pairs if name.lower() != "socket"),
        )

    def _check_socket(self) -> None:
        if self.transport == "unix" and not self.socket:  # URI-007, URI-009
            raise URIError(URIProblem.SOCKET_MISSING, f"no socket=PATH parameter, which {self.scheme}: needs")
        if self.transport in ("tcp", "vsock") and self.socket is not None:
            raise URIError(URIProblem.SOCKET_UNEXPECTED, f"a socket= parameter, which {self.scheme}: does not take")
        if self.socket is not None and "\0" in self.socket[1 if self.transport == "unix" else 0 :]:
            raise URIError(URIProblem.PARAMETER, f"NUL in the socket's name {self.socket!r}, except as its first byte")

    def _check_authority(self) -> None:
        if self.port is not None and not 0 <= self.port <= (0xFFFF_FFFF if self.transport == "vsock" else 0xFFFF):
            raise URIError(URIProblem.PORT, f"port {self.port} is out of range")
        if ":" in self.host and not _is_ipv6(self.host):
            raise URIError(URIProblem.HOST, f"{self.host!r} is no IPv6 address")
        if any(character in self.host for character in "[]\0"):
            raise URIError(URIProblem.HOST, f"{self.host!r} is no host name")
        if (
            self.transport == "vsock"
            and self.host
            and not (re.fullmatch("[0-9]{1,10}", self.host) and int(self.host) <= 0xFFFF_FFFF)
        ):
            raise URIError(URIProblem.HOST, f"{self.host!r} is no vsock context id (a number below 2**32)")


def split(text: str) -> URIParts:
    """Split a URI into its components and check their characters.

    Raises:
        URIError: SYNTAX, with the component and its first wrong place.
    """
    matched = _COMPONENTS.fullmatch(text)
    assert matched is not None, "every text matches: each part may be empty"
    authority = matched["authority"]
    user = host = port = None
    if authority is not None:
        inner = _AUTHORITY.fullmatch(authority)
        if inner is None:
            raise URIError(URIProblem.SYNTAX, f"{authority!r} is not [user@]host[:port]", uri=text)
        user, host, port = inner["user"], inner["host"], inner["port"]
        if host.startswith("["):
            _check_characters(host[1:-1], _USER, "address in brackets", text)
        else:
            _check_characters(host, _NAME, "host", text)
        _check_characters(user or "", _USER, "user", text)
    _check_characters(matched["path"], _PATH, "path", text)
    _check_characters(matched["query"] or "", _QUERY, "query", text)
    _check_characters(matched["fragment"] or "", _QUERY, "fragment", text)
    return URIParts(
        scheme=matched["scheme"],
        user=user,
        host=host,
        port=port,
        path=matched["path"],
        query=matched["query"],
        fragment=matched["fragment"],
    )


def _check_characters(component: str, legal: re.Pattern[str], name: str, uri: str) -> None:
    good = legal.match(component)
    end = good.end() if good else 0
    if end < len(component):
        wrong = component[end : end + 3] if component[end] == "%" else component[end]
        how = "is no percent-escape" if component[end] == "%" else "must be percent-encoded"
        raise URIError(URIProblem.SYNTAX, f"{wrong!r} {how} in the {name}", uri=uri)


def _host(text: str) -> str:
    if not text.startswith("["):
        return _decoded(text)
    literal = _decoded(text[1:-1])
    if ":" not in literal:
        raise URIError(URIProblem.HOST, f"{literal!r} in brackets is no IPv6 address")
    return literal


def _port(text: str | None) -> int | None:
    if not text:
        return None  # absent, or empty as in nbd://host:/
    if not re.fullmatch("[0-9]{1,10}", text):
        raise URIError(URIProblem.PORT, f"port {text!r} is no number")
    return int(text)


def _is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, UnicodeError, ValueError):
        return False
    return True


def _decoded(component: str) -> str:
    return unquote(component, errors="surrogateescape")


def _encoded(text: str, *, keep: str = "") -> str:
    return quote(text, safe=keep, errors="surrogateescape")
