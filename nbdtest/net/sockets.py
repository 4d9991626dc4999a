"""Connecting and listening, on TCP, Unix and vsock sockets.

What travels over a connection is not known here.
"""

import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self, TypeAlias

from nbdtest.errors import TimedOut, TransportError, UsageError
from nbdtest.net.addresses import CID_ANY, CID_LOCAL, Address, TCPAddress, UnixAddress, VsockAddress
from nbdtest.net.clock import Deadline
from nbdtest.net.stream import SocketStream, wait_for

__all__ = [
    "UNIX_PATH_LIMIT",
    "CannotConnect",
    "Listener",
    "adopt",
    "adopt_listener",
    "connect",
    "listen",
    "stream_pair",
    "unused_tcp_port",
    "unused_vsock_port",
    "vsock_available",
]

UNIX_PATH_LIMIT = 107
"""Bytes of a socket's path that fit into the kernel's sockaddr_un, without the final NUL."""


SocketName: TypeAlias = tuple[str | bytes | int, ...]  # as bind and connect take it, but for Unix sockets


class CannotConnect(TransportError):
    """No connection came about; `errno` says why (0 when a name has no address)."""

    def __init__(self, message: str, *, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


def connect(address: Address, *, deadline: Deadline | None = None, timeout_s: float | None = 10.0) -> SocketStream:
    """Connect to `address`; a host name's addresses are tried in turn. `timeout_s` becomes that of the stream.

    Raises:
        CannotConnect: refused, no such socket, unknown name.
        TimedOut: the deadline passed first (the resolving of a name is not interrupted by it).
    """
    deadline = deadline or Deadline(timeout_s)
    failure: OSError | None = None
    for family, target in _targets(address):
        try:
            made = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # a kernel without IPv6, or without vsock
            failure = error
            continue
        try:
            if family == socket.AF_UNIX:
                _connect_unix(made, address, deadline)
            else:
                _connect_polling(made, target, deadline)
            return SocketStream(made, timeout_s=timeout_s)
        except TimeoutError:
            made.close()
            raise TimedOut(f"no connection to {address} in {deadline.seconds:g} s") from None
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
    assert failure is not None, "getaddrinfo returned an empty list"
    raise CannotConnect(f"cannot connect to {address}: {failure.strerror}", errno=failure.errno or 0) from failure


class Listener:
    """A listening socket. `address` is where it can be reached, with the real port."""

    def __init__(self, listening: socket.socket, address: Address, *, unlink: bool = False) -> None:
        self._socket = listening
        self.address = address
        self._unlink = unlink

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self, deadline: Deadline | None = None, *, timeout_s: float | None = 10.0) -> SocketStream:
        """Wait for a connection. `timeout_s` becomes that of the stream; without a deadline this waits for ever.

        Raises:
            TimedOut: nobody connected by the deadline.
            TransportError: the listener was stopped.
        """
        deadline = deadline or Deadline(None)
        self._socket.setblocking(False)
        while True:
            try:
                connected, _ = self._socket.accept()
            except BlockingIOError:
                if not wait_for(self.fileno(), select.POLLIN, deadline):
                    raise TimedOut(f"nobody connected to {self.address} in {deadline.seconds:g} s") from None
            except ConnectionAbortedError:
                continue  # it was reset while it stood in the queue
            except OSError as error:
                raise TransportError(f"the listener at {self.address} is stopped: {error.strerror}") from error
            else:
                connected.setblocking(True)
                return SocketStream(connected, timeout_s=timeout_s)

    def interrupt(self) -> None:
        """Refuse further connections and wake a thread that waits in `accept`; that thread may then `close`."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, and remove the file of a Unix socket that was made here. Any number of times."""
        if self._socket.fileno() < 0:
            return
        self.interrupt()
        self._socket.close()
        if self._unlink and isinstance(self.address, UnixAddress):
            with suppress(FileNotFoundError):
                os.unlink(self.address.encoded())

    def release(self) -> None:
        """Close the descriptor only: a process that has it too goes on listening, and the file stays."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def listen(address: Address | None = None, *, backlog: int = 128) -> Listener:
    """Listen at `address`; port 0 takes a free one, None is port 0 of 127.0.0.1.

    Raises:
        UsageError: the address is in use, not ours, of a kind that this kernel lacks, or a Unix path whose last part
            is too long.
    """
    address = TCPAddress("127.0.0.1", 0) if address is None else address
    family, target = _targets(address)[0]
    try:
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"cannot listen at {address}: {error.strerror}") from error
    try:
        if isinstance(address, UnixAddress):
            with _short_path_to_bind(address) as short:
                made.bind(short)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(target)
        made.listen(backlog)
    except OSError as error:
        made.close()
        raise UsageError(f"cannot listen at {address}: {error.strerror}") from error
    except BaseException:
        made.close()
        raise
    real = address if isinstance(address, UnixAddress) else _own_address(made)
    return Listener(made, real, unlink=isinstance(address, UnixAddress) and not address.abstract)


def adopt(descriptor: int, *, timeout_s: float | None = 10.0) -> SocketStream:
    """Take over the descriptor of a connected stream socket; it is closed with the stream.

    Raises:
        UsageError: it is no such thing; the descriptor stays the caller's.
    """
    return SocketStream(_socket_of(descriptor, listening=False), timeout_s=timeout_s)


def adopt_listener(descriptor: int) -> Listener:
    """Take over the descriptor of a listening stream socket; it is closed with the listener, its file is left alone.

    Raises:
        UsageError: it is no such thing; the descriptor stays the caller's.
    """
    adopted = _socket_of(descriptor, listening=True)
    return Listener(adopted, _own_address(adopted))


def stream_pair(*, timeout_s: float | None = 10.0) -> tuple[SocketStream, SocketStream]:
    """Two Unix sockets that are connected to each other."""
    one, other = socket.socketpair()
    return SocketStream(one, timeout_s=timeout_s), SocketStream(other, timeout_s=timeout_s)


def unused_tcp_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at `host` right now, for a server that cannot be asked which one it took."""
    with listen(TCPAddress(host, 0)) as listener:
        assert isinstance(listener.address, TCPAddress)
        return listener.address.port


def unused_vsock_port() -> int:
    """The same on vsock, at CID_LOCAL.

    Raises:
        UsageError: this machine cannot speak with itself on vsock.
    """
    if not vsock_available():
        raise UsageError("this machine has no vsock loopback: modprobe vsock_loopback")
    with listen(VsockAddress(CID_LOCAL, CID_ANY)) as listener:
        assert isinstance(listener.address, VsockAddress)
        return listener.address.port


def vsock_available(cid: int = CID_LOCAL) -> bool:
    """Whether this machine can listen on vsock at `cid`, by default whether it has a loopback to speak with itself.

    CID_ANY is granted wherever the kernel knows vsock, even if nobody can connect. A bind tells at once, where a
    connect might wait for a guest.
    """
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe:
            probe.bind((cid, CID_ANY))  # the number that means any context means any port as well
    except OSError:
        return False
    return True


def _targets(address: Address) -> list[tuple[int, SocketName]]:
    """The socket families and kernel addresses to try, in order."""
    if isinstance(address, UnixAddress):
        return [(socket.AF_UNIX, ())]
    if isinstance(address, VsockAddress):
        return [(socket.AF_VSOCK, (address.cid, address.port))]
    if not 0 <= address.port <= 0xFFFF:
        raise UsageError(f"TCP port {address.port}: it must lie between 0 and 65535")
    try:
        found = socket.getaddrinfo(address.host, address.port, address.family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else str(error)
        raise CannotConnect(f"host {address.host!r} has no address: {reason}") from error
    return [(int(family), target) for family, _, _, _, target in found]


def _connect_polling(made: socket.socket, target: SocketName, deadline: Deadline) -> None:
    made.setblocking(False)
    failed = made.connect_ex(target)
    if failed == errno.EINPROGRESS:
        if not wait_for(made.fileno(), select.POLLOUT, deadline):
            raise TimeoutError
        failed = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))
    if made.getsockname() == made.getpeername():
        # A port of the ephemeral range where nobody listens can be picked for our own end: TCP then connects us to
        # ourselves.
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    made.setblocking(True)


def _connect_unix(made: socket.socket, address: Address, deadline: Deadline) -> None:
    # A Unix socket whose listener's queue is full cannot be polled for; the kernel waits in connect() as long as
    # SO_SNDTIMEO says.
    assert isinstance(address, UnixAddress)
    limit = deadline.remaining_or_none()
    if limit is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(max(limit, 1e-6)))
    with _short_path_to_connect(address) as short:
        try:
            made.connect(short)
        except BlockingIOError:
            raise TimeoutError from None
    if limit is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(0))


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))


@contextmanager
def _short_path_to_connect(address: UnixAddress) -> Iterator[bytes]:
    """A name for the socket that fits the kernel's limit: a longer path is opened and reached through /proc."""
    path = address.encoded()
    if address.abstract or len(path) <= UNIX_PATH_LIMIT:
        yield _fitting(path, address)
        return
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield b"/proc/self/fd/%d" % opened
    finally:
        os.close(opened)


@contextmanager
def _short_path_to_bind(address: UnixAddress) -> Iterator[bytes]:
    """A name for the new socket that fits the kernel's limit: a longer path's directory is reached through /proc."""
    path = address.encoded()
    if address.abstract or len(path) <= UNIX_PATH_LIMIT:
        yield _fitting(path, address)
        return
    directory, name = os.path.split(path)
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _fitting(b"/proc/self/fd/%d/%b" % (opened, name), address)
    finally:
        os.close(opened)


def _fitting(path: bytes, address: UnixAddress) -> bytes:
    limit = UNIX_PATH_LIMIT + address.abstract  # an abstract name needs no final NUL
    if len(path) > limit:
        raise UsageError(f"Unix socket name of {len(path)} bytes, at most {limit} are possible: {address}")
    if not path or (b"\0" in path and not address.abstract):
        raise UsageError(f"{address.path!r} cannot be a Unix socket's path")
    return path


def _socket_of(descriptor: int, *, listening: bool) -> socket.socket:
    wanted = "listening" if listening else "connected"
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise UsageError(f"descriptor {descriptor} is no socket, a {wanted} one was expected")
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise UsageError(f"descriptor {descriptor} cannot be used: {error.strerror}") from error
    is_listening = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if found.type != socket.SOCK_STREAM or is_listening != listening:
        kind = "listening" if is_listening else "not listening"
        found.detach()
        raise UsageError(
            f"descriptor {descriptor} is a {kind} socket of type {found.type}, a {wanted} stream was expected"
        )
    os.set_inheritable(descriptor, False)
    return found


def _own_address(bound: socket.socket) -> Address:
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return UnixAddress(os.fsdecode(name))
    if bound.family == socket.AF_VSOCK:
        return VsockAddress(*name)
    return TCPAddress(name[0], name[1], int(bound.family))
