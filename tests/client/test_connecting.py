"""Each way to connect, to real servers: what works, what is said when it does not, and what is left behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdtest.client import NBD, Error
from nbdtest.net.addresses import TCPAddress, UnixAddress
from nbdtest.net.process import start_listening
from nbdtest.net.sockets import unused_tcp_port

pytestmark = pytest.mark.interop

NBDKIT = ["nbdkit", "-s", "--exit-with-parent", "memory", "1M"]


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[str]:
    """The socket of a running nbdkit."""
    path = str(tmp_path / "sock")
    with start_listening(["nbdkit", "-f", "-U", path, "memory", "1M"], UnixAddress(path)):
        yield path


def test_unix(handle: NBD, unix: str) -> None:
    handle.connect_unix(Path(unix))
    assert handle.get_size() == 1 << 20
    assert handle.get_uri() == f"nbd+unix:///?socket={unix}"


def test_uri_of_a_handle_leads_to_the_same_export(unix: str) -> None:
    with NBD() as first, NBD() as second:
        first.set_export_name("a b/é%?")
        first.connect_unix(unix)
        second.connect_uri(first.get_uri())
        assert second.get_export_name() == "a b/é%?"


def room_to_send(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as other:
        return other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def test_unix_sockets_have_room_for_large_writes(unix: str) -> None:
    one, other = socket.socketpair()
    with one, other, NBD() as listening, NBD() as started:
        listening.connect_unix(unix)
        started.connect_command(NBDKIT)
        for handle in (listening, started):
            assert room_to_send(handle.aio_get_fd()) > room_to_send(one.fileno())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tcp(handle: NBD, host: str) -> None:
    port = unused_tcp_port()
    with start_listening(["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "null"], TCPAddress("127.0.0.1", port)):
        handle.connect_tcp(host, port, family=socket.AF_INET)
        assert handle.get_uri() == f"nbd://{host}:{port}/"
        handle.shutdown()


def test_aio_connect_takes_an_address_tuple(handle: NBD) -> None:
    port = unused_tcp_port()
    with start_listening(["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "null"], TCPAddress("127.0.0.1", port)):
        handle.aio_connect(("127.0.0.1", port))
        while handle.aio_is_connecting():
            handle.poll(-1)
        assert handle.aio_is_ready()
        handle.shutdown()


def test_a_refused_tcp_connection_leaves_the_handle_as_new(handle: NBD, unix: str) -> None:
    with pytest.raises(Error) as caught:
        handle.connect_tcp("127.0.0.1", "1")
    assert caught.value.errno == "ECONNREFUSED"
    assert handle.aio_is_created()
    handle.connect_unix(unix)


def test_an_unknown_host_is_named(handle: NBD) -> None:
    with pytest.raises(Error, match='getaddrinfo: hostname "no such host" port "10809": '):
        handle.connect_tcp("no such host", "10809")


def test_a_silent_listener_is_given_up_when_the_time_is_over(handle: NBD, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "silent"))
        listening.listen()
        handle.set_timeout(0.05)
        with pytest.raises(Error) as caught:
            handle.connect_unix(tmp_path / "silent")
    assert caught.value.errno == "ETIMEDOUT"
    handle.close()


def test_command(handle: NBD) -> None:
    handle.connect_command(NBDKIT)
    pid = handle.get_subprocess_pid()
    assert os.path.exists(f"/proc/{pid}")
    with pytest.raises(Error, match="cannot construct a URI for this connection type"):
        handle.get_uri()
    handle.close()
    assert not os.path.exists(f"/proc/{pid}")


def test_activation_with_a_name(handle: NBD, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    handle.set_socket_activation_name("disk1")
    program = f'echo "$LISTEN_FDS $LISTEN_FDNAMES $((LISTEN_PID - $$))" > {noted}; exec nbdkit -f memory 1M'
    handle.connect_systemd_socket_activation(["sh", "-c", program])
    assert noted.read_text() == "1 disk1 0\n"
    directory = Path(handle.get_uri().partition("socket=")[2]).parent
    assert directory.exists()
    handle.close()
    assert not directory.exists()


@pytest.mark.parametrize("call", ["connect_command", "connect_systemd_socket_activation"])
def test_a_command_that_cannot_be_run_says_why(handle: NBD, call: str) -> None:
    with pytest.raises(Error, match="no-such-server: No such file or directory"):
        getattr(handle, call)(["no-such-server"])
    assert handle.aio_is_dead()


@pytest.mark.parametrize("call", ["connect_command", "connect_systemd_socket_activation"])
def test_no_command_at_all_leaves_the_handle_as_new(handle: NBD, call: str) -> None:
    with pytest.raises(Error, match="missing command name in argv list"):
        getattr(handle, call)([])
    assert handle.aio_is_created()


@pytest.mark.parametrize("call", ["connect_command", "connect_systemd_socket_activation"])
def test_a_command_can_have_no_environment_at_all(handle: NBD, tmp_path: Path, call: str) -> None:
    program = f"import os; open({str(tmp_path / 'seen')!r}, 'w').write(repr('LOGNAME_OF_TEST' in os.environ))"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOGNAME_OF_TEST", "x")
        handle.set_timeout(10)
        with pytest.raises(Error):
            getattr(handle, call)([sys.executable, "-S", "-c", program], environment={})
    handle.close()
    assert (tmp_path / "seen").read_text() == "False"


def test_a_command_gets_its_own_environment(handle: NBD, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    program = f'echo "$COLOUR" > {noted}; exec nbdkit -s memory 1M'
    handle.connect_command(["sh", "-c", program], environment={**os.environ, "COLOUR": "blue"})
    assert noted.read_text() == "blue\n"


def test_a_server_started_in_a_thread_outlives_it(handle: NBD) -> None:
    thread = threading.Thread(target=handle.connect_command, args=(NBDKIT,))
    thread.start()
    thread.join()
    assert handle.pread(4, 0) == bytes(4)


def test_closing_does_not_wait_for_ever(handle: NBD) -> None:
    stubborn = "trap '' TERM; nbdkit -s memory 1M; while :; do sleep 1; done"
    handle.connect_command(["sh", "-c", stubborn])
    pid = handle.get_subprocess_pid()
    os.kill(pid, 0)
    handle._subprocess.patience_s = 0.05  # type: ignore[union-attr]  # it has one
    handle.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_kill_subprocess(handle: NBD) -> None:
    handle.connect_command(["nbdkit", "-s", "memory", "1M"])
    handle.kill_subprocess(signal.SIGKILL)
    with pytest.raises(Error, match=r"read: command failed|recv: "):
        handle.pread(1, 0)


def test_a_socket_object_is_taken_over(handle: NBD, unix: str) -> None:
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(unix)
    handle.connect_socket(connected)
    assert connected.fileno() == -1
    assert handle.get_size() == 1 << 20


def test_ssh_does_not_take_a_host_for_an_option(handle: NBD) -> None:
    with pytest.raises(Error, match="must not start with '-'"):
        handle.connect_uri("nbd+ssh://-oProxyCommand=id/")


def test_threads_share_a_handle(handle: NBD) -> None:
    handle.connect_command(NBDKIT)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(50):
                data = bytes([number, turn]) * 256
                handle.pwrite(data, number * 4096)
                assert handle.pread(512, number * 4096) == data
                if turn % 10 == number:
                    buffer = bytearray(512)
                    cookie = handle.aio_pread(buffer, number * 4096)
                    while not handle.aio_command_completed(cookie):
                        if handle.aio_in_flight():
                            handle.poll(1)
                    assert buffer == data
        except BaseException as error:  # noqa: BLE001 - the edge of the thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


class TestPreSharedKey:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[str]:
        (tmp_path / "keys").write_text("alice:" + "5a" * 32 + "\n")
        path = str(tmp_path / "sock")
        argv = ["nbdkit", "-f", "-U", path, "--tls=require", f"--tls-psk={tmp_path}/keys", "memory", "1M"]
        with start_listening(argv, UnixAddress(path)):
            yield path

    @pytest.fixture
    def secured(self, handle: NBD, tmp_path: Path) -> NBD:
        if not handle.supports_psk():
            pytest.skip("this Python has no TLS-PSK")
        (tmp_path / "mine").write_text("alice:" + "5a" * 32 + "\nbob:" + "6b" * 32 + "\n")
        handle.set_tls(2)
        handle.set_tls_psk_file(tmp_path / "mine")
        handle.set_tls_username("alice")
        return handle

    def test_encrypted(self, secured: NBD, server: str) -> None:
        secured.connect_unix(server)
        assert secured.get_tls_negotiated()
        data = bytes(range(256)) * 1000
        secured.pwrite(data, 0)
        assert secured.pread(len(data), 0) == data
        buffers = [bytearray(65536) for _ in range(8)]
        cookies = [secured.aio_pread(buffer, at * 65536) for at, buffer in enumerate(buffers)]
        for cookie in cookies:
            while not secured.aio_command_completed(cookie):
                secured.poll(-1)
        assert b"".join(buffers)[: len(data)] == data
        secured.shutdown()
        assert secured.aio_is_closed()

    def test_in_option_mode(self, secured: NBD, server: str) -> None:
        secured.set_opt_mode(True)
        secured.connect_unix(server)
        assert secured.get_tls_negotiated()
        secured.opt_go()
        assert secured.pread(4, 0) == bytes(4)

    def test_a_wrong_key_ends_the_connection(self, secured: NBD, server: str) -> None:
        secured.set_tls_username("bob")
        with pytest.raises(Error, match=r"TLS|key|handshake"):
            secured.connect_unix(server)
        assert secured.aio_is_dead()

    def test_a_server_that_requires_tls_is_told_from_one_that_fails(self, handle: NBD, server: str) -> None:
        with pytest.raises(Error, match="the server requires TLS encryption first"):
            handle.connect_unix(server)

    def test_a_missing_user_is_named(self, secured: NBD, server: str) -> None:
        secured.set_tls_username("carol")
        with pytest.raises(Error, match="username carol was not found in PSK file"):
            secured.connect_unix(server)
