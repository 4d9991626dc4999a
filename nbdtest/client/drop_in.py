"""`install_as_nbd`: programs that say `import nbd` get this client instead of libnbd's binding."""

from __future__ import annotations

import sys
from types import ModuleType

from nbdtest import client
from nbdtest.client.handle.exporting import LIBNBD_VERSION

__all__ = ["install_as_nbd"]

PACKAGE = "libnbd"


def install_as_nbd() -> ModuleType:
    """Register the client as the module `nbd`, and what libnbd's nbdsh needs of `libnbdmod`; return `nbd`.

    To be called before the program imports `nbd`. From then on tracebacks call the exception `nbd.Error`.
    """
    module = ModuleType("nbd", client.__doc__)
    for name in client.__all__:
        if name != "AsyncNBD":  # which libnbd does not have, and which would load asyncio
            setattr(module, name, getattr(client, name))
    module.__dict__.update(package_name=PACKAGE, __version__=LIBNBD_VERSION, __file__=client.__file__)
    for exported in (client.NBD, client.Buffer, client.Error, client.ClosedHandle):
        exported.__module__ = "nbd"
    extension = ModuleType("libnbdmod", "What nbdsh asks of libnbd's extension module.")
    extension.__dict__.update(Error=client.Error, display_version=_display_version)
    sys.modules["nbd"] = module
    sys.modules["libnbdmod"] = extension
    return module


def _display_version(program: str) -> None:
    print(f"{program} {LIBNBD_VERSION}")
    print(f"{PACKAGE} {LIBNBD_VERSION}")
