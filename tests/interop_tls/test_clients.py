"""The TLS clients of others on our fake server: every kind of credentials, both versions, and what is refused."""

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from nbdtest.fakeserver import FakeServer, TLSMode
from nbdtest.fixtures.pki import Flaw
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.tls import VersionRange, server_context
from tests.interop_tls.peers import SIZE, Place

pytestmark = pytest.mark.interop

VERSIONS = {
    "TLSv1.2": VersionRange(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
    "TLSv1.3": VersionRange(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3),
}
LIBNBD = """
import nbd, sys
h = nbd.NBD()
h.set_tls(nbd.TLS_REQUIRE)
if sys.argv[1] == "psk":
    h.set_tls_psk_file(sys.argv[2])
    h.set_tls_username("nbdtest")
else:
    h.set_tls_certificates(sys.argv[2])
if sys.argv[3].startswith("/"):
    h.connect_unix(sys.argv[3])
else:
    h.connect_tcp("localhost", sys.argv[3])
h.pwrite(b"TLS" * 1000, 4096)
assert h.pread(3000, 4096) == b"TLS" * 1000
assert len(h.pread(h.get_size(), 0)) == 1 << 20
print("negotiated", h.get_tls_negotiated())
h.shutdown()
"""

Command = list[str]
Client = Callable[[Place, str, int], Command]
"""Gives the command line for a place, a kind of credentials ("psk" or "x509") and a TCP port, 0 for the place's
socket."""


def libnbd(place: Place, auth: str, port: int) -> Command:
    inside = place.release.inside
    credentials = inside(place.psk.file if auth == "psk" else place.pki.directory)
    return ["python3", "-c", LIBNBD, auth, credentials, str(port) if port else inside(place.socket)]


def nbdinfo(place: Place, auth: str, port: int) -> Command:
    return ["nbdinfo", uri(place, auth, port)]


def nbdcopy(place: Place, auth: str, port: int) -> Command:
    return ["nbdcopy", uri(place, auth, port), place.release.inside(place.copy)]


def uri(place: Place, auth: str, port: int) -> str:
    inside = place.release.inside
    credentials = (
        f"tls-psk-file={inside(place.psk.file)}" if auth == "psk" else f"tls-certificates={inside(place.pki.directory)}"
    )
    if port:
        return f"nbds://nbdtest@localhost:{port}/?{credentials}"
    return f"nbds+unix://nbdtest@/?socket={inside(place.socket)}&{credentials}"


def qemu_img(place: Place, auth: str, port: int) -> Command:
    inside = place.release.inside
    if auth == "psk":
        credentials = f"tls-creds-psk,id=tls0,endpoint=client,dir={inside(place.psk.file.parent)},username=nbdtest"
    else:
        credentials = f"tls-creds-x509,id=tls0,endpoint=client,dir={inside(place.pki.directory)},verify-peer=yes"
    hostname = ",tls-hostname=localhost" if auth == "x509" else ""
    where = f"host=localhost,port={port}" if port else f"path={inside(place.socket)}{hostname}"
    image = f"driver=nbd,{where},tls-creds=tls0"
    return ["qemu-img", "convert", "--object", credentials, "--image-opts", image, "-O", "raw", inside(place.copy)]


CLIENTS = [libnbd, nbdinfo, nbdcopy, qemu_img]
COPIERS = [nbdcopy, qemu_img]
clients = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)


@pytest.fixture
def serve(place: Place) -> Iterator[Callable[..., FakeServer]]:
    """Start a server in the place; it is verified in the end."""
    servers: list[FakeServer] = []

    def start(credentials: object, version: str = "", *, tolerate: str = "") -> FakeServer:
        context = server_context(credentials, VERSIONS.get(version))  # type: ignore[arg-type]  # one of the two kinds
        server = FakeServer(size=SIZE, tls=context, tls_mode=TLSMode.REQUIRED, tolerate=tolerate.split())
        server.disk.write(0, os.urandom(SIZE))
        server.listen(UnixAddress(str(place.socket)))
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()
        server.verify()


@clients
@pytest.mark.parametrize("auth", ["psk", "x509", "mutual"])
@pytest.mark.parametrize("version", VERSIONS)
def test_is_served(version: str, auth: str, client: Client, place: Place, serve: Callable[..., FakeServer]) -> None:
    credentials = place.psk.server() if auth == "psk" else place.pki.server(verify_peer=auth == "mutual")
    server = serve(credentials, version)
    done = place.run(*client(place, "psk" if auth == "psk" else "x509", 0))
    assert done.returncode == 0, done.stderr
    if client in COPIERS:
        assert place.copy.read_bytes() == server.disk.read(0, SIZE)
    story = server.journal.format(last=None)
    assert f"TLS is up: {version}" in story
    assert ("identity 'nbdtest'" in story) == (auth == "psk")
    assert ("client certificate" in story) == (auth == "mutual")


@clients
@pytest.mark.parametrize(
    "flaw", [Flaw.EXPIRED, Flaw.NOT_YET_VALID, Flaw.WRONG_CA, Flaw.WRONG_HOST], ids=lambda flaw: flaw.value
)
def test_refuses_a_bad_certificate(flaw: Flaw, client: Client, place: Place, serve: Callable[..., FakeServer]) -> None:
    # On TCP: libnbd before 1.22 does not check the server's certificate at all where there is no host name.
    server = serve(place.pki.server(flaw=flaw), tolerate="TERM-010" if client is qemu_img else "")
    done = place.run(*client(place, "x509", server.port))
    assert done.returncode != 0
    server.stop()
    story = server.journal.format(last=None)
    # qemu looks at the certificate after the handshake: what counts is that it asks for nothing.
    assert "OPT_GO" not in story
    if client is not qemu_img:
        assert "in the TLS handshake" in story
        assert "does it refuse our certificate?" in story


@clients
@pytest.mark.parametrize("version", VERSIONS)
def test_is_refused_with_a_wrong_key(
    version: str, client: Client, place: Place, serve: Callable[..., FakeServer]
) -> None:
    other = type(place.psk)(place.psk.wrong_key_file, place.psk.file, place.psk.identity)
    server = serve(other.server(), version)
    done = place.run(*client(place, "psk", 0))
    assert done.returncode != 0
    server.stop()
    told = {"TLSv1.2": "wrong key or unknown identity?", "TLSv1.3": "the client has another key for this identity"}
    assert told[version] in server.journal.format(last=None)


@clients
@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_is_no_substitute_for_the_key(
    version: str, client: Client, place: Place, serve: Callable[..., FakeServer]
) -> None:
    server = serve(place.pki.server(), version)
    done = place.run(*client(place, "psk", server.port))
    assert done.returncode != 0
    server.stop()
    story = server.journal.format(last=None)
    assert "TLS failed: " in story
    assert "TLS is up" not in story


@pytest.mark.parametrize("client", [libnbd, nbdinfo, nbdcopy], ids=lambda client: client.__name__)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        (None, "the client sent no certificate, and one is demanded"),
        (Flaw.EXPIRED, "the client's certificate is refused: certificate has expired"),
        (Flaw.NOT_YET_VALID, "the client's certificate is refused: certificate is not yet valid"),
        (Flaw.WRONG_CA, "unable to get local issuer certificate"),
        (Flaw.REVOKED, "the client's certificate is refused: certificate revoked"),
        (Flaw.WRONG_PURPOSE, "the client's certificate is refused: unsuitable certificate purpose"),
    ],
    ids=lambda value: value.value if isinstance(value, Flaw) else "",
)
def test_a_bad_certificate_of_the_client_is_refused(
    flaw: Flaw | None,
    reason: str,
    version: str,
    client: Client,
    place: Place,
    serve: Callable[..., FakeServer],
) -> None:
    server = serve(place.pki.server(verify_peer=True, crl=True), version)
    directory = place.pki.ca_only if flaw is None else place.pki.flawed[flaw]
    done = place.run(*client(replace(place, pki=replace(place.pki, directory=directory)), "x509", 0))
    assert done.returncode != 0
    server.stop()
    assert reason in server.journal.format(last=None)
