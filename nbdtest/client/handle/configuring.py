"""Calls that set and get what a handle will do."""

from __future__ import annotations

import errno
import os
from typing import Any

from nbdtest.client import arguments
from nbdtest.client.commands import DebugCallback
from nbdtest.client.constants import (
    ALLOW_TRANSPORT_MASK,
    HANDSHAKE_FLAG_MASK,
    STRICT_MASK,
    TLS,
)
from nbdtest.client.errors import Failure
from nbdtest.client.handle.call import ANY, CREATED, SETUP, permitted
from nbdtest.client.handle.core import HandleCore
from nbdtest.net.tls import psk_support
from nbdtest.wire.limits import MAXIMUM_STRING

__all__ = ["ConfiguringCalls"]

NAME_LIMIT = 32  # of a socket activation name


class ConfiguringCalls(HandleCore):
    """Debugging, names, TLS, what to ask the server for, what to check, what a URI may do."""

    # ---- debugging and statistics

    @permitted(ANY)
    def set_debug(self, debug: bool) -> None:
        """Switch debug messages on or off."""
        with self._enter("set_debug", debug=bool(debug)):
            self._settings.debug = bool(debug)
            self._open_lane()

    @permitted(ANY, can_fail=False)
    def get_debug(self) -> bool:
        """Whether debug messages are on."""
        with self._enter("get_debug"):
            return self._settings.debug

    @permitted(ANY)
    def set_debug_callback(self, debug: DebugCallback) -> None:
        """Send debug messages to `debug(call, message)` instead of stderr."""
        arguments.callback("debug", debug)
        with self._enter("set_debug_callback", debug=debug):
            self._reporter.callback = debug

    @permitted(ANY)
    def clear_debug_callback(self) -> None:
        """Send debug messages to stderr again."""
        with self._enter("clear_debug_callback"):
            self._reporter.callback = None

    @permitted(ANY, since="1.16", can_fail=False)
    def stats_bytes_sent(self) -> int:
        """How many bytes have been sent, counted before encryption."""
        with self._enter("stats_bytes_sent"):
            self._send_what_is_queued()
            return self._engine.bytes_sent

    @permitted(ANY, since="1.16", can_fail=False)
    def stats_chunks_sent(self) -> int:
        """How many options and commands have been sent."""
        with self._enter("stats_chunks_sent"):
            self._send_what_is_queued()
            return self._engine.chunks_sent

    @permitted(ANY, since="1.16", can_fail=False)
    def stats_bytes_received(self) -> int:
        """How many bytes have been received, counted after decryption."""
        with self._enter("stats_bytes_received"):
            return self._engine.bytes_received

    @permitted(ANY, since="1.16", can_fail=False)
    def stats_chunks_received(self) -> int:
        """How many greetings and replies to commands have been received."""
        with self._enter("stats_chunks_received"):
            return self._engine.chunks_received

    # ---- names

    @permitted(ANY)
    def set_handle_name(self, handle_name: str) -> None:
        """Name the handle, for debug messages."""
        arguments.string("handle_name", handle_name)
        with self._enter("set_handle_name", handle_name=handle_name):
            self._settings.handle_name = handle_name

    @permitted(ANY)
    def get_handle_name(self) -> str:
        """The handle's name; by default nbd1, nbd2, ..."""
        with self._enter("get_handle_name") as call:
            return call.returns(self._settings.handle_name)

    @permitted(ANY, since="1.8", can_fail=False, locked=False)
    def set_private_data(self, private_data: int) -> int:
        """Keep a number for the caller, and return the one kept before (0 at first)."""
        self._check_open()
        old, self._private_data = self._private_data, arguments.u64("private_data", private_data)
        return old

    @permitted(ANY, since="1.8", can_fail=False, locked=False)
    def get_private_data(self) -> int:
        """The number that `set_private_data` kept."""
        self._check_open()
        return self._private_data

    @permitted(SETUP)
    def set_export_name(self, export_name: str) -> None:
        """Choose the export. Another name than before makes everything known about the export unknown."""
        arguments.string("export_name", export_name)
        with self._enter("set_export_name", export_name=export_name):
            if len(export_name.encode("utf-8", "surrogateescape")) > MAXIMUM_STRING:
                raise Failure("export name too long for NBD protocol", errno.ENAMETOOLONG)
            if export_name != self._settings.export_name:
                self._settings.export_name = export_name
                self._engine.forget_export()
                self._engine.meta_valid = False

    @permitted(ANY)
    def get_export_name(self) -> str:
        """The export that was chosen; "" is the default export."""
        with self._enter("get_export_name") as call:
            return call.returns(self._settings.export_name)

    @permitted(CREATED, since="1.16")
    def set_socket_activation_name(self, socket_name: str) -> None:
        """Name the socket that a server started by socket activation gets; "" means "unknown"."""
        arguments.string("socket_name", socket_name)
        with self._enter("set_socket_activation_name", socket_name=socket_name):
            if len(socket_name.encode("utf-8", "surrogateescape")) > NAME_LIMIT:
                raise Failure("socket activation name should be <= 32 characters", errno.ENAMETOOLONG)
            if socket_name and not (socket_name.isascii() and socket_name.isalnum()):
                text = "socket activation name should contain only alphanumeric ASCII characters"
                raise Failure(text, errno.EINVAL)
            self._settings.socket_activation_name = socket_name

    @permitted(ANY, since="1.16")
    def get_socket_activation_name(self) -> str:
        """The name of the activated socket, or ""."""
        with self._enter("get_socket_activation_name") as call:
            return call.returns(self._settings.socket_activation_name)

    # ---- what to ask the server for

    @permitted(SETUP, since="1.12")
    def set_request_block_size(self, request: bool) -> None:
        """Whether to ask for the server's size constraints (default: yes)."""
        with self._enter("set_request_block_size", request=bool(request)):
            self._settings.request_block_size = bool(request)

    @permitted(ANY, since="1.12")
    def get_request_block_size(self) -> bool:
        """Whether the server's size constraints are asked for."""
        with self._enter("get_request_block_size") as call:
            return call.returns(self._settings.request_block_size)

    @permitted(SETUP, since="1.4")
    def set_full_info(self, request: bool) -> None:
        """Whether to ask for the export's canonical name and description (default: no)."""
        with self._enter("set_full_info", request=bool(request)):
            self._settings.full_info = bool(request)

    @permitted(ANY, since="1.4")
    def get_full_info(self) -> bool:
        """Whether canonical name and description are asked for."""
        with self._enter("get_full_info") as call:
            return call.returns(self._settings.full_info)

    @permitted(CREATED, since="1.18")
    def set_request_extended_headers(self, request: bool) -> None:
        """Whether to ask for extended headers (default: yes)."""
        with self._enter("set_request_extended_headers", request=bool(request)):
            self._settings.request_extended_headers = bool(request)

    @permitted(ANY, since="1.18", can_fail=False)
    def get_request_extended_headers(self) -> bool:
        """Whether extended headers are asked for."""
        with self._enter("get_request_extended_headers"):
            return self._settings.request_extended_headers

    @permitted(CREATED, since="1.2")
    def set_request_structured_replies(self, request: bool) -> None:
        """Whether to ask for structured replies (default: yes)."""
        with self._enter("set_request_structured_replies", request=bool(request)):
            self._settings.request_structured_replies = bool(request)

    @permitted(ANY, since="1.2", can_fail=False)
    def get_request_structured_replies(self) -> bool:
        """Whether structured replies are asked for."""
        with self._enter("get_request_structured_replies"):
            return self._settings.request_structured_replies

    @permitted(SETUP, since="1.16")
    def set_request_meta_context(self, request: bool) -> None:
        """Whether `opt_go`, `opt_info` and connecting select metadata contexts by themselves (default: yes)."""
        with self._enter("set_request_meta_context", request=bool(request)):
            self._settings.request_meta_context = bool(request)

    @permitted(ANY, since="1.16")
    def get_request_meta_context(self) -> bool:
        """Whether metadata contexts are selected by themselves."""
        with self._enter("get_request_meta_context") as call:
            return call.returns(self._settings.request_meta_context)

    @permitted(CREATED, since="1.2")
    def set_handshake_flags(self, flags: int) -> None:
        """Choose the handshake flags to take when the server offers them (default: all)."""
        flags = arguments.u32("flags", flags)
        with self._enter("set_handshake_flags", flags=flags):
            _check_mask("flags", flags, HANDSHAKE_FLAG_MASK)
            self._settings.handshake_flags = flags

    @permitted(ANY, since="1.2", can_fail=False)
    def get_handshake_flags(self) -> int:
        """The handshake flags to take, or, once connected, those in use."""
        with self._enter("get_handshake_flags"):
            return int(self._settings.handshake_flags)

    @permitted(CREATED, since="1.4")
    def set_opt_mode(self, enable: bool) -> None:
        """Whether connecting stops before the export is chosen, so that options can be sent by hand (default: no)."""
        with self._enter("set_opt_mode", enable=bool(enable)):
            self._settings.opt_mode = bool(enable)

    @permitted(ANY, since="1.4", can_fail=False)
    def get_opt_mode(self) -> bool:
        """Whether connecting stops in option mode."""
        with self._enter("get_opt_mode"):
            return self._settings.opt_mode

    @permitted(SETUP)
    def add_meta_context(self, name: str) -> None:
        """Ask for a metadata context, such as CONTEXT_BASE_ALLOCATION."""
        arguments.string("name", name)
        with self._enter("add_meta_context", name=name):
            if len(name.encode("utf-8", "surrogateescape")) > MAXIMUM_STRING:
                raise Failure("meta context name too long for NBD protocol", errno.ENAMETOOLONG)
            self._settings.meta_contexts.append(name)

    @permitted(ANY, since="1.6")
    def get_nr_meta_contexts(self) -> int:
        """How many metadata contexts are asked for."""
        with self._enter("get_nr_meta_contexts") as call:
            return call.returns(len(self._settings.meta_contexts))

    @permitted(ANY, since="1.6")
    def get_meta_context(self, i: int) -> str:
        """The i-th metadata context that is asked for, counted from 0."""
        i = arguments.u64("i", i)
        with self._enter("get_meta_context", i=i) as call:
            if i >= len(self._settings.meta_contexts):
                raise Failure("meta context request out of range", errno.EINVAL)
            return call.returns(self._settings.meta_contexts[i])

    @permitted(SETUP, since="1.6")
    def clear_meta_contexts(self) -> None:
        """Ask for no metadata contexts any more."""
        with self._enter("clear_meta_contexts"):
            self._settings.meta_contexts.clear()

    # ---- what to check

    @permitted(ANY, since="1.12")
    def set_pread_initialize(self, request: bool) -> None:
        """Whether read buffers may be relied on to hold zeroes where the server sent nothing.

        They always do here; the setting is kept for programs that use it.
        """
        with self._enter("set_pread_initialize", request=bool(request)):
            self._settings.pread_initialize = bool(request)

    @permitted(ANY, since="1.12", can_fail=False)
    def get_pread_initialize(self) -> bool:
        """What `set_pread_initialize` set (default: yes)."""
        with self._enter("get_pread_initialize"):
            return self._settings.pread_initialize

    @permitted(ANY, since="1.6")
    def set_strict_mode(self, flags: int) -> None:
        """Choose what is checked before a command is sent (default: everything)."""
        flags = arguments.u32("flags", flags)
        with self._enter("set_strict_mode", flags=flags):
            _check_mask("flags", flags, STRICT_MASK)
            self._settings.strict = flags
            self._open_lane()

    @permitted(ANY, since="1.6", can_fail=False)
    def get_strict_mode(self) -> int:
        """What is checked before a command is sent."""
        with self._enter("get_strict_mode"):
            return int(self._settings.strict)

    # ---- TLS

    @permitted(CREATED)
    def set_tls(self, tls: int) -> None:
        """Choose TLS_DISABLE (the default), TLS_ALLOW or TLS_REQUIRE."""
        tls = arguments.integer("tls", tls)
        with self._enter("set_tls", tls=tls):
            _check_enum("tls", tls, TLS)
            self._settings.tls = tls

    @permitted(ANY, can_fail=False)
    def get_tls(self) -> int:
        """What `set_tls` chose."""
        with self._enter("get_tls"):
            return int(self._settings.tls)

    @permitted(CREATED)
    def set_tls_certificates(self, dir: str | bytes | os.PathLike[Any]) -> None:
        """Take certificates from a directory: ca-cert.pem, client-cert.pem, client-key.pem, ca-crl.pem."""
        path = arguments.file_name("dir", dir)
        with self._enter("set_tls_certificates", dir=path):
            self._settings.tls_certificates = path

    @permitted(CREATED)
    def set_tls_verify_peer(self, verify: bool) -> None:
        """Whether the server's certificate is checked (default: yes)."""
        with self._enter("set_tls_verify_peer", verify=bool(verify)):
            self._settings.tls_verify_peer = bool(verify)

    @permitted(ANY, can_fail=False)
    def get_tls_verify_peer(self) -> bool:
        """Whether the server's certificate is checked."""
        with self._enter("get_tls_verify_peer"):
            return self._settings.tls_verify_peer

    @permitted(CREATED)
    def set_tls_username(self, username: str) -> None:
        """Choose the identity for a pre-shared key (default: the login name)."""
        arguments.string("username", username)
        with self._enter("set_tls_username", username=username):
            self._settings.tls_username = username

    @permitted(ANY)
    def get_tls_username(self) -> str:
        """The identity for a pre-shared key."""
        with self._enter("get_tls_username") as call:
            return call.returns(self._credentials.username)

    @permitted(CREATED, since="1.22")
    def set_tls_hostname(self, hostname: str) -> None:
        """Choose the name that the server's certificate must carry (default: the host connected to)."""
        arguments.string("hostname", hostname)
        with self._enter("set_tls_hostname", hostname=hostname):
            self._settings.tls_hostname = hostname

    @permitted(ANY, since="1.22")
    def get_tls_hostname(self) -> str:
        """The name that the server's certificate must carry; "" if none is checked."""
        with self._enter("get_tls_hostname") as call:
            return call.returns(self._credentials.hostname)

    @permitted(CREATED)
    def set_tls_psk_file(self, filename: str | bytes | os.PathLike[Any]) -> None:
        """Use a pre-shared key from a file of lines "identity:hexkey"."""
        path = arguments.file_name("filename", filename)
        with self._enter("set_tls_psk_file", filename=path):
            self._settings.tls_psk_file = path

    @permitted(CREATED, since="1.24")
    def set_tls_priority(self, priority: str) -> None:
        """Choose TLS versions by a GnuTLS priority string, as far as that can be honoured."""
        arguments.string("priority", priority)
        with self._enter("set_tls_priority", priority=priority):
            self._settings.tls_priority = priority

    @permitted(ANY, since="1.24")
    def get_tls_priority(self) -> str:
        """The priority string; NORMAL by default."""
        with self._enter("get_tls_priority") as call:
            return call.returns(self._settings.tls_priority or "NORMAL")

    # ---- what a URI may do

    @permitted(CREATED, since="1.2")
    def set_uri_allow_transports(self, mask: int) -> None:
        """Choose the transports that `connect_uri` may use (default: all)."""
        mask = arguments.u32("mask", mask)
        with self._enter("set_uri_allow_transports", mask=mask):
            _check_mask("mask", mask, ALLOW_TRANSPORT_MASK)
            self._settings.uri_allow_transports = mask

    @permitted(CREATED, since="1.2")
    def set_uri_allow_tls(self, tls: int) -> None:
        """Whether URIs must not (TLS_DISABLE), may (TLS_ALLOW, the default) or must (TLS_REQUIRE) ask for TLS."""
        tls = arguments.integer("tls", tls)
        with self._enter("set_uri_allow_tls", tls=tls):
            _check_enum("tls", tls, TLS)
            self._settings.uri_allow_tls = tls

    @permitted(CREATED, since="1.24")
    def set_uri_allow_tls_priority(self, allow: bool) -> None:
        """Whether URIs may set the TLS priority string (default: no)."""
        with self._enter("set_uri_allow_tls_priority", allow=bool(allow)):
            self._settings.uri_allow_tls_priority = bool(allow)

    @permitted(CREATED, since="1.2")
    def set_uri_allow_local_file(self, allow: bool) -> None:
        """Whether URIs may name local files (default: no)."""
        with self._enter("set_uri_allow_local_file", allow=bool(allow)):
            self._settings.uri_allow_local_file = bool(allow)

    # ---- what this library can do

    @permitted(ANY, can_fail=False, locked=False)
    def supports_tls(self) -> bool:
        """Whether TLS can be used: always."""
        self._check_open()
        return True

    @permitted(ANY, since="1.16", can_fail=False, locked=False)
    def supports_vsock(self) -> bool:
        """Whether vsock can be used: where the socket module knows it."""
        self._check_open()
        import socket

        return hasattr(socket, "AF_VSOCK")

    @permitted(ANY, can_fail=False, locked=False)
    def supports_uri(self) -> bool:
        """Whether NBD URIs can be used: always."""
        self._check_open()
        return True

    @permitted(ANY, since="", can_fail=False, locked=False)
    def supports_psk(self) -> bool:
        """Whether TLS with pre-shared keys can be used on this Python."""
        self._check_open()
        return bool(psk_support())


def _check_enum(name: str, value: int, kind: type[TLS]) -> None:
    if value not in set(kind):
        raise Failure(f"{name}: invalid value for parameter: {value}", errno.EINVAL)


def _check_mask(name: str, value: int, mask: int) -> None:
    if value & ~mask:
        raise Failure(f"{name}: invalid value for flag: 0x{value:x}", errno.EINVAL)
