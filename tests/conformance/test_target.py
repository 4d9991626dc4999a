"""What a target is found to be able to do, and the collection of answers that rules about form look through."""

from __future__ import annotations

import pytest

from nbdtest.conformance import Capability, NotApplicable
from nbdtest.fakeserver import Export, FakeServer, actions
from nbdtest.fakeserver.rules import Moment
from nbdtest.wire import Cmd, Info, Opt, Rep, ReplyType
from tests.conformance.configurations import CONFIGURATIONS, target_of


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        (
            "full",
            "NEWSTYLE FIXED_NEWSTYLE NO_ZEROES GO INFO LIST STRUCTURED EXTENDED BASE_ALLOCATION OTHER_CONTEXT WRITABLE "
            "DF FLUSH FUA TRIM WRITE_ZEROES FAST_ZERO CACHE MULTI_CONN BLOCK_SIZE BYTE_ACCESS SIZE_33M NOTLS CLEAR "
            "SECOND_EXPORT SECOND_CONNECTION NAMES_MATTER EXPORT_NAME STATUS_PAYLOAD",
            "OLDSTYLE READ_ONLY RESIZE MINIMUM_BLOCK TLS SIZE_OVER_4G BAD_RANGE OWN_PROCESS",
        ),
        ("oldstyle", "OLDSTYLE EXPORT WRITABLE CLEAR", "NEWSTYLE GO STRUCTURED LIST EXPORT_NAME"),
        ("read-only", "READ_ONLY EXPORT MAY_WRITE", "WRITABLE TRIM WRITE_ZEROES FAST_ZERO"),
        ("blocks-of-4096", "MINIMUM_BLOCK BLOCK_SIZE", "BYTE_ACCESS"),
        ("no-block-sizes", "WITHOUT_BLOCK_SIZE BYTE_ACCESS", "BLOCK_SIZE"),
        ("without-no-zeroes", "WITHOUT_NO_ZEROES", "NO_ZEROES"),
        ("without-fast-zero", "WITHOUT_FAST_ZERO WRITE_ZEROES", "FAST_ZERO"),
        ("resizable", "RESIZE", ""),
        ("larger-than-4-gib", "SIZE_OVER_4G", ""),
        ("with-bad-range", "BAD_RANGE", ""),
    ],
)
def test_capabilities_are_found_by_asking(name: str, has: str, lacks: str) -> None:
    with target_of(CONFIGURATIONS[name]) as target:
        assert [each for each in has.split() if not target.has(Capability[each])] == []
        assert [each for each in lacks.split() if target.has(Capability[each])] == []
        assert target.trouble() == ""


def test_what_speaks_something_else_is_no_nbd_server() -> None:
    def chatter(server: FakeServer) -> None:
        server.on(Moment.GREETING).reply(actions.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"))

    with target_of(CONFIGURATIONS["full"], change=chatter) as target:
        assert target.facts.trouble.startswith("this is no NBD server: ")
        assert target.facts.capabilities == set()


def test_the_gallery_shows_the_exchange_it_stands_at() -> None:
    with target_of(CONFIGURATIONS["full"]) as target:
        for answer in target.gallery.answers(Opt.LIST):
            assert f"{answer.option.option}" in target.transcript.format()
        options = {answer.option.option for answer in target.gallery.answers()}
        assert {Opt.LIST, Opt.INFO, Opt.GO, Opt.SET_META_CONTEXT, Opt.STRUCTURED_REPLY} <= options


def test_a_rule_that_found_nothing_to_judge_does_not_pass() -> None:
    with target_of(CONFIGURATIONS["full"]) as target:
        with pytest.raises(NotApplicable, match="the server sent no REP_ERR_TLS_REQD"):
            list(target.gallery.option_replies(Rep.ERR_TLS_REQD))
        with pytest.raises(NotApplicable, match="the server sent no chunk of REPLY_TYPE_ERROR_OFFSET"):
            list(target.gallery.chunks(ReplyType.ERROR_OFFSET))
        with pytest.raises(NotApplicable, match="the server sent no INFO_0x4d"):
            list(target.gallery.infos(Info(77)))


def test_the_gallery_goes_on_where_a_request_breaks_the_session() -> None:
    def hangs_up(server: FakeServer) -> None:
        server.on(Cmd.CACHE).reply(actions.close())

    with target_of(CONFIGURATIONS["full"], change=hangs_up) as target:
        answered = {reply.request.type for reply in target.gallery.replies(mode="structured")}
        assert Cmd.CACHE not in answered
        assert {Cmd.READ, Cmd.WRITE, Cmd.BLOCK_STATUS} <= answered


def test_a_place_lies_inside_the_export_with_a_unit_on_either_side() -> None:
    with target_of(CONFIGURATIONS["blocks-of-4096"]) as target:
        for _ in range(50):
            place = target.place(8192)
            assert place % 4096 == 0
            assert 4096 <= place <= target.size - 8192 - 4096
        with pytest.raises(NotApplicable, match="smaller than"):
            target.place(target.size)


def test_an_option_reply_is_no_size() -> None:
    def refuses_both_ways(server: FakeServer) -> None:
        server.on(Opt.GO).reply(actions.opt_error(Rep.ERR_UNSUP))
        server.on(Opt.EXPORT_NAME).reply(actions.opt_error(Rep.ERR_UNSUP))

    with target_of(CONFIGURATIONS["full"], change=refuses_both_ways) as target:
        assert not target.has(Capability.EXPORT)
        assert not target.has(Capability.EXPORT_NAME)


def test_who_hangs_up_on_info_may_serve_go() -> None:
    def hangs_up(server: FakeServer) -> None:
        server.on(Opt.INFO).reply(actions.close())

    with target_of(CONFIGURATIONS["full"], change=hangs_up) as target:
        assert target.has(Capability.GO)
        assert not target.has(Capability.INFO)


def test_who_opens_any_name_by_export_name_alone_is_no_server_of_names() -> None:
    def opens_anything(server: FakeServer) -> None:
        server.configure(
            info_and_go=False, exports=(Export(size=1 << 20), Export("nbdtest-no-such-export", size=1 << 20))
        )

    with target_of(CONFIGURATIONS["full"], change=opens_anything) as target:
        assert target.has(Capability.EXPORT_NAME)
        assert not target.has(Capability.NAMES_MATTER)


def test_an_export_that_has_grown_is_noticed_by_the_next_plain_read() -> None:
    with target_of(CONFIGURATIONS["resizable"]) as target:
        before = target.size
        with target.peer.transmitting() as session:
            assert session.command(Cmd.RESIZE, before + 4096, 0).succeeded
        assert target.trouble() == ""
        assert target.size == before + 4096
