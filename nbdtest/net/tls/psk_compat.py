"""Pre-shared keys on CPython 3.11 and 3.12, whose `ssl` can do everything but take the key: OpenSSL's own two
functions, called with ctypes.

The one thing that has to be known of the interpreter is where an `ssl.SSLContext` keeps its `SSL_CTX *`: in the first
field behind the object header. Both versions get security fixes only, so that stays. Because a wrong guess would
write into foreign memory, everything that could make it wrong is a fact of `Interpreter`, and `refusal` goes through
all of them before the first pointer is read. To be deleted together with 3.12.
"""

import ctypes
import platform
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["ClientCallback", "Interpreter", "LayoutUnknown", "Libssl", "ServerCallback", "load", "observe", "refusal"]

ClientCallback = Callable[[str | None], tuple[str | None, bytes]]
ServerCallback = Callable[[str | None], bytes]

# sizeof(PySSLContext) on 64-bit CPython; another size is another struct
_CONTEXT_SIZES = {(3, 11): 96, (3, 12): 96}
_HEADER_SIZE = 16  # PyObject_HEAD without debugging fields
_VERIFY_MODES = {ssl.CERT_NONE: 0, ssl.CERT_OPTIONAL: 1, ssl.CERT_REQUIRED: 3}
_NONE_AT_ALL = 0  # "no key" in the answer of a callback

_Pointer = ctypes.c_void_p
_Unsigned = ctypes.c_uint
# The buffers are passed as addresses: c_char_p would be converted to bytes before we see it.
_CLIENT = ctypes.CFUNCTYPE(_Unsigned, _Pointer, ctypes.c_char_p, _Pointer, _Unsigned, _Pointer, _Unsigned)
_SERVER = ctypes.CFUNCTYPE(_Unsigned, _Pointer, ctypes.c_char_p, _Pointer, _Unsigned)


class LayoutUnknown(Exception):
    """The interpreter is not one whose memory this module knows; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """What has to be as expected before a pointer may be taken out of an SSLContext."""

    implementation: str
    version: tuple[int, int]
    pointer_size: int
    header_size: int
    context_size: int
    extension: str | None  # the file of the _ssl module; None when it is compiled into the interpreter
    system: str
    openssl: str


def observe() -> Interpreter:
    """The facts of the running interpreter."""
    import _ssl  # the accelerator behind ssl: its struct is what this module is about

    return Interpreter(
        implementation=sys.implementation.name,
        version=sys.version_info[:2],
        pointer_size=ctypes.sizeof(_Pointer),
        header_size=object.__basicsize__,
        context_size=_ssl._SSLContext.__basicsize__,
        extension=getattr(_ssl, "__file__", None),
        system=platform.system(),
        openssl=ssl.OPENSSL_VERSION,
    )


def refusal(seen: Interpreter) -> str:
    """Why this interpreter must be left alone, or "" when its layout is known."""
    if seen.implementation != "cpython":
        return f"{seen.implementation} is not CPython"
    if seen.version not in _CONTEXT_SIZES:
        return f"no compatibility layer for {seen.version[0]}.{seen.version[1]}"
    if seen.pointer_size != 8:
        return f"a pointer has {8 * seen.pointer_size} bits, not 64"
    if seen.header_size != _HEADER_SIZE:
        return f"the object header has {seen.header_size} bytes, not {_HEADER_SIZE}: a debug build?"
    if seen.context_size != _CONTEXT_SIZES[seen.version]:
        return f"SSLContext has {seen.context_size} bytes, not {_CONTEXT_SIZES[seen.version]}"
    if seen.extension is None:
        return "the ssl module is linked into the interpreter"
    if seen.system == "Windows":
        return "no compatibility layer for Windows"
    return ""


class Libssl:
    """The OpenSSL functions that are needed, from the very library that the `ssl` module uses. Made by `load`."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.OpenSSL_version.argtypes = [ctypes.c_int]
        library.OpenSSL_version.restype = ctypes.c_char_p
        library.SSL_CTX_get_options.argtypes = [_Pointer]
        library.SSL_CTX_get_options.restype = ctypes.c_uint64
        library.SSL_CTX_get_verify_mode.argtypes = [_Pointer]
        library.SSL_CTX_get_verify_mode.restype = ctypes.c_int
        library.SSL_CTX_set_session_id_context.argtypes = [_Pointer, ctypes.c_char_p, _Unsigned]
        library.SSL_CTX_set_session_id_context.restype = ctypes.c_int
        library.SSL_CTX_set_psk_client_callback.argtypes = [_Pointer, _CLIENT]
        library.SSL_CTX_set_psk_client_callback.restype = None
        library.SSL_CTX_set_psk_server_callback.argtypes = [_Pointer, _SERVER]
        library.SSL_CTX_set_psk_server_callback.restype = None

    @property
    def version(self) -> str:
        """The library's version text."""
        answer: bytes = self._library.OpenSSL_version(0)
        return answer.decode("ascii", "replace")

    def set_client_callback(self, context: ssl.SSLContext, callback: ClientCallback) -> None:
        """Do what `SSLContext.set_psk_client_callback` does on 3.13.

        Raises:
            LayoutUnknown: what was found in the context is not its SSL_CTX.
        """

        def answer(_ssl: object, hint: bytes | None, identity: int, identity_size: int, key: int, key_size: int) -> int:
            try:
                name, secret = callback(None if hint is None else hint.decode("utf-8", "replace"))
                encoded = ("" if name is None else name).encode() + b"\0"
            except Exception:  # noqa: BLE001  # nothing may pass through C; no key is a failed handshake
                return _NONE_AT_ALL
            if len(encoded) > identity_size or len(secret) > key_size:
                return _NONE_AT_ALL
            ctypes.memmove(identity, encoded, len(encoded))
            ctypes.memmove(key, secret, len(secret))
            return len(secret)

        pointer = self._pointer(context)
        # Python sets a session id context on every SSLContext, also a client's; with it OpenSSL's TLS 1.3 client
        # refuses its own PSK session ("attempt to reuse session in different context"). 3.13 does the same for the
        # public call.
        self._library.SSL_CTX_set_session_id_context(pointer, b"", 0)
        self._install(context, pointer, self._library.SSL_CTX_set_psk_client_callback, _CLIENT(answer))

    def set_server_callback(self, context: ssl.SSLContext, callback: ServerCallback) -> None:
        """Do what `SSLContext.set_psk_server_callback` does on 3.13.

        Raises:
            LayoutUnknown: what was found in the context is not its SSL_CTX.
        """

        def answer(_ssl: object, identity: bytes | None, key: int, key_size: int) -> int:
            try:
                secret = callback(None if identity is None else identity.decode("utf-8"))
            except Exception:  # noqa: BLE001  # nothing may pass through C; an identity that is no UTF-8 is an unknown one
                return _NONE_AT_ALL
            if len(secret) > key_size:
                return _NONE_AT_ALL
            ctypes.memmove(key, secret, len(secret))
            return len(secret)

        self._install(context, self._pointer(context), self._library.SSL_CTX_set_psk_server_callback, _SERVER(answer))

    def _pointer(self, context: ssl.SSLContext) -> int:
        """The context's SSL_CTX, after asking it for what Python says of the same context."""
        found = _Pointer.from_address(id(context) + _HEADER_SIZE).value
        if not found:
            raise LayoutUnknown("the SSLContext holds no SSL_CTX where it was expected")
        if self._library.SSL_CTX_get_options(found) != int(context.options) & (1 << 64) - 1:
            raise LayoutUnknown("what was found in the SSLContext has other options than Python says")
        if self._library.SSL_CTX_get_verify_mode(found) != _VERIFY_MODES[context.verify_mode]:
            raise LayoutUnknown("what was found in the SSLContext has another verify mode than Python says")
        return found

    def _install(
        self, context: ssl.SSLContext, pointer: int, setter: Callable[[int, object], None], callback: object
    ) -> None:
        setter(pointer, callback)
        context._nbdtest_psk = callback  # type: ignore[attr-defined]  # the C callback has to live exactly as long as the context


def load(seen: Interpreter, open_library: Callable[[str | None], Any] = ctypes.CDLL) -> Libssl:
    """Reach the libssl of the interpreter's `ssl` module, through that extension's own dependencies.

    Raises:
        LayoutUnknown: the interpreter is not a known one, or the library found is not the one in use.
    """
    if reason := refusal(seen):
        raise LayoutUnknown(reason)
    try:
        libssl = Libssl(open_library(seen.extension))
    except (OSError, AttributeError) as error:
        raise LayoutUnknown(f"libssl cannot be reached: {error}") from error
    if libssl.version != seen.openssl:
        raise LayoutUnknown(f"the libssl found is {libssl.version}, the ssl module uses {seen.openssl}")
    return libssl
