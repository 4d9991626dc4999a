"""Our TLS client against our TLS server, in memory: X.509 and PSK, both versions, every refusal with its reason."""

import ssl

import pytest

from nbdtest.errors import UsageError
from nbdtest.fixtures.pki import Flaw, PKIMaterial, PSKMaterial
from nbdtest.net.tls import (
    PSK,
    HandshakeFailed,
    ServerPSK,
    Side,
    TLSBroken,
    TLSClosed,
    TLSPipe,
    TLSTruncated,
    VersionRange,
    client_context,
    server_context,
)
from tests.net.tls_link import Wire, read

TLS12 = VersionRange(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
TLS13 = VersionRange(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
BOTH = VersionRange()

versions = pytest.mark.parametrize(("versions", "name"), [(TLS12, "TLSv1.2"), (TLS13, "TLSv1.3")], ids=["1.2", "1.3"])
kinds = pytest.mark.parametrize("kind", ["x509", "mutual", "psk"])


def wire_of(
    kind: str,
    pki: PKIMaterial,
    psk: PSKMaterial,
    versions: VersionRange = BOTH,
    *,
    step: int = 1 << 20,
    tickets: int = 0,
) -> Wire:
    if kind == "psk":
        client, server = client_context(psk.client(), versions), server_context(psk.server(), versions, tickets=tickets)
    else:
        client = client_context(pki.client(hostname="localhost"), versions)
        server = server_context(pki.server(verify_peer=kind == "mutual"), versions, tickets=tickets)
    return Wire(client, server, step=step)


@pytest.fixture(params=["x509", "psk"])
def wire(request: pytest.FixtureRequest, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> Wire:
    made = wire_of(request.param, nbd_pki, nbd_psk)
    made.shake_hands()
    return made


@versions
@kinds
def test_plaintext_goes_both_ways(
    kind: str, versions: VersionRange, name: str, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial
) -> None:
    wire = wire_of(kind, nbd_pki, nbd_psk, versions)
    wire.shake_hands()
    assert (wire.client.version, wire.server.version) == (name, name)
    assert wire.client.cipher == wire.server.cipher
    for source, target in ((wire.client, wire.server), (wire.server, wire.client)):
        source.write(b"NBDMAGIC", b"", b"IHAVEOPT" * 20_000)
        wire.carry(source, target)
        assert read(target) == b"NBDMAGIC" + b"IHAVEOPT" * 20_000
        assert read(target) == b""


@versions
@kinds
def test_one_byte_at_a_time(
    kind: str, versions: VersionRange, name: str, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial
) -> None:
    wire = wire_of(kind, nbd_pki, nbd_psk, versions, step=1)
    wire.shake_hands()
    wire.server.write(b"hello")
    ciphertext = wire.server.to_send()
    got = b""
    for at in range(len(ciphertext)):
        wire.client.feed(ciphertext[at : at + 1])
        got += read(wire.client)
    assert got == b"hello"


def test_the_newest_common_version_is_taken(nbd_pki: PKIMaterial) -> None:
    wire = Wire(client_context(nbd_pki.client()), server_context(nbd_pki.server(), TLS12))
    wire.shake_hands()
    assert wire.client.version == "TLSv1.2"


def test_no_common_version_is_said_by_the_server(nbd_pki: PKIMaterial) -> None:
    ours, theirs = Wire(client_context(nbd_pki.client(), TLS12), server_context(nbd_pki.server(), TLS13)).failures()
    assert isinstance(theirs, HandshakeFailed)
    assert theirs.refused_by is Side.SERVER
    assert "no version of TLS that we accept" in str(theirs)
    assert isinstance(ours, HandshakeFailed)
    assert (ours.refused_by, ours.alert) == (Side.SERVER, "protocol version")


def test_psk_suites_have_forward_secrecy_and_encryption(nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> None:
    wire = wire_of("psk", nbd_pki, nbd_psk, TLS12)
    wire.shake_hands()
    assert wire.client.cipher == "ECDHE-PSK-CHACHA20-POLY1305"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(__import__("nbdtest.net.tls.context", fromlist=["PSK_CIPHERS"]).PSK_CIPHERS)
    old = [suite["name"] for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"]
    assert old
    assert all("DHE-PSK" in name and "NULL" not in name for name in old)


def test_the_server_learns_the_identity(nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> None:
    wire = wire_of("psk", nbd_pki, nbd_psk)
    wire.shake_hands()
    assert wire.server.psk_identity == nbd_psk.identity


def test_two_connections_of_one_server_learn_their_own_identities(nbd_psk: PSKMaterial) -> None:
    server = server_context(nbd_psk.server())
    one = Wire(client_context(nbd_psk.client()), server)
    other = Wire(client_context(PSK.from_file(nbd_psk.file, "other")), server)
    one.client.handshake()
    other.shake_hands()
    one.shake_hands()
    assert (one.server.psk_identity, other.server.psk_identity) == (nbd_psk.identity, "other")


@versions
def test_non_ascii_identity(versions: VersionRange, name: str) -> None:
    client = client_context(PSK(identity="Zoë", key=b"k" * 32), versions)
    wire = Wire(client, server_context(ServerPSK(keys={"Zoë": b"k" * 32}), versions))
    wire.shake_hands()
    assert wire.server.psk_identity == "Zoë"


@versions
@pytest.mark.parametrize("identity", ["i", "i" * 255], ids=["short identity", "long identity"])
@pytest.mark.parametrize("size", [1, 16, 64, 512])
def test_psk_at_the_limits(size: int, identity: str, versions: VersionRange, name: str) -> None:
    key = bytes(range(1, 256)) * 3
    client = client_context(PSK(identity=identity, key=key[:size]), versions)
    Wire(client, server_context(ServerPSK(keys={identity: key[:size]}), versions)).shake_hands()


# What the client makes of the server's certificate: OpenSSL's words. OpenSSL minds the purpose, GnuTLS does not.
REFUSED_SERVERS = {
    Flaw.EXPIRED: "certificate has expired",
    Flaw.NOT_YET_VALID: "certificate is not yet valid",
    Flaw.WRONG_CA: "unable to get local issuer certificate",
    Flaw.WRONG_HOST: "Hostname mismatch",
    Flaw.WRONG_PURPOSE: "unsuitable certificate purpose",
}


@versions
@pytest.mark.parametrize("flaw", REFUSED_SERVERS, ids=lambda flaw: flaw.value)
def test_bad_server_certificate_is_refused(flaw: Flaw, versions: VersionRange, name: str, nbd_pki: PKIMaterial) -> None:
    client = client_context(nbd_pki.client(hostname="localhost"), versions)
    ours, theirs = Wire(client, server_context(nbd_pki.server(flaw=flaw), versions)).failures()
    assert isinstance(ours, HandshakeFailed)
    assert ours.refused_by is Side.CLIENT
    assert str(ours).startswith(f"the server's certificate is refused: {REFUSED_SERVERS[flaw]}")
    assert isinstance(theirs, HandshakeFailed)
    assert theirs.refused_by is Side.CLIENT
    assert theirs.alert


@pytest.mark.parametrize("flaw", REFUSED_SERVERS, ids=lambda flaw: flaw.value)
def test_verify_peer_off_accepts_any_certificate(flaw: Flaw, nbd_pki: PKIMaterial) -> None:
    client = client_context(nbd_pki.client(hostname="localhost", verify_peer=False))
    wire = Wire(client, server_context(nbd_pki.server(flaw=flaw)))
    wire.shake_hands()
    assert wire.client.peer_certificate


def test_without_a_host_name_only_the_chain_is_checked(nbd_pki: PKIMaterial) -> None:
    Wire(client_context(nbd_pki.client()), server_context(nbd_pki.server(flaw=Flaw.WRONG_HOST))).shake_hands()
    ours, _ = Wire(client_context(nbd_pki.client()), server_context(nbd_pki.server(flaw=Flaw.WRONG_CA))).failures()
    assert "unable to get local issuer certificate" in str(ours)


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1", "::1"])
def test_names_and_addresses_of_the_good_certificate(hostname: str, nbd_pki: PKIMaterial) -> None:
    Wire(client_context(nbd_pki.client(hostname=hostname)), server_context(nbd_pki.server())).shake_hands()


def test_common_name_counts_when_there_is_no_alternative_name(nbd_pki: PKIMaterial) -> None:
    client = client_context(nbd_pki.client(hostname="localhost"))
    Wire(client, server_context(nbd_pki.server(flaw=Flaw.CN_ONLY))).shake_hands()


def test_revoked_server_is_refused_only_with_a_list(nbd_pki: PKIMaterial) -> None:
    server = server_context(nbd_pki.server(flaw=Flaw.REVOKED))
    Wire(client_context(nbd_pki.client()), server).shake_hands()
    with_list = client_context(type(nbd_pki.client())(directory=str(nbd_pki.with_crl)))
    ours, _ = Wire(with_list, server).failures()
    assert "certificate revoked" in str(ours)
    Wire(with_list, server_context(nbd_pki.server())).shake_hands()


def test_directory_without_authority_means_the_systems_authorities(nbd_pki: PKIMaterial, tmp_path) -> None:
    client = client_context(type(nbd_pki.client())(directory=str(tmp_path)))
    ours, _ = Wire(client, server_context(nbd_pki.server())).failures()
    assert "unable to get local issuer certificate" in str(ours)


# flaw of the client's certificate -> words of the server, alert to the client
REFUSED_CLIENTS = {
    Flaw.EXPIRED: ("certificate has expired", "certificate expired"),
    Flaw.NOT_YET_VALID: ("certificate is not yet valid", "bad certificate"),
    Flaw.WRONG_CA: ("unable to get local issuer certificate", "unknown ca"),
    Flaw.REVOKED: ("certificate revoked", "certificate revoked"),
    Flaw.WRONG_PURPOSE: ("unsuitable certificate purpose", "unsupported certificate"),
}


@versions
@pytest.mark.parametrize("flaw", REFUSED_CLIENTS, ids=lambda flaw: flaw.value)
def test_bad_client_certificate_is_refused(flaw: Flaw, versions: VersionRange, name: str, nbd_pki: PKIMaterial) -> None:
    words, alert = REFUSED_CLIENTS[flaw]
    client = client_context(nbd_pki.client(flaw=flaw), versions)
    ours, theirs = Wire(client, server_context(nbd_pki.server(verify_peer=True, crl=True), versions)).failures()
    assert isinstance(theirs, HandshakeFailed)
    assert str(theirs) == f"the client's certificate is refused: {words}"
    # On TLS 1.3 the client's handshake was over before the server looked.
    assert isinstance(ours, TLSBroken if name == "TLSv1.3" else HandshakeFailed)
    assert (ours.refused_by, ours.alert) == (Side.SERVER, alert)
    assert "the server refused TLS" in str(ours)


@versions
def test_missing_client_certificate_is_refused(versions: VersionRange, name: str, nbd_pki: PKIMaterial) -> None:
    client = client_context(type(nbd_pki.client())(directory=str(nbd_pki.ca_only)), versions)
    ours, theirs = Wire(client, server_context(nbd_pki.server(verify_peer=True), versions)).failures()
    assert "sent no certificate" in str(theirs)
    assert ours.alert == ("certificate required" if name == "TLSv1.3" else "handshake failure")


@versions
def test_man_in_the_middle_with_a_certificate_is_refused_under_psk(
    versions: VersionRange, name: str, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial
) -> None:
    attacker = server_context(nbd_pki.server(), versions)
    ours, _ = Wire(client_context(nbd_psk.client(), versions), attacker).failures()
    assert isinstance(ours, HandshakeFailed)
    if name == "TLSv1.3":
        assert ours.refused_by is Side.CLIENT
        assert "answered with a certificate instead of proving that it knows the key" in str(ours)
    else:
        assert ours.alert == "handshake failure"  # it has no suite in common with us


def test_man_in_the_middle_with_a_trusted_certificate_is_refused_under_psk(
    nbd_pki: PKIMaterial, nbd_psk: PSKMaterial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(nbd_pki.directory / "ca-cert.pem"))
    ours, _ = Wire(client_context(nbd_psk.client()), server_context(nbd_pki.server())).failures()
    assert "instead of proving that it knows the key" in str(ours)


@versions
def test_wrong_key(versions: VersionRange, name: str, nbd_psk: PSKMaterial) -> None:
    client = client_context(PSK.from_file(nbd_psk.wrong_key_file, nbd_psk.identity), versions)
    ours, theirs = Wire(client, server_context(nbd_psk.server(), versions)).failures()
    assert isinstance(ours, HandshakeFailed)
    assert "wrong key or unknown identity?" in str(ours)
    assert isinstance(theirs, HandshakeFailed)
    assert theirs.refused_by is Side.SERVER
    assert ("another key" if name == "TLSv1.3" else "wrong key or unknown identity?") in str(theirs)


@versions
def test_unknown_identity(versions: VersionRange, name: str, nbd_psk: PSKMaterial) -> None:
    client = client_context(PSK(identity="mallory", key=b"k" * 32), versions)
    ours, theirs = Wire(client, server_context(nbd_psk.server(), versions)).failures()
    assert isinstance(ours, HandshakeFailed)
    assert "wrong key or unknown identity?" in str(ours)
    assert isinstance(theirs, HandshakeFailed)
    assert "mallory" in str(theirs) or "identity is unknown" in str(theirs)


def test_a_client_that_closes_gets_the_guess_of_the_server(nbd_psk: PSKMaterial) -> None:
    wire = Wire(client_context(nbd_psk.client()), server_context(nbd_psk.server()))
    wire.client.handshake()
    wire.client.feed_eof()
    with pytest.raises(
        HandshakeFailed, match=r"closed the connection .* before it sent anything: wrong key or unknown"
    ):
        wire.client.handshake()


CUT = {
    "keys, before anything": ("psk", BOTH, 0, "wrong key or unknown identity?"),
    "keys, 1.2, before anything": (
        "psk",
        TLS12,
        0,
        "before it sent anything: does it use another kind of credentials?",
    ),
    "keys, 1.2, after its flight": ("psk", TLS12, 1000, "wrong key or unknown identity?"),
    "certificates, before anything": ("x509", BOTH, 0, "does it use another kind of credentials?"),
    "certificates, 1.2, after its flight": (
        "x509",
        TLS12,
        500,
        "does it refuse our certificate, or the lack of one, or",
    ),
}


@pytest.mark.parametrize("case", CUT)
def test_a_server_that_hangs_up_without_a_word(case: str, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> None:
    kind, versions, received, guess = CUT[case]
    wire = wire_of(kind, nbd_pki, nbd_psk, versions)
    wire.client.handshake()
    if received:
        wire.server.feed(wire.client.to_send())
        wire.server.handshake()
        wire.client.feed(wire.server.to_send()[: received if kind == "x509" else -1])
        wire.client.handshake()
    wire.client.feed_eof()
    with pytest.raises(HandshakeFailed) as caught:
        wire.client.handshake()
    assert guess in str(caught.value)
    assert caught.value.refused_by is None


@versions
@pytest.mark.parametrize(("kind", "guess"), [("x509", ": does it refuse our certificate?"), ("psk", "of its part")])
def test_a_client_that_hangs_up_without_a_word(
    kind: str, guess: str, versions: VersionRange, name: str, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial
) -> None:
    wire = wire_of(kind, nbd_pki, nbd_psk, versions)
    wire.client.handshake()
    wire.carry(wire.client, wire.server)
    wire.server.handshake()
    wire.server.feed_eof(reset=True)
    with pytest.raises(
        HandshakeFailed, match=r"the client reset the connection in the TLS handshake, after \d+"
    ) as caught:
        wire.server.handshake()
    assert str(caught.value).endswith(guess)


def test_certificate_client_and_psk_server(nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> None:
    ours, theirs = Wire(client_context(nbd_pki.client()), server_context(nbd_psk.server())).failures()
    assert "the client does not offer a pre-shared key that we know" in str(theirs)
    assert "does it demand another certificate, or a pre-shared key?" in str(ours)


def test_plaintext_instead_of_a_handshake(nbd_pki: PKIMaterial) -> None:
    wire = Wire(client_context(nbd_pki.client()), server_context(nbd_pki.server()))
    wire.client.handshake()
    wire.client.feed(bytes.fromhex("0003e889045565a9") + b"\0\0\0\7\0\0\0\1\0\0\0\0")
    with pytest.raises(HandshakeFailed, match="the server sent bytes that are not TLS in the TLS handshake") as caught:
        wire.client.handshake()
    assert caught.value.refused_by is Side.CLIENT
    wire.server.feed(b"IHAVEOPT\0\0\0\7\0\0\0\0")
    with pytest.raises(HandshakeFailed, match="the client sent bytes that are not TLS"):
        wire.server.handshake()


def test_plaintext_inside_the_session(wire: Wire) -> None:
    wire.client.feed(bytes.fromhex("6744669800000000") + bytes(8))
    with pytest.raises(TLSBroken, match="the server sent bytes that are not TLS in the TLS session"):
        read(wire.client)


def test_a_flipped_bit(wire: Wire) -> None:
    wire.server.write(b"payload")
    ciphertext = bytearray(wire.server.to_send())
    ciphertext[-1] ^= 1
    wire.client.feed(ciphertext)
    with pytest.raises(TLSBroken, match="a record from the server does not decrypt") as caught:
        read(wire.client)
    assert caught.value.refused_by is Side.CLIENT
    wire.server.feed(wire.client.to_send())
    with pytest.raises(TLSBroken, match=r"the client .* bad record mac") as told:
        read(wire.server)
    assert told.value.refused_by is Side.CLIENT


def test_close_notify_is_told_after_the_bytes_before_it(wire: Wire) -> None:
    wire.server.write(b"last words")
    wire.server.close_notify()
    wire.carry(wire.server, wire.client)
    assert read(wire.client) == b"last words"
    for _ in range(2):
        with pytest.raises(TLSClosed, match="the server closed the TLS session"):
            read(wire.client)


def test_a_closed_direction_leaves_the_other_open(wire: Wire) -> None:
    wire.client.close_notify()
    wire.carry(wire.client, wire.server)
    with pytest.raises(TLSClosed):
        read(wire.server)
    wire.server.write(b"still here")
    wire.carry(wire.server, wire.client)
    assert read(wire.client) == b"still here"
    with pytest.raises(UsageError, match="our side of the TLS session is closed"):
        wire.client.write(b"x")
    wire.server.close_notify()
    wire.carry(wire.server, wire.client)
    with pytest.raises(TLSClosed):
        read(wire.client)


def test_close_notify_before_data_that_is_on_its_way(wire: Wire) -> None:
    wire.server.write(b"a" * 40_000)
    wire.carry(wire.server, wire.client)
    wire.client.close_notify()
    assert read(wire.client) == b"a" * 40_000


def test_a_second_close_notify_sends_nothing(wire: Wire) -> None:
    wire.client.close_notify()
    assert wire.client.to_send()
    wire.client.close_notify()
    assert wire.client.to_send() == b""


def test_an_end_without_close_notify_is_a_truncation(wire: Wire) -> None:
    wire.server.write(b"first")
    wire.carry(wire.server, wire.client)
    wire.client.feed_eof()
    assert read(wire.client) == b"first"
    with pytest.raises(TLSTruncated, match="the server closed the connection without closing the TLS session"):
        read(wire.client)


def test_an_end_inside_a_record_is_a_truncation(wire: Wire) -> None:
    wire.server.write(b"a" * 1000)
    wire.client.feed(wire.server.to_send()[:500])
    assert read(wire.client) == b""
    wire.client.feed_eof(reset=True)
    with pytest.raises(TLSTruncated, match="the server reset the connection") as caught:
        read(wire.client)
    assert caught.value.reset


def test_an_end_before_any_byte_makes_the_client_doubt_its_credentials(wire: Wire) -> None:
    wire.client.feed_eof()
    with pytest.raises(TLSTruncated, match=r"before it sent anything in it: does it refuse our (certificate|identity)"):
        read(wire.client)


def test_pending_counts_what_is_decrypted(wire: Wire) -> None:
    wire.server.write(b"a" * 5000)
    wire.carry(wire.server, wire.client)
    assert (wire.client.pending, wire.client.undecrypted > 5000) == (0, True)
    assert read(wire.client, 100) == b"a" * 100
    assert (wire.client.pending, wire.client.undecrypted) == (4900, 0)


def test_large_writes_are_encrypted_in_pieces(wire: Wire) -> None:
    pieces = list(wire.server.encrypt(b"head", bytes(200_000)))
    assert len(pieces) == 5
    assert max(map(len, pieces)) < 66_000
    assert wire.server.pending_to_send == 0
    for piece in pieces:
        wire.client.feed(piece)
    assert read(wire.client) == b"head" + bytes(200_000)


def test_short_pieces_share_a_record(wire: Wire) -> None:
    one = wire.server.to_send() or wire.server.write(b"a" * 30) or wire.server.to_send()
    two = wire.server.write(b"a" * 15, memoryview(b"a" * 15)) or wire.server.to_send()
    assert len(one) == len(two)


@pytest.mark.parametrize("tickets", [0, 2])
def test_session_tickets_only_when_asked_for(tickets: int, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> None:
    wire = wire_of("x509", nbd_pki, nbd_psk, TLS13, tickets=tickets)
    while not wire.server.handshake():
        wire.client.handshake()
        wire.carry(wire.client, wire.server)
        if not wire.server.handshake():
            wire.carry(wire.server, wire.client)
    assert (wire.server.pending_to_send > 0) == (tickets > 0)
    wire.carry(wire.server, wire.client)
    assert read(wire.client) == b""


@versions
def test_a_session_is_resumed(versions: VersionRange, name: str, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> None:
    wire = wire_of("mutual", nbd_pki, nbd_psk, versions, tickets=2)
    wire.shake_hands()
    assert read(wire.client) == b""  # takes in the tickets
    assert (wire.client.resumed, wire.server.resumed) == (False, False)
    again = wire_of("mutual", nbd_pki, nbd_psk, versions)
    again.client = TLSPipe(wire.client.context, session=wire.client.session)
    again.server = TLSPipe(wire.server.context)
    again.shake_hands()
    assert (again.client.resumed, again.server.resumed) == (True, True)
    assert again.server.version == name


def test_reading_and_writing_before_the_handshake_is_our_mistake(nbd_pki: PKIMaterial) -> None:
    wire = Wire(client_context(nbd_pki.client()), server_context(nbd_pki.server()))
    for call in (lambda: read(wire.client), lambda: wire.client.write(b"x")):
        with pytest.raises(UsageError, match="the TLS handshake is not complete"):
            call()
    assert (wire.client.version, wire.client.cipher, wire.client.peer_certificate, wire.client.pending) == (
        "",
        "",
        None,
        0,
    )


def test_a_failed_handshake_stays_failed(nbd_pki: PKIMaterial) -> None:
    wire = Wire(client_context(nbd_pki.client()), server_context(nbd_pki.server()))
    wire.server.feed(b"not TLS at all, and long enough")
    for _ in range(2):
        with pytest.raises(HandshakeFailed, match="not TLS"):
            wire.server.handshake()


def test_what_was_agreed_on_is_known_after_the_session_broke(nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> None:
    wire = wire_of("mutual", nbd_pki, nbd_psk)
    wire.shake_hands()
    agreed = wire.server.version, wire.server.cipher, wire.server.peer_certificate
    wire.client.feed(b"\0" * 50)
    with pytest.raises(TLSBroken):
        read(wire.client)
    wire.carry(wire.client, wire.server)
    with pytest.raises(TLSBroken):
        read(wire.server)
    assert (wire.server.version, wire.server.cipher, wire.server.peer_certificate) == agreed
    assert agreed[2]
