"""A disk of one's own

Any object with `size` and `read(offset, length)` can be served; `write`, `zero`, `trim`, `flush`, `extents` and
`resize` are used if they are there. An `OSError` becomes the client's error. A slow disk holds up its own connection
only.
"""

import errno

import pytest

from nbdtest.client import NBD, Error
from nbdtest.fakeserver import FakeServer


class WornOut:
    """A disk whose second half cannot be read, and which takes so many writes and no more."""

    size = 1 << 20

    def __init__(self, writes: int) -> None:
        self.writes = writes

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self.size // 2:
            raise OSError(errno.EIO, "worn out")
        return b"r" * length

    def write(self, offset: int, data: bytes) -> None:
        if not self.writes:
            raise OSError(errno.ENOSPC, "no more writes")
        self.writes -= 1


def test_a_worn_out_disk() -> None:
    with FakeServer(disk=WornOut(writes=1)) as server, NBD() as client:
        client.connect_uri(server.uri)
        assert client.pread(4, 0) == b"rrrr"
        with pytest.raises(Error, match="Input/output error"):
            client.pread(4, 1 << 19)
        client.pwrite(b"one", 0)
        with pytest.raises(Error, match="No space left on device"):
            client.pwrite(b"two", 0)
        client.shutdown()
