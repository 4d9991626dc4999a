"""An error in the middle of a read

The second READ gets data, then an error with its place and a reason, then the rest of the data. A client has to report
the failure, and may not hand out the read as a success. Any mix of `data`, `hole`, `error`, `status` and `chunk` makes
a reply; the last chunk gets DONE by itself.
"""

import pytest

from nbdtest.client import NBD, Error
from nbdtest.fakeserver import FakeServer, data, error
from nbdtest.wire import Cmd, Errno


def test_a_bad_sector_fails_the_read(fake_nbd_server: FakeServer) -> None:
    fake_nbd_server.on(Cmd.READ, nth=2).reply(
        data(at=8192, length=4096),
        error(Errno.EIO, at=12288, message="bad sector"),
        data(at=12800, length=3584),
    )
    with NBD() as client:
        client.connect_uri(fake_nbd_server.uri)
        client.pread(512, 0)
        with pytest.raises(Error, match="Input/output error"):
            client.pread(8192, 8192)
        client.pread(8192, 8192)  # the third one is answered correctly again
        client.shutdown()
