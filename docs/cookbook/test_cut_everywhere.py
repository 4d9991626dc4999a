"""The connection cut at every byte of a session in turn

First one session is held to see how many bytes the server sends in it; then the same session is cut after each of them.
Whatever happens, the client has to fail, in time and in order. With `cut(after=n, rst=True)` on TCP it is a reset.
"""

from nbdtest.client import NBD, Error
from nbdtest.fakeserver import FakeServer, Moment, cut
from nbdtest.wire import Sender


def session(uri: str) -> None:
    with NBD() as client:
        client.connect_uri(uri)
        client.pread(64, 0)
        client.shutdown()


def test_no_cut_is_taken_for_success() -> None:
    with FakeServer(size=4096) as whole:
        session(whole.uri)
    length = len(whole.journal.transcript().sent_by(Sender.SERVER))

    for after in range(length):
        with FakeServer(size=4096) as server:
            server.on(Moment.CONNECT).reply(cut(after=after))
            try:
                session(server.uri)
            except Error:
                continue
            raise AssertionError(f"a session that was cut after {after} of {length} bytes succeeded")
