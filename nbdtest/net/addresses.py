"""Where a server listens: TCP, Unix and vsock addresses, as values.

Pure: nothing is resolved or opened here.
"""

import os
import socket
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "CID_ANY",
    "CID_HOST",
    "CID_LOCAL",
    "NBD_PORT",
    "Address",
    "TCPAddress",
    "UnixAddress",
    "VsockAddress",
]

NBD_PORT = 10809
"""The port that IANA assigned to NBD."""

CID_LOCAL = 1  # Python 3.11's socket module does not name it
CID_HOST = 2
CID_ANY = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """A host name or literal (IPv6 without brackets) and a port; `family` AF_UNSPEC takes whichever works."""

    host: str = "127.0.0.1"
    port: int = NBD_PORT
    family: int = socket.AF_UNSPEC

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A path, or a name in Linux's abstract namespace when it begins with NUL. Non-UTF-8 is surrogate-escaped."""

    path: str

    @property
    def abstract(self) -> bool:
        """Whether there is no file behind it."""
        return self.path.startswith("\0")

    def encoded(self) -> bytes:
        """The name as the kernel takes it."""
        return os.fsencode(self.path)

    def __str__(self) -> str:
        return "@" + self.path[1:] if self.abstract else self.path


@dataclass(frozen=True, slots=True)
class VsockAddress:
    """A virtual machine's context id and a 32-bit port."""

    cid: int = CID_HOST
    port: int = NBD_PORT

    def __str__(self) -> str:
        return f"vsock:{self.cid}:{self.port}"


Address: TypeAlias = TCPAddress | UnixAddress | VsockAddress
