"""Where the User Mode Linux kernel comes from: installed, unpacked somewhere, or fetched with apt without being root.

Starting it is `guest`'s business.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "user-mode-linux"
ENVIRONMENT = "NBDTEST_UML"
"""Names the root of an unpacked package, overriding what is installed."""

LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
INTERPRETER = f"/lib64/{LOADER}\0".encode()


class CannotRun(Exception):
    """User Mode Linux cannot run here; the message says why and what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel that starts on this machine. `environment` and `directory` lead its process to its C library."""

    executable: Path
    modules: Path
    release: str
    environment: dict[str, str] = field(default_factory=dict)
    directory: Path | None = None


def cache_directory() -> Path:
    """Return where fetched kernels are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbdtest" / "uml"


def find(root: Path | None = None) -> Kernel:
    """Find the kernel under `root`, else the one of $NBDTEST_UML, the installed one, the cached one, or fetch it.

    Raises:
        CannotRun: there is none for this machine.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise CannotRun(
            f"Debian's {PACKAGE} is for Linux on x86_64, this is {platform.system()} on {platform.machine()}"
        )
    if root is None and os.environ.get(ENVIRONMENT):
        root = Path(os.environ[ENVIRONMENT])
    if root is not None:
        return _kernel_under(root.resolve())
    reasons = []
    for place in (Path("/"), cache_directory()):
        if (place / "usr/bin/linux.uml").exists():
            try:
                return _kernel_under(place)
            except CannotRun as reason:
                reasons.append(str(reason))
    try:
        return _kernel_under(fetch(cache_directory()))
    except CannotRun as reason:
        raise CannotRun("; ".join([*reasons, str(reason)])) from None


def fetch(target: Path) -> Path:
    """Download the package of this machine's Debian release and unpack it at `target`, which appears whole or not.

    Raises:
        CannotRun: apt is missing or fails.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise CannotRun(f"linux.uml is not installed, and without {tool} the package {PACKAGE} cannot be fetched")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch.") as work:
        _ran(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE], work)
        (package,) = Path(work).glob("*.deb")
        _ran(["dpkg-deb", "-x", str(package), "root"], work)
        with suppress(OSError):  # another run was faster: its copy is as good
            (Path(work) / "root").rename(target)
    return target


def _ran(command: list[str], directory: str) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise CannotRun(
            f"{' '.join(command[:1])} could not fetch {PACKAGE}: {' '.join(last)} (as root: apt-get install {PACKAGE})"
        )


def _kernel_under(root: Path) -> Kernel:
    executable, modules = root / "usr/bin/linux.uml", root / "usr/lib/uml/modules"
    if not executable.exists():
        raise CannotRun(f"there is no usr/bin/linux.uml under {root}")
    environment: dict[str, str] = {}
    directory = None
    if root != Path("/"):
        for libraries in LIBRARIES:
            if (root / libraries / LOADER).exists():
                directory = root / libraries
                environment = {"LD_LIBRARY_PATH": str(directory)}
                executable = _with_relative_loader(executable)
    release = _version(executable, environment, directory)
    modules /= release
    if not (modules / "modules.dep").exists():
        raise CannotRun(f"{executable} is Linux {release}, but {modules} holds no modules for it")
    return Kernel(executable=executable, modules=modules, release=release, environment=environment, directory=directory)


def _with_relative_loader(executable: Path) -> Path:
    """Return a copy of the kernel that takes the dynamic loader from its working directory: it brings its C library.

    Starting the loader with the kernel as argument is not enough: the kernel sizes its memory by the program break,
    which then lies elsewhere.
    """
    copy = executable.with_name("linux.uml.relative")
    if not copy.exists():
        image = executable.read_bytes()
        if image.count(INTERPRETER) != 1:
            raise CannotRun(f"{executable} does not name {INTERPRETER[:-1].decode()} as its loader")
        image = image.replace(INTERPRETER, f"./{LOADER}".encode().ljust(len(INTERPRETER), b"\0"))
        try:
            descriptor, unfinished = tempfile.mkstemp(dir=copy.parent)
        except OSError as error:
            raise CannotRun(f"{executable} has to be copied beside itself: {error.strerror}") from error
        with os.fdopen(descriptor, "wb") as out:
            out.write(image)
        os.chmod(unfinished, 0o755)
        os.rename(unfinished, copy)
    return copy


def _version(executable: Path, environment: dict[str, str], directory: Path | None) -> str:
    try:
        done = subprocess.run(
            [executable, "--version"],
            env={**os.environ, **environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except OSError as error:
        raise CannotRun(f"{executable} does not start: {error.strerror}") from error
    lines = done.stdout.split()
    if done.returncode or not lines or not re.fullmatch(r"\d+\.\d+\.\d+\S*", lines[-1]):
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise CannotRun(f"{executable} does not start: {why}")
    return lines[-1]
