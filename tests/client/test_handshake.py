"""The handshake with every kind of server, and what it leaves behind."""

from __future__ import annotations

import errno

import pytest

from nbdtest.client import NBD, Error
from nbdtest.wire import (
    HandshakeFlag,
    Info,
    InfoDescription,
    InfoExport,
    InfoName,
    InfoOther,
    InfoRequest,
    MetaContext,
    MetaContextRequest,
    NewstyleGreeting,
    OldstyleGreeting,
    Opt,
    Option,
    OptionReply,
    Rep,
    ServerExport,
    TransmissionFlag,
)
from tests.client.prepared import ALL_FLAGS, Prepared, ack, go_info, handshake, refuse

FIXED = NewstyleGreeting().encode()
UNFIXED = NewstyleGreeting(flags=HandshakeFlag(0)).encode()
NO_EXTRAS = refuse(Opt.EXTENDED_HEADERS) + refuse(Opt.STRUCTURED_REPLY)
EXPORT = go_info(InfoExport(size=1 << 20, flags=ALL_FLAGS))
GONE = (0, "recv: server disconnected unexpectedly")


def options(data: bytes) -> list[tuple[Opt, bytes]]:
    """The options in what a client sent after its flags."""
    found, at = [], 4
    while at < len(data):
        length = int.from_bytes(data[at + 12 : at + 16], "big")
        option = Option.decode(data[at : at + 16 + length])
        found.append((option.option, option.data))
        at += 16 + length
    return found


def test_fixed_newstyle_sends_the_options_in_order(prepared: Prepared) -> None:
    h = prepared.handle
    h.set_export_name("disk")
    h.add_meta_context("base:allocation")
    h.set_full_info(True)
    prepared.begin(handshake(contexts=[(7, "base:allocation")]))
    sent = prepared.sent()
    assert sent[:4] == b"\0\0\0\3"
    assert options(sent) == [
        (Opt.EXTENDED_HEADERS, b""),
        (Opt.STRUCTURED_REPLY, b""),
        (Opt.SET_META_CONTEXT, MetaContextRequest(name="disk", queries=("base:allocation",)).encode()),
        (Opt.GO, InfoRequest(name="disk", infos=(Info.BLOCK_SIZE, Info.NAME, Info.DESCRIPTION)).encode()),
    ]
    assert h.get_protocol() == "newstyle-fixed"
    assert h.get_structured_replies_negotiated()
    assert h.can_meta_context("base:allocation")
    assert not h.can_meta_context("qemu:allocation-depth")


def test_extended_headers_include_structured_replies(prepared: Prepared) -> None:
    h = prepared.connect(extended=True)
    assert h.get_extended_headers_negotiated()
    assert h.get_structured_replies_negotiated()


def test_what_was_not_asked_for_is_not_sent(prepared: Prepared) -> None:
    h = prepared.handle
    h.set_request_structured_replies(False)
    h.set_request_block_size(False)
    prepared.begin(FIXED, EXPORT, ack(Opt.GO))
    assert options(prepared.sent()) == [(Opt.GO, InfoRequest().encode())]
    assert h.get_size() == 1 << 20


@pytest.mark.parametrize("zeroes", [0, 124], ids=["no-zeroes", "zeroes"])
def test_a_server_without_go_is_asked_by_export_name(prepared: Prepared, zeroes: int) -> None:
    flags = HandshakeFlag.FIXED_NEWSTYLE | (HandshakeFlag(0) if zeroes else HandshakeFlag.NO_ZEROES)
    answer = (4096).to_bytes(8, "big") + int(ALL_FLAGS).to_bytes(2, "big") + bytes(zeroes)
    h = prepared.begin(NewstyleGreeting(flags=flags).encode(), NO_EXTRAS, refuse(Opt.GO), answer)
    assert options(prepared.sent())[-1] == (Opt.EXPORT_NAME, b"")
    assert h.get_size() == 4096
    assert h.aio_is_ready()


def test_export_name_can_be_forced(prepared: Prepared) -> None:
    prepared.handle.set_force_export_name(True)
    answer = (4096).to_bytes(8, "big") + int(ALL_FLAGS).to_bytes(2, "big")
    prepared.begin(FIXED, NO_EXTRAS, answer)
    assert options(prepared.sent())[-1] == (Opt.EXPORT_NAME, b"")


def test_old_newstyle_knows_only_export_name(prepared: Prepared) -> None:
    answer = (4096).to_bytes(8, "big") + int(ALL_FLAGS).to_bytes(2, "big") + bytes(124)
    h = prepared.begin(UNFIXED, answer)
    assert prepared.sent()[:4] == bytes(4)
    assert h.get_protocol() == "newstyle"
    assert h.get_size() == 4096


def test_oldstyle(prepared: Prepared) -> None:
    prepared.handle.set_opt_mode(True)  # which an oldstyle server does not have
    h = prepared.begin(OldstyleGreeting(size=4096, flags=ALL_FLAGS).encode())
    assert prepared.sent() == b""
    assert (h.get_protocol(), h.get_size(), h.aio_is_ready()) == ("oldstyle", 4096, True)
    assert not h.can_df()  # which needs structured replies


def test_block_sizes_are_taken_over(prepared: Prepared) -> None:
    h = prepared.connect(blocks=(512, 4096, 2 << 20))
    assert [h.get_block_size(kind) for kind in range(4)] == [512, 4096, 2 << 20, 2 << 20]


@pytest.mark.parametrize(
    "blocks",
    [
        (0, 4096, 4096),
        (513, 4096, 4096),
        (1, 256, 4096),
        (1, 4096, 512),
        (1 << 17, 1 << 17, 1 << 20),
        (512, 4096, 4097),
    ],
)
def test_block_sizes_that_break_the_rules_are_ignored(prepared: Prepared, blocks: tuple[int, int, int]) -> None:
    h = prepared.connect(blocks=blocks)
    assert [h.get_block_size(kind) for kind in range(4)] == [0, 0, 0, 32 << 20]


@pytest.mark.parametrize(("maximum", "payload"), [(65536, 1 << 20), (0xFFFF_FFFF, 64 << 20), (48 << 20, 48 << 20)])
def test_the_payload_limit_follows_the_maximum(prepared: Prepared, maximum: int, payload: int) -> None:
    assert prepared.connect(blocks=(1, 4096, maximum)).get_block_size(3) == payload


def test_names_and_unknown_information(prepared: Prepared) -> None:
    prepared.handle.set_full_info(True)
    infos = [
        InfoName(name="canonical\0tail"),
        InfoOther(info=Info(99), data=b"who knows"),
        InfoDescription(description="für Menschen"),
    ]
    h = prepared.begin(FIXED, NO_EXTRAS, *map(go_info, infos), EXPORT, ack(Opt.GO))
    assert h.get_canonical_export_name() == "canonical"
    assert h.get_export_description() == "für Menschen"


def test_a_long_reply_of_no_interest_is_skipped(prepared: Prepared) -> None:
    long = OptionReply(option=Opt.GO, type=Rep.INFO, data=b"\0\x63" + bytes(50_000)).encode()
    h = prepared.begin(FIXED, NO_EXTRAS, long, EXPORT, ack(Opt.GO))
    assert h.get_size() == 1 << 20


def test_a_size_beyond_63_bits_is_an_overflow(prepared: Prepared) -> None:
    h = prepared.connect(size=1 << 63)
    with pytest.raises(Error) as caught:
        h.get_size()
    assert caught.value.errnum == errno.EOVERFLOW


@pytest.mark.parametrize(
    ("parts", "number", "text"),
    [
        ([b"SSH-2.0-OpenSSH_9\r\n\0\0\0\0\0"], 0, "server did not send expected NBD magic"),
        ([FIXED[:8] + b"WHATEVER"], 0, "server is not either an oldstyle or fixed newstyle NBD server"),
        ([FIXED[:10]], *GONE),
        ([FIXED], *GONE),
        ([FIXED, ack(Opt.GO)], 0, "invalid option reply magic or option"),
        ([FIXED, b"\0" * 20], 0, "invalid option reply magic or option"),
        ([FIXED, OptionReply(option=Opt.EXTENDED_HEADERS, type=Rep.ACK, data=b"x").encode()], 0, "NBD_REP_ACK"),
        (
            [FIXED, OptionReply(option=Opt.EXTENDED_HEADERS, type=Rep(77)).encode()],
            0,
            "unexpected option reply type 77",
        ),
        ([FIXED, refuse(Opt.EXTENDED_HEADERS)[:16] + b"\x7f\0\0\0"], 0, "invalid option reply length"),
        ([FIXED, refuse(Opt.EXTENDED_HEADERS, text="x" * 4097)], 0, "option error string too long"),
        ([FIXED, NO_EXTRAS, go_info(InfoExport(size=1, flags=TransmissionFlag(0)))], errno.EINVAL, "eflags == 0"),
        ([FIXED, NO_EXTRAS, OptionReply(option=Opt.GO, type=Rep.INFO, data=b"\0").encode()], 0, "too small"),
        ([FIXED, NO_EXTRAS, OptionReply(option=Opt.GO, type=Rep.INFO, data=bytes(9)).encode()], 0, "NBD_INFO_EXPORT"),
        ([OldstyleGreeting(size=1, flags=ALL_FLAGS, handshake_flags=HandshakeFlag(1)).encode()], 0, "gflags"),
    ],
)
def test_nonsense_kills_the_connection(prepared: Prepared, parts: list[bytes], number: int, text: str) -> None:
    h = prepared.handle
    prepared.answer(*parts)
    prepared.end()
    with pytest.raises(Error, match="nbd_connect_socket: ") as caught:
        prepared.begin()
    assert caught.value.errnum == number
    assert text in caught.value.string
    assert h.aio_is_dead()


@pytest.mark.parametrize(
    ("error", "number", "text"),
    [
        (Rep.ERR_UNKNOWN, errno.ENOENT, "the server has no export named 'disk'"),
        (Rep.ERR_POLICY, 0, "server policy prevents the operation"),
        (Rep.ERR_PLATFORM, 0, "the operation is not supported by the server platform"),
        (Rep.ERR_INVALID, errno.EINVAL, "the server rejected this operation as invalid"),
        (Rep.ERR_TOO_BIG, errno.EINVAL, "the operation is too large to process"),
        (Rep.ERR_TLS_REQD, errno.ENOTSUP, "the server requires TLS encryption first"),
        (Rep.ERR_SHUTDOWN, errno.ESHUTDOWN, "the server is shutting down"),
        (Rep.ERR_BLOCK_SIZE_REQD, errno.EINVAL, "the server requires specific block sizes"),
        (Rep(0x800000FF), 0, "handshake: unknown reply from the server: 0x800000ff"),
    ],
)
def test_a_refused_export_is_the_servers_error_and_ends_in_abort(
    prepared: Prepared, error: Rep, number: int, text: str
) -> None:
    prepared.handle.set_export_name("disk")
    with pytest.raises(Error) as caught:
        prepared.begin(FIXED, NO_EXTRAS, refuse(Opt.GO, error, "because\nthé"))
    assert caught.value.errnum == number
    assert caught.value.string.startswith(f"nbd_connect_socket: {text}: because\\x0ath\\xc3\\xa9")
    assert prepared.handle.aio_is_dead()
    assert options(prepared.sent())[-1] == (Opt.ABORT, b"")


class TestOptionMode:
    @pytest.fixture
    def h(self, prepared: Prepared) -> NBD:
        prepared.handle.set_opt_mode(True)
        prepared.begin(FIXED, NO_EXTRAS)
        prepared.sent()
        return prepared.handle

    def test_connecting_stops_before_the_export(self, h: NBD) -> None:
        assert h.aio_is_negotiating()
        assert h.aio_get_direction() == 0

    def test_go_enters_transmission(self, prepared: Prepared, h: NBD) -> None:
        prepared.answer(EXPORT, ack(Opt.GO))
        h.opt_go()
        assert h.aio_is_ready()

    def test_a_refused_go_can_be_tried_again(self, prepared: Prepared, h: NBD) -> None:
        prepared.answer(refuse(Opt.GO, Rep.ERR_UNKNOWN))
        with pytest.raises(Error, match="has no export named ''") as caught:
            h.opt_go()
        assert caught.value.errnum == errno.ENOENT
        assert h.aio_is_negotiating()
        h.set_export_name("other")
        prepared.answer(EXPORT, ack(Opt.GO))
        h.opt_go()

    def test_info_tells_about_the_export_and_stays(self, prepared: Prepared, h: NBD) -> None:
        export = OptionReply(option=Opt.INFO, type=Rep.INFO, data=InfoExport(size=5, flags=ALL_FLAGS).encode()).encode()
        prepared.answer(export, ack(Opt.INFO))
        h.opt_info()
        assert h.get_size() == 5
        assert h.aio_is_negotiating()
        h.set_export_name("")  # the same name changes nothing
        assert h.get_size() == 5
        h.set_export_name("other")
        with pytest.raises(Error, match="server has not returned export size"):
            h.get_size()

    def test_list_tells_each_export(self, prepared: Prepared, h: NBD) -> None:
        exports = [("a", ""), ("b", "the second"), ("", "")]
        for name, text in exports:
            data = ServerExport(name=name, description=text).encode()
            prepared.answer(OptionReply(option=Opt.LIST, type=Rep.SERVER, data=data).encode())
        prepared.answer(ack(Opt.LIST))
        told: list[tuple[str, str]] = []
        assert h.opt_list(lambda *export: told.append(export)) == 3
        assert told == exports

    def test_a_refused_list_is_not_supported(self, prepared: Prepared, h: NBD) -> None:
        prepared.answer(refuse(Opt.LIST, Rep.ERR_POLICY))
        with pytest.raises(Error) as caught:
            h.opt_list(lambda *_: None)
        assert caught.value.string == (
            "nbd_opt_list: server replied with error to list request: Operation not supported"
        )
        assert h.aio_is_negotiating()

    def test_a_broken_list_entry_kills_the_connection(self, prepared: Prepared, h: NBD) -> None:
        data = b"\0\0\0\x09short"
        prepared.answer(OptionReply(option=Opt.LIST, type=Rep.SERVER, data=data).encode())
        with pytest.raises(Error, match="invalid export length"):
            h.opt_list(lambda *_: None)
        assert h.aio_is_dead()

    def test_meta_contexts_are_listed_and_selected(self, prepared: Prepared, h: NBD) -> None:
        def context(option: Opt, number: int, name: str) -> bytes:
            data = MetaContext(id=number, name=name).encode()
            return OptionReply(option=option, type=Rep.META_CONTEXT, data=data).encode()

        told: list[str] = []
        prepared.answer(context(Opt.LIST_META_CONTEXT, 0, "base:allocation"), ack(Opt.LIST_META_CONTEXT))
        assert h.opt_list_meta_context_queries(["base:"], told.append) == 1
        assert not h.can_meta_context("base:allocation")
        prepared.answer(context(Opt.SET_META_CONTEXT, 4, "base:allocation"), ack(Opt.SET_META_CONTEXT))
        assert h.opt_set_meta_context_queries(["base:allocation"], told.append) == 1
        assert h.can_meta_context("base:allocation")
        assert told == ["base:allocation"] * 2
        assert options(bytes(4) + prepared.sent()) == [
            (Opt.LIST_META_CONTEXT, MetaContextRequest(queries=("base:",)).encode()),
            (Opt.SET_META_CONTEXT, MetaContextRequest(queries=("base:allocation",)).encode()),
        ]

    def test_a_refused_selection_makes_contexts_unknown(self, prepared: Prepared, h: NBD) -> None:
        h.add_meta_context("base:allocation")
        prepared.answer(refuse(Opt.SET_META_CONTEXT, Rep.ERR_INVALID))
        with pytest.raises(Error, match="server replied with error to meta context request"):
            h.opt_set_meta_context(lambda _: None)
        with pytest.raises(Error, match="need a successful server meta context request first"):
            h.can_meta_context("base:allocation")

    def test_yes_or_no_options(self, prepared: Prepared, h: NBD) -> None:
        prepared.answer(ack(Opt.STRUCTURED_REPLY), refuse(Opt.STRUCTURED_REPLY), ack(Opt.EXTENDED_HEADERS))
        assert h.opt_structured_reply() is True
        assert h.opt_structured_reply() is False
        assert h.get_structured_replies_negotiated()
        assert h.opt_extended_headers() is True

    def test_refused_tls_goes_on_in_clear(self, prepared: Prepared, h: NBD) -> None:
        prepared.answer(refuse(Opt.STARTTLS, Rep.ERR_POLICY))
        assert h.opt_starttls() is False
        assert not h.get_tls_negotiated()

    def test_a_raw_option_gives_all_replies(self, prepared: Prepared, h: NBD) -> None:
        odd = Opt(0x7FFF_0001)
        prepared.answer(OptionReply(option=odd, type=Rep(9), data=b"abc").encode(), refuse(odd, text="never heard"))
        assert h.opt_raw(odd, b"payload") == [(9, b"abc"), (Rep.ERR_UNSUP, b"never heard")]
        assert options(bytes(4) + prepared.sent()) == [(odd, b"payload")]

    def test_abort_ends_in_closed(self, prepared: Prepared, h: NBD) -> None:
        h.opt_abort()
        assert h.aio_is_closed()
        assert options(bytes(4) + prepared.sent()) == [(Opt.ABORT, b"")]

    def test_shutdown_is_abort(self, prepared: Prepared, h: NBD) -> None:
        h.shutdown()
        assert h.aio_is_closed()
        with pytest.raises(Error) as caught:
            h.shutdown()
        assert caught.value.errnum == errno.EINVAL

    def test_completion_gets_the_error_and_one_option_runs_at_a_time(self, prepared: Prepared, h: NBD) -> None:
        errors: list[int] = []
        h.aio_opt_list(lambda *_: None, lambda error: errors.append(error.value))
        assert h.aio_is_connecting()
        with pytest.raises(Error, match=r"NEWSTYLE\.OPT_LIST\.RECV_REPLY: the handle must be negotiating"):
            h.aio_opt_go()
        prepared.answer(refuse(Opt.LIST))
        h.poll(0)
        assert errors == [errno.ENOTSUP]
        assert h.aio_is_negotiating()

    def test_the_end_of_the_connection_completes_the_option(self, prepared: Prepared, h: NBD) -> None:
        errors: list[int] = []
        h.aio_opt_info(lambda error: errors.append(error.value))
        prepared.end()
        with pytest.raises(Error, match="nbd_poll: recv: server disconnected unexpectedly"):
            h.poll(-1)
        assert errors == [errno.ENOTCONN]


def test_plain_text_behind_an_accepted_starttls_kills_the_connection(prepared: Prepared) -> None:
    prepared.handle.set_tls(2)
    with pytest.raises(Error, match="unencrypted bytes"):
        prepared.begin(FIXED, ack(Opt.STARTTLS), ack(Opt.STRUCTURED_REPLY))


def test_required_tls_that_is_refused_ends_in_abort(prepared: Prepared) -> None:
    prepared.handle.set_tls(2)
    with pytest.raises(Error, match="server refused TLS, but handle TLS setting is 'require'") as caught:
        prepared.begin(FIXED, refuse(Opt.STARTTLS))
    assert caught.value.errnum == errno.ENOTSUP
    assert [option for option, _ in options(prepared.sent())] == [Opt.STARTTLS, Opt.ABORT]


def test_allowed_tls_that_is_refused_goes_on_in_clear(prepared: Prepared) -> None:
    prepared.handle.set_tls(1)
    h = prepared.begin(FIXED, refuse(Opt.STARTTLS), handshake()[len(FIXED) :])
    assert h.aio_is_ready()
    assert not h.get_tls_negotiated()
