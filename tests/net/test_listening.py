"""Whether anybody listens, found out without disturbing who does."""

import os
import socket
from pathlib import Path

import pytest

from nbdtest.errors import TimedOut
from nbdtest.net.addresses import Address, TCPAddress, UnixAddress
from nbdtest.net.clock import Deadline
from nbdtest.net.listening import is_listening
from nbdtest.net.sockets import listen, unused_tcp_port


@pytest.mark.parametrize("kind", ["127.0.0.1", "::1", "unix", "abstract", "non-utf8"])
def test_a_listener_is_seen_and_gets_no_connection(kind: str, tmp_path: Path) -> None:
    wanted: dict[str, Address] = {
        "unix": UnixAddress(str(tmp_path / "s")),
        "abstract": UnixAddress(f"\0nbdtest-{os.getpid()}-listening"),
        "non-utf8": UnixAddress(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")),
    }
    with listen(wanted.get(kind, TCPAddress(kind, 0))) as listener:
        assert is_listening(listener.address)
        with pytest.raises(TimedOut):
            listener.accept(Deadline(0))
    assert not is_listening(listener.address)


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
def test_a_listener_on_every_interface_is_seen_on_loopback(bound: str) -> None:
    with listen(TCPAddress(bound, 0)) as listener:
        assert isinstance(listener.address, TCPAddress)
        assert is_listening(TCPAddress("127.0.0.1" if bound == "0.0.0.0" else "::1", listener.address.port))


def test_a_listener_on_the_other_family_is_not_meant() -> None:
    with listen(TCPAddress("::1", 0)) as listener:
        assert isinstance(listener.address, TCPAddress)
        assert not is_listening(TCPAddress("127.0.0.1", listener.address.port))


def test_a_bound_socket_that_does_not_listen_yet(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        assert not is_listening(UnixAddress(path))
        bound.listen()
        assert is_listening(UnixAddress(path))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = TCPAddress(*bound.getsockname())
        assert not is_listening(address)
        bound.listen()
        assert is_listening(address)


def test_the_file_of_a_server_that_has_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(path)
        gone.listen()
    assert os.path.exists(path)
    assert not is_listening(UnixAddress(path))
    assert not is_listening(UnixAddress(path + "x"))


def test_a_socket_that_was_bound_by_another_name_is_seen_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("relative")
        server.listen()
        os.rename("relative", "renamed")
        assert is_listening(UnixAddress(str(tmp_path / "renamed")))


def test_a_long_path_is_seen(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    address = UnixAddress(str(directory / "s"))
    with listen(address):
        assert is_listening(address)
    assert not is_listening(address)


def test_a_host_name_is_asked_by_connecting() -> None:
    with listen(TCPAddress("127.0.0.1", 0)) as listener:
        assert isinstance(listener.address, TCPAddress)
        assert is_listening(TCPAddress("localhost", listener.address.port))
    assert not is_listening(TCPAddress("localhost", unused_tcp_port()))
