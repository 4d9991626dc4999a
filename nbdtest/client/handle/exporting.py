"""Calls that say what the server told: flags, sizes, what was negotiated."""

from __future__ import annotations

import errno

from nbdtest.client import arguments
from nbdtest.client.constants import SIZE
from nbdtest.client.errors import Failure
from nbdtest.client.handle.call import ANY, EXPORT_KNOWN, permitted
from nbdtest.client.handle.core import HandleCore
from nbdtest.wire import TransmissionFlag

__all__ = ["LIBNBD_VERSION", "ExportCalls"]

LIBNBD_VERSION = "1.24.0"
"""The release of libnbd whose API this is."""

NOT_TOLD = "server has not returned export flags, you need to connect to the server first"


class ExportCalls(HandleCore):
    """What is known of the export and of the connection. It stays known when the connection is closed."""

    @permitted(EXPORT_KNOWN)
    def is_read_only(self) -> bool:
        """Whether the export cannot be written to."""
        with self._enter("is_read_only") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.READ_ONLY))

    @permitted(EXPORT_KNOWN)
    def can_flush(self) -> bool:
        """Whether the server takes `flush`."""
        with self._enter("can_flush") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.SEND_FLUSH))

    @permitted(EXPORT_KNOWN)
    def can_fua(self) -> bool:
        """Whether the server takes CMD_FLAG_FUA."""
        with self._enter("can_fua") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.SEND_FUA))

    @permitted(EXPORT_KNOWN)
    def is_rotational(self) -> bool:
        """Whether the export prefers to be accessed in order, like a rotating disk."""
        with self._enter("is_rotational") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.ROTATIONAL))

    @permitted(EXPORT_KNOWN)
    def can_trim(self) -> bool:
        """Whether the server takes `trim`."""
        with self._enter("can_trim") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.SEND_TRIM))

    @permitted(EXPORT_KNOWN)
    def can_zero(self) -> bool:
        """Whether the server takes `zero`."""
        with self._enter("can_zero") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.SEND_WRITE_ZEROES))

    @permitted(EXPORT_KNOWN, since="1.2")
    def can_fast_zero(self) -> bool:
        """Whether the server takes CMD_FLAG_FAST_ZERO."""
        with self._enter("can_fast_zero") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.SEND_FAST_ZERO))

    @permitted(EXPORT_KNOWN, since="1.18")
    def can_block_status_payload(self) -> bool:
        """Whether the server takes `block_status_filter`."""
        with self._enter("can_block_status_payload") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.BLOCK_STATUS_PAYLOAD))

    @permitted(EXPORT_KNOWN)
    def can_df(self) -> bool:
        """Whether the server takes CMD_FLAG_DF."""
        with self._enter("can_df") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.SEND_DF))

    @permitted(EXPORT_KNOWN)
    def can_multi_conn(self) -> bool:
        """Whether flushes and FUA writes are seen by other connections to the same export."""
        with self._enter("can_multi_conn") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.CAN_MULTI_CONN))

    @permitted(EXPORT_KNOWN)
    def can_cache(self) -> bool:
        """Whether the server takes `cache`."""
        with self._enter("can_cache") as call:
            return call.returns(self._engine.export.has(TransmissionFlag.SEND_CACHE))

    @permitted(EXPORT_KNOWN)
    def can_meta_context(self, metacontext: str) -> bool:
        """Whether the metadata context has been selected."""
        arguments.string("metacontext", metacontext)
        with self._enter("can_meta_context", metacontext=metacontext) as call:
            engine = self._engine
            if self._settings.meta_contexts and not engine.meta_valid:
                raise Failure("need a successful server meta context request first", errno.EINVAL)
            return call.returns(any(name == metacontext for _, name in engine.contexts))

    @permitted(EXPORT_KNOWN)
    def get_size(self) -> int:
        """The export's size in bytes."""
        with self._enter("get_size") as call:
            return call.returns(self._engine.export.signed_size())

    @permitted(EXPORT_KNOWN, since="1.4")
    def get_block_size(self, size_type: int) -> int:
        """A size constraint: SIZE_MINIMUM, SIZE_PREFERRED, SIZE_MAXIMUM (0: not told) or SIZE_PAYLOAD."""
        size_type = arguments.integer("size_type", size_type)
        with self._enter("get_block_size", size_type=size_type) as call:
            export = self._engine.export
            sizes = {
                SIZE.MINIMUM: export.minimum,
                SIZE.PREFERRED: export.preferred,
                SIZE.MAXIMUM: export.maximum,
                SIZE.PAYLOAD: export.payload_maximum,
            }
            if size_type not in set(SIZE):
                raise Failure(f"size_type: invalid value for parameter: {size_type}", errno.EINVAL)
            if not export.flags:
                raise Failure(NOT_TOLD, errno.EINVAL)
            return call.returns(sizes[SIZE(size_type)])

    @permitted(EXPORT_KNOWN, since="1.4")
    def get_canonical_export_name(self) -> str:
        """The name that the server calls the export; known after `set_full_info`."""
        with self._enter("get_canonical_export_name") as call:
            export = self._engine.export
            if not export.flags:
                raise Failure(NOT_TOLD, errno.EINVAL)
            if export.canonical_name is None:
                raise Failure("server did not advertise a canonical name", errno.ENOTSUP)
            return call.returns(export.canonical_name)

    @permitted(EXPORT_KNOWN, since="1.4")
    def get_export_description(self) -> str:
        """The server's description of the export; known after `set_full_info`."""
        with self._enter("get_export_description") as call:
            export = self._engine.export
            if not export.flags:
                raise Failure(NOT_TOLD, errno.EINVAL)
            if export.description is None:
                raise Failure("server did not advertise a description", errno.ENOTSUP)
            return call.returns(export.description)

    @permitted(EXPORT_KNOWN, since="1.2")
    def get_protocol(self) -> str:
        """The variant of the handshake: "oldstyle", "newstyle" or "newstyle-fixed"."""
        with self._enter("get_protocol") as call:
            return call.returns(self._engine.protocol)

    @permitted(EXPORT_KNOWN, since="1.2")
    def get_tls_negotiated(self) -> bool:
        """Whether the connection is encrypted."""
        with self._enter("get_tls_negotiated") as call:
            return call.returns(self._engine.tls_negotiated)

    @permitted(EXPORT_KNOWN, since="1.18")
    def get_extended_headers_negotiated(self) -> bool:
        """Whether extended headers are in use."""
        with self._enter("get_extended_headers_negotiated") as call:
            return call.returns(self._engine.extended)

    @permitted(EXPORT_KNOWN, since="1.2")
    def get_structured_replies_negotiated(self) -> bool:
        """Whether structured replies are in use."""
        with self._enter("get_structured_replies_negotiated") as call:
            return call.returns(self._engine.structured)

    @permitted(ANY)
    def connection_state(self) -> str:
        """The state and what it means, as "NAME: comment"."""
        with self._enter("connection_state") as call:
            self._send_what_is_queued()
            return call.returns(str(self._driver.state))

    @permitted(ANY, can_fail=False, locked=False)
    def get_package_name(self) -> str:
        """The name of the library whose API this is."""
        self._check_open()
        return "libnbd"

    @permitted(ANY, can_fail=False, locked=False)
    def get_version(self) -> str:
        """The release of libnbd whose API this is."""
        self._check_open()
        return LIBNBD_VERSION
