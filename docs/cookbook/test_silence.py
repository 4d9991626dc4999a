"""A server that goes silent

`stall()` says nothing more on a connection that stays open: what a hung server, or a firewall that forgot us, looks
like. `pause(seconds)` is a late answer, `drip()` one that comes byte by byte.
"""

from nbdtest.client import NBD, Buffer
from nbdtest.fakeserver import FakeServer, drip, pass_through, stall
from nbdtest.wire import Cmd


def test_a_client_is_not_caught_in_silence(fake_nbd_server: FakeServer) -> None:
    fake_nbd_server.on(Cmd.READ, nth=2).reply(stall())
    with NBD() as client:
        client.connect_uri(fake_nbd_server.uri)
        client.pread(512, 0)
        cookie = client.aio_pread(Buffer(512), 0)
        client.poll(50)  # the client's own patience, in milliseconds
        assert not client.aio_command_completed(cookie)


def test_a_slow_answer_is_an_answer(fake_nbd_server: FakeServer) -> None:
    fake_nbd_server.on(Cmd.READ).reply(drip(every_s=0.0001), pass_through())
    with NBD() as client:
        client.connect_uri(fake_nbd_server.uri)
        assert client.pread(64, 0) == bytes(64)
        client.shutdown()
