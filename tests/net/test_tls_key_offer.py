"""Offers of a pre-shared key made by hand, held against OpenSSL's own: it takes ours, and we read its."""

import os
from contextlib import suppress

import pytest

from nbdtest.fixtures.pki import PSKMaterial
from nbdtest.net.tls import HandshakeFailed, TLSPipe, client_context, server_context
from nbdtest.net.tls.key_offer import ACCEPTANCE, KeyOffer, accepts_key, key_offer


def answer_to(hello: bytes, psk: PSKMaterial) -> bytes:
    """What OpenSSL answers, an alert or its part of the handshake."""
    server = TLSPipe(server_context(psk.server()))
    server.feed(hello)
    with suppress(HandshakeFailed):
        server.handshake()
    return server.to_send()


def hello_of_openssl(psk: PSKMaterial) -> bytes:
    client = TLSPipe(client_context(psk.client()))
    client.handshake()
    return client.to_send()


def test_the_right_key_is_accepted(nbd_psk: PSKMaterial) -> None:
    right = nbd_psk.client()
    answer = answer_to(key_offer(right.identity.encode(), right.key, os.urandom(64)), nbd_psk)
    assert accepts_key(answer)
    assert not any(accepts_key(answer[:length]) for length in range(100))


@pytest.mark.parametrize(
    ("identity", "key"),
    [("nbdtest", b""), ("nbdtest", b"x" * 600), ("nobody", None), ("", None), ("nbdtest" + "x" * 60_000, None)],
    ids=["empty-key", "oversized-key", "unknown-identity", "empty-identity", "oversized-identity"],
)
def test_anything_else_is_refused(identity: str, key: bytes | None, nbd_psk: PSKMaterial) -> None:
    known = nbd_psk.client().key
    answer = answer_to(key_offer(identity.encode(), known if key is None else key, os.urandom(64)), nbd_psk)
    assert not accepts_key(answer)


def test_openssls_own_offer_is_read(nbd_psk: PSKMaterial) -> None:
    offer = KeyOffer.read(hello_of_openssl(nbd_psk))
    assert offer is not None
    assert offer.identity == nbd_psk.identity.encode()
    assert offer.proves(nbd_psk.client().key)
    assert not offer.proves(b"")


@pytest.mark.parametrize("length", [0, 1, 255, 300, 60_000])
@pytest.mark.parametrize("key", [b"", b"k", b"k" * 600], ids=len)
def test_offers_of_any_length_are_read_as_they_were_made(key: bytes, length: int) -> None:
    hello = key_offer(b"i" * length, key, bytes(64))
    offer = KeyOffer.read(hello)
    assert offer is not None
    assert offer.identity == b"i" * length
    assert offer.proves(key)
    assert not offer.proves(key + b"x")


def test_what_is_no_offer_is_none(nbd_psk: PSKMaterial) -> None:
    hello = hello_of_openssl(nbd_psk)
    assert {KeyOffer.read(hello[:length]) for length in range(len(hello))} == {None}
    assert KeyOffer.read(ACCEPTANCE) is None


def test_a_made_acceptance_accepts() -> None:
    assert accepts_key(ACCEPTANCE)
