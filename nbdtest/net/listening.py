"""Whether anybody listens at an address, found out without connecting where the kernel tells.

A trial connection is not innocent: `qemu-nbd` without --persistent, for one, ends after its first client.
"""

import os
import socket

from nbdtest.errors import TimedOut
from nbdtest.net.addresses import Address, TCPAddress, UnixAddress
from nbdtest.net.clock import Deadline
from nbdtest.net.sockets import CannotConnect, connect

__all__ = ["is_listening"]

ACCEPTS = 0x10000  # __SO_ACCEPTCON in the Flags column of /proc/net/unix
TCP_LISTEN = "0A"
TRIAL_S = 0.2


def is_listening(address: Address) -> bool:
    """Whether a connection to `address` would be taken by the kernel for somebody."""
    known = None
    if isinstance(address, UnixAddress):
        known = _unix_listens(address)
    elif isinstance(address, TCPAddress) and address.host in ("127.0.0.1", "::1"):
        known = _tcp_listens(address)
    return _takes_connections(address) if known is None else known


def _takes_connections(address: Address) -> bool:
    try:
        connect(address, deadline=Deadline(TRIAL_S)).close()
    except (CannotConnect, TimedOut):
        return False
    return True


def _unix_listens(address: UnixAddress) -> bool | None:
    """What /proc/net/unix says; None when it cannot say, as for a socket that was bound by another name."""
    wanted = str(address).encode("utf-8", "surrogateescape")
    if not address.abstract and not os.path.exists(wanted):
        return False
    try:
        with open("/proc/net/unix", "rb") as table:
            rows = table.read().split(b"\n")[1:]
    except OSError:
        return None
    found: bool | None = False if address.abstract else None
    for row in rows:
        fields = row.split(None, 7)  # Num RefCount Protocol Flags Type St Inode Path
        if len(fields) == 8 and fields[7] == wanted:
            if int(fields[3], 16) & ACCEPTS:
                return True
            found = False
    return found


def _tcp_listens(address: TCPAddress) -> bool | None:
    """What /proc/net/tcp and tcp6 say about the port, on this address or on all; None when they cannot say."""
    names = {"127.0.0.1": ("0100007F", "00000000"), "::1": ("0" * 24 + "01000000", "0" * 32)}[address.host]
    every_v6 = "0" * 32
    wanted = {f"{name}:{address.port:04X}" for name in names}
    if address.host == "127.0.0.1":
        wanted |= {f"{every_v6}:{address.port:04X}", f"{'0' * 16}FFFF00000100007F:{address.port:04X}"}
    if socket.ntohl(1) == 1:
        return None  # the tables show addresses in the machine's byte order; the names above are little-endian
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except FileNotFoundError:
            continue
        except OSError:
            return None
        for row in rows:
            fields = row.split()
            if fields[3] == TCP_LISTEN and fields[1] in wanted:
                return True
    return False
