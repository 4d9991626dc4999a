"""NBD URIs as libnbd takes and gives them: its checks, their order and their texts.

The syntax is that of `nbdtest.net.uri`; this module changes settings and says where to connect, it opens nothing.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, unquote

from nbdtest.client.constants import (
    ALLOW_TRANSPORT_SSH,
    ALLOW_TRANSPORT_TCP,
    ALLOW_TRANSPORT_UNIX,
    ALLOW_TRANSPORT_VSOCK,
    TLS_DISABLE,
    TLS_REQUIRE,
)
from nbdtest.client.errors import Failure
from nbdtest.client.settings import Settings
from nbdtest.net.addresses import CID_HOST, NBD_PORT, Address, TCPAddress, UnixAddress, VsockAddress
from nbdtest.net.uri import SCHEMES, Scheme, URIError, URIParts, split
from nbdtest.wire.limits import MAXIMUM_STRING

__all__ = ["Command", "Target", "apply_uri", "format_uri", "is_uri", "parse_bool"]

_TRANSPORTS = {
    "tcp": ALLOW_TRANSPORT_TCP,
    "unix": ALLOW_TRANSPORT_UNIX,
    "vsock": ALLOW_TRANSPORT_VSOCK,
    "ssh": ALLOW_TRANSPORT_SSH,
}
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})
_PATH_SAFE = "/:@&=+$,;~*'()!-_."  # what libxml2 leaves alone in a path


@dataclass(frozen=True, slots=True)
class Command:
    """A command on whose stdin and stdout the server is."""

    argv: tuple[str, ...]


Target: TypeAlias = Address | Command
"""Where a URI leads."""


def is_uri(text: str) -> bool:
    """Whether `text` begins like an NBD URI."""
    return any(text.lower().startswith(f"{scheme}://") for scheme in SCHEMES)


def apply_uri(settings: Settings, text: str) -> Target:
    """Take over what the URI says into `settings` and return where it leads.

    What was taken over before an error was met stays, as it does in libnbd.

    Raises:
        Failure: it is no URI, or one that the settings do not permit.
    """
    try:
        parts = split(text)
    except URIError:
        raise Failure(f"unable to parse URI: {text}", errno.EINVAL) from None
    scheme = _scheme(settings, text, parts)
    queries = _queries(parts.query or "")
    _check_permission(settings, scheme, parts.scheme or "")
    socket = _socket(scheme, parts.scheme or "", queries)
    if scheme.tls:
        settings.tls = TLS_REQUIRE
    _apply_queries(settings, queries)
    if parts.user:
        settings.tls_username = _decoded(parts.user)
    export = _decoded(parts.path.removeprefix("/"))
    if len(export.encode("utf-8", "surrogateescape")) > MAXIMUM_STRING:
        raise Failure("export name too long for NBD protocol", errno.ENAMETOOLONG)
    if "\0" in export:
        raise Failure(f"unable to parse URI: {text}", errno.EINVAL)  # URI-024
    settings.export_name = export
    return _target(text, scheme, parts, socket)


def format_uri(settings: Settings, address: Address | None, *, encrypted: bool, port: str = "") -> str:
    """Put together the URI that leads to `address` with the same settings.

    Raises:
        Failure: no URI does.
    """
    s = "s" if encrypted else ""
    queries = []
    if isinstance(address, TCPAddress):
        scheme, host = f"nbd{s}", f"[{address.host}]" if ":" in address.host else address.host
        server = f"{host}:{port or address.port}"
    elif isinstance(address, VsockAddress):
        scheme, server = f"nbd{s}+vsock", f"{address.cid}:{address.port}"
    elif isinstance(address, UnixAddress):
        if address.abstract:
            text = "Unix domain sockets in the abstract namespace are not yet supported"
            raise Failure(text, errno.EPROTONOSUPPORT)
        scheme, server = f"nbd{s}+unix", ""
        queries.append(f"socket={address.path}")
    else:
        raise Failure("cannot construct a URI for this connection type", errno.EINVAL)
    user = f"{quote(settings.tls_username, safe=_PATH_SAFE)}@" if settings.tls_username is not None else ""
    path = quote(settings.export_name, safe=_PATH_SAFE, errors="surrogateescape")
    for name, value in (
        ("tls-certificates", settings.tls_certificates),
        ("tls-psk-file", settings.tls_psk_file),
        ("tls-hostname", settings.tls_hostname),
        ("tls-priority", settings.tls_priority),
    ):
        if value is not None:
            queries.append(f"{name}={value}")
    if not settings.tls_verify_peer:
        queries.append("tls-verify-peer=false")
    query = "?" + "&".join(queries) if queries else ""
    return f"{scheme}://{user}{server}/{path}{query}"


def parse_bool(name: str, value: str) -> bool:
    """Read a truth value.

    Raises:
        Failure: it is none.
    """
    word = value.lower()
    if word not in _TRUE | _FALSE:
        raise Failure(f"could not parse {name} parameter, expecting {name}=true|false", errno.EINVAL)
    return word in _TRUE


def _scheme(settings: Settings, text: str, parts: URIParts) -> Scheme:
    if parts.scheme is None:
        hint = ""
        if text.startswith("/") and settings.uri_allow_transports & ALLOW_TRANSPORT_UNIX:
            hint = ': to open a local socket use "nbd+unix://?socket=PATH"'
        elif text.lower().startswith("localhost") and settings.uri_allow_transports & ALLOW_TRANSPORT_TCP:
            hint = ': to open a local port use "nbd://localhost" or "nbd://localhost:PORT"'
        raise Failure(
            "NBD URI does not have a scheme: valid NBD URIs should start with a scheme like nbd://, nbds:// or "
            f"nbd+unix://{hint}",
            errno.EINVAL,
        )
    scheme = SCHEMES.get(parts.scheme.lower())
    if scheme is None:
        raise Failure(f"unknown NBD URI scheme: {parts.scheme}", errno.EINVAL)
    if not text[len(parts.scheme) :].startswith("://"):
        raise Failure(f"URI must begin with '{parts.scheme}://'", errno.EINVAL)
    return scheme


def _check_permission(settings: Settings, scheme: Scheme, written: str) -> None:
    if not settings.uri_allow_transports & _TRANSPORTS[scheme.transport]:
        raise Failure(f"URI transport {written} is not permitted", errno.EPERM)
    if settings.uri_allow_tls == (TLS_DISABLE if scheme.tls else TLS_REQUIRE):
        raise Failure(f"URI TLS setting {written} is not permitted", errno.EPERM)


def _socket(scheme: Scheme, written: str, queries: Sequence[tuple[str, str]]) -> str | None:
    sockets = [value for name, value in queries if name.lower() == "socket"]
    if scheme.transport == "unix" and not sockets:
        raise Failure(
            f'cannot parse socket parameter from NBD URI (did you mean to use "{written}:///?socket=..."?)',
            errno.EINVAL,
        )
    if scheme.transport in ("tcp", "vsock") and sockets:
        raise Failure(
            f'socket parameter is incompatible with "{written}:" '
            f'(did you mean to use "nbd{"s" if scheme.tls else ""}+unix:///?socket=..."?)',
            errno.EINVAL,
        )
    return sockets[-1] if sockets else None


def _apply_queries(settings: Settings, queries: Sequence[tuple[str, str]]) -> None:
    for written, value in queries:
        name = written.lower()
        if name in ("tls-certificates", "tls-psk-file") and not settings.uri_allow_local_file:
            text = f"local file access ({name}) is not allowed, call nbd_set_uri_allow_local_file to enable this"
            raise Failure(text, errno.EPERM)
        if name == "tls-priority" and not settings.uri_allow_tls_priority:
            text = f"setting {name} is not allowed, call nbd_set_uri_allow_tls_priority to enable this"
            raise Failure(text, errno.EPERM)
        if name == "tls-certificates":
            settings.tls_certificates = value
        elif name == "tls-psk-file":
            settings.tls_psk_file = value
        elif name == "tls-hostname":
            settings.tls_hostname = value
        elif name == "tls-verify-peer":
            settings.tls_verify_peer = parse_bool(name, value)
        elif name == "tls-priority":
            settings.tls_priority = value


def _target(text: str, scheme: Scheme, parts: URIParts, socket: str | None) -> Target:
    host = _decoded(parts.host or "")
    port = _port(text, parts.port)
    if scheme.transport == "tcp":
        return TCPAddress(host.removeprefix("[").removesuffix("]") or "localhost", port or NBD_PORT)
    if scheme.transport == "unix":
        return UnixAddress(socket or "")
    if scheme.transport == "vsock":
        number = re.match(r"\s*\+?(\d+)", host)
        if host and number is None:
            raise Failure(f"cannot parse vsock CID from NBD URI: {host}", errno.EINVAL)
        return VsockAddress(int(number[1]) & 0xFFFF_FFFF if number else CID_HOST, port or NBD_PORT)
    if not host:
        raise Failure("SSH transport requires a server name", errno.EINVAL)
    if host.startswith("-"):
        # ssh would take it for one of its options (CVE-2025-14946).
        raise Failure(f"SSH server name must not start with '-': {host}", errno.EINVAL)
    far_end = ("-U", socket) if socket is not None else ("localhost", str(NBD_PORT))
    return Command(("ssh", "-p", str(port or 22), "--", host, "nc", *far_end))


def _port(text: str, written: str | None) -> int:
    if not written:
        return 0
    if not written.isascii() or not written.isdigit():
        raise Failure(f"unable to parse URI: {text}", errno.EINVAL)
    return int(written)


def _queries(text: str) -> list[tuple[str, str]]:
    """Names and values. A ";" separates too, where no "&" follows; a section that begins with "=" is ignored."""
    found = []
    while text:
        end = text.find("&")
        if end < 0:
            end = text.find(";")
        section, text = (text, "") if end < 0 else (text[:end], text[end + 1 :])
        name, _, value = section.partition("=")
        if name:
            found.append((_decoded(name), _decoded(value)))
    return found


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape")
