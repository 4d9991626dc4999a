"""A whole file system on a device: made, mounted, filled, trimmed, checked, on the device and in the server's bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from nbdtest.client import NBD
from nbdtest.client.kernel import Interface, NBDDevice, StillInUse
from nbdtest.client.kernel.handles import connected
from nbdtest.fakeserver import FakeServer
from nbdtest.wire.numbers import Cmd

SIZE = 32 << 20
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


@contextmanager
def fake_server(image: Path) -> Iterator[NBD]:
    with FakeServer(size=SIZE) as server:
        yield connected(server.uri)
        with image.open("wb") as out:
            out.truncate(SIZE)
            for offset in range(0, SIZE, 1 << 20):
                out.seek(offset)
                out.write(server.disk.read(offset, 1 << 20))


@contextmanager
def nbdkit(image: Path) -> Iterator[NBD]:
    with image.open("wb") as out:
        out.truncate(SIZE)
    handle = NBD()
    handle.set_request_structured_replies(False)
    handle.connect_command(["nbdkit", "-s", "--exit-with-parent", "file", str(image)])
    yield handle


@pytest.mark.parametrize("interface", list(Interface), ids=lambda interface: str(interface.value))
@pytest.mark.parametrize("server", [fake_server, nbdkit], ids=["fake", "nbdkit"])
def test_ext4_is_made_mounted_filled_trimmed_and_checked(
    server: Callable[[Path], AbstractContextManager[NBD]], interface: Interface, node: str, tmp_path: Path
) -> None:
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    content = os.urandom(3 << 20)
    with server(image) as handle, NBDDevice.attach(handle, device=node, interface=interface, timeout_s=20):
        run("mkfs.ext4", "-q", "-O", "^has_journal", node)
        run("mount", node, str(mounted))
        try:
            (mounted / "kept").write_bytes(content)
            (mounted / "removed").write_bytes(bytes(8 << 20))
            os.sync()
            (mounted / "removed").unlink()
            assert "trimmed" in run("fstrim", "-v", str(mounted))
            assert hashlib.sha256((mounted / "kept").read_bytes()).digest() == hashlib.sha256(content).digest()
        finally:
            run("umount", str(mounted))
        run("fsck.ext4", "-f", "-n", node)
    run("fsck.ext4", "-f", "-n", str(image))
    mounted_again = run("debugfs", "-R", "stat kept", str(image))
    assert f"Size: {len(content)}" in mounted_again


def test_a_mounted_device_cannot_be_detached_unnoticed(node: str, tmp_path: Path) -> None:
    with FakeServer(size=SIZE) as server:
        device = NBDDevice.attach(connected(server.uri), device=node)
        device.close_timeout_s = 0.2
        run("mkfs.ext4", "-q", "-O", "^has_journal", node)
        run("mount", "-o", "ro", node, str(tmp_path))
        with pytest.raises(StillInUse, match=f"{node} is disconnected, but still in use: mounted at {tmp_path}"):
            device.close()
        run("umount", str(tmp_path))
        assert server.journal.format(last=5).count(str(Cmd.DISC)) == 1


def run(*command: str) -> str:
    """Run a tool of the system, and return what it said.

    Raises:
        AssertionError: it failed; with its words.
    """
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr
