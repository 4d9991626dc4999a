"""How PSK is available, and that the compatibility layer of 3.11 and 3.12 leaves every interpreter alone that it does
not know."""

import contextlib
import dataclasses
import gc
import ssl
import sys
import weakref

import pytest

from nbdtest.errors import UsageError
from nbdtest.net.tls import (
    HandshakeFailed,
    PSKUnavailable,
    ServerPSK,
    TLSContext,
    TLSPipe,
    client_context,
    psk_compat,
    psk_support,
    server_context,
)
from nbdtest.net.tls import psk as psk_module
from nbdtest.net.tls.credentials import PSK
from nbdtest.net.tls.psk_compat import Interpreter, LayoutUnknown
from tests.net.tls_link import Wire

OLD = sys.version_info < (3, 13)
only_old = pytest.mark.skipif(not OLD, reason="Python 3.13 has the public calls")
ALICE = PSK(identity="alice", key=b"k" * 32)

KNOWN = Interpreter(
    implementation="cpython",
    version=(3, 12),
    pointer_size=8,
    header_size=16,
    context_size=96,
    extension="/usr/lib/_ssl.so",
    system="Linux",
    openssl="OpenSSL 3.0.19 27 Jan 2026",
)


def test_psk_is_available_here() -> None:
    assert psk_support()
    assert psk_support().kind == ("compat" if OLD else "native")
    assert psk_support().reason == ""


FALSIFIED = [
    ("another implementation", {"implementation": "pypy"}, "pypy is not CPython"),
    ("an older version", {"version": (3, 10)}, "no compatibility layer for 3.10"),
    ("a newer version", {"version": (3, 13)}, "no compatibility layer for 3.13"),
    ("32 bits", {"pointer_size": 4}, "a pointer has 32 bits"),
    ("a debug build", {"header_size": 32}, "the object header has 32 bytes"),
    ("another struct", {"context_size": 104}, "SSLContext has 104 bytes, not 96"),
    ("a static build", {"extension": None}, "linked into the interpreter"),
    ("Windows", {"system": "Windows"}, "Windows"),
]


def test_a_known_interpreter_is_not_refused() -> None:
    assert psk_compat.refusal(KNOWN) == ""


@pytest.mark.parametrize(("changed", "reason"), [row[1:] for row in FALSIFIED], ids=[row[0] for row in FALSIFIED])
def test_a_foreign_interpreter_is_refused_before_its_library_is_opened(changed: dict, reason: str) -> None:
    def must_not_be_called(_path: object) -> None:
        pytest.fail("the library was opened")

    seen = dataclasses.replace(KNOWN, **changed)
    assert reason in psk_compat.refusal(seen)
    with pytest.raises(LayoutUnknown, match=reason):
        psk_compat.load(seen, must_not_be_called)


def test_every_fact_of_an_interpreter_is_falsified() -> None:
    falsified = {name for _, changed, _ in FALSIFIED for name in changed}
    assert falsified | {"openssl"} == {field.name for field in dataclasses.fields(Interpreter)}


def test_a_library_that_cannot_be_opened_is_refused() -> None:
    with pytest.raises(LayoutUnknown, match=r"libssl cannot be reached: .*no/such"):
        psk_compat.load(dataclasses.replace(KNOWN, extension="/no/such/_ssl.so"))


def test_a_library_without_the_functions_is_refused() -> None:
    with pytest.raises(LayoutUnknown, match=r"libssl cannot be reached: .*OpenSSL_version"):
        psk_compat.load(dataclasses.replace(KNOWN, extension="libc.so.6"))


def test_another_openssl_than_that_of_the_ssl_module_is_refused() -> None:
    extension = psk_compat.observe().extension
    assert extension is not None
    with pytest.raises(
        LayoutUnknown, match=f"the libssl found is {ssl.OPENSSL_VERSION}, the ssl module uses OpenSSL 4"
    ):
        psk_compat.load(dataclasses.replace(KNOWN, extension=extension, openssl="OpenSSL 4.0.3 1 Sep 2026"))


@only_old
class TestPointer:
    """What is found in the context is asked for what Python says of the same context."""

    @pytest.fixture
    def context(self) -> ssl.SSLContext:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @pytest.fixture
    def libssl(self) -> psk_compat.Libssl:
        return psk_compat.load(psk_compat.observe())

    def test_the_right_one_is_taken(self, libssl: psk_compat.Libssl, context: ssl.SSLContext) -> None:
        libssl.set_client_callback(context, lambda _hint: ("alice", b"key"))

    def test_other_options_are_refused(
        self, libssl: psk_compat.Libssl, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ssl.SSLContext, "options", property(lambda _self: ssl.OP_NO_TICKET))
        with pytest.raises(LayoutUnknown, match="other options than Python says"):
            libssl.set_client_callback(context, lambda _hint: ("alice", b"key"))

    def test_another_verify_mode_is_refused(
        self, libssl: psk_compat.Libssl, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ssl.SSLContext, "verify_mode", property(lambda _self: ssl.CERT_NONE))
        with pytest.raises(LayoutUnknown, match="another verify mode than Python says"):
            libssl.set_server_callback(context, lambda _identity: b"")

    def test_no_pointer_is_refused(self, libssl: psk_compat.Libssl, monkeypatch: pytest.MonkeyPatch) -> None:
        class Empty:  # an object whose first field after the header is a null pointer
            __slots__ = ("unset",)

        with pytest.raises(LayoutUnknown, match="holds no SSL_CTX"):
            libssl.set_server_callback(Empty(), lambda _identity: b"")  # type: ignore[arg-type]  # that is the point

    def test_the_refusal_reaches_the_user_with_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lie = property(lambda _self: ssl.OP_NO_TICKET, lambda _self, _options: None)
        monkeypatch.setattr(ssl.SSLContext, "options", lie)
        with pytest.raises(
            PSKUnavailable,
            match=r"TLS-PSK needs Python 3\.13 or later, or use certificates \(on CPython 3\.1[12].*other options",
        ):
            client_context(ALICE)

    @pytest.mark.parametrize(
        "answer",
        [(None, b"key"), ("alice", b""), ("a" * 300, b"key"), ("alice", b"k" * 600), ("alice", "no bytes"), None],
        ids=["no identity", "no key", "long identity", "long key", "wrong type", "nothing"],
    )
    def test_a_nonsensical_answer_of_the_client_callback_fails_the_handshake(
        self, answer: object, libssl: psk_compat.Libssl, context: ssl.SSLContext
    ) -> None:
        context.check_hostname = False
        context.set_ciphers("PSK")
        libssl.set_client_callback(context, lambda _hint: answer)  # type: ignore[arg-type, return-value]  # nonsense on purpose
        with pytest.raises(ssl.SSLError, match="SSL"):
            handshake_in_memory(context, server_context(ServerPSK(keys={"alice": b"key"})))


def handshake_in_memory(context: ssl.SSLContext, server: TLSContext) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, pipe = context.wrap_bio(incoming, outgoing), TLSPipe(server)
    for _ in range(4):
        try:
            client.do_handshake()
            return
        except ssl.SSLWantReadError:
            pipe.feed(outgoing.read())
            with contextlib.suppress(HandshakeFailed):  # the client is told by the alert
                pipe.handshake()
            incoming.write(pipe.to_send())


@pytest.fixture
def unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter without PSK."""
    if OLD:
        monkeypatch.setattr(psk_compat, "observe", lambda: dataclasses.replace(KNOWN, implementation="pypy"))
    else:
        monkeypatch.setattr(ssl, "HAS_PSK", False)


@pytest.mark.usefixtures("unavailable")
class TestWithoutPSK:
    """On an interpreter that cannot do it, PSK is refused before anything is sent, and the rest works."""

    def test_support_says_why(self) -> None:
        assert not psk_support()
        assert ("pypy is not CPython" if OLD else "built without it") in psk_support().reason
        assert "TLS-PSK" in psk_support().reason
        assert "certificates" in psk_support().reason  # what to do

    def test_both_sides_refuse(self) -> None:
        with pytest.raises(PSKUnavailable):
            client_context(ALICE)
        with pytest.raises(PSKUnavailable):
            server_context(ServerPSK(keys={"alice": b"k"}))

    def test_it_is_a_usage_error(self) -> None:
        assert issubclass(PSKUnavailable, UsageError)

    def test_certificates_work(self, nbd_pki) -> None:
        client_context(nbd_pki.client())
        server_context(nbd_pki.server())


def test_the_callback_lives_as_long_as_its_context() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def callback(_identity: str | None) -> bytes:
        return b""

    alive = weakref.ref(callback)
    psk_module.set_server_callback(context, callback)
    del callback
    gc.collect()
    assert alive() is not None
    del context
    gc.collect()
    assert alive() is None


def test_many_handshakes_leave_nothing_behind(nbd_psk) -> None:
    client, server = client_context(nbd_psk.client()), server_context(nbd_psk.server())
    for _ in range(20):
        Wire(client, server).shake_hands()
    gc.collect()
    before = sum(isinstance(thing, ssl.SSLContext) for thing in gc.get_objects())
    for _ in range(20):
        Wire(client, server).shake_hands()
    gc.collect()
    assert sum(isinstance(thing, ssl.SSLContext) for thing in gc.get_objects()) <= before
