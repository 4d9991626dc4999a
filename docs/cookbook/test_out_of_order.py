"""Replies in another order

The first READ is held until the second one has been answered; then it is released. `hold` and `release` work across
connections too, and a test can call `server.release(name)` itself.
"""

from nbdtest.client import NBD, Buffer
from nbdtest.fakeserver import FakeServer, hold, pass_through, release
from nbdtest.wire import Cmd


def test_the_second_reply_may_come_first(fake_nbd_server: FakeServer) -> None:
    fake_nbd_server.disk.write(0, b"first")
    fake_nbd_server.disk.write(512, b"second")
    fake_nbd_server.on(Cmd.READ, nth=1).reply(hold("first"), pass_through())
    fake_nbd_server.on(Cmd.READ, nth=2).pass_through().then(release("first"))

    order: list[str] = []

    def note(name: str) -> int:
        order.append(name)
        return 1  # nobody will ask for this command again

    with NBD() as client:
        client.connect_uri(fake_nbd_server.uri)
        one, two = Buffer(5), Buffer(6)
        client.aio_pread(one, 0, completion=lambda error: note("one"))
        client.aio_pread(two, 512, completion=lambda error: note("two"))
        while len(order) < 2:
            client.poll(10_000)
        client.shutdown()
    assert order == ["two", "one"]
    assert (bytes(one.to_bytearray()), bytes(two.to_bytearray())) == (b"first", b"second")
