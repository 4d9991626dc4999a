"""Calls that connect, and what is known of where to."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nbdtest.client import arguments, uris
from nbdtest.client.connecting import Connector, TCPConnector, adopt_socket, unix_address
from nbdtest.client.errors import Failure
from nbdtest.client.handle.call import ANY, CREATED, permitted
from nbdtest.client.handle.core import HandleCore
from nbdtest.client.states import CONNECTING, Group
from nbdtest.client.subprocesses import start_activated, start_on_socketpair
from nbdtest.net.addresses import CID_ANY, Address, TCPAddress, UnixAddress, VsockAddress

__all__ = ["ConnectingCalls", "SocketAddress"]

SocketAddress = str | bytes | os.PathLike[Any] | tuple[str, int] | tuple[str, int, int, int]
"""A Unix socket's path, or the address of a TCP socket as the socket module gives it."""

CONNECTING_OR_LATER = Group.ANY & ~Group.CREATED


class ConnectingCalls(HandleCore):
    """Each way to connect, waiting (connect_...) and not waiting (aio_connect_...)."""

    @permitted(CREATED)
    def connect_uri(self, uri: str) -> None:
        """Connect to an NBD URI; what it may ask for is set by `set_uri_allow_...`."""
        arguments.string("uri", uri)
        with self._enter("connect_uri", uri=uri):
            self._connect_uri(uri)
            self._wait_until_connected()

    @permitted(CREATED)
    def aio_connect_uri(self, uri: str) -> None:
        """Begin to connect to an NBD URI."""
        arguments.string("uri", uri)
        with self._enter("aio_connect_uri", uri=uri):
            self._connect_uri(uri)

    @permitted(CREATED)
    def connect_unix(self, unixsocket: str | bytes | os.PathLike[Any]) -> None:
        """Connect to a Unix domain socket."""
        path = arguments.file_name("unixsocket", unixsocket)
        with self._enter("connect_unix", unixsocket=path):
            self._connect_unix(path)
            self._wait_until_connected()

    @permitted(CREATED)
    def aio_connect_unix(self, unixsocket: str | bytes | os.PathLike[Any]) -> None:
        """Begin to connect to a Unix domain socket."""
        path = arguments.file_name("unixsocket", unixsocket)
        with self._enter("aio_connect_unix", unixsocket=path):
            self._connect_unix(path)

    @permitted(CREATED, since="1.2")
    def connect_vsock(self, cid: int, port: int) -> None:
        """Connect to a virtual machine's vsock."""
        cid, port = arguments.u32("cid", cid), arguments.u32("port", port)
        with self._enter("connect_vsock", cid=cid, port=port):
            self._connect_vsock(cid, port)
            self._wait_until_connected()

    @permitted(CREATED, since="1.2")
    def aio_connect_vsock(self, cid: int, port: int) -> None:
        """Begin to connect to a virtual machine's vsock."""
        cid, port = arguments.u32("cid", cid), arguments.u32("port", port)
        with self._enter("aio_connect_vsock", cid=cid, port=port):
            self._connect_vsock(cid, port)

    @permitted(CREATED)
    def connect_tcp(self, hostname: str, port: str | int, *, family: int = socket.AF_UNSPEC) -> None:
        """Connect to a TCP port, by number or service name; `family` may be AF_INET or AF_INET6.

        When no address of the host can be reached, the handle can be used to connect elsewhere.
        """
        name = _tcp_arguments(hostname, port)
        with self._enter("connect_tcp", hostname=hostname, port=name):
            self._connect_tcp(hostname, name, family)
            self._wait_until_connected()

    @permitted(CREATED)
    def aio_connect_tcp(self, hostname: str, port: str | int, *, family: int = socket.AF_UNSPEC) -> None:
        """Begin to connect to a TCP port. The resolving of the name waits."""
        name = _tcp_arguments(hostname, port)
        with self._enter("aio_connect_tcp", hostname=hostname, port=name):
            self._connect_tcp(hostname, name, family)

    @permitted(CREATED, since="1.2")
    def connect_socket(self, sock: int | socket.socket) -> None:
        """Use a connected socket, by descriptor or as an object, and take it over: it is closed with the handle."""
        with self._enter("connect_socket", sock=_descriptor(sock)):
            self._driver.attach(_taken_over(sock))
            self._wait_until_connected()

    @permitted(CREATED, since="1.2")
    def aio_connect_socket(self, sock: int | socket.socket) -> None:
        """Begin the handshake on a connected socket, and take it over."""
        with self._enter("aio_connect_socket", sock=_descriptor(sock)):
            self._driver.attach(_taken_over(sock))

    @permitted(CREATED)
    def connect_command(self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start a server and speak with it on its stdin and stdout."""
        command = arguments.string_list("argv", argv)
        with self._enter("connect_command", argv=command):
            self._connect_command(command, environment)
            self._wait_until_connected()

    @permitted(CREATED)
    def aio_connect_command(self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start a server on its stdin and stdout, and begin the handshake."""
        command = arguments.string_list("argv", argv)
        with self._enter("aio_connect_command", argv=command):
            self._connect_command(command, environment)

    @permitted(CREATED, since="1.2")
    def connect_systemd_socket_activation(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a server that gets a listening socket by systemd's protocol, and connect to it."""
        command = arguments.string_list("argv", argv)
        with self._enter("connect_systemd_socket_activation", argv=command):
            self._connect_activated(command, environment)
            self._wait_until_connected()

    @permitted(CREATED, since="1.2")
    def aio_connect_systemd_socket_activation(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a server that gets a listening socket by systemd's protocol, and begin to connect to it."""
        command = arguments.string_list("argv", argv)
        with self._enter("aio_connect_systemd_socket_activation", argv=command):
            self._connect_activated(command, environment)

    @permitted(CREATED)
    def aio_connect(self, addr: SocketAddress) -> None:
        """Begin to connect to a Unix socket's path, or to a (host, port) tuple."""
        if isinstance(addr, tuple):
            host, port = arguments.string("addr[0]", addr[0]), arguments.u32("addr[1]", addr[1])
            with self._enter("aio_connect", addr=f"{host}:{port}"):
                self._connect_tcp(host, str(port))
            return
        path = arguments.file_name("addr", addr)
        with self._enter("aio_connect", addr=path):
            self._connect_unix(path)

    @permitted(CONNECTING_OR_LATER, since="1.8")
    def get_uri(self) -> str:
        """The URI that leads to the same export with the same settings."""
        with self._enter("get_uri") as call:
            encrypted = self._settings.tls == 2 or self._engine.tls_negotiated
            return call.returns(
                uris.format_uri(self._settings, self._address, encrypted=encrypted, port=self._port_name)
            )

    @permitted(ANY, since="1.22")
    def is_uri(self, uri: str) -> bool:
        """Whether the text begins like an NBD URI."""
        arguments.string("uri", uri)
        with self._enter("is_uri", uri=uri) as call:
            return call.returns(uris.is_uri(uri))

    @permitted(ANY)
    def kill_subprocess(self, signum: int) -> None:
        """Send a signal to the server that this handle started; 0 stands for SIGTERM."""
        signum = arguments.integer("signum", signum)
        with self._enter("kill_subprocess", signum=signum):
            if self._subprocess is None:
                raise Failure("no subprocess exists", errno.ESRCH)
            self._subprocess.kill(signum)

    @permitted(ANY, since="1.22")
    def get_subprocess_pid(self) -> int:
        """The process id of the server that this handle started."""
        with self._enter("get_subprocess_pid") as call:
            if self._subprocess is None:
                raise Failure("no subprocess exists", errno.ESRCH)
            return call.returns(self._subprocess.pid)

    # ---- how

    def _connect_uri(self, uri: str) -> None:
        target = uris.apply_uri(self._settings, uri)
        if isinstance(target, uris.Command):
            self._connect_command(list(target.argv), None)
        elif isinstance(target, TCPAddress):
            self._connect_tcp(target.host, str(target.port))
        elif isinstance(target, UnixAddress):
            self._connect_unix(target.path)
        else:
            self._connect_vsock(target.cid, target.port)

    def _connect_unix(self, path: str) -> None:
        self._begin(Connector(socket.AF_UNIX, unix_address(path)), UnixAddress(path))

    def _connect_vsock(self, cid: int, port: int) -> None:
        if not hasattr(socket, "AF_VSOCK"):
            raise Failure("AF_VSOCK protocol is not supported", errno.ENOTSUP)
        if cid == CID_ANY:
            raise Failure("connect", errno.EINVAL)  # the kernel would refuse it: this is the address to listen on
        self._begin(Connector(socket.AF_VSOCK, (cid, port)), VsockAddress(cid, port))

    def _connect_tcp(self, host: str, port: str, family: int = socket.AF_UNSPEC) -> None:
        self._credentials.connected_host = host
        self._port_name = port
        self._begin(TCPConnector(host, port, family=family), TCPAddress(host, int(port) if port.isdigit() else 0))

    def _begin(self, connector: Connector, address: Address) -> None:
        self._address = address
        self._driver.connect(connector)

    def _connect_command(self, argv: list[str], environment: Mapping[str, str] | None) -> None:
        def start() -> None:
            self._subprocess, connected = start_on_socketpair(argv, environment)
            self._driver.attach(connected)

        self._or_die(argv, start)

    def _connect_activated(self, argv: list[str], environment: Mapping[str, str] | None) -> None:
        def start() -> None:
            name = self._settings.socket_activation_name
            self._subprocess, path = start_activated(argv, name, environment)
            self._connect_unix(path)

        self._or_die(argv, start)

    def _or_die(self, argv: list[str], start: Callable[[], None]) -> None:
        if not argv:
            raise Failure("missing command name in argv list", errno.EINVAL)
        try:
            start()
        except Failure as failure:
            self._engine.die(failure)
            raise

    def _wait_until_connected(self) -> None:
        self._driver.run_while(CONNECTING, self._deadline())
        if self._engine.over:
            raise self._engine.failure or Failure("connection is closed")


def _tcp_arguments(hostname: str, port: str | int) -> str:
    arguments.string("hostname", hostname)
    return str(port) if isinstance(port, int) else arguments.string("port", port)


def _descriptor(sock: int | socket.socket) -> int:
    return sock.fileno() if isinstance(sock, socket.socket) else arguments.integer("sock", sock)


def _taken_over(sock: int | socket.socket) -> socket.socket:
    return adopt_socket(sock.detach() if isinstance(sock, socket.socket) else sock)
