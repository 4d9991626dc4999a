"""What a client does wrong

The server recognises violations of the specification by their id in the catalogue of requirements, and the test fails
for them at its end unless they are tolerated. What a client merely SHOULD have done is noted, but fails nothing.
"""

import pytest

from nbdtest.client import NBD, Error
from nbdtest.fakeserver import FakeServer, VerificationFailed


def reads_past_the_end(server: FakeServer) -> None:
    with NBD() as client:
        client.set_strict_mode(0)  # or the client would refuse by itself
        client.connect_uri(server.uri)
        with pytest.raises(Error, match="Invalid argument"):
            client.pread(512, 1 << 20)
        client.shutdown()


def test_a_violation_fails_the_test() -> None:
    server = FakeServer(size=1 << 20)
    reads_past_the_end(server)
    server.stop()
    with pytest.raises(VerificationFailed, match="SIZE-038: CMD_READ at 1048576, length 512 reaches past the end"):
        server.verify()


def test_unless_it_is_tolerated(fake_nbd_server: FakeServer) -> None:
    fake_nbd_server.tolerate("SIZE-038")
    reads_past_the_end(fake_nbd_server)
