"""Servers and handles with credentials that fit each other, PSK and certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from nbdtest.client import NBD, TLS_REQUIRE
from nbdtest.fakeserver import FakeServer, TLSMode
from nbdtest.fixtures.pki import PKIMaterial, PSKMaterial
from nbdtest.net.tls import TLSContext, VersionRange, server_context


@dataclass(frozen=True)
class Kind:
    """One kind of credentials: makes servers that have them, and handles that know them."""

    name: str
    pki: PKIMaterial
    psk: PSKMaterial
    stack: ExitStack

    def context(self, versions: VersionRange | None = None, **arguments: Any) -> TLSContext:
        """The server's."""
        return server_context(self.psk.server() if self.name == "psk" else self.pki.server(), versions, **arguments)

    def server(self, *exports: Any, tls_mode: TLSMode = TLSMode.REQUIRED, **settings: Any) -> FakeServer:
        """A server that runs until the test is over, and is verified then."""
        if not exports:
            settings.setdefault("size", 1 << 20)
        settings.setdefault("tls", self.context())
        # The handles of these tests are dropped as they are; what else a client may not do is looked at.
        settings["tolerate"] = ["TERM-010", "TERM-042", *settings.get("tolerate", [])]
        return self.stack.enter_context(FakeServer(*exports, tls_mode=tls_mode, **settings))

    def handle(self, tls: int = TLS_REQUIRE) -> NBD:
        """A handle that is set up and not connected."""
        handle = self.stack.enter_context(NBD())
        handle.set_tls(tls)
        if self.name == "psk":
            handle.set_tls_psk_file(self.psk.file)
            handle.set_tls_username(self.psk.identity)
        else:
            handle.set_tls_certificates(self.pki.directory)
            handle.set_tls_hostname("localhost")
        return handle


def make(name: str, pki: PKIMaterial, psk: PSKMaterial) -> Iterator[Kind]:
    with ExitStack() as stack:
        yield Kind(name, pki, psk, stack)


@pytest.fixture(params=["psk", "x509"])
def kind(request: pytest.FixtureRequest, nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> Iterator[Kind]:
    """Either kind of credentials."""
    yield from make(request.param, nbd_pki, nbd_psk)


@pytest.fixture
def x509(nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> Iterator[Kind]:
    """Certificates."""
    yield from make("x509", nbd_pki, nbd_psk)


@pytest.fixture
def psk(nbd_pki: PKIMaterial, nbd_psk: PSKMaterial) -> Iterator[Kind]:
    """A pre-shared key."""
    yield from make("psk", nbd_pki, nbd_psk)
