"""libnbd's source package, fetched from Debian when a test needs it and kept in the user's cache, never in the
project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

__all__ = ["libnbd_source"]

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def libnbd_source() -> Path:
    """The unpacked source of libnbd, as Debian 13 has it.

    Without it the tests that need it fail: they prove nothing.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbdtest" / f"libnbd-{SUITE}"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as directory:
            unpacked = _fetch(Path(directory))
            try:
                unpacked.rename(cache)
            except OSError:  # another test process was faster
                if not cache.exists():
                    raise
    return cache


def _fetch(directory: Path) -> Path:
    if shutil.which("apt-get") is None:
        pytest.fail("libnbd's source comes from Debian: apt-get is needed, or an unpacked copy in ~/.cache/nbdtest")
    signed = f"[signed-by={KEYRING}] " if os.path.exists(KEYRING) else ""
    (directory / "sources.list").write_text(f"deb-src {signed}{MIRROR} {SUITE} main\n")
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    options = [
        f"Dir::Etc::sourcelist={directory}/sources.list",
        "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State::lists={directory}/lists",
        f"Dir::Cache={directory}/cache",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", *(word for option in options for word in ("-o", option))]
    for words in (["update"], ["source", "--download-only", "libnbd"]):
        ran = subprocess.run([*apt, *words], cwd=directory, capture_output=True, text=True, timeout=300, check=False)
        if ran.returncode:
            pytest.fail(f"libnbd's source cannot be fetched: apt-get {' '.join(words)}: {ran.stderr.strip()}")
    archive = next(directory.glob("libnbd_*.orig.tar.gz"))
    with tarfile.open(archive) as packed:
        # Python before 3.11.4, such as Debian 12's own, knows no filters.
        packed.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        packed.extractall(directory / "unpacked")
    return next((directory / "unpacked").iterdir())
