"""Connections made from a URI for the kernel: nothing is negotiated on them that it does not understand."""

from __future__ import annotations

import os

from nbdtest.client import NBD, Error
from nbdtest.client.kernel.connections import negotiated_export
from nbdtest.client.kernel.failures import UnsuitableConnection
from nbdtest.client.kernel.sysfs import SECTOR
from nbdtest.errors import TransportError

__all__ = ["connected", "reconnected"]


def connected(uri: str) -> NBD:
    """Return a handle that is connected to `uri`, ready to be attached.

    Raises:
        TransportError: it cannot be connected.
    """
    handle = NBD()
    try:
        handle.set_request_structured_replies(False)
        handle.connect_uri(uri)
    except Error as error:
        handle.close()
        raise TransportError(f"no connection to {uri}: {error}") from error
    except BaseException:
        handle.close()
        raise
    return handle


def reconnected(uri: str, size: int) -> int:
    """Connect to `uri` again and return the connection's descriptor, for a device of `size` bytes.

    Raises:
        TransportError: it cannot be connected.
        UnsuitableConnection: the export is another one than before.
    """
    handle = connected(uri)
    try:
        found = negotiated_export(handle).size
        if found // SECTOR != size // SECTOR:
            raise UnsuitableConnection(f"{uri} has {found} bytes now, and {size} before")
        return os.dup(handle.aio_get_fd())
    finally:
        handle.close()
