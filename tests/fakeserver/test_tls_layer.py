"""The TLS of one fake server connection, against a client's pipe in memory: correct, and wrong in every way it can
be."""

from collections.abc import Callable

import pytest

from nbdtest.fakeserver.tls import TLSLayer, TLSQuirks
from nbdtest.fixtures.pki import Flaw, PKIMaterial, PSKMaterial
from nbdtest.net.tls import (
    HandshakeFailed,
    TLSBroken,
    TLSClosed,
    TLSContext,
    TLSPipe,
    TLSTruncated,
    client_context,
    server_context,
)

Make = Callable[..., "Meeting"]


class Meeting:
    """A client's pipe and a server's layer, with what the server said in plain numbers of bytes."""

    def __init__(self, client: TLSContext, server: TLSContext, quirks: TLSQuirks) -> None:
        self.client, self.server = TLSPipe(client), TLSLayer(server, quirks)
        self.received = bytearray()
        self.from_client = bytearray()
        self.sent: list[bytes] = []
        self.client_error: Exception | None = None

    def run(self, *, until_established: bool = False) -> "Meeting":
        """Carry bytes until nothing moves; the client reads all it can."""
        moved = True
        while moved and not (until_established and self.client.established and self.server.established):
            moved = False
            if self.client_error is None:
                try:
                    if self.client.handshake():
                        buffer = bytearray(1 << 17)
                        while count := self.client.read_into(buffer):
                            self.received += buffer[:count]
                except Exception as error:  # noqa: BLE001  # looked at by the test
                    self.client_error = error
            if ciphertext := self.client.to_send():
                moved = True
                for plaintext in self.server.incoming(ciphertext):
                    self.from_client += plaintext
            for piece in self.server.outgoing():
                moved = True
                self.sent.append(bytes(piece))
                self.client.feed(piece)
            if self.server.over and not moved and self.client_error is None:
                moved = True
                self.client.feed_eof()
        return self

    def say(self, *pieces: bytes) -> "Meeting":
        self.server.encrypt(pieces)
        return self.run()


@pytest.fixture(params=["x509", "psk"])
def meet(request: pytest.FixtureRequest, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> Make:
    if request.param == "psk":
        client, server = client_context(nbd_psk.client()), server_context(nbd_psk.server())
    else:
        client, server = client_context(nbd_pki.client(hostname="localhost")), server_context(nbd_pki.server())

    def make(**quirks: object) -> Meeting:
        return Meeting(client, server, TLSQuirks(**quirks))  # type: ignore[arg-type]  # fields of the quirks

    return make


def test_plaintext_goes_both_ways(meet: Make) -> None:
    meeting = meet().run()
    meeting.client.write(b"IHAVEOPT")
    meeting.say(b"reply", b"data" * 40_000)
    assert meeting.from_client == b"IHAVEOPT"
    assert meeting.received == b"reply" + b"data" * 40_000
    assert not meeting.server.over
    assert meeting.server.failure is None


def test_the_description_names_what_was_agreed_on(nbd_psk: PSKMaterial, nbd_pki: PKIMaterial) -> None:
    quirks = TLSQuirks()
    psk = Meeting(client_context(nbd_psk.client()), server_context(nbd_psk.server()), quirks).run()
    assert psk.server.describe() == "TLSv1.3, TLS_CHACHA20_POLY1305_SHA256, identity 'nbdtest'"
    mutual = server_context(nbd_pki.server(verify_peer=True))
    assert (
        Meeting(client_context(nbd_pki.client()), mutual, quirks).run().server.describe().endswith("client certificate")
    )


def test_goodbye_is_close_notify(meet: Make) -> None:
    meeting = meet().run()
    meeting.client.feed(meeting.server.goodbye())
    assert isinstance(meeting.run().client_error, TLSClosed)


def test_goodbye_before_the_session_is_nothing(meet: Make) -> None:
    assert meet().server.goodbye() == b""


def test_the_clients_goodbye_is_noticed(meet: Make) -> None:
    meeting = meet().run()
    meeting.client.close_notify()
    meeting.run()
    assert meeting.server.client_closed
    ragged = meet().run()
    assert list(ragged.server.incoming_end()) == []
    assert not ragged.server.client_closed


def test_a_client_that_refuses_is_a_failure(nbd_pki: PKIMaterial) -> None:
    flawed = server_context(nbd_pki.server(flaw=Flaw.EXPIRED))
    meeting = Meeting(client_context(nbd_pki.client()), flawed, TLSQuirks()).run()
    assert "certificate has expired" in str(meeting.client_error)
    assert "the client refused TLS: certificate expired" in str(meeting.server.failure)


def test_plaintext_instead_of_a_handshake_is_a_failure(meet: Make) -> None:
    meeting = meet()
    assert list(meeting.server.incoming(b"IHAVEOPT\0\0\0\7\0\0\0\0")) == []
    assert "the client sent bytes that are not TLS in the TLS handshake" in str(meeting.server.failure)


def test_no_quirk_is_any() -> None:
    assert not TLSQuirks().any
    assert TLSQuirks(handshake_records=0).any
    assert TLSQuirks(omits_close_notify=True).any


def test_the_handshake_can_be_cut_after_every_record(meet: Make) -> None:
    whole = sum(len(piece) > 0 for piece in meet().run(until_established=True).sent)
    assert whole >= 2
    for records in range(whole):
        meeting = meet(handshake_records=records).run()
        assert len(meeting.sent) == records
        assert meeting.server.over
        assert isinstance(meeting.client_error, HandshakeFailed | TLSTruncated), records


def test_plaintext_inside_the_handshake_is_refused_by_the_client(meet: Make) -> None:
    meeting = meet(plain_in_handshake=b"\0\x03\xe8\x89\x04\x55\x65\xa9" + bytes(12)).run()
    assert isinstance(meeting.client_error, HandshakeFailed | TLSBroken)
    assert meeting.received == b""


def test_plaintext_after_the_handshake_is_refused_by_the_client(meet: Make) -> None:
    meeting = meet(plain_in_session=b"\0\x03\xe8\x89\x04\x55\x65\xa9" + bytes(12)).run()
    assert isinstance(meeting.client_error, TLSBroken)
    assert meeting.received == b""


def test_single_byte_records_arrive_whole(meet: Make) -> None:
    meeting = meet(single_byte_records=True).run()
    before = sum(map(len, meeting.sent))
    meeting.say(b"0123456789")
    assert meeting.received == b"0123456789"
    assert sum(map(len, meeting.sent)) - before > 10 * 20


def test_a_flipped_bit_breaks_that_record(meet: Make) -> None:
    meeting = meet(flipped_record=2).run()
    meeting.say(b"one")
    assert meeting.received == b"one"
    meeting.say(b"two")
    assert isinstance(meeting.client_error, TLSBroken)
    assert meeting.received == b"one"


def test_an_early_close_notify_ends_the_plaintext(meet: Make) -> None:
    meeting = meet(closes_after=6).run()
    meeting.say(b"four")
    assert not meeting.server.over
    meeting.say(b"four")
    assert meeting.server.over
    assert meeting.received == b"fourfo"
    assert isinstance(meeting.client_error, TLSClosed)
    assert meeting.server.goodbye() == b""


def test_a_missing_close_notify(meet: Make) -> None:
    assert meet(omits_close_notify=True).run().server.goodbye() == b""
