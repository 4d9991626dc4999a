"""libnbd's Python API in pure Python: `NBD`, `Buffer`, `Error`, `ClosedHandle`, `nbd()` and all constants.

from nbdtest.client import NBD

with NBD() as h:
    h.connect_uri("nbd://localhost")
    sector = h.pread(512, 0)
"""

from collections.abc import Iterator
from contextlib import contextmanager

from nbdtest.client import constants
from nbdtest.client.buffer import Buffer
from nbdtest.client.constants import *  # noqa: F403 - its __all__ is part of ours
from nbdtest.client.errors import ClosedHandle, Error
from nbdtest.client.handle import NBD

__all__ = ["NBD", "Buffer", "ClosedHandle", "Error", "nbd", *constants.__all__]


@contextmanager
def nbd() -> Iterator[NBD]:
    """`with nbd() as h:` is the same as `with NBD() as h:`."""
    with NBD() as handle:
        yield handle
