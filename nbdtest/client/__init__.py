"""libnbd's Python API in pure Python: `NBD`, `Buffer`, `Error`, `ClosedHandle`, `nbd()` and all constants.

from nbdtest.client import NBD

with NBD() as h:
    h.connect_uri("nbd://localhost")
    sector = h.pread(512, 0)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nbdtest.client import constants
from nbdtest.client.buffer import Buffer
from nbdtest.client.constants import *  # noqa: F403 - its __all__ is part of ours
from nbdtest.client.errors import ClosedHandle, Error
from nbdtest.client.handle import NBD, StatusExtent

__all__ = [
    "NBD",
    "AsyncNBD",
    "Buffer",
    "ClosedHandle",
    "Error",
    "StatusExtent",
    "install_as_nbd",
    "nbd",
    *constants.__all__,
]

if TYPE_CHECKING:
    from nbdtest.client.asynchronous import AsyncNBD


def __getattr__(name: str) -> Any:
    # asyncio takes longer to load than all of this package, and most programs do without.
    if name == "AsyncNBD":
        from nbdtest.client.asynchronous import AsyncNBD

        return AsyncNBD
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def install_as_nbd() -> ModuleType:
    """Let programs that say `import nbd` have this client; see `nbdtest.client.drop_in`."""
    from nbdtest.client import drop_in

    return drop_in.install_as_nbd()


@contextmanager
def nbd() -> Iterator[NBD]:
    """`with nbd() as h:` is the same as `with NBD() as h:`."""
    with NBD() as handle:
        yield handle
