"""Our client on the TLS servers of others: every kind of credentials, both versions, and every refusal."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbdtest.client import NBD, TLS_REQUIRE, Error
from nbdtest.client.channel import TLSChannel
from nbdtest.fixtures.pki import Flaw
from tests.interop_tls.peers import SIZE, Place, place_in, start_server
from tests.releases import Release, every_release

pytestmark = pytest.mark.interop

SERVERS = [
    (program, auth)
    for program, auths in {
        "nbdkit": ["psk", "x509", "mutual"],
        "qemu-nbd": ["psk", "x509", "mutual"],
        "nbd-server": ["mutual"],
    }.items()
    for auth in auths
]
PRIORITIES = {"TLSv1.2": "NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLSv1.3": "NORMAL:-VERS-ALL:+VERS-TLS1.3"}


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: "-".join(server))
def server(request: pytest.FixtureRequest, place: Place) -> Iterator[tuple[str, str]]:
    program, auth = request.param
    with start_server(place, program, auth):
        yield program, auth
    place.socket.unlink(missing_ok=True)


@contextlib.contextmanager
def handle_for(place: Place, server: tuple[str, str], *, directory: Path | None = None) -> Iterator[NBD]:
    """A handle that is set up for this server and not connected."""
    program, auth = server
    with NBD() as handle:
        handle.set_tls(TLS_REQUIRE)
        handle.set_export_name("disk" if program == "nbd-server" else "")
        if auth == "psk":
            handle.set_tls_psk_file(place.psk.file)
            handle.set_tls_username(place.psk.identity)
        else:
            handle.set_tls_certificates(directory or place.pki.directory)
            handle.set_tls_hostname("localhost")
        yield handle


def version_of(handle: NBD) -> str:
    """The version of TLS in use, which the API does not tell."""
    channel = handle._driver.channel
    assert isinstance(channel, TLSChannel)
    return channel.pipe.version


@pytest.mark.parametrize("version", PRIORITIES)
def test_reads_and_writes(version: str, place: Place, server: tuple[str, str]) -> None:
    with handle_for(place, server) as handle:
        handle.set_tls_priority(PRIORITIES[version])
        handle.connect_unix(place.socket)
        assert handle.get_tls_negotiated()
        assert version_of(handle) == version
        assert handle.get_size() == SIZE
        handle.pwrite(b"TLS" * 1000, 4096)
        assert handle.pread(3000, 4096) == b"TLS" * 1000
        large = bytes(range(256)) * 2048
        handle.pwrite(large, 0)
        assert handle.pread(len(large), 0) == large
        handle.shutdown()


def test_many_commands_in_flight(place: Place, server: tuple[str, str]) -> None:
    with handle_for(place, server) as handle:
        handle.connect_unix(place.socket)
        block = 32 << 10
        content = bytes(handle.pread(SIZE, 0))
        buffers = [bytearray(block) for _ in range(SIZE // block)]
        pending = {handle.aio_pread(buffer, at * block) for at, buffer in enumerate(buffers)}
        while pending:
            handle.poll(-1)
            pending -= {cookie for cookie in pending if handle.aio_command_completed(cookie)}
        assert b"".join(buffers) == content


def test_starttls_by_hand(place: Place, server: tuple[str, str]) -> None:
    with handle_for(place, server) as handle:
        handle.set_tls(0)
        handle.set_opt_mode(True)
        handle.connect_unix(place.socket)
        assert not handle.get_tls_negotiated()
        assert handle.opt_starttls()
        assert handle.get_tls_negotiated()
        assert not handle.get_structured_replies_negotiated()
        assert not handle.opt_starttls()
        assert handle.get_tls_negotiated()
        handle.opt_go()
        assert len(handle.pread(512, 0)) == 512


def test_a_client_without_tls_is_refused(place: Place, server: tuple[str, str]) -> None:
    with handle_for(place, server) as handle:
        handle.set_tls(0)
        with pytest.raises(Error):
            handle.connect_unix(place.socket)


VERSIONS = pytest.mark.parametrize("version", PRIORITIES)
MUTUAL = pytest.mark.parametrize(
    "server", [(program, "mutual") for program, auth in SERVERS if auth == "mutual"], ids="-".join, indirect=True
)


def refusal_of(place: Place, handle: NBD, version: str) -> str:
    """What our client says about a server that does not let it in."""
    handle.set_tls_priority(PRIORITIES[version])
    with pytest.raises(Error) as caught:
        handle.connect_unix(place.socket)
    assert handle.aio_is_dead()
    return str(caught.value)


@VERSIONS
def test_wrong_credentials(version: str, place: Place, server: tuple[str, str]) -> None:
    _, auth = server
    with handle_for(place, server) as handle:
        if auth == "psk":
            handle.set_tls_psk_file(place.psk.wrong_key_file)
            expected = "wrong key or unknown identity?"
        else:
            handle.set_tls_hostname("elsewhere.example")
            expected = "the server's certificate is refused: Hostname mismatch"
        assert expected in refusal_of(place, handle, version)


@VERSIONS
def test_unknown_identity(version: str, place: Place, server: tuple[str, str], tmp_path: Path) -> None:
    _, auth = server
    keys = tmp_path / "keys.psk"
    keys.write_text(f"mallory:{'11' * 32}\n")
    with handle_for(place, (server[0], "psk")) as handle:
        handle.set_tls_psk_file(keys)
        handle.set_tls_username("mallory")
        said = refusal_of(place, handle, version)
    if auth == "psk":
        assert "wrong key or unknown identity?" in said
    elif version == "TLSv1.3":  # a server with a certificate alone is a man in the middle
        assert said.endswith("the server answered with a certificate instead of proving that it knows the key")
    else:
        assert "in the TLS handshake" in said
        assert "does it use another kind of credentials?" in said


@VERSIONS
def test_certificate_client_and_key_server(version: str, place: Place, server: tuple[str, str]) -> None:
    if server[1] == "psk":
        with handle_for(place, (server[0], "x509")) as handle:
            said = refusal_of(place, handle, version)
        assert "does it use another kind of credentials?" in said or "or want a pre-shared key?" in said
    else:
        with handle_for(place, server, directory=place.pki.flawed[Flaw.EXPIRED].parent) as handle:
            said = refusal_of(place, handle, version)  # no authority there: the system's do not know this one
        assert "the server's certificate is refused: unable to get local issuer certificate" in said


@MUTUAL
@VERSIONS
@pytest.mark.parametrize(
    "flaw",
    [None, Flaw.EXPIRED, Flaw.NOT_YET_VALID, Flaw.WRONG_CA],
    ids=lambda flaw: flaw.value if flaw else "missing",
)
def test_client_certificate_is_refused(flaw: Flaw | None, version: str, place: Place, server: tuple[str, str]) -> None:
    directory = place.pki.ca_only if flaw is None else place.pki.flawed[flaw]
    with handle_for(place, server, directory=directory) as handle:
        # They hang up without an alert; TLS 1.3 lets our handshake be over by then.
        assert "does it refuse our certificate, or the lack of one" in refusal_of(place, handle, version)


@every_release
@pytest.mark.parametrize("program", ["nbdkit", "qemu-nbd"])
def test_revoked_client_certificate_is_refused(program: str, release: Release) -> None:
    with place_in(release) as place, start_server(place, program, "revoking"):
        with handle_for(place, (program, "mutual")) as handle:
            handle.connect_unix(place.socket)
            handle.shutdown()
        revoked = place.pki.flawed[Flaw.REVOKED]
        for version in PRIORITIES:
            with handle_for(place, (program, "mutual"), directory=revoked) as handle:
                assert "does it refuse our certificate" in refusal_of(place, handle, version)
