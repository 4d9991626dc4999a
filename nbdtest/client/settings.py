"""What the caller asked of a handle, and what the server told about the export.

Values only: nothing here acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nbdtest.client.constants import ALLOW_TRANSPORT_MASK, HANDSHAKE_FLAG_MASK, STRICT_MASK, TLS
from nbdtest.client.errors import Failure
from nbdtest.wire import TransmissionFlag
from nbdtest.wire.limits import DEFAULT_MAXIMUM_PAYLOAD, MAXIMUM_MINIMUM_BLOCK, MINIMUM_PREFERRED_BLOCK

__all__ = ["MAX_REQUEST_SIZE", "Export", "Settings"]

MAX_REQUEST_SIZE = 64 << 20
"""The most bytes that one command reads or writes, and (with 8 more) that one reply chunk may carry."""

LEAST_PAYLOAD = 1 << 20  # SIZE-027: even a server that says less has to take this much
SIGNED_LIMIT = (1 << 63) - 1
UNLIMITED = 0xFFFF_FFFF
_SEND_DF = TransmissionFlag.SEND_DF.value
_SEND_WRITE_ZEROES = TransmissionFlag.SEND_WRITE_ZEROES.value
_SEND_FAST_ZERO = TransmissionFlag.SEND_FAST_ZERO.value
_BLOCK_STATUS_PAYLOAD = TransmissionFlag.BLOCK_STATUS_PAYLOAD.value


@dataclass(slots=True)
class Settings:
    """Everything a caller may set, with libnbd's defaults. Flags are plain integers here: they are tested often."""

    handle_name: str
    debug: bool = False
    export_name: str = ""
    request_block_size: bool = True
    full_info: bool = False
    tls: int = TLS.DISABLE.value
    tls_certificates: str | None = None
    tls_verify_peer: bool = True
    tls_username: str | None = None
    tls_hostname: str | None = None
    tls_psk_file: str | None = None
    tls_priority: str | None = None
    request_extended_headers: bool = True
    request_structured_replies: bool = True
    request_meta_context: bool = True
    pread_initialize: bool = True
    strict: int = STRICT_MASK.value
    opt_mode: bool = False
    meta_contexts: list[str] = field(default_factory=list)
    uri_allow_transports: int = ALLOW_TRANSPORT_MASK.value
    uri_allow_tls: int = TLS.ALLOW.value
    uri_allow_tls_priority: bool = False
    uri_allow_local_file: bool = False
    socket_activation_name: str = ""
    handshake_flags: int = HANDSHAKE_FLAG_MASK.value
    force_export_name: bool = False


@dataclass(slots=True)
class Export:
    """What the server said about the export. `flags` 0 means that it has said nothing (yet, or any more)."""

    size: int = 0
    flags: int = 0
    minimum: int = 0
    preferred: int = 0
    maximum: int = 0
    payload_maximum: int = 0
    canonical_name: str | None = None
    description: str | None = None

    def has(self, flag: int) -> bool:
        """Whether the server set the transmission flag.

        Raises:
            Failure: the server has not told its flags.
        """
        if not self.flags:
            raise Failure("server has not returned export flags, you need to connect to the server first", errnum=22)
        return bool(self.flags & flag)

    def signed_size(self) -> int:
        """The size, if a signed 64-bit integer holds it.

        Raises:
            Failure: the server has not told the size, or it is too large.
        """
        if not self.flags:
            raise Failure("server has not returned export size, you need to connect to the server first", errnum=22)
        if self.size > SIGNED_LIMIT:
            raise Failure(f"server claims size {self.size} which does not fit in signed result", errnum=75)
        return self.size

    def set_size_and_flags(self, size: int, flags: int, *, structured: bool, extended: bool) -> None:
        """Take over what the server said, without the flags that make no sense on this connection.

        Raises:
            Failure: no flag is set, not even HAS_FLAGS.
        """
        if not flags:
            raise Failure("handshake: invalid eflags == 0 from server", errnum=22)
        if not structured:
            flags &= ~_SEND_DF
        if not extended:
            flags &= ~_BLOCK_STATUS_PAYLOAD
        if not flags & _SEND_WRITE_ZEROES:
            flags &= ~_SEND_FAST_ZERO
        self.size, self.flags = size, flags

    def set_block_sizes(self, minimum: int, preferred: int, maximum: int) -> bool:
        """Take over size constraints, or say that they break the rules and are ignored."""
        powers = minimum & (minimum - 1) == 0 and preferred & (preferred - 1) == 0
        ordered = (
            0 < minimum <= min(preferred, MAXIMUM_MINIMUM_BLOCK) and MINIMUM_PREFERRED_BLOCK <= preferred <= maximum
        )
        if not (powers and ordered and (maximum == UNLIMITED or maximum % minimum == 0)):
            return False
        self.minimum, self.preferred, self.maximum = minimum, preferred, maximum
        return True

    def settle_payload(self) -> None:
        """Work out the largest payload of a request, when all is known that the server is going to tell."""
        if self.maximum:
            self.payload_maximum = min(MAX_REQUEST_SIZE, max(LEAST_PAYLOAD, self.maximum))
        else:
            self.payload_maximum = DEFAULT_MAXIMUM_PAYLOAD
