"""A program under test instead of a library

Any program that takes an NBD URI, or a path, or a port can be pointed at the server; it need not be Python, nor know
that it is being lied to.
"""

import subprocess

import pytest

from nbdtest.fakeserver import FakeServer, error
from nbdtest.wire import Cmd, Errno


@pytest.mark.interop
def test_qemu_io_says_what_went_wrong(fake_nbd_server: FakeServer) -> None:
    fake_nbd_server.on(Cmd.WRITE, where={"offset": 4096}).reply(error(Errno.ENOSPC, message="full"))
    command = ["qemu-io", "-f", "raw", "-c", "write 0 4k", "-c", "write 4k 4k", fake_nbd_server.uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "wrote 4096/4096 bytes at offset 0" in done.stdout
    assert "write failed: No space left on device" in done.stdout
