"""Everything that a server can do wrong about TLS, and what our client makes of it: an error that says so, never a
hang."""

from __future__ import annotations

import pytest

from nbdtest.client import NBD, TLS_ALLOW, Error
from nbdtest.fakeserver import Quirks, Style, TLSMode, TLSQuirks, ack, cut, opt_error, raw, stall
from nbdtest.net.addresses import TCPAddress
from nbdtest.net.sockets import connect
from nbdtest.net.tls import TLSPipe
from nbdtest.wire import ClientFlag, ClientFlags, Cmd, Opt, Option, Rep
from tests.tls.conftest import Kind

ACK_OF_GO = bytes.fromhex("0003e889045565a9 00000007 00000001 00000000")

# what the server does -> what the client says, in one of these words
QUIRKS = {
    "goes on in clear": (TLSQuirks(ignores_starttls=True), "closed the connection in the TLS handshake"),
    "cuts before the handshake": (TLSQuirks(handshake_records=0), "closed the connection in the TLS handshake"),
    "cuts after one record": (TLSQuirks(handshake_records=1), "closed the connection"),
    "cuts after two records": (TLSQuirks(handshake_records=2), "closed the connection"),
    "plaintext inside the handshake": (TLSQuirks(plain_in_handshake=ACK_OF_GO), "TLS"),
    "one byte inside the handshake": (TLSQuirks(plain_in_handshake=b"\0"), "TLS"),
    "plaintext after the handshake": (TLSQuirks(plain_in_session=ACK_OF_GO), "bytes that are not TLS"),
    "one byte after the handshake": (TLSQuirks(plain_in_session=b"\0"), "TLS"),
    "a flipped bit in the first record": (TLSQuirks(flipped_record=1), "a record from the server does not decrypt"),
    "close_notify at once": (TLSQuirks(closes_after=1), "server disconnected unexpectedly"),
    "close_notify inside a reply": (TLSQuirks(closes_after=30), "server disconnected unexpectedly"),
}


@pytest.mark.parametrize("name", QUIRKS)
def test_quirk_fails_the_connection(name: str, kind: Kind) -> None:
    quirks, words = QUIRKS[name]
    server, handle = kind.server(tls_quirks=quirks, tolerate=["OPT-001"]), kind.handle()
    with pytest.raises(Error, match=words):
        handle.connect_unix(server.path)
    assert handle.aio_is_dead()


@pytest.mark.parametrize("name", QUIRKS)
def test_quirk_is_no_reason_to_go_on_in_clear(name: str, kind: Kind) -> None:
    """TLS-059: also a client that merely prefers TLS ends the session when it fails."""
    quirks, _ = QUIRKS[name]
    server = kind.server(tls_mode=TLSMode.SELECTIVE, tls_quirks=quirks, tolerate=["OPT-001"])
    handle = kind.handle(TLS_ALLOW)
    with pytest.raises(Error):
        handle.connect_unix(server.path)
    assert handle.aio_is_dead()
    server.stop()
    if quirks != QUIRKS["close_notify inside a reply"][0]:
        assert "OPT_GO" not in server.journal.format(last=None)


def test_every_cut_of_the_handshake_fails_the_connection(kind: Kind) -> None:
    records = 0
    while True:
        server, handle = kind.server(tls_quirks=TLSQuirks(handshake_records=records)), kind.handle()
        try:
            handle.connect_unix(server.path)
        except Error:
            records += 1
        else:
            break
        assert handle.aio_is_dead()
    assert records >= 2


@pytest.mark.parametrize("step", ["structured", "simple"])
def test_a_record_for_every_byte_is_understood(step: str, kind: Kind) -> None:
    server, handle = kind.server(tls_quirks=TLSQuirks(single_byte_records=True)), kind.handle()
    handle.set_request_structured_replies(step == "structured")
    server.disk.write(0, bytes(range(256)) * 8)
    handle.connect_unix(server.path)
    assert handle.pread(2048, 0) == bytes(range(256)) * 8


def test_a_flipped_bit_in_a_reply(kind: Kind) -> None:
    server, handle = kind.server(tls_quirks=TLSQuirks(flipped_record=6)), kind.handle()
    handle.connect_unix(server.path)
    error = ""
    while not error:
        try:
            handle.pread(512, 0)
        except Error as caught:
            error = str(caught)
    assert handle.aio_is_dead()


def test_a_missing_close_notify_after_disc_is_no_error(kind: Kind) -> None:
    server, handle = kind.server(tls_quirks=TLSQuirks(omits_close_notify=True)), kind.handle()
    handle.connect_unix(server.path)
    handle.shutdown()
    assert handle.aio_is_closed()


def test_a_cut_between_replies_is_told_as_a_truncation(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    server.on(Cmd.READ).reply(cut())
    handle.connect_unix(server.path)
    with pytest.raises(Error):
        handle.pread(512, 0)
    assert handle.aio_is_dead()


@pytest.mark.parametrize("after", [1, 7, 20, 300])
def test_a_cut_inside_a_reply(after: int, kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    handle.connect_unix(server.path)
    server.on(Cmd.READ, nth=2).reply(cut(after=after), raw(bytes(512)))
    handle.pread(512, 0)
    with pytest.raises(Error):
        handle.pread(512, 0)
    assert handle.aio_is_dead()


def test_the_ack_and_then_the_end(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    server.on(Opt.STARTTLS).reply(ack(), cut())
    with pytest.raises(Error, match="the server closed the connection in the TLS handshake, before it sent anything"):
        handle.connect_unix(server.path)


class TestDowngrade:
    """TLS-058, TLS-076: whoever takes TLS away gets nothing from a client that requires it."""

    @pytest.mark.parametrize("require", [True, False], ids=["require", "allow"])
    def test_refusing_starttls(self, require: bool, kind: Kind) -> None:
        server = kind.server(tls_mode=TLSMode.SELECTIVE)
        handle = kind.handle() if require else kind.handle(TLS_ALLOW)
        server.on(Opt.STARTTLS).reply(opt_error(Rep.ERR_UNSUP))
        handle.set_export_name("secret")
        with pytest.raises(Error, match="server refused TLS" if require else "no export named 'secret'"):
            handle.connect_unix(server.path)
        server.stop()
        assert ('"secret"' in server.journal.format(last=None)) != require

    def test_dropping_fixed_newstyle(self, kind: Kind) -> None:
        server, handle = kind.server(style=Style.NEWSTYLE, tolerate=["HS-013"]), kind.handle()
        handle.set_export_name("secret")
        with pytest.raises(Error, match="'require'"):
            handle.connect_unix(server.path)
        server.stop()
        assert "secret" not in server.journal.format(last=None)

    def test_going_back_to_oldstyle(self, kind: Kind) -> None:
        server, handle = kind.server(style=Style.OLDSTYLE), kind.handle()
        with pytest.raises(Error, match="server is oldstyle, but handle TLS setting is 'require'"):
            handle.connect_unix(server.path)


def test_state_kept_across_starttls_does_not_fool_the_client(kind: Kind) -> None:
    """The server goes on with extended replies agreed on in clear; the client has forgotten them and says so."""
    server = kind.server(tls_mode=TLSMode.SELECTIVE, quirks=Quirks(keeps_state_across_starttls=True))
    handle = kind.handle(0)
    handle.set_opt_mode(True)
    handle.set_request_extended_headers(False)
    handle.connect_unix(server.path)
    assert handle.get_structured_replies_negotiated()
    assert handle.opt_starttls()
    handle.opt_go()
    assert not handle.get_structured_replies_negotiated()
    with pytest.raises(Error, match="EPROTO"):
        handle.pread(512, 0)


def test_a_server_that_never_goes_on_with_the_handshake_can_be_left(kind: Kind) -> None:
    server, handle = kind.server(), kind.handle()
    server.on(Opt.STARTTLS).reply(ack(), stall())
    handle.aio_connect_unix(server.path)
    while "TLS_HANDSHAKE" not in handle.connection_state():
        assert handle.poll(10_000)
    assert handle.aio_is_connecting()
    handle.close()


def test_a_second_ack_to_starttls_is_an_error(kind: Kind) -> None:
    server, handle = kind.server(tolerate=["TLS-053"]), kind.handle()
    server.on(Opt.STARTTLS, nth=2).reply(ack())
    handle.set_opt_mode(True)
    handle.connect_unix(server.path)
    with pytest.raises(Error, match="TLS twice"):
        handle.opt_starttls()
    assert handle.aio_is_dead()


def test_a_script_under_tls(kind: Kind) -> None:
    server = kind.server()

    @server.script
    def fails_the_second_read(peer) -> None:
        first = peer.request()
        peer.send(first.ok())
        second = peer.request()
        peer.send(second.error(5))
        peer.serve()

    handle = kind.handle()
    handle.connect_unix(server.path)
    assert len(handle.pread(512, 0)) == 512
    with pytest.raises(Error, match="EIO"):
        handle.pread(512, 0)
    handle.shutdown()


def test_a_client_that_leaves_without_closing_tls_is_noticed(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    server, handle = kind.server(), kind.handle()
    handle.connect_unix(server.path)
    monkeypatch.setattr(TLSPipe, "close_notify", lambda _pipe: None)
    handle.close()
    server.stop()
    noted = [each.violation for each in server.journal.violations]
    assert [(each.requirement, each.binding) for each in noted] == [("TERM-033", False), ("TERM-042", True)]


def test_a_client_that_resets_in_the_handshake_has_failed_at_tls_and_broken_no_rule(kind: Kind) -> None:
    """TLS-059: whoever does not like our credentials has to leave, and GnuTLS leaves without an alert."""
    server = kind.server(tolerate=[])
    with connect(TCPAddress("localhost", server.port)) as client:
        client.send_all(ClientFlags(flags=ClientFlag.FIXED_NEWSTYLE).encode(), Option(option=Opt.STARTTLS).encode())
        client.receive_exact(18 + 20)  # the greeting, the ACK
        client.send_all(b"\x16\x03\x01")  # the beginning of a record
        client.cut(rst=True)
    server.stop()
    assert "TLS failed: the client reset the connection in the TLS handshake" in server.journal.format(last=None)
    assert server.journal.violations == []


def test_one_handle_after_the_other_on_one_server(kind: Kind) -> None:
    server = kind.server()
    for _ in range(20):
        with kind.handle() as handle:
            handle.connect_unix(server.path)
            handle.shutdown()
    assert isinstance(handle, NBD)
