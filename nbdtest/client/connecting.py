"""Making connections without waiting: a connector is started, and asked again whenever its socket is writable.

How a connection is used is not known here.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import Any

from nbdtest.client.errors import Failure
from nbdtest.client.states import CONNECTING_TCP, CONNECTING_TO, State

__all__ = ["Connector", "TCPConnector", "TryAnother", "adopt_socket", "tune", "unix_address"]

UNIX_PATH_LIMIT = 107
SEND_BUFFER = 1 << 20
"""Asked of the kernel for Unix sockets: it gives them room for some 50 small writes, and TCP finds its size itself."""
BACKLOG = "connect: server backlog overflowed, see https://bugzilla.redhat.com/1925045"


class TryAnother(Failure):
    """No connection came about, and nothing is lost: the handle can connect elsewhere."""


class Connector:
    """An attempt to connect to one address."""

    state: State = CONNECTING_TO

    def __init__(self, family: int, address: Any) -> None:
        self._family = family
        self._address = address
        self.socket: socket.socket | None = None

    def start(self) -> bool:
        """Begin, and say whether the connection is there already.

        Raises:
            Failure: it cannot be made.
        """
        return self._attempt(self._family, self._address)

    def proceed(self) -> bool:
        """The socket is writable: say whether the connection is there.

        Raises:
            Failure: it cannot be made.
        """
        assert self.socket is not None, "started"
        number = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.close()
            raise Failure("connect", number)
        return True

    def close(self) -> None:
        """Give up."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _attempt(self, family: int, address: Any) -> bool:
        try:
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise Failure.of_os("socket", error) from None
        self.socket = made
        tune(made, family)
        number = made.connect_ex(address)
        if number in (0, errno.EINPROGRESS):
            return number == 0
        self.close()
        raise Failure(BACKLOG if number == errno.EAGAIN and family == socket.AF_UNIX else "connect", number)


class TCPConnector(Connector):
    """An attempt to connect to a host and port, all of whose addresses are tried in turn."""

    state = CONNECTING_TCP

    def __init__(self, host: str, port: str, *, family: int = socket.AF_UNSPEC) -> None:
        super().__init__(family, None)
        self._host = host
        self._port = port
        self._untried: list[tuple[int, Any]] = []
        self._first_error = 0

    def start(self) -> bool:
        try:
            found = socket.getaddrinfo(self._host, self._port, self._family, socket.SOCK_STREAM)
        except socket.gaierror as error:
            text = f'getaddrinfo: hostname "{self._host}" port "{self._port}": {error.strerror}'
            raise TryAnother(text) from None
        except (UnicodeError, OverflowError) as error:
            raise TryAnother(f'getaddrinfo: hostname "{self._host}" port "{self._port}": {error}') from None
        self._untried = [(int(family), address) for family, _, _, _, address in found]
        return self._next()

    def proceed(self) -> bool:
        try:
            return super().proceed()
        except Failure as failure:
            self._first_error = self._first_error or failure.errnum
            return self._next()

    def _next(self) -> bool:
        while self._untried:
            family, address = self._untried.pop(0)
            try:
                return self._attempt(family, address)
            except Failure as failure:
                self._first_error = self._first_error or failure.errnum
        text = f"connect: {self._host}:{self._port}: could not connect to remote host"
        raise TryAnother(text, self._first_error)


def unix_address(path: str) -> bytes:
    """The kernel's form of a Unix socket's path.

    Raises:
        Failure: it is too long.
    """
    encoded = os.fsencode(path)
    if len(encoded) > UNIX_PATH_LIMIT:
        raise Failure(f"socket name too long: {path}", errno.ENAMETOOLONG)
    return encoded


def adopt_socket(descriptor: int) -> socket.socket:
    """Take over a descriptor that somebody else connected; from now on it is ours to close, also if this fails.

    Raises:
        Failure: it is no socket.
    """
    try:
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)
    except OSError as error:
        with suppress(OSError):
            os.close(descriptor)
        raise Failure.of_os("fcntl: set O_NONBLOCK", error) from None


def tune(made: socket.socket, family: int) -> None:
    """Let small messages leave at once, and large ones in few turns."""
    with suppress(OSError):  # vsock has neither
        if family == socket.AF_UNIX:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        else:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
