"""Certificates and keys that are no good

The fixture `nbd_pki` has a directory for each thing that can be wrong with a certificate, `nbd_psk` a file of wrong
keys. A client has to refuse them, and the name of the export may not leave it. Where keys are used, a server that has a
certificate of its own making is the man in the middle.
"""

import pytest

from nbdtest.client import NBD, TLS_REQUIRE, Error
from nbdtest.fakeserver import FakeServer, TLSMode
from nbdtest.fixtures.pki import Flaw, PKIMaterial, PSKMaterial
from nbdtest.net.tls import server_context


@pytest.mark.parametrize("flaw", [Flaw.EXPIRED, Flaw.NOT_YET_VALID, Flaw.WRONG_CA, Flaw.WRONG_HOST])
def test_a_bad_certificate_is_refused(flaw: Flaw, nbd_pki: PKIMaterial) -> None:
    tls = server_context(nbd_pki.server(flaw=flaw))
    with FakeServer(size=4096, tls=tls, tls_mode=TLSMode.REQUIRED) as server, NBD() as client:
        client.set_tls(TLS_REQUIRE)
        client.set_tls_certificates(nbd_pki.directory)
        client.set_export_name("secret")
        with pytest.raises(Error, match="certificate is refused"):
            client.connect_tcp("localhost", str(server.port))
        assert "secret" not in server.story()


@pytest.mark.parametrize("attack", ["wrong key", "man in the middle"])
def test_who_does_not_know_the_key_is_refused(attack: str, nbd_psk: PSKMaterial, nbd_pki: PKIMaterial) -> None:
    knows_keys = type(nbd_psk)(nbd_psk.wrong_key_file, nbd_psk.file, nbd_psk.identity).server()
    tls = server_context(nbd_pki.server() if attack == "man in the middle" else knows_keys)
    with FakeServer(size=4096, tls=tls, tls_mode=TLSMode.REQUIRED) as server, NBD() as client:
        client.set_tls(TLS_REQUIRE)
        client.set_tls_psk_file(nbd_psk.file)
        client.set_tls_username(nbd_psk.identity)
        with pytest.raises(Error, match=r"wrong key|instead of proving that it knows the key"):
            client.connect_unix(server.path)
