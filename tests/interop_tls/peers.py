"""How to start the TLS servers and clients of others, each release's in a place that it can see."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nbdtest.fixtures import foreground
from nbdtest.fixtures.pki import PKIMaterial, PSKMaterial, make_pki, make_psk
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.process import Process, start_listening
from tests.releases import Release

SIZE = 1 << 20

_NBD_SERVER = """\
[generic]
 unixsock = {socket}
 force_tls = true
 cacertfile = {pki}/ca-cert.pem
 certfile = {pki}/server-cert.pem
 keyfile = {pki}/server-key.pem
[disk]
 exportname = {disk}
"""


@dataclass(frozen=True)
class Place:
    """A scratch directory that the programs of a release can see, with credentials and a disk of SIZE bytes."""

    release: Release
    directory: Path
    pki: PKIMaterial
    psk: PSKMaterial

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def socket(self) -> Path:
        return self.directory / "socket"

    @property
    def copy(self) -> Path:
        """Where clients that copy the export put it."""
        return self.directory / "copy.img"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the release to its end."""
        return self.release.run(*words)


@contextmanager
def place_in(release: Release) -> Iterator[Place]:
    """A new place, which is removed in the end."""
    with tempfile.TemporaryDirectory(
        prefix="nbdtest-tls-", dir=f"{release.root}/tmp" if release.root else None
    ) as name:
        directory = Path(name)
        directory.chmod(0o755)  # nbd-server gives up root's rights where it can
        place = Place(release, directory, make_pki(directory / "pki"), make_psk(directory / "keys"))
        place.disk.write_bytes(bytes(range(256)) * (SIZE // 256))
        yield place


def start_server(place: Place, program: str, auth: str) -> Process:
    """Start a server that insists on TLS, at `place.socket`.

    `auth` is "psk", "x509", or "mutual": x509 with a certificate demanded of the client, or "revoking": that with a
    list of those that were revoked.
    """
    inside = place.release.inside
    directory = place.pki.with_crl if auth == "revoking" else place.pki.directory
    pki, keys = inside(directory), inside(place.psk.file)
    argv = {"nbdkit": _nbdkit, "qemu-nbd": _qemu_nbd, "nbd-server": _nbd_server}[program](place, auth, pki, keys)
    command = place.release.command(*argv)
    if program == "nbd-server":  # in the foreground it would serve one connection
        command = [sys.executable, "-I", "-S", foreground.__file__, *command]
    return start_listening(command, UnixAddress(str(place.socket)))


def _nbdkit(place: Place, auth: str, pki: str, keys: str) -> list[str]:
    how = [f"--tls-psk={keys}"] if auth == "psk" else [f"--tls-certificates={pki}"]
    how += ["--tls-verify-peer"] if auth in ("mutual", "revoking") else []
    inside = place.release.inside
    return ["nbdkit", "-f", "-U", inside(place.socket), "--tls=require", *how, "file", inside(place.disk)]


def _qemu_nbd(place: Place, auth: str, pki: str, keys: str) -> list[str]:
    if auth == "psk":
        credentials = f"tls-creds-psk,id=tls0,endpoint=server,dir={Path(keys).parent}"
    else:
        verify = "yes" if auth in ("mutual", "revoking") else "no"
        credentials = f"tls-creds-x509,id=tls0,endpoint=server,dir={pki},verify-peer={verify}"
    inside = place.release.inside
    listening = ["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-k", inside(place.socket), "-x", ""]
    return [*listening, "--object", credentials, "--tls-creds", "tls0", inside(place.disk)]


def _nbd_server(place: Place, auth: str, pki: str, keys: str) -> list[str]:
    assert auth == "mutual", "nbd-server knows certificates only, and demands one of every client"
    inside = place.release.inside
    config = place.directory / "config"
    config.write_text(_NBD_SERVER.format(socket=inside(place.socket), pki=pki, disk=inside(place.disk)))
    return ["nbd-server", "-C", inside(config), "-p", inside(place.directory / "pid")]
