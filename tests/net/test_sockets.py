"""Connecting and listening."""

import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from nbdtest.errors import TimedOut, TransportError, UsageError
from nbdtest.net.addresses import CID_ANY, CID_LOCAL, Address, TCPAddress, UnixAddress, VsockAddress
from nbdtest.net.clock import Deadline
from nbdtest.net.scratch import ScratchDirectory
from nbdtest.net.sockets import (
    UNIX_PATH_LIMIT,
    CannotConnect,
    adopt,
    adopt_listener,
    connect,
    listen,
    stream_pair,
    unused_tcp_port,
    unused_vsock_port,
    vsock_available,
)


def assert_connects(address: Address) -> None:
    with listen(address) as listener, connect(listener.address) as one, listener.accept(Deadline(5)) as other:
        one.send_all(b"ping")
        assert other.receive_exact(4) == b"ping"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_tcp_connects_to_the_port_that_was_free(host: str) -> None:
    assert_connects(TCPAddress(host, 0))


def test_a_listener_without_an_address_takes_a_port_of_ipv4_loopback() -> None:
    with listen() as listener:
        assert isinstance(listener.address, TCPAddress)
        assert listener.address.host == "127.0.0.1"
        assert listener.address.port > 0


def test_the_family_is_the_callers_choice() -> None:
    with listen(TCPAddress("127.0.0.1", 0)) as listener:
        assert isinstance(listener.address, TCPAddress)
        connect(TCPAddress("localhost", listener.address.port, socket.AF_INET)).close()
        with pytest.raises(CannotConnect) as caught:
            connect(TCPAddress("localhost", listener.address.port, socket.AF_INET6))
        assert caught.value.errno in (errno.ECONNREFUSED, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_address_of_a_name_is_tried(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with listen(TCPAddress(host, 0)) as listener:
        assert isinstance(listener.address, TCPAddress)
        port = listener.address.port
        both = [(socket.AF_INET6, 1, 6, "", ("::1", port, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: both)
        connect(TCPAddress("both.example", port)).close()


def test_unix_connects() -> None:
    with ScratchDirectory() as scratch:
        assert_connects(UnixAddress(scratch.file("s")))


def test_a_path_that_is_no_utf8_connects() -> None:
    with ScratchDirectory() as scratch:
        assert_connects(UnixAddress(scratch.file(os.fsdecode(b"\xff\xfe"))))


def test_abstract_unix_connects() -> None:
    assert_connects(UnixAddress(f"\0nbdtest-{os.getpid()}/a"))


def test_a_path_of_exactly_the_limit_and_one_beyond_connect(tmp_path: Path) -> None:
    for length in (UNIX_PATH_LIMIT, UNIX_PATH_LIMIT + 1):
        with ScratchDirectory() as scratch:
            directory = scratch.file("d" * (length - len(scratch.path) - 3))
            os.mkdir(directory)
            path = os.path.join(directory, "s")
            assert len(path) == length
            assert_connects(UnixAddress(path))


def test_a_long_path_connects_and_leaves_no_file_and_no_descriptor(tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["d" * 60] * 4)
    directory.mkdir(parents=True)
    before = os.listdir("/proc/self/fd")
    assert_connects(UnixAddress(str(directory / ("s" * 60))))
    assert list(directory.iterdir()) == []
    assert os.listdir("/proc/self/fd") == before


def test_a_long_name_can_be_connected_to_though_not_be_made(tmp_path: Path) -> None:
    long_name = tmp_path / ("s" * 120)
    with pytest.raises(UsageError, match="at most 107 are possible"):
        listen(UnixAddress(str(long_name)))
    short_name = tmp_path / "s"
    with listen(UnixAddress(str(short_name))) as listener:
        short_name.rename(long_name)
        with connect(UnixAddress(str(long_name))), listener.accept(Deadline(5)):
            pass


@pytest.mark.parametrize(
    ("path", "message"),
    [("", "cannot be"), ("a\0b", "cannot be"), ("\0" + "a" * 108, "109 bytes, at most 108")],
    ids=["empty", "nul-inside", "abstract-too-long"],
)
def test_names_that_no_unix_socket_can_have(path: str, message: str) -> None:
    for attempt in (listen, connect):
        with pytest.raises(UsageError, match=message):
            attempt(UnixAddress(path))


def test_nobody_listens_on_the_port() -> None:
    port = unused_tcp_port()
    with pytest.raises(CannotConnect, match=rf"^cannot connect to 127\.0\.0\.1:{port}: Connection refused$") as caught:
        connect(TCPAddress("127.0.0.1", port))
    assert caught.value.errno == errno.ECONNREFUSED


def test_there_is_no_such_socket(tmp_path: Path) -> None:
    with pytest.raises(CannotConnect, match="No such file or directory") as caught:
        connect(UnixAddress(str(tmp_path / "none")))
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(CannotConnect) as caught:
        connect(UnixAddress(str(tmp_path / ("none" * 40))))
    assert caught.value.errno == errno.ENOENT


def test_a_host_without_an_address() -> None:
    with pytest.raises(CannotConnect, match="has no address"):
        connect(TCPAddress("nobody.invalid"))
    with pytest.raises(CannotConnect, match="has no address"):
        connect(TCPAddress("a" * 300))


def test_a_port_beyond_16_bits() -> None:
    with pytest.raises(UsageError, match="port 65536"):
        connect(TCPAddress("127.0.0.1", 65536))


def test_a_unix_listener_with_a_full_queue_is_timed_out(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "s"))
    timed_out = pytest.raises(TimedOut, match=r"no connection to .* in 0\.05 s")
    with listen(address, backlog=0), connect(address), timed_out:
        connect(address, deadline=Deadline(0.05))


def test_a_listener_that_never_accepts_is_connected_to_and_stays_silent() -> None:
    with listen() as listener, connect(listener.address) as stream, pytest.raises(TimedOut):
        stream.receive_exact(1, Deadline(0.01))


def test_accept_gives_up_at_the_deadline() -> None:
    with listen() as listener, pytest.raises(TimedOut, match="nobody connected"):
        listener.accept(Deadline(0))


def test_interrupt_wakes_a_thread_that_accepts() -> None:
    caught: list[BaseException] = []
    begun = threading.Event()
    with listen() as listener:

        def accept() -> None:
            begun.set()
            try:
                listener.accept()
            except TransportError as error:
                caught.append(error)

        thread = threading.Thread(target=accept)
        thread.start()
        begun.wait()
        listener.interrupt()
        thread.join(5)
    assert "is stopped" in str(caught[0])


def test_closing_a_listener_removes_the_file_it_made(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = listen(UnixAddress(str(path)))
    assert path.is_socket()
    listener.close()
    listener.close()
    assert not path.exists()
    with listen(UnixAddress(str(path))) as listener:
        path.unlink()  # somebody else removed it: no error


def test_an_address_in_use(tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "s"))
    with listen(address), pytest.raises(UsageError, match="Address already in use"):
        listen(address)
    with listen() as listener, pytest.raises(UsageError, match="Address already in use"):
        listen(listener.address)


def test_a_descriptor_is_taken_over_and_closed_with_the_stream() -> None:
    one, other = socket.socketpair()
    with one, adopt(other.detach()) as stream:
        descriptor = stream.fileno()
        one.sendall(b"x")
        assert stream.receive_exact(1) == b"x"
        assert not os.get_inheritable(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_descriptors_that_are_no_connection_stay_the_callers(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        with pytest.raises(UsageError, match="is no socket"):
            adopt(file.fileno())
        file.write(b"still open")
    with listen() as listener:
        with pytest.raises(UsageError, match="is a listening socket"):
            adopt(listener.fileno())
        connect(listener.address).close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(UsageError, match="of type"):
            adopt(datagrams.fileno())
        datagrams.getsockname()
    one, other = stream_pair()
    with one, other, pytest.raises(UsageError, match="is a not listening socket"):
        adopt_listener(one.fileno())
    with pytest.raises(UsageError, match="Bad file descriptor"):
        adopt(987_654)


def test_an_adopted_listener_knows_its_address_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        adopted = adopt_listener(made.detach())
    with adopted:
        assert adopted.address == UnixAddress(str(path))
        with connect(adopted.address), adopted.accept(Deadline(5)):
            pass
    assert path.exists()


def test_vsock_connects_to_this_machine() -> None:
    if not vsock_available(CID_LOCAL):
        pytest.skip("this kernel has no vsock, or no loopback for it")
    assert_connects(VsockAddress(CID_LOCAL, CID_ANY))


def test_a_context_id_that_is_not_ours_is_not_available() -> None:
    assert not vsock_available(77)


def test_a_kernel_without_vsock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    assert not vsock_available(CID_ANY)
    with pytest.raises(UsageError, match="modprobe vsock_loopback"):
        unused_vsock_port()
    with pytest.raises(UsageError, match="cannot listen at vsock:1:7: Address family not supported"):
        listen(VsockAddress(CID_LOCAL, 7))
    with pytest.raises(CannotConnect, match="Address family not supported") as caught:
        connect(VsockAddress(CID_LOCAL, 7))
    assert caught.value.errno == errno.EAFNOSUPPORT


def test_addresses_print_as_people_write_them() -> None:
    assert str(TCPAddress("::1", 1)) == "[::1]:1"
    assert str(TCPAddress()) == "127.0.0.1:10809"
    assert str(UnixAddress("\0name")) == "@name"
    assert str(UnixAddress("/a")) == "/a"
    assert str(VsockAddress(3, 4)) == "vsock:3:4"
