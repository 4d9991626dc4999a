"""A size that changes between INFO and GO

INFO says 4096 bytes, GO says 8192 twice over and differently. Which one counts is the client's decision; that it takes
one of them and stays alive is the test's.
"""

from nbdtest.client import NBD
from nbdtest.fakeserver import FakeServer, ack, info_export
from nbdtest.wire import Opt


def test_the_last_size_counts(fake_nbd_server: FakeServer) -> None:
    fake_nbd_server.on(Opt.INFO).reply(info_export(size=4096), ack())
    fake_nbd_server.on(Opt.GO).reply(info_export(size=16384), info_export(size=8192), ack())
    with NBD() as client:
        client.set_opt_mode(True)
        client.connect_uri(fake_nbd_server.uri)
        client.opt_info()
        assert client.get_size() == 4096
        client.opt_go()
        assert client.get_size() == 8192
        client.shutdown()
