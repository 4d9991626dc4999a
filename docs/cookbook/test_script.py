"""A whole connection by hand

A script gets the server's end of a connection: `negotiate()` and `requests(n)` understand what the client says, `send`
takes replies to those requests, messages, bytes and actions. What is not said is not sent. `answer_correctly()` of a
request or an option does what the correct server would, `serve()` does so until the end, and `resume(phase)` goes on
with understanding after a handshake that the script has spoken raw.
"""

import pytest

from nbdtest.client import NBD, Buffer, Error
from nbdtest.fakeserver import FakeServer, Peer
from nbdtest.wire import Errno, SimpleReply


def wait_for_ever(client: NBD) -> None:
    while True:
        client.poll(10_000)


def test_an_answer_that_nobody_asked_for(fake_nbd_server: FakeServer) -> None:
    fake_nbd_server.configure(structured_replies=False, extended_headers=False)

    @fake_nbd_server.script
    def answers_a_cookie_nobody_sent(peer: Peer) -> None:
        peer.negotiate()
        first, second = peer.requests(2)
        peer.send(second.ok(), SimpleReply(cookie=0xDEAD), first.error(Errno.EPERM))
        peer.cut()

    with NBD() as client:
        client.connect_uri(fake_nbd_server.uri)
        client.aio_pread(Buffer(512), 0)
        second = client.aio_pread(Buffer(512), 512)
        with pytest.raises(Error):
            wait_for_ever(client)
        assert client.aio_command_completed(second)
