"""The launcher of User Mode Linux: what comes out of the guest, and what becomes of it when it does not end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.uml import guest, package
from tests.kernel.uml.package import CannotRun
from tests.kernel.waiting import until

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", autouse=True)
def kernel() -> package.Kernel:
    try:
        guest.memory_directory()
        return package.find()
    except CannotRun as reason:
        pytest.skip(str(reason))


def launch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernel.uml", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == os.EX_UNAVAILABLE:
        pytest.skip(done.stderr.strip())
    return done


@pytest.mark.parametrize("place", ["/dev/shm", None], ids=["shm", "tmp"])  # the guest has its own of both
def test_output_status_and_written_files_come_through(place: str | None, kernel: package.Kernel) -> None:
    with tempfile.TemporaryDirectory(dir=place) as directory:
        script = f"uname -r; id -u; echo hello >{directory}/file; touch /etc/x 2>/dev/null || echo read-only; exit 7"
        done = launch("--writable", directory, "--", "sh", "-c", f"({script})", TMPDIR=os.path.dirname(directory))
        assert Path(directory, "file").read_text() == "hello\n"
    assert done.stderr.splitlines()[-1:] == []
    assert done.stdout == f"{kernel.release}\n0\nread-only\n"
    assert done.returncode == 7


def test_a_guest_that_does_not_end_is_killed_with_everything_in_it() -> None:
    with _started("--timeout", "4", "--", "sleep", "1000") as launcher:
        assert launcher.wait(60) in (124, os.EX_UNAVAILABLE)
        assert not _processes_of(launcher)


def test_a_guest_that_does_not_boot_in_time_says_how_far_it_came() -> None:
    done = launch("--timeout", "0.05", "--", "true")
    assert done.returncode == 124
    assert done.stderr.splitlines()[-1] == "uml: the guest did not boot in 0.05 s, and was killed"


def test_a_kernel_that_somebody_kills_is_told_from_one_that_dies() -> None:
    command = [sys.executable, "-m", "tests.kernel.uml", "--", "sh", "-c", "echo up; exec sleep 1000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        if launcher.stdout.readline() != "up\n":
            pytest.skip("User Mode Linux does not come up here")
        leader = min(int(path.parent.name) for path in _processes_of(launcher))
        os.kill(leader, signal.SIGKILL)
        _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 125
    assert said.splitlines()[-1].endswith("its kernel was ended by SIGKILL, which came from this machine")


def test_where_ptrace_is_forbidden_the_reason_is_given() -> None:
    script = f"""
import ctypes, os, struct, sys
allowed, refused, ptrace = 0x7FFF0000, 0x00050000 | 1, 101
rules = ((0x20, 0, 0, 0), (0x15, 0, 1, ptrace), (0x06, 0, 0, refused), (0x06, 0, 0, allowed))
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("@HP", len(rules), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):  # no new privileges; a seccomp filter
    sys.exit(77)
os.execv({sys.executable!r}, [{sys.executable!r}, "-m", "tests.kernel.uml", "--", "true"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode == 77:
        pytest.skip("this machine has no seccomp filters")
    assert done.returncode == os.EX_UNAVAILABLE
    assert "does not start: " in done.stderr
    assert "ptrace: Operation not permitted" in done.stderr


def test_a_killed_launcher_leaves_no_guest_behind() -> None:
    with _started("--", "sh", "-c", "echo up; exec sleep 1000") as launcher:
        assert launcher.stdout is not None
        if launcher.stdout.readline() != b"up\n":
            pytest.skip("User Mode Linux does not come up here")
        assert _processes_of(launcher)
        launcher.kill()
        launcher.wait(60)
        until(lambda: not _processes_of(launcher), "every process of the guest has ended")


def test_a_kernel_that_panics_leaves_its_log() -> None:
    done = launch("--", "sh", "-c", "echo before; echo c >/proc/sysrq-trigger")
    assert done.returncode == 125
    assert done.stdout == "before\n"
    assert "Call Trace:" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "uml: the guest died before the command had ended: Kernel panic - not syncing: sysrq triggered crash"
    )


def test_without_the_driver_the_library_says_how_to_get_it() -> None:
    script = """
import errno
from nbdtest.client.kernel import NBDDevice, NoModule
import socket
ours, theirs = socket.socketpair()
for interface in ("netlink", "ioctl"):
    device = NBDDevice(ours, "/dev/nbd0", interface=interface, size=512)
    try:
        device.run_async()
    except NoModule as error:
        print(interface, error)
"""
    done = launch("--modules", "", "--", sys.executable, "-c", script)
    netlink, ioctl = done.stdout.splitlines()
    assert netlink.startswith("netlink there is no generic netlink family 'nbd'")
    assert ioctl.startswith("ioctl there is no /dev/nbd0")
    assert all("modprobe nbd" in line for line in (netlink, ioctl))


def test_a_place_without_a_kernel_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=f"no usr/bin/linux.uml under {tmp_path}"):
        package.find(tmp_path)


def test_a_kernel_that_does_not_start_is_explained(tmp_path: Path) -> None:
    executable = tmp_path / "usr/bin/linux.uml"
    executable.parent.mkdir(parents=True)
    executable.write_text("#!/bin/sh\necho 'no ptrace here' >&2\nexit 1\n")
    executable.chmod(0o755)
    with pytest.raises(CannotRun, match="does not start: no ptrace here"):
        package.find(tmp_path)


def test_without_apt_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRun, match="without apt-get the package user-mode-linux cannot be fetched"):
        package.fetch(tmp_path / "cache")


def test_a_failing_download_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        path = tmp_path / tool
        path.write_text("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(CannotRun, match=r"E: no network .*apt-get install user-mode-linux"):
        package.fetch(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def _started(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.kernel.uml", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _processes_of(launcher: subprocess.Popen[Any]) -> list[Path]:
    """Find the guest's processes: the kernel's arguments name its launcher."""
    mark = f"umid=guest{launcher.pid}\0".encode()
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _bytes(path)]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
