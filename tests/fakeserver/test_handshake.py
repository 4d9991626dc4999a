"""The correct handshake: greetings, client flags, options, and what a client does wrong in it."""

from __future__ import annotations

import pytest

from nbdtest.fakeserver import BlockSizes, DirtyBitmap, Export, Style, TLSMode, UserContext
from nbdtest.fakeserver.contexts import Allocation
from nbdtest.fakeserver.outbox import End
from nbdtest.wire import (
    ClientFlag,
    ClientFlags,
    ExportNameReply,
    ExportNameReplyPadded,
    HandshakeFlag,
    Info,
    InfoBlockSize,
    InfoDescription,
    InfoExport,
    InfoName,
    InfoRequest,
    MetaContextRequest,
    NewstyleGreeting,
    OldstyleGreeting,
    Opt,
    Option,
    Rep,
    ServerExport,
    TransmissionFlag,
    decode_option_reply_data,
)
from tests.fakeserver.talk import Talk

BASE = "base:allocation"


def types(talk: Talk, option: Opt, data: bytes = b"") -> list[Rep]:
    return [reply.type for reply in talk.option(option, data)]


def contexts(talk: Talk, option: Opt, *queries: str, name: str = "") -> list[str]:
    replies = talk.option(option, MetaContextRequest(name=name, queries=queries))
    assert replies[-1].type == Rep.ACK
    return [decode_option_reply_data(reply).name for reply in replies[:-1]]  # type: ignore[attr-defined]


def test_greeting_offers_fixed_newstyle_and_no_zeroes() -> None:
    talk = Talk().start()
    assert NewstyleGreeting.decode(talk.take()) == NewstyleGreeting(
        flags=HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
    )


def test_oldstyle_greeting_has_no_structured_flags_and_starts_transmission() -> None:
    talk = Talk(style=Style.OLDSTYLE, size=4096).start()
    greeting = OldstyleGreeting.decode(talk.take(OldstyleGreeting.wire_size()))
    assert greeting.size == 4096
    assert TransmissionFlag.SEND_DF not in greeting.flags
    talk.request(0, length=512)  # type: ignore[arg-type]  # a plain number is what travels
    assert talk.simple(512)[1] == bytes(512)


def test_newstyle_without_fixed_knows_one_option() -> None:
    talk = Talk(style=Style.NEWSTYLE).greeted(ClientFlag.NO_ZEROES)
    assert types(talk, Opt.LIST) == []
    assert talk.end is End.FIN
    assert talk.violations == ["HS-013"]


@pytest.mark.parametrize(
    ("flags", "kind"), [(ClientFlag.NO_ZEROES, ExportNameReply), (ClientFlag(0), ExportNameReplyPadded)]
)
def test_export_name_is_padded_unless_no_zeroes_was_agreed(flags: ClientFlag, kind: type[ExportNameReply]) -> None:
    talk = Talk(style=Style.NEWSTYLE, size=512).greeted(flags)
    talk.say(Option(option=Opt.EXPORT_NAME))
    assert kind.decode(talk.take()).size == 512
    assert talk.violations == []


def test_unknown_export_name_ends_the_session() -> None:
    talk = Talk().greeted()
    assert talk.say(Option(option=Opt.EXPORT_NAME, data=b"nothing")) == b""
    assert talk.end is End.FIN


@pytest.mark.parametrize("offered", [True, False])
def test_client_flags_that_were_not_offered_end_the_session(offered: bool) -> None:
    talk = Talk(no_zeroes=offered).start()
    talk.take()
    talk.say(ClientFlags(flags=ClientFlag.FIXED_NEWSTYLE | (ClientFlag(4) if offered else ClientFlag.NO_ZEROES)))
    assert talk.end is End.FIN
    assert talk.violations == (["HS-036"] if offered else ["HS-035"])


@pytest.mark.parametrize("option", [Opt.PEEK_EXPORT, Opt(99), Opt(0xFFFF_FFFF)])
def test_unknown_options_are_unsupported_and_skipped(option: Opt) -> None:
    talk = Talk().greeted()
    assert types(talk, option, b"x" * 70_000) == [Rep.ERR_UNSUP]
    assert types(talk, Opt.LIST) == [Rep.SERVER, Rep.ACK]
    assert talk.violations == []


@pytest.mark.parametrize(
    ("option", "requirement"),
    [
        (Opt.LIST, "OPT-053"),
        (Opt.STARTTLS, "OPT-060"),
        (Opt.STRUCTURED_REPLY, "OPT-110"),
        (Opt.EXTENDED_HEADERS, "EXT-036"),
    ],
)
def test_options_without_data_refuse_data(option: Opt, requirement: str) -> None:
    talk = Talk().greeted()
    assert types(talk, option, b"x") == [Rep.ERR_INVALID]
    assert talk.violations == [requirement]


def test_list_names_every_listed_export() -> None:
    talk = Talk(
        Export("a", size=1, description="first"), Export("b", size=1, listed=False), Export("c", size=1)
    ).greeted()
    replies = talk.option(Opt.LIST)
    assert [decode_option_reply_data(each) for each in replies[:-1]] == [
        ServerExport(name="a", description="first"),
        ServerExport(name="c"),
    ]


def test_list_can_be_forbidden() -> None:
    assert types(Talk(list_exports=False).greeted(), Opt.LIST) == [Rep.ERR_POLICY]


def test_abort_is_acknowledged_and_ends() -> None:
    talk = Talk().greeted()
    assert types(talk, Opt.ABORT, b"surplus") == [Rep.ACK]
    assert talk.end is End.FIN
    talk.hang_up()
    assert [noted.violation.binding for noted in talk.journal.violations] == [False]


def test_go_gives_size_flags_and_what_was_asked_for() -> None:
    sizes = BlockSizes(minimum=512, preferred=4096, maximum=1 << 20)
    talk = Talk(Export("x", size=8192, description="words", block_sizes=sizes)).greeted()
    told = talk.go("", Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE, Info(77))
    assert told[1:] == [
        InfoName(name="x"),
        InfoDescription(description="words"),
        InfoBlockSize(minimum=512, preferred=4096, maximum=1 << 20),
    ]
    assert isinstance(told[0], InfoExport)
    assert told[0].size == 8192
    assert talk.violations == []


def test_go_without_requests_is_short() -> None:
    assert len(Talk().greeted().go()) == 1


def test_flags_follow_from_export_and_session() -> None:
    flag = TransmissionFlag
    plain = Talk(Export(size=512)).greeted().go()[0]
    assert isinstance(plain, InfoExport)
    assert flag.SEND_DF not in plain.flags
    structured = Talk(Export(size=512, read_only=True, rotational=True)).greeted()
    structured.option(Opt.STRUCTURED_REPLY)
    told = structured.go()[0]
    assert isinstance(told, InfoExport)
    assert flag.SEND_DF | flag.READ_ONLY | flag.ROTATIONAL in told.flags
    assert not told.flags & (flag.SEND_TRIM | flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO | flag.BLOCK_STATUS_PAYLOAD)


@pytest.mark.parametrize("option", [Opt.INFO, Opt.GO])
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (InfoRequest(name="unknown").encode(), Rep.ERR_UNKNOWN),
        (InfoRequest(name="a\0b").encode(), Rep.ERR_INVALID),
        (InfoRequest(name="n" * 4097).encode(), Rep.ERR_INVALID),
        (InfoRequest().encode(name_length=1), Rep.ERR_INVALID),
        (InfoRequest().encode(info_count=1), Rep.ERR_INVALID),
        (InfoRequest().encode() + b"x", Rep.ERR_INVALID),
        (b"", Rep.ERR_INVALID),
        (bytes(5), Rep.ERR_INVALID),
    ],
)
def test_bad_info_requests_are_refused_and_haggling_goes_on(option: Opt, data: bytes, answer: Rep) -> None:
    talk = Talk().greeted()
    assert types(talk, option, data) == [answer]
    assert types(talk, Opt.LIST) == [Rep.SERVER, Rep.ACK]


def test_insisting_on_block_sizes_tells_them_first() -> None:
    talk = Talk(Export(size=4096, block_sizes=BlockSizes(minimum=512), insist_on_block_sizes=True)).greeted()
    assert types(talk, Opt.GO, InfoRequest().encode()) == [Rep.INFO, Rep.ERR_BLOCK_SIZE_REQD]
    talk.go("", Info.BLOCK_SIZE)


def test_an_information_asked_for_twice_is_a_violation() -> None:
    talk = Talk().greeted()
    talk.go("", Info.NAME, Info.NAME)
    assert talk.violations == ["OPT-079"]


def test_old_servers_know_no_go() -> None:
    talk = Talk(info_and_go=False).greeted()
    assert types(talk, Opt.GO, InfoRequest().encode()) == [Rep.ERR_UNSUP]
    assert types(talk, Opt.EXTENDED_HEADERS) == [Rep.ERR_UNSUP]  # EXT-039


def test_structured_replies_after_extended_headers_are_refused() -> None:
    talk = Talk().greeted()
    assert types(talk, Opt.EXTENDED_HEADERS) == [Rep.ACK]
    assert types(talk, Opt.STRUCTURED_REPLY) == [Rep.ERR_EXT_HEADER_REQD]


class TestMetaContexts:
    def talk(self, *, structured: bool = True, extended: bool = False) -> Talk:
        export = Export(
            "disk",
            size=1 << 20,
            contexts=(
                Allocation(),
                DirtyBitmap("b0"),
                UserContext("x-test:one", [(1024, 1)]),
                UserContext("x-test:wide", [(1 << 40, 1 << 33)], wide=True),
            ),
        )
        talk = Talk(export, Export("other", size=512)).greeted()
        if structured:
            talk.option(Opt.STRUCTURED_REPLY)
        if extended:
            talk.option(Opt.EXTENDED_HEADERS)
        return talk

    def test_list_without_queries_gives_all(self) -> None:
        assert contexts(self.talk(), Opt.LIST_META_CONTEXT) == [BASE, "qemu:dirty-bitmap:b0", "x-test:one"]

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("base:", [BASE]),
            (BASE, [BASE]),
            ("base:alloc", []),
            ("qemu:", ["qemu:dirty-bitmap:b0"]),
            ("qemu:dirty-bitmap:", ["qemu:dirty-bitmap:b0"]),
            ("nobody:home", []),
        ],
    )
    def test_list_matches_names_and_wildcards(self, query: str, found: list[str]) -> None:
        assert contexts(self.talk(), Opt.LIST_META_CONTEXT, query) == found

    @pytest.mark.parametrize(("queries", "found"), [((), []), (("base:",), []), ((BASE, BASE, "no:thing"), [BASE])])
    def test_set_matches_names_only(self, queries: tuple[str, ...], found: list[str]) -> None:
        assert contexts(self.talk(), Opt.SET_META_CONTEXT, *queries) == found

    def test_wide_contexts_need_extended_headers(self) -> None:
        assert contexts(self.talk(), Opt.SET_META_CONTEXT, "x-test:wide") == []
        assert contexts(self.talk(extended=True), Opt.SET_META_CONTEXT, "x-test:wide") == ["x-test:wide"]

    def test_set_needs_structured_replies(self) -> None:
        talk = self.talk(structured=False)
        assert types(talk, Opt.SET_META_CONTEXT, MetaContextRequest(queries=(BASE,)).encode()) == [Rep.ERR_INVALID]
        assert talk.violations == ["META-073"]

    def test_ids_differ(self) -> None:
        replies = self.talk().option(Opt.SET_META_CONTEXT, MetaContextRequest(queries=(BASE, "x-test:one")))
        ids = [decode_option_reply_data(reply).id for reply in replies[:-1]]  # type: ignore[attr-defined]
        assert len(set(ids)) == 2

    @pytest.mark.parametrize(
        ("data", "answer"),
        [
            (MetaContextRequest(name="nobody", queries=(BASE,)).encode(), Rep.ERR_UNKNOWN),
            (MetaContextRequest(queries=("colonless",)).encode(), Rep.ERR_INVALID),
            (MetaContextRequest(queries=(BASE,)).encode(query_count=2), Rep.ERR_INVALID),
            (MetaContextRequest(queries=(BASE,)).encode() + b"x", Rep.ERR_INVALID),
            (b"", Rep.ERR_INVALID),
        ],
    )
    @pytest.mark.parametrize("option", [Opt.LIST_META_CONTEXT, Opt.SET_META_CONTEXT])
    def test_bad_requests_are_refused(self, option: Opt, data: bytes, answer: Rep) -> None:
        assert types(self.talk(), option, data) == [answer]

    def test_failure_drops_the_selection(self) -> None:
        talk = self.talk()
        contexts(talk, Opt.SET_META_CONTEXT, BASE)
        talk.option(Opt.SET_META_CONTEXT, b"")
        talk.go()
        assert not talk.engine.session.contexts

    def test_selection_is_for_one_export(self) -> None:
        talk = self.talk()
        contexts(talk, Opt.SET_META_CONTEXT, BASE, name="other")
        talk.go("disk")
        assert not talk.engine.session.contexts


class TestTLSModes:
    def test_without_tls_starttls_is_refused(self) -> None:
        assert types(Talk().greeted(), Opt.STARTTLS) == [Rep.ERR_POLICY]

    def test_required_tls_comes_first(self) -> None:
        talk = Talk(tls_mode=TLSMode.REQUIRED).greeted()
        for option in (Opt.LIST, Opt.GO, Opt.STRUCTURED_REPLY, Opt(99)):
            assert types(talk, option) == [Rep.ERR_TLS_REQD]
        talk.say(Option(option=Opt.EXPORT_NAME))
        assert talk.end is End.FIN

    def test_only_its_own_exports_need_tls_when_selective(self) -> None:
        talk = Talk(
            Export("open", size=1), Export("closed", size=1, tls_only=True), tls_mode=TLSMode.SELECTIVE
        ).greeted()
        assert types(talk, Opt.INFO, InfoRequest(name="closed").encode()) == [Rep.ERR_TLS_REQD]
        assert types(talk, Opt(99)) == [Rep.ERR_UNSUP]
        talk.go("open")

    def test_starttls_forgets_everything(self) -> None:
        talk = Talk(tls_mode=TLSMode.SELECTIVE).greeted()
        talk.option(Opt.STRUCTURED_REPLY)
        assert types(talk, Opt.STARTTLS) == [Rep.ACK]
        assert talk.engine.wants_tls
        assert not talk.engine.session.structured
        talk.engine.wants_tls = False
        assert types(talk, Opt.STARTTLS) == [Rep.ERR_INVALID]
        assert talk.violations == ["TLS-053"]


class TestClientsMistakes:
    def test_wrong_option_magic(self) -> None:
        talk = Talk().greeted()
        talk.say(Option(option=Opt.LIST).encode(magic=1))
        assert talk.end is End.FIN
        assert talk.violations == ["OPT-001"]

    def test_talking_after_abort(self) -> None:
        talk = Talk().greeted()
        talk.say(Option(option=Opt.ABORT), Option(option=Opt.LIST))
        assert talk.violations == ["TERM-003"]

    def test_pipelined_options(self) -> None:
        talk = Talk().greeted()
        talk.say(Option(option=Opt.LIST), Option(option=Opt.LIST))
        assert talk.violations == ["OPT-017"]

    def test_flags_and_first_option_together_are_fine(self) -> None:
        talk = Talk().start()
        talk.say(ClientFlags(), Option(option=Opt.LIST))
        assert talk.violations == []

    def test_leaving_without_abort(self) -> None:
        talk = Talk().greeted()
        talk.hang_up()
        assert talk.violations == ["TERM-010"]

    def test_without_fixed_newstyle_there_is_no_abort(self) -> None:
        talk = Talk(style=Style.NEWSTYLE).greeted(ClientFlag.NO_ZEROES)
        talk.hang_up()
        assert talk.violations == []

    def test_who_does_not_like_oldstyle_just_disconnects(self) -> None:
        talk = Talk(style=Style.OLDSTYLE).start()
        talk.hang_up()
        assert talk.violations == []

    def test_only_looking_is_no_violation(self) -> None:
        talk = Talk().start()
        talk.hang_up()
        assert talk.violations == []

    def test_strings(self) -> None:
        talk = Talk().greeted()
        talk.option(Opt.INFO, InfoRequest(name="a\0b"))
        talk.option(Opt.INFO, InfoRequest(name="\udcff"))
        talk.option(Opt.INFO, InfoRequest(name="n" * 300))
        assert talk.violations == ["CONV-004", "CONV-002", "CONV-005"]

    def test_export_name_after_extended_headers(self) -> None:
        talk = Talk().greeted()
        talk.option(Opt.EXTENDED_HEADERS)
        talk.say(Option(option=Opt.EXPORT_NAME))
        assert talk.end is End.FIN
        assert talk.violations == ["EXT-021"]
