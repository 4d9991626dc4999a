"""How to start the TLS servers and clients of others: on this machine, and in the root folder that NBDTEST_TRIXIE
names.

A folder of another release takes root, for chroot.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from nbdtest.fixtures import foreground
from nbdtest.fixtures.pki import PKIMaterial, PSKMaterial, make_pki, make_psk
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.process import Process, start_listening

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
class Release:
    """A system whose programs are used: `root` is "" for this machine's own."""

    name: str
    root: str

    def command(self, *words: str) -> list[str]:
        """The command line that runs these words there."""
        return ["chroot", self.root, *words] if self.root else list(words)

    def inside(self, path: Path) -> str:
        """What the programs there call a path of ours."""
        return "/" + str(path.relative_to(self.root)) if self.root else str(path)

    def has(self, program: str) -> bool:
        """Whether the program is installed there."""
        return shutil.which(program, path=f"{self.root}/usr/bin:{self.root}/bin") is not None


RELEASES = [Release("here", "")]
if os.environ.get("NBDTEST_TRIXIE"):
    RELEASES.append(Release("trixie", os.environ["NBDTEST_TRIXIE"]))


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

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the release to its end."""
        argv = self.release.command(*words)
        # nbdinfo prints memory that it has not set where the command `file` is not installed.
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=60, check=False)

    def require(self, program: str) -> None:
        """Skip the test if the release lacks the program."""
        if not self.release.has(program):
            pytest.skip(f"{program} is not installed ({self.release.name})")


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

    `auth` is "psk", "x509", or "mutual": x509 with a certificate demanded of the client.
    """
    place.require(program)
    inside = place.release.inside
    pki, keys = inside(place.pki.directory), inside(place.psk.file)
    argv = {"nbdkit": _nbdkit, "qemu-nbd": _qemu_nbd, "nbd-server": _nbd_server}[program](place, auth, pki, keys)
    command = place.release.command(*argv)
    if program == "nbd-server":  # in the foreground it would serve one connection
        command = [sys.executable, "-I", "-S", foreground.__file__, *command]
    return start_listening(command, UnixAddress(str(place.socket)))


def _nbdkit(place: Place, auth: str, pki: str, keys: str) -> list[str]:
    how = [f"--tls-psk={keys}"] if auth == "psk" else [f"--tls-certificates={pki}"]
    how += ["--tls-verify-peer"] if auth == "mutual" else []
    inside = place.release.inside
    return ["nbdkit", "-f", "-U", inside(place.socket), "--tls=require", *how, "file", inside(place.disk)]


def _qemu_nbd(place: Place, auth: str, pki: str, keys: str) -> list[str]:
    if auth == "psk":
        credentials = f"tls-creds-psk,id=tls0,endpoint=server,dir={Path(keys).parent}"
    else:
        verify = "yes" if auth == "mutual" else "no"
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
