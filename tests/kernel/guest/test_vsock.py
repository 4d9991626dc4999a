"""vsock over loopback (context id 1): our client, our server, nbdkit and libnbd, each with each."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdtest.client import NBD, AsyncNBD, Error
from nbdtest.client.kernel import NBDDevice, UnsuitableConnection
from nbdtest.errors import Disconnected
from nbdtest.fakeserver import FakeServer, TLSMode
from nbdtest.fixtures.pki import PSKMaterial
from nbdtest.net.addresses import CID_ANY, CID_HOST, CID_LOCAL, VsockAddress
from nbdtest.net.sockets import CannotConnect, connect, listen, vsock_available
from nbdtest.net.tls import server_context
from tests.kernel.waiting import until

MIB = 1 << 20
NOBODY = 99  # a port on which nobody listens
PORTS = iter(range(20000, 30000))


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(size=MIB) as server:
        yield server


@pytest.fixture
def port(fake: FakeServer) -> int:
    """The port at which the fake server listens, on every context id."""
    address = fake.listen(VsockAddress(CID_ANY, next(PORTS)))
    assert isinstance(address, VsockAddress)
    return address.port


def test_loopback_is_found_by_a_bind() -> None:
    assert vsock_available()
    assert vsock_available(CID_LOCAL)
    assert vsock_available(CID_ANY)
    assert not vsock_available(CID_HOST)  # for nobody's guest


def test_streams_carry_bytes_and_end() -> None:
    with listen(VsockAddress(CID_LOCAL, next(PORTS))) as listener, connect(listener.address) as client:
        with listener.accept() as server:
            client.send_all(b"ping")
            assert server.receive_exact(4) == b"ping"
            server.send_all(b"pong")
            assert client.receive_exact(4) == b"pong"
            client.half_close()
            with pytest.raises(Disconnected):
                server.receive_exact(1)
            server.send_all(b"late")
        assert client.receive_to_end() == b"late"
        assert not client.can_reset


def test_any_port_is_one_that_can_be_connected_to() -> None:
    with listen(VsockAddress(CID_LOCAL, CID_ANY)) as listener:
        assert isinstance(listener.address, VsockAddress)
        assert listener.address.cid == CID_LOCAL
        assert listener.address.port not in (0, CID_ANY)
        connect(listener.address).close()


def test_a_port_in_nobody_s_hands_is_told_apart_from_a_missing_machine() -> None:
    with pytest.raises(CannotConnect) as nobody:
        connect(VsockAddress(CID_LOCAL, NOBODY))
    assert nobody.value.errno == errno.ECONNRESET  # where TCP would say ECONNREFUSED
    with pytest.raises(CannotConnect) as nowhere:
        connect(VsockAddress(77, NOBODY))
    assert nowhere.value.errno == errno.ENODEV


def test_the_client_reads_and_writes(fake: FakeServer, port: int) -> None:
    handle = NBD()
    handle.connect_vsock(CID_LOCAL, port)
    handle.pwrite(b"hello", 4096)
    assert handle.pread(5, 4096) == b"hello"
    assert handle.pread(MIB, 0)[4096:4101] == b"hello"
    assert handle.get_uri() == f"nbd+vsock://1:{port}/"
    handle.shutdown()
    handle.close()


def test_the_client_takes_vsock_uris(fake: FakeServer, port: int) -> None:
    handle = NBD()
    handle.connect_uri(f"nbd+vsock://1:{port}/")
    assert handle.get_size() == MIB
    handle.shutdown()
    handle.close()


def test_the_asynchronous_client_as_well(fake: FakeServer, port: int) -> None:
    async def read() -> bytes:
        async with AsyncNBD() as handle:
            await handle.connect_uri(f"nbd+vsock://1:{port}/")
            content = bytes(await handle.pread(512, 0))
            await handle.shutdown()
            return content

    assert asyncio.run(read()) == bytes(512)


def test_tls_works_over_vsock(nbd_psk: PSKMaterial) -> None:
    with FakeServer(size=MIB, tls=server_context(nbd_psk.server()), tls_mode=TLSMode.REQUIRED) as server:
        address = server.listen(VsockAddress(CID_LOCAL, CID_ANY))
        assert isinstance(address, VsockAddress)
        uri = f"nbds+vsock://{nbd_psk.identity}@1:{address.port}/?tls-psk-file={nbd_psk.file}"
        handle = NBD()
        handle.set_uri_allow_local_file(True)
        handle.connect_uri(uri)
        assert handle.get_tls_negotiated()
        handle.pwrite(b"hello", 4096)
        assert handle.pread(5, 4096) == b"hello"
        handle.shutdown()
        handle.close()


def test_the_client_says_why_it_cannot_connect() -> None:
    handle = NBD()
    with pytest.raises(Error, match="Connection reset by peer") as caught:
        handle.connect_vsock(CID_LOCAL, NOBODY)
    assert caught.value.errnum == errno.ECONNRESET
    handle.close()


def test_the_client_works_with_nbdkit(tmp_path: Path) -> None:
    port, listens = next(PORTS), tmp_path / "pid"
    command = ["nbdkit", "-f", "--exit-with-parent", "--vsock", "-p", str(port), "-P", str(listens), "memory", "1M"]
    with subprocess.Popen(command) as nbdkit:
        try:
            until(listens.exists, "nbdkit listens")
            handle = NBD()
            handle.connect_uri(f"nbd+vsock://1:{port}/")
            handle.pwrite(b"hello", 512)
            assert handle.pread(5, 512) == b"hello"
            handle.shutdown()
            handle.close()
        finally:
            nbdkit.terminate()


@pytest.mark.skipif(shutil.which("nbdinfo") is None, reason="nbdinfo is not installed (libnbd-bin)")
def test_libnbd_works_with_the_fake_server(fake: FakeServer, port: int) -> None:
    done = subprocess.run(
        ["nbdinfo", "--json", f"nbd+vsock://1:{port}/"], capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["exports"][0]["export-size"] == MIB


@pytest.fixture
def served() -> Iterator[str]:
    """The URI of `nbdtest serve`, which says when it listens."""
    port = next(PORTS)
    command = [sys.executable, "-m", "nbdtest", "serve", "--vsock", str(port), "--size", "1M", "--log"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serve:
        try:
            assert serve.stderr is not None
            assert serve.stderr.readline() == f"nbdtest serve: listening at vsock:{CID_ANY}:{port}\n"
            yield f"nbd+vsock://1:{port}/"
            serve.send_signal(signal.SIGTERM)
            _, said = serve.communicate(timeout=30)
            assert serve.returncode == 0, said
        finally:
            serve.kill()


def test_the_server_program_serves_our_client(served: str) -> None:
    handle = NBD()
    handle.connect_uri(served)
    handle.pwrite(b"hello", 4096)
    assert handle.pread(5, 4096) == b"hello"
    handle.shutdown()
    handle.close()


@pytest.mark.skipif(shutil.which("nbdinfo") is None, reason="nbdinfo is not installed (libnbd-bin)")
def test_the_server_program_serves_libnbd(served: str) -> None:
    done = subprocess.run(["nbdinfo", "--size", served], capture_output=True, text=True, timeout=30, check=True)
    assert int(done.stdout) == MIB


@pytest.mark.skipif(shutil.which("nbdinfo") is None, reason="nbdinfo is not installed (libnbd-bin)")
def test_the_server_program_serves_nbdkit(served: str) -> None:
    command = ["nbdkit", "-U", "-", "nbd", served, "--run", 'nbdinfo --size "$uri"']
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert int(done.stdout) == MIB


def test_the_suite_takes_a_vsock_uri(fake: FakeServer, port: int) -> None:
    uri = f"nbd+vsock://1:{port}/"
    fake.tolerate("*")  # who probes a server is not always polite
    done = subprocess.run(
        [sys.executable, "-m", "nbdtest", "info", uri], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1048576" in done.stdout.replace(",", "")


@pytest.mark.parametrize(
    "command",
    [f"{sys.executable} -m nbdtest serve --size 1M --vsock {{vsock}}", "nbdkit -f --vsock -p {vsock} memory 1M"],
    ids=["nbdtest", "nbdkit"],  # the path of this Python is not spelled alike on the host and in the guest
)
def test_the_suite_starts_servers_that_listen_on_vsock(command: str) -> None:
    check = [
        sys.executable,
        "-m",
        "nbdtest",
        "check",
        f"listen: {command}",
        "--checks",
        "option.abort-is-acknowledged,write.stores",
    ]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_kernel_does_not_take_vsock_and_the_error_says_what_would_do(
    fake: FakeServer, port: int, index: int
) -> None:
    handle = NBD()
    handle.set_request_structured_replies(False)
    handle.connect_vsock(CID_LOCAL, port)
    with pytest.raises(UnsuitableConnection, match="vsock: copy between it and a socketpair"):
        NBDDevice.attach(handle, device=index)
    handle.shutdown()
    handle.close()
