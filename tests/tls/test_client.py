"""What the client's settings for TLS do, by all three ways to wait."""

from __future__ import annotations

import asyncio
import fcntl
import select
import ssl
import sys
import termios
import threading
from pathlib import Path

import pytest

from nbdtest.client import NBD, TLS_ALLOW, TLS_DISABLE, TLS_REQUIRE, ClosedHandle, Error
from nbdtest.client.asynchronous import AsyncNBD
from nbdtest.client.channel import TLSChannel
from nbdtest.fakeserver import FakeServer, Style, TLSMode, ack, data, hold, opt_error, raw
from nbdtest.fixtures.pki import Flaw, PKIMaterial, PSKMaterial
from nbdtest.net.clock import Deadline, pause
from nbdtest.net.tls import PSKSupport, ServerPSK, VersionRange, server_context
from nbdtest.wire import Cmd, Opt, Rep
from tests.client.test_interruptions import in_background
from tests.tls.conftest import Kind

TLS12 = VersionRange(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)


def test_commands_under_tls(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    handle.connect_unix(server.path)
    assert handle.get_tls_negotiated()
    payload = bytes(range(256)) * 2048
    handle.pwrite(payload, 4096)
    assert handle.pread(len(payload), 4096) == payload
    handle.flush()
    handle.shutdown()
    assert handle.aio_is_closed()
    assert not server.journal.violations


def test_commands_in_flight_under_tls(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    handle.connect_unix(server.path)
    pieces = [bytes([number]) * 65536 for number in range(16)]
    writes = {handle.aio_pwrite(piece, at * 65536) for at, piece in enumerate(pieces)}
    while writes:
        handle.poll(-1)
        writes -= {cookie for cookie in writes if handle.aio_command_completed(cookie)}
    assert handle.pread(1 << 20, 0) == b"".join(pieces)


def turn(handle: NBD) -> None:
    """One turn of the loop that a user writes himself: descriptor, direction, notify_read and notify_write."""
    direction = handle.aio_get_direction()
    poller = select.poll()
    poller.register(handle.aio_get_fd(), (direction & 1 and select.POLLIN) | (direction & 2 and select.POLLOUT))
    [(_, events)] = poller.poll(20_000)
    if events & select.POLLIN and direction & 1:
        handle.aio_notify_read()
    elif events & select.POLLOUT and direction & 2:
        handle.aio_notify_write()


def test_by_notification(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    handle.aio_connect_unix(server.path)
    buffer = bytearray(300_000)
    while handle.aio_is_connecting():
        turn(handle)
    server.disk.write(0, b"\xaa" * len(buffer))
    cookie = handle.aio_pread(buffer, 0)
    while not handle.aio_command_completed(cookie):
        turn(handle)
    assert buffer == b"\xaa" * len(buffer)


def test_poll_keeps_nothing_from_whoever_watches_the_descriptor(x509: Kind) -> None:
    """Replies that were decrypted, or could be, have left the socket: it does not become readable for them again."""
    server, handle = x509.server(), x509.handle()
    server.disk.write(0, b"\xaa" * 4096)
    handle.connect_unix(server.path)
    pending = {handle.aio_pread(bytearray(4096), 0) for _ in range(8)}
    assert handle.aio_get_direction() & 1  # by then all of them have been sent
    deadline = Deadline(20)
    while unread_bytes(handle.aio_get_fd()) < 8 * 4096:
        assert not deadline.expired
        pause(0.001)
    handle.poll(-1)
    while pending := {cookie for cookie in pending if not handle.aio_command_completed(cookie)}:
        turn(handle)


def unread_bytes(descriptor: int) -> int:
    """How much has come that nobody has received."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_close_ends_a_call_that_waits_in_another_thread(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    asked = threading.Event()

    def ask(request: object) -> bool:
        asked.set()
        return True

    server.on(Cmd.FLUSH, where=ask).reply(hold("for ever"))
    handle.connect_unix(server.path)
    with in_background(lambda: [handle.aio_flush(), *(handle.poll(-1) for _ in range(9))]) as found:
        assert asked.wait(20)
        handle.close()
    assert isinstance(found[0], Error | ClosedHandle)


@pytest.mark.parametrize(("versions", "name"), [(TLS12, "TLSv1.2"), (None, "TLSv1.3")])
def test_versions(versions: VersionRange | None, name: str, kind: Kind) -> None:
    server, handle = kind.server(tls=kind.context(versions)), kind.handle()
    handle.connect_unix(server.path)
    assert isinstance(handle._driver.channel, TLSChannel)
    assert handle._driver.channel.pipe.version == name


def test_priority_chooses_the_version(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    handle.set_tls_priority("NORMAL:-VERS-TLS1.3")
    handle.connect_unix(server.path)
    assert isinstance(handle._driver.channel, TLSChannel)
    assert handle._driver.channel.pipe.version == "TLSv1.2"


def test_priority_that_cannot_be_honoured(kind: Kind) -> None:
    server, handle = kind.server(tolerate=["*"]), kind.handle()
    handle.set_tls_priority("SECURE256:%SERVER_PRECEDENCE")
    with pytest.raises(Error, match=r"'SECURE256' cannot be honoured with OpenSSL.*EINVAL"):
        handle.connect_unix(server.path)


def test_session_tickets_are_no_trouble(kind: Kind) -> None:
    server, handle = kind.server(tls=kind.context(tickets=4)), kind.handle()
    handle.connect_unix(server.path)
    assert len(handle.pread(512, 0)) == 512


def test_the_server_learns_the_username(psk: Kind) -> None:
    server, handle = psk.server(), psk.handle()
    handle.set_tls_username("other")
    handle.connect_unix(server.path)
    assert "identity 'other'" in server.journal.format(last=None)


def test_username_defaults_to_the_login_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "zoe")
    file = tmp_path / "keys.psk"
    file.write_text("zoe:00112233445566778899aabbccddeeff\n")
    context = server_context(ServerPSK.from_file(file))
    with FakeServer(size=512, tls=context, tls_mode=TLSMode.REQUIRED) as server, NBD() as handle:
        handle.set_tls(TLS_REQUIRE)
        handle.set_tls_psk_file(file)
        assert handle.get_tls_username() == "zoe"
        handle.connect_unix(server.path)
        handle.shutdown()
    assert "identity 'zoe'" in server.journal.format(last=None)


def test_username_that_the_file_does_not_know(psk: Kind) -> None:
    server, handle = psk.server(tolerate=["*"]), psk.handle()
    handle.set_tls_username("nobody")
    with pytest.raises(
        Error, match=r"keys\.psk: username nobody was not found in PSK file: Invalid argument \(EINVAL\)"
    ):
        handle.connect_unix(server.path)


def test_psk_file_that_cannot_be_read(psk: Kind) -> None:
    server, handle = psk.server(tolerate=["*"]), psk.handle()
    handle.set_tls_psk_file("/no/such/file")
    with pytest.raises(Error, match=r"open: /no/such/file: No such file or directory \(ENOENT\)"):
        handle.connect_unix(server.path)


class TestHostName:
    """Which name is checked: tls_hostname, else the TCP host, else none."""

    def test_tcp_host(self, x509: Kind, nbd_pki: PKIMaterial) -> None:
        server = x509.server(tls=server_context(nbd_pki.server(flaw=Flaw.WRONG_HOST)), tolerate=["*"])
        handle = x509.handle()
        handle.set_tls_hostname("")
        with pytest.raises(Error, match=r"Hostname mismatch|IP address mismatch"):
            handle.connect_tcp("127.0.0.1", str(server.port))

    def test_tcp_host_that_fits(self, x509: Kind) -> None:
        server, handle = x509.server(), x509.handle()
        handle.set_tls_hostname("")
        handle.connect_tcp("localhost", str(server.port))
        assert handle.get_tls_hostname() == "localhost"

    def test_tls_hostname_wins(self, x509: Kind, nbd_pki: PKIMaterial) -> None:
        server = x509.server(tls=server_context(nbd_pki.server(flaw=Flaw.WRONG_HOST)))
        handle = x509.handle()
        handle.set_tls_hostname("other.example")
        handle.connect_tcp("127.0.0.1", str(server.port))
        assert handle.get_tls_hostname() == "other.example"

    def test_unix_socket_has_none(self, x509: Kind, nbd_pki: PKIMaterial) -> None:
        server = x509.server(tls=server_context(nbd_pki.server(flaw=Flaw.WRONG_HOST)))
        handle = x509.handle()
        handle.set_tls_hostname("")
        handle.connect_unix(server.path)
        assert handle.get_tls_hostname() == ""


REFUSED = {
    Flaw.EXPIRED: "certificate has expired",
    Flaw.NOT_YET_VALID: "certificate is not yet valid",
    Flaw.WRONG_CA: "unable to get local issuer certificate",
    Flaw.WRONG_HOST: "Hostname mismatch",
    Flaw.WRONG_PURPOSE: "unsuitable certificate purpose",
}


@pytest.mark.parametrize("flaw", REFUSED, ids=lambda flaw: flaw.value)
def test_bad_certificates_are_refused(flaw: Flaw, x509: Kind, nbd_pki: PKIMaterial) -> None:
    server = x509.server(tls=server_context(nbd_pki.server(flaw=flaw)))
    handle = x509.handle()
    with pytest.raises(Error, match=f"nbd_connect_unix: the server's certificate is refused: {REFUSED[flaw]}"):
        handle.connect_unix(server.path)
    assert handle.aio_is_dead()
    assert "OPT_GO" not in server.journal.format(last=None)


def test_verify_peer_off(x509: Kind, nbd_pki: PKIMaterial) -> None:
    server = x509.server(tls=server_context(nbd_pki.server(flaw=Flaw.WRONG_CA)))
    handle = x509.handle()
    handle.set_tls_verify_peer(False)
    handle.connect_unix(server.path)


def test_revoked_certificate(x509: Kind, nbd_pki: PKIMaterial) -> None:
    server = x509.server(tls=server_context(nbd_pki.server(flaw=Flaw.REVOKED)))
    handle = x509.handle()
    handle.set_tls_certificates(nbd_pki.with_crl)
    with pytest.raises(Error, match="certificate revoked"):
        handle.connect_unix(server.path)


@pytest.mark.parametrize(("flaw", "words"), [(None, "certificate required"), (Flaw.EXPIRED, "certificate expired")])
def test_client_certificate_is_refused(flaw: Flaw | None, words: str, x509: Kind, nbd_pki: PKIMaterial) -> None:
    server = x509.server(tls=server_context(nbd_pki.server(verify_peer=True)))
    handle = x509.handle()
    handle.set_tls_certificates(nbd_pki.ca_only if flaw is None else nbd_pki.flawed[flaw])
    with pytest.raises(Error, match=f"the server refused TLS: {words}"):
        handle.connect_unix(server.path)


def test_wrong_key(psk: Kind, nbd_psk: PSKMaterial) -> None:
    server, handle = psk.server(), psk.handle()
    handle.set_tls_psk_file(nbd_psk.wrong_key_file)
    with pytest.raises(Error, match=r"wrong key or unknown identity\?"):
        handle.connect_unix(server.path)
    assert "the client has another key for this identity" in server.journal.format(last=None)


def test_man_in_the_middle_with_a_certificate(psk: Kind, nbd_pki: PKIMaterial) -> None:
    server, handle = psk.server(tls=server_context(nbd_pki.server())), psk.handle()
    with pytest.raises(Error, match="answered with a certificate instead of proving that it knows the key"):
        handle.connect_unix(server.path)


class TestModes:
    """The client's three settings against the server's three modes. TLS-050."""

    @pytest.mark.parametrize("mode", TLSMode)
    def test_allow_works_with_all(self, mode: TLSMode, kind: Kind) -> None:
        server, handle = kind.server(tls_mode=mode), kind.handle(TLS_ALLOW)
        handle.connect_unix(server.path)
        assert handle.get_tls_negotiated() == (mode is not TLSMode.NONE)
        assert handle.get_tls() == TLS_ALLOW
        assert len(handle.pread(512, 0)) == 512

    @pytest.mark.parametrize("answer", [Rep.ERR_POLICY, Rep.ERR_UNSUP, Rep.ERR_PLATFORM, Rep(0x800000FF)])
    def test_require_ends_the_session_when_refused(self, answer: Rep, kind: Kind) -> None:
        server, handle = kind.server(), kind.handle()
        server.on(Opt.STARTTLS).reply(opt_error(answer))
        text = r"handshake: server refused TLS, but handle TLS setting is 'require' \(2\).*\(ENOTSUP\)"
        with pytest.raises(Error, match=text):
            handle.connect_unix(server.path)
        server.stop()
        story = server.journal.format(last=None)
        assert "OPT_GO" not in story
        assert "OPT_ABORT" in story

    def test_disable_is_refused_by_a_server_that_insists(self, kind: Kind) -> None:
        server, handle = kind.server(), kind.handle(TLS_DISABLE)
        with pytest.raises(Error, match=r"the server requires TLS encryption first"):
            handle.connect_unix(server.path)
        assert "OPT_STARTTLS" not in server.journal.format(last=None)

    def test_require_without_fixed_newstyle_sends_nothing(self, kind: Kind) -> None:
        server, handle = kind.server(style=Style.NEWSTYLE, tolerate=["*"]), kind.handle()
        with pytest.raises(Error, match=r"not using fixed newstyle.*'require'"):
            handle.connect_unix(server.path)
        assert "OPT_" not in server.journal.format(last=None)

    def test_starttls_comes_first(self, kind: Kind) -> None:
        server, handle = kind.server(), kind.handle()
        handle.connect_unix(server.path)
        options = [
            line.split("option=")[1].split()[0]
            for line in server.journal.format(last=None).splitlines()
            if "--> Option" in line
        ]
        assert options[0] == "OPT_STARTTLS"
        assert options.count("OPT_STARTTLS") == 1


class TestByHand:
    """STARTTLS in option mode."""

    def test_drops_everything_that_was_negotiated(self, kind: Kind) -> None:
        server, handle = kind.server(tls_mode=TLSMode.SELECTIVE), kind.handle(TLS_DISABLE)
        handle.set_opt_mode(True)
        handle.add_meta_context("base:allocation")
        handle.connect_unix(server.path)
        handle.opt_set_meta_context(lambda _name: 0)
        handle.opt_info()
        assert handle.get_extended_headers_negotiated()
        assert handle.can_meta_context("base:allocation")
        assert handle.opt_starttls()
        assert handle.get_tls_negotiated()
        assert not handle.get_extended_headers_negotiated()
        assert not handle.get_structured_replies_negotiated()
        with pytest.raises(Error):
            handle.can_meta_context("base:allocation")
        with pytest.raises(Error):
            handle.get_size()
        handle.opt_go()
        assert handle.get_size() == 1 << 20
        assert len(handle.pread(512, 0)) == 512

    def test_refused_is_false_and_goes_on(self, kind: Kind) -> None:
        server, handle = kind.server(tls_mode=TLSMode.NONE), kind.handle(TLS_DISABLE)
        handle.set_opt_mode(True)
        handle.connect_unix(server.path)
        assert not handle.opt_starttls()
        handle.opt_go()
        assert not handle.get_tls_negotiated()

    def test_a_second_one_is_refused_and_tls_goes_on(self, kind: Kind) -> None:
        server, handle = kind.server(tolerate=["TLS-053"]), kind.handle()
        handle.set_opt_mode(True)
        handle.connect_unix(server.path)
        assert not handle.opt_starttls()
        assert handle.get_tls_negotiated()
        handle.opt_go()

    @pytest.mark.parametrize("mode", [TLSMode.SELECTIVE, TLSMode.NONE])
    def test_asyncio(self, mode: TLSMode, kind: Kind) -> None:
        server, handle = kind.server(tls_mode=mode), kind.handle(TLS_DISABLE)
        handle.set_opt_mode(True)

        async def start_tls_and_read() -> tuple[bool, bytearray]:
            async with AsyncNBD(handle) as nbd:
                await nbd.connect_unix(server.path)
                agreed = await nbd.opt_starttls()
                assert handle.get_tls_negotiated() == agreed
                await nbd.opt_go()
                return agreed, await nbd.pread(512, 0)

        assert asyncio.run(start_tls_and_read()) == (mode is TLSMode.SELECTIVE, bytes(512))

    def test_abort_closes_tls(self, kind: Kind) -> None:
        server, handle = kind.server(), kind.handle()
        handle.set_opt_mode(True)
        handle.connect_unix(server.path)
        handle.opt_abort()
        handle.close()
        server.stop()
        assert [str(each) for each in server.journal.violations] == []


class TestURI:
    """nbds and its parameters."""

    def parameters(self, kind: Kind) -> str:
        if kind.name == "psk":
            return f"tls-psk-file={kind.psk.file}"
        return f"tls-certificates={kind.pki.directory}&tls-hostname=localhost"

    def test_nbds_with_files(self, kind: Kind) -> None:
        server = kind.server()
        handle = kind.stack.enter_context(NBD())
        handle.set_uri_allow_local_file(True)
        handle.connect_uri(f"nbds+unix://nbdtest@/?socket={server.path}&{self.parameters(kind)}")
        assert handle.get_tls() == TLS_REQUIRE
        assert handle.get_tls_negotiated()
        again = handle.get_uri()
        assert again.startswith("nbds+unix://nbdtest@/")
        assert "tls-" in again

    def test_files_need_a_permission(self, kind: Kind) -> None:
        handle = kind.stack.enter_context(NBD())
        with pytest.raises(Error, match="set_uri_allow_local_file"):
            handle.connect_uri(f"nbds+unix://nbdtest@/?socket=/nowhere&{self.parameters(kind)}")

    def test_nbds_fails_without_tls(self, kind: Kind) -> None:
        server, handle = kind.server(tls_mode=TLSMode.NONE), kind.handle(TLS_DISABLE)
        with pytest.raises(Error, match="server refused TLS"):
            handle.connect_uri(f"nbds+unix:///?socket={server.path}")

    @pytest.mark.parametrize(("value", "works"), [("0", True), ("false", True), ("1", False), ("true", False)])
    def test_verify_peer(self, value: str, works: bool, x509: Kind, nbd_pki: PKIMaterial) -> None:
        server = x509.server(tls=server_context(nbd_pki.server(flaw=Flaw.WRONG_CA)))
        handle = x509.handle()
        uri = f"nbds+unix:///?socket={server.path}&tls-verify-peer={value}"
        if works:
            handle.connect_uri(uri)
        else:
            with pytest.raises(Error, match="certificate is refused"):
                handle.connect_uri(uri)

    def test_priority(self, kind: Kind) -> None:
        server, handle = kind.server(), kind.handle()
        handle.set_uri_allow_tls_priority(True)
        handle.connect_uri(f"nbds+unix:///?socket={server.path}&tls-priority=NORMAL:-VERS-TLS1.3")
        assert isinstance(handle._driver.channel, TLSChannel)
        assert handle._driver.channel.pipe.version == "TLSv1.2"

    def test_allowances(self, kind: Kind) -> None:
        handle = kind.handle()
        handle.set_uri_allow_tls(TLS_DISABLE)
        with pytest.raises(Error, match="URI TLS setting nbds is not permitted"):
            handle.connect_uri("nbds://localhost")
        handle.set_uri_allow_tls(TLS_REQUIRE)
        with pytest.raises(Error, match="URI TLS setting nbd is not permitted"):
            handle.connect_uri("nbd://localhost")


class TestPlaintextAroundTheUpgrade:
    """TLS-027: what comes in clear never counts as if it had come encrypted."""

    INJECTED = bytes.fromhex("0003e889045565a9 00000007 00000001 00000000")

    def test_behind_the_ack(self, kind: Kind) -> None:
        server, handle = kind.server(), kind.handle()
        server.on(Opt.STARTTLS).reply(ack(), raw(self.INJECTED))
        with pytest.raises(Error, match=r"unencrypted bytes after it had accepted STARTTLS|not TLS"):
            handle.connect_unix(server.path)
        assert handle.aio_is_dead()

    def test_a_single_byte_behind_the_ack(self, kind: Kind) -> None:
        server, handle = kind.server(), kind.handle()
        server.on(Opt.STARTTLS).reply(ack(), raw(b"\0"))
        with pytest.raises(Error):
            handle.connect_unix(server.path)


def test_without_psk_nothing_is_sent(psk: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    server, handle = psk.server(), psk.handle()
    support = PSKSupport("", "TLS-PSK needs Python 3.13 or later (on 3.12.1: no reason)")
    monkeypatch.setattr("nbdtest.client.tls.psk_support", lambda: support)
    with pytest.raises(Error, match=r"nbd_connect_unix: TLS-PSK needs Python 3\.13 or later.*\(ENOTSUP\)"):
        handle.connect_unix(server.path)
    assert handle.aio_is_dead()
    server.stop()
    assert "client --> ClientFlags" not in server.journal.format(last=None)


def test_asyncio(kind: Kind) -> None:
    server = kind.server()
    content = bytes(range(256)) * 4096
    server.disk.write(0, content)

    async def read_and_write() -> list[bytearray]:
        async with AsyncNBD(kind.handle()) as nbd:
            await nbd.connect_unix(server.path)
            assert nbd.handle.get_tls_negotiated()
            parts = await asyncio.gather(*(nbd.pread(65536, at * 65536) for at in range(16)))
            await nbd.pwrite(b"through TLS", 4096)
            parts.append(await nbd.pread(11, 4096))
            await nbd.shutdown()
            return parts

    *parts, last = asyncio.run(read_and_write())
    assert b"".join(parts) == content
    assert last == b"through TLS"


def test_asyncio_and_a_refusal(x509: Kind, nbd_pki: PKIMaterial) -> None:
    server = x509.server(tls=server_context(nbd_pki.server(verify_peer=True)))
    handle = x509.handle()
    handle.set_tls_certificates(nbd_pki.ca_only)

    async def connect() -> None:
        async with AsyncNBD(handle) as nbd:
            await nbd.connect_unix(server.path)

    with pytest.raises(Error, match="the server refused TLS: certificate required"):
        asyncio.run(connect())


def test_replies_in_several_chunks(kind: Kind) -> None:
    """What is decrypted already and belongs to a reply that the fast lane handed over is not waited for on the
    socket."""
    server, handle = kind.server(), kind.handle()
    server.disk.write(0, bytes(range(256)) * 16)
    server.on(Cmd.READ).rewrite(lambda asked, plan: [data(at=at, length=512) for at in range(0, 4096, 512)])
    handle.connect_unix(server.path)
    for _ in range(5):
        assert handle.pread(4096, 0) == bytes(range(256)) * 16


def test_more_replies_at_once_than_are_taken_in_one_go(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    server.on(Cmd.READ).rewrite(lambda asked, plan: [data(at=at, length=16) for at in range(0, 4096, 16)])
    handle.connect_unix(server.path)
    pending = {handle.aio_pread(bytearray(4096), 0) for _ in range(8)}
    while pending:
        handle.poll(-1)
        pending -= {cookie for cookie in pending if handle.aio_command_completed(cookie)}
