"""One script of calls, on libnbd's own binding and on this client, gets the same answers from the same servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import nbdtest
from nbdtest.fixtures import foreground
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.process import start_listening

pytestmark = pytest.mark.interop

SCRIPT = Path(__file__).with_name("differential_script.py")
SYSTEM_PYTHON = "/usr/bin/python3"
TRIXIE = os.environ.get("NBDTEST_TRIXIE", "")
MIB = 1 << 20

DELIBERATE = {
    "private.third": "kept whole, where the binding cuts it to 32 bits",
    "refused.11.pwrite": "pwrite takes a Buffer here",
    "buffer.negative": "ValueError, where the binding raises SystemError",
    "closed.get_subprocess_pid": "another process",
    "closed.get_uri": "another temporary directory",
}
SINCE_1_14 = {
    "new.shutdown": "1.18: permitted in option mode",
    "dead.shutdown": "1.18: permitted in option mode",
    "closed.shutdown": "1.18: permitted in option mode",
    "opt.shutdown": "1.18: permitted in option mode",
    "closed call": "1.16: close() and ClosedHandle",
    "uri.nbd+ssh:///": "1.22: ssh",
    "uri.nbds:///?tls-verify-peer=maybe": "1.22: the parameter",
    "uri.NBD+UNIX:///?SOCKET=/nonexistent": "1.20: schemes in any case",
    "uri.NBD+UNIX:///?SOCKET=/nonexistent.state": "1.20: schemes in any case",
    "opt.meta": "1.16: the server is asked also without structured replies",
    "opt.name.size": "1.16: another export name makes the size unknown",
    "opt.meta.can": "1.16: contexts are known before the export",
}
Answers = list[tuple[str, list[object]]]


def answers(words: list[str], **run: object) -> Answers:
    ran = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        input=SCRIPT.read_text(),
        **run,  # type: ignore[call-overload]  # cwd and env
    )
    assert ran.returncode == 0, ran.stderr
    return [(step, answer) for step, answer in json.loads(ran.stdout)]


def own(how: str, *words: str) -> Answers:
    project = Path(nbdtest.__file__).parent.parent
    argv = [sys.executable, "-", "nbdtest.client", how, *words]
    return answers(argv, env={**os.environ, "PYTHONPATH": str(project)})


def compare(theirs: Answers, ours: Answers, tolerated: dict[str, str]) -> None:
    assert [step for step, _ in theirs] == [step for step, _ in ours]
    different = {
        step: (their, our)
        for (step, their), (_, our) in zip(theirs, ours, strict=True)
        if their != our and their != ["absent"] and step not in tolerated
    }
    assert not different


@contextmanager
def disk(root: str = "/") -> Iterator[str]:
    """An empty disk below `root`, named as a process there names it."""
    directory = Path(root, "tmp", f"nbdtest-{os.getpid()}")
    directory.mkdir()
    try:
        (directory / "disk.img").write_bytes(bytes(MIB))
        yield f"/tmp/{directory.name}"
    finally:
        shutil.rmtree(directory)


@contextmanager
def nbd_server(directory: str, root: str = "/") -> Iterator[str]:
    """nbd-server with the disk as an export called "disk"; gives the socket as a process outside `root` names it."""
    outside = Path(root, directory.lstrip("/"))
    config = f"[generic]\nunixsock={directory}/sock\n[disk]\nexportname={directory}/disk.img\n"
    (outside / "config").write_text(config)
    enter = ["chroot", root] if root != "/" else []
    stay = [sys.executable, "-I", "-S", foreground.__file__]  # it would become a daemon
    command = [*stay, *enter, "nbd-server", "-C", f"{directory}/config", "-p", f"{directory}/pid"]
    with start_listening(command, UnixAddress(str(outside / "sock"))):
        yield str(outside / "sock")


NBDKIT = ("connect_command", "nbdkit", "-s", "--exit-with-parent", "memory", "1M")


def qemu_nbd(directory: str) -> tuple[str, ...]:
    return ("connect_systemd_socket_activation", "qemu-nbd", "-f", "raw", "-t", "-e", "4", f"{directory}/disk.img")


class TestSystemLibnbd:
    """libnbd 1.14 of Debian 12, for the system's Python."""

    @pytest.fixture(autouse=True)
    def binding(self) -> None:
        found = subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False)
        assert found.returncode == 0, "the package python3-libnbd is missing"

    def theirs(self, how: str, *words: str) -> Answers:
        return answers([SYSTEM_PYTHON, "-", "nbd", how, *words])

    def test_nbdkit(self) -> None:
        compare(self.theirs(*NBDKIT), own(*NBDKIT), DELIBERATE | SINCE_1_14)

    def test_qemu_nbd(self) -> None:
        with disk() as directory:
            theirs = self.theirs(*qemu_nbd(directory))
        with disk() as directory:
            compare(theirs, own(*qemu_nbd(directory)), DELIBERATE | SINCE_1_14)

    def test_nbd_server(self) -> None:
        with disk() as directory, nbd_server(directory) as socket:
            theirs = self.theirs("connect_uri", f"nbd+unix:///disk?socket={socket}")
        with disk() as directory, nbd_server(directory) as socket:
            compare(theirs, own("connect_uri", f"nbd+unix:///disk?socket={socket}"), DELIBERATE | SINCE_1_14)


@pytest.mark.skipif(not os.path.isdir(TRIXIE), reason="NBDTEST_TRIXIE names no root of a Debian 13")
class TestTrixieLibnbd:
    """libnbd 1.22 of Debian 13, in its root; the servers are those of that root."""

    def theirs(self, how: str, *words: str) -> Answers:
        return answers(["chroot", TRIXIE, "python3", "-", "nbd", how, *words])

    def own(self, how: str, *words: str) -> Answers:
        return own(how, "chroot", TRIXIE, *words)

    def test_nbdkit(self) -> None:
        compare(self.theirs(*NBDKIT), self.own(*NBDKIT), DELIBERATE)

    def test_qemu_nbd(self) -> None:
        with disk(TRIXIE) as directory:
            theirs = self.theirs(*qemu_nbd(directory))
        with disk(TRIXIE) as directory:
            compare(theirs, self.own(*qemu_nbd(directory)), DELIBERATE)

    def test_nbd_server(self) -> None:
        with disk(TRIXIE) as directory, nbd_server(directory, TRIXIE):
            theirs = self.theirs("connect_uri", f"nbd+unix:///disk?socket={directory}/sock")
        with disk(TRIXIE) as directory, nbd_server(directory, TRIXIE) as socket:
            compare(theirs, own("connect_uri", f"nbd+unix:///disk?socket={socket}"), DELIBERATE)
