"""The releases whose servers are tested: this machine's own, and the one in the root folder that NBDTEST_TRIXIE names.

The presets look their programs up on PATH, so another release is a directory of small programs of the same names, each
of which runs the real one in that root. That takes root, for mount and chroot.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("nbdkit", "qemu-img", "qemu-nbd", "qemu-storage-daemon", "nbd-server")

_WRAPPER = """\
#!/bin/sh
# Runs {program} of another release; it sees our /tmp, where the sockets and disks are.
exec unshare --mount sh -c 'mount --bind /tmp "$0/tmp" && exec chroot "$0" "$@"' '{root}' '{inside}' "$@"
"""


@dataclass(frozen=True)
class Release:
    """A system with NBD servers; `root` is "" for this machine's own."""

    name: str
    root: str

    def has(self, program: str) -> bool:
        """Whether the program is installed there."""
        return self._find(program) is not None

    def path(self, directory: Path) -> str:
        """A PATH on which this release comes first; the programs that this may take are made in `directory`."""
        if not self.root:
            return os.environ["PATH"]
        for program in PROGRAMS:
            if found := self._find(program):
                inside = found.removeprefix(self.root)
                wrapper = directory / program
                wrapper.write_text(_WRAPPER.format(root=self.root, program=program, inside=inside))
                wrapper.chmod(0o755)
        return f"{directory}:{os.environ['PATH']}"

    def _find(self, program: str) -> str | None:
        path = f"{self.root}/usr/bin:{self.root}/usr/sbin:{self.root}/bin" if self.root else None
        return shutil.which(program, path=path)


RELEASES = [Release("here", "")]
if os.environ.get("NBDTEST_TRIXIE"):
    RELEASES.append(Release("trixie", os.environ["NBDTEST_TRIXIE"]))
