"""A server that lies about TLS

Whoever stands between client and server attacks at STARTTLS: he refuses it, so that the client goes on in clear, or
puts an answer in clear behind the ACK, in the same segment, to be taken for one that came encrypted. Rules do that, and
`TLSQuirks` what lies below NBD. A client that was told to use TLS has to fail each time.
"""

from collections.abc import Callable

import pytest

from nbdtest.client import NBD, TLS_REQUIRE, Error
from nbdtest.fakeserver import FakeServer, Style, TLSMode, TLSQuirks, ack, opt_error, raw
from nbdtest.fixtures.pki import PSKMaterial
from nbdtest.net.tls import server_context
from nbdtest.wire import Opt, OptionReply, Rep

FORGED = OptionReply(option=Opt.STRUCTURED_REPLY, type=Rep.ACK).encode()
LIES: dict[str, Callable[[FakeServer], object]] = {
    "there is no TLS here": lambda server: server.on(Opt.STARTTLS).reply(opt_error(Rep.ERR_UNSUP)),
    "there are no options here": lambda server: server.configure(style=Style.NEWSTYLE),
    "an answer in clear behind the ACK": lambda server: server.on(Opt.STARTTLS).reply(ack(), raw(FORGED)),
    "an answer in clear in the session": lambda server: server.configure(tls_quirks=TLSQuirks(plain_in_session=FORGED)),
    "half a handshake": lambda server: server.configure(tls_quirks=TLSQuirks(handshake_records=1)),
    "a record that was tampered with": lambda server: server.configure(tls_quirks=TLSQuirks(flipped_record=1)),
}


@pytest.mark.parametrize("tell", LIES.values(), ids=LIES)
def test_a_client_is_not_fooled(tell: Callable[[FakeServer], object], nbd_psk: PSKMaterial) -> None:
    tls = server_context(nbd_psk.server())
    with FakeServer(size=4096, tls=tls, tls_mode=TLSMode.SELECTIVE) as server, NBD() as client:
        tell(server)
        client.set_tls(TLS_REQUIRE)
        client.set_tls_psk_file(nbd_psk.file)
        client.set_tls_username(nbd_psk.identity)
        client.set_export_name("secret")
        with pytest.raises(Error):
            client.connect_unix(server.path)
        assert "secret" not in server.story()
