"""libnbd's own tests of its Python binding and of nbdsh, unmodified, on this client."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import nbdtest
from nbdtest.client.handle.exporting import LIBNBD_VERSION
from tests.client.libnbd_source import libnbd_source

pytestmark = pytest.mark.interop

PYTHON_TESTS = [
    "010-import",
    "100-handle",
    "105-with-handle",
    "110-defaults",
    "120-set-non-defaults",
    "140-explicit-close",
    "200-connect-command",
    "210-opt-abort",
    "220-opt-list",
    "230-opt-info",
    "240-opt-list-meta",
    "245-opt-list-meta-queries",
    "250-opt-set-meta",
    "255-opt-set-meta-queries",
    "300-get-size",
    "400-pread",
    "405-pread-structured",
    "410-pwrite",
    "460-block-status",
    "465-block-status-64",
    "500-aio-pread",
    "505-aio-pread-callback",
    "510-aio-pwrite",
    "580-aio-is-zero",
    "585-aio-buffer-share",
    "590-aio-copy",
    "600-debug-callback",
    "610-exception",
    "620-stats",
]
SHELL_TESTS = [
    "context",
    "error",
    "help",
    "implicit-handle",
    "long-options",
    "pattern",
    "short-options",
    "verbose",
    "version",
]

NBD_MODULE = """\
from nbdtest.client import install_as_nbd
install_as_nbd()
if __name__ == "__main__":
    import nbdsh
    nbdsh.shell()
"""


@pytest.fixture(scope="module")
def source() -> Path:
    return libnbd_source()


@pytest.fixture
def environment(source: Path, tmp_path: Path) -> dict[str, str]:
    """Where `import nbd` finds this client, `nbdsh` is libnbd's on top of it, and both are run by this Python."""
    modules, programs = tmp_path / "modules", tmp_path / "bin"
    modules.mkdir()
    programs.mkdir()
    (modules / "nbd.py").write_text(NBD_MODULE)
    (modules / "libnbdmod.py").write_text("import nbd\n")
    shutil.copy(source / "python" / "nbdsh.py", modules)
    nbdsh = programs / "nbdsh"
    nbdsh.write_text(f'#!/bin/sh\nexec {sys.executable} -m nbd "$@"\n')
    nbdsh.chmod(nbdsh.stat().st_mode | stat.S_IXUSR)
    project = Path(nbdtest.__file__).parent.parent
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{modules}:{project}",
        "PYTHONWARNINGS": "error",
        "NBDKIT": "nbdkit",
        "EXPECTED_VERSION": LIBNBD_VERSION,
        "srcdir": str(source / "python"),
    }


def run(words: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=cwd, env=environment, timeout=120, check=False, text=True, stdout=-1, stderr=subprocess.STDOUT
    )


@pytest.mark.parametrize("name", PYTHON_TESTS)
def test_python(name: str, source: Path, environment: dict[str, str]) -> None:
    ran = run([sys.executable, str(source / "python" / "t" / f"{name}.py")], source / "python", environment)
    assert ran.returncode == 0, ran.stdout


def test_all_of_libnbds_python_tests_are_run(source: Path) -> None:
    assert sorted(path.stem for path in (source / "python" / "t").glob("*.py")) == sorted(PYTHON_TESTS)


@pytest.mark.parametrize("name", SHELL_TESTS)
def test_nbdsh(name: str, source: Path, environment: dict[str, str], tmp_path: Path) -> None:
    shutil.copytree(source / "sh", tmp_path / "sh")
    (tmp_path / "tests").mkdir()
    functions = (source / "tests" / "functions.sh.in").read_text()
    for tool in ("CMP", "CUT", "DD", "SED", "STAT", "TR", "REALPATH", "TRUNCATE"):
        functions = functions.replace(f"@{tool}@", tool.lower())
    (tmp_path / "tests" / "functions.sh").write_text(functions.replace("@NBDKIT@", "nbdkit"))
    ran = run(["bash", f"test-{name}.sh"], tmp_path / "sh", environment)
    assert ran.returncode == 0, ran.stdout


def test_example_checksum(source: Path, environment: dict[str, str], tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"x" * 100_000)
    program = source / "python" / "examples" / "checksum.py"
    ran = run([sys.executable, str(program), "--format", "raw", str(disk)], tmp_path, environment)
    assert ran.returncode == 0, ran.stdout
    assert "block @ 0 (size 100352)" in ran.stdout or "block @ 0 (size 100000)" in ran.stdout
