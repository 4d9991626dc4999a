"""How a pre-shared key gets into an SSLContext: the public calls of Python 3.13, or the compatibility layer for 3.11
and 3.12."""

import platform
import ssl
from dataclasses import dataclass
from functools import cache

from nbdtest.errors import UsageError
from nbdtest.net.tls import psk_compat
from nbdtest.net.tls.psk_compat import ClientCallback, Interpreter, LayoutUnknown, Libssl, ServerCallback

__all__ = ["PSKSupport", "PSKUnavailable", "psk_support", "set_client_callback", "set_server_callback"]


_WITHOUT = (
    "TLS-PSK is not available: this Python's ssl module was built without it; use a Python with an OpenSSL that has "
    "PSK, or certificates"
)


class PSKUnavailable(UsageError):
    """This Python cannot do TLS-PSK; the message says why and what to do. X.509 works everywhere."""


@dataclass(frozen=True, slots=True)
class PSKSupport:
    """How TLS-PSK is available here. True if it is at all.

    `kind` is "native" (ssl's own calls), "compat" (CPython 3.11 or 3.12 through ctypes), or "" with the `reason`.
    """

    kind: str
    reason: str = ""

    def __bool__(self) -> bool:
        return self.kind != ""


def psk_support() -> PSKSupport:
    """Say how TLS-PSK is available in this Python."""
    if hasattr(ssl.SSLContext, "set_psk_client_callback"):
        if getattr(ssl, "HAS_PSK", False):
            return PSKSupport("native")
        return PSKSupport("", _WITHOUT)
    try:
        _compat()
    except PSKUnavailable as error:
        return PSKSupport("", str(error))
    return PSKSupport("compat")


def set_client_callback(context: ssl.SSLContext, callback: ClientCallback) -> None:
    """Let `callback(hint)` give (identity, key) in handshakes of this client context.

    Raises:
        PSKUnavailable: see `psk_support`.
    """
    if hasattr(context, "set_psk_client_callback"):
        _require_native()
        context.set_psk_client_callback(callback)
    else:
        try:
            _compat().set_client_callback(context, callback)
        except LayoutUnknown as error:
            raise _unavailable(str(error)) from error


def set_server_callback(context: ssl.SSLContext, callback: ServerCallback) -> None:
    """Let `callback(identity)` give the key, b"" for none, in handshakes of this server context.

    Raises:
        PSKUnavailable: see `psk_support`.
    """
    if hasattr(context, "set_psk_server_callback"):
        _require_native()
        context.set_psk_server_callback(callback)
    else:
        try:
            _compat().set_server_callback(context, callback)
        except LayoutUnknown as error:
            raise _unavailable(str(error)) from error


def _require_native() -> None:
    if not (found := psk_support()):
        raise PSKUnavailable(found.reason)


def _compat() -> Libssl:
    return _load(psk_compat.observe())


@cache
def _load(seen: Interpreter) -> Libssl:
    try:
        return psk_compat.load(seen)
    except LayoutUnknown as error:
        raise _unavailable(str(error)) from error


def _unavailable(reason: str) -> PSKUnavailable:
    here = f"{platform.python_implementation()} {platform.python_version()}"
    return PSKUnavailable(f"TLS-PSK needs Python 3.13 or later, or use certificates (on {here}: {reason})")
