"""The Debian releases whose programs are tested: this machine's own, and the one whose root NBDTEST_TRIXIE names.

Running a program of another root takes root, for chroot and mount.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGES = {
    "fio": "fio",
    "nbd-client": "nbd-client",
    "nbd-server": "nbd-server",
    "nbdcopy": "libnbd-bin",
    "nbdinfo": "libnbd-bin",
    "nbdkit": "nbdkit",
    "python3": "python3-libnbd",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
}
FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")

_WRAPPER = """\
#!/bin/sh
# Runs {program} of another release; it sees our /tmp, where the sockets and disks are.
exec unshare --mount sh -c 'mount --bind /tmp "$0/tmp" && exec chroot "$0" "$@"' '{root}' '{program}' "$@"
"""


@dataclass(frozen=True)
class Release:
    """A Debian whose programs can be run; `root` is "" for this machine's own."""

    name: str
    root: str = ""

    def find(self, program: str) -> str | None:
        """The path of a program as this release itself calls it, None if it is not installed.

        What the distribution has comes first: python3 is the one that has libnbd's binding.
        """
        for folder in FOLDERS:
            if os.access(f"{self.root}{folder}/{program}", os.X_OK):
                return f"{folder}/{program}"
        return None if self.root else shutil.which(program)

    def command(self, program: str, *words: str) -> list[str]:
        """The command line that runs a program there; one that is not installed fails the test."""
        found = self.find(program)
        if found is None:
            pytest.fail(f"{program} is not installed in {self.root or '/'}: apt install {PACKAGES[program]}")
        return ["chroot", self.root, found, *words] if self.root else [found, *words]

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        argv = self.command(program, *words)
        # nbdinfo prints memory that it has not set where the command `file` is not installed.
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=60, check=False)

    def output(self, program: str, *words: str, status: int = 0) -> str:
        """Run a program that has to end with this status, and give what it printed."""
        done = self.run(program, *words)
        assert done.returncode == status, f"{program} {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inside(self, path: Path) -> str:
        """What the programs there call a path of ours."""
        return "/" + str(path.relative_to(self.root)) if self.root else str(path)

    def search_path(self, directory: Path) -> str:
        """A PATH on which the programs of this release come first; wrappers that this may take are made in
        `directory`."""
        if not self.root:
            return os.environ["PATH"]
        directory.mkdir()
        for program in set(PACKAGES) - {"python3"}:
            if found := self.find(program):
                wrapper = directory / program
                wrapper.write_text(_WRAPPER.format(root=self.root, program=found))
                wrapper.chmod(0o755)
        return f"{directory}:{os.environ['PATH']}"


RELEASES = [Release("here")]
if trixie := os.environ.get("NBDTEST_TRIXIE"):
    RELEASES.append(Release("trixie", trixie))

every_release = pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
