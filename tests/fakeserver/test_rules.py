"""Rules: when they act, what the client then sees, and what is left of the correct answer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nbdtest.errors import UsageError
from nbdtest.fakeserver import (
    Export,
    Moment,
    RuleBook,
    ack,
    chunk,
    close,
    cut,
    data,
    drip,
    error,
    greeting,
    hold,
    hole,
    info_export,
    mangle,
    no_data,
    opt_error,
    opt_reply,
    pass_through,
    pause,
    raw,
    release,
    simple,
    stall,
    status,
)
from nbdtest.fakeserver.outbox import End
from nbdtest.model import MemoryDisk
from nbdtest.wire import (
    Cmd,
    Errno,
    HandshakeFlag,
    Info,
    InfoExport,
    InfoRequest,
    MetaContextRequest,
    NewstyleGreeting,
    Opt,
    Option,
    OptionReply,
    Rep,
    ReplyFlag,
    ReplyType,
    SimpleReply,
    StructuredReply,
    TransmissionFlag,
)
from tests.fakeserver.talk import Talk

CONTENT = bytes(range(256)) * 64  # 16 KiB


def talk_with(rules: RuleBook) -> Talk:
    return Talk(Export(disk=MemoryDisk(len(CONTENT), CONTENT)), rules=rules)


def flushes(talk: Talk, count: int) -> list[Errno]:
    found = []
    for _ in range(count):
        talk.request(Cmd.FLUSH)
        found.append(talk.simple()[0].error)
    return found


class TestWhen:
    @pytest.mark.parametrize(
        ("counting", "expected"),
        [
            ({}, "xxxxx"),
            ({"nth": 2}, ".x..."),
            ({"nth": 2, "times": 3}, ".xxx."),
            ({"times": 2}, "xx..."),
            ({"connection": 1}, "xxxxx"),
            ({"connection": 2}, "....."),
        ],
    )
    def test_counting(self, counting: dict[str, int], expected: str) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, **counting).reply(error(Errno.EIO))  # type: ignore[arg-type]  # its own arguments
        seen = flushes(talk_with(rules).open(), 5)
        assert "".join("x" if errno == Errno.EIO else "." for errno in seen) == expected

    def test_where_with_values_and_functions(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ, where={"offset": 512, "length": 512}).reply(error(Errno.EIO))
        rules.on(Cmd.READ, where=lambda asked: asked.offset > 4096, nth=2).reply(error(Errno.ENOSPC))
        talk = talk_with(rules).open()
        seen = []
        for offset in (0, 512, 8192, 8192):
            talk.request(Cmd.READ, offset, 512)
            seen.append(talk.simple()[0].error)
            talk.take()
        assert seen == [Errno.OK, Errno.EIO, Errno.OK, Errno.ENOSPC]

    def test_the_first_rule_that_matches_acts(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=2).reply(error(Errno.EIO))
        rules.on(Cmd.FLUSH).reply(error(Errno.EPERM))
        assert flushes(talk_with(rules).open(), 3) == [Errno.EPERM, Errno.EIO, Errno.EPERM]

    def test_a_command_is_not_an_option_of_the_same_number(self) -> None:
        rules = RuleBook()
        rules.on(Opt.LIST).reply(close())
        assert flushes(talk_with(rules).open(), 1) == [Errno.OK]

    def test_counting_per_connection(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=1, per_connection=True).reply(error(Errno.EIO))
        rules.find(Cmd.FLUSH, None, connection=7)
        assert flushes(talk_with(rules).open(), 2) == [Errno.EIO, Errno.OK]

    def test_nth_begins_at_1(self) -> None:
        with pytest.raises(UsageError, match="counting begins at 1"):
            RuleBook().on(Cmd.READ, nth=0)

    def test_unused_rules_are_known(self) -> None:
        rules = RuleBook()
        used, unused = rules.on(Cmd.FLUSH).pass_through(), rules.on(Cmd.READ).pass_through()
        flushes(talk_with(rules).open(), 1)
        assert rules.unused() == [unused]
        assert used.fired == 1

    def test_watching_ends_when_a_rule_is_spent(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=1).pass_through()
        assert rules.watches(Cmd.FLUSH)
        assert not rules.watches(Cmd.READ)
        flushes(talk_with(rules).open(), 1)
        assert not rules.watches(Cmd.FLUSH)


class TestReplies:
    def read(self, *plan: object, structured: bool = True) -> list[StructuredReply]:
        rules = RuleBook()
        rules.on(Cmd.READ).reply(*plan)  # type: ignore[arg-type]  # actions
        talk = talk_with(rules).open(structured=structured)
        talk.request(Cmd.READ, 4096, 8192)
        return [each for each in talk.chunks() if isinstance(each, StructuredReply)]

    def test_done_is_set_on_the_last_chunk(self) -> None:
        seen = self.read(data(at=4096, length=1), error(Errno.EIO, at=4097), hole(at=4098, length=10))
        assert [each.type for each in seen] == [ReplyType.OFFSET_DATA, ReplyType.ERROR_OFFSET, ReplyType.OFFSET_HOLE]
        assert [each.flags for each in seen] == [0, 0, ReplyFlag.DONE]

    def test_done_can_be_early_missing_or_everywhere(self) -> None:
        assert [each.flags for each in self.read(no_data(done=True), no_data(done=False), no_data(done=True))] == [
            1,
            0,
            1,
        ]
        assert [each.flags for each in self.read(data(done=False))] == [0]

    def test_data_comes_from_the_disk_unless_given(self) -> None:
        whole, part, given = self.read(data(), data(at=0, length=3), data(at=1, content=b"own"))
        assert whole.payload == (4096).to_bytes(8, "big") + CONTENT[4096:12288]
        assert part.payload == bytes(8) + CONTENT[:3]
        assert given.payload == (1).to_bytes(8, "big") + b"own"

    def test_data_beyond_the_end_are_zeroes(self) -> None:
        (chunk_,) = self.read(data(at=len(CONTENT) - 1, length=3))
        assert chunk_.payload[8:] == CONTENT[-1:] + bytes(2)

    def test_any_chunk(self) -> None:
        (seen,) = self.read(chunk(ReplyType(0x99), b"payload", flags=ReplyFlag(6)))
        assert (seen.type, seen.flags, seen.payload) == (0x99, 6, b"payload")

    def test_a_simple_reply_where_it_is_forbidden(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ).reply(simple(content=b"abcd"))
        talk = talk_with(rules).open(structured=True)
        cookie = talk.request(Cmd.READ, 0, 4)
        assert talk.simple(4) == (SimpleReply(cookie=cookie), b"abcd")

    def test_a_status_by_name_has_the_clients_id(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.BLOCK_STATUS).reply(status("base:allocation", (512, 1)), status(77, (1, 2)))
        talk = talk_with(rules).open(structured=True, contexts=("base:allocation",))
        talk.request(Cmd.BLOCK_STATUS, 0, 512)
        ids = [int.from_bytes(each.payload[:4], "big") for each in talk.chunks()]
        assert ids == [talk.engine.session.contexts["base:allocation"], 77]

    def test_chunks_become_a_simple_reply_without_structured_replies(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ, nth=1).reply(data(at=0, length=2), hole(length=2))
        rules.on(Cmd.READ, nth=2).reply(data(at=0, length=2), error(Errno.EIO))
        talk = talk_with(rules).open()
        talk.request(Cmd.READ, 0, 4)
        assert talk.simple(4)[1] == CONTENT[:2] + bytes(2)
        talk.request(Cmd.READ, 0, 4)
        assert talk.simple()[0].error == Errno.EIO
        assert not talk.received

    def test_no_reply_at_all(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=1).reply()
        talk = talk_with(rules).open()
        talk.request(Cmd.FLUSH)
        assert not talk.received

    def test_a_write_that_a_rule_answers_is_not_stored(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.WRITE, nth=1).reply(no_data())
        rules.on(Cmd.WRITE, nth=2).reply(pause(1), pass_through())
        talk = talk_with(rules).open()
        talk.request(Cmd.WRITE, 0, payload=b"zz")
        assert talk.disk.read(0, 2) == CONTENT[:2]
        talk.request(Cmd.WRITE, 0, payload=b"zz")
        assert talk.disk.read(0, 2) == b"zz"

    def test_rewriting_the_correct_plan(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ).rewrite(lambda asked, plan: [data(at=asked.offset + 512), *plan[1:]])
        talk = talk_with(rules).open(structured=True)
        talk.request(Cmd.READ, 0, 512)
        assert talk.chunks()[0].payload[:8] == (512).to_bytes(8, "big")

    def test_then_alone_comes_after_the_correct_answer(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH).then(raw(b"tail"))
        talk = talk_with(rules).open()
        talk.request(Cmd.FLUSH)
        assert talk.simple(4)[1] == b"tail"


class TestDamage:
    def test_fields_of_the_frame_and_of_what_it_carries(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ).reply(mangle(error(Errno.EIO, message="abc"), cookie=9, error=0, message_length=500))
        talk = talk_with(rules).open(structured=True)
        talk.request(Cmd.READ, 0, 512)
        (seen,) = talk.chunks()
        assert seen.cookie == 9
        assert seen.payload == bytes(4) + (500).to_bytes(2, "big") + b"abc"

    def test_inner_skips_the_frame(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ).reply(mangle(hole(), inner_length=0))
        talk = talk_with(rules).open(structured=True)
        talk.request(Cmd.READ, 0, 512)
        (seen,) = talk.chunks()
        assert seen.payload == bytes(12)

    def test_bytes(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=1).reply(mangle(no_data(), flip=0))
        rules.on(Cmd.FLUSH, nth=2).reply(mangle(no_data(), keep=5))
        talk = talk_with(rules).open()
        talk.request(Cmd.FLUSH)
        assert talk.take()[0] == 0x67 ^ 0x80
        talk.request(Cmd.FLUSH)
        assert len(talk.received) == 5

    def test_the_correct_answer_can_be_damaged(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ).reply(mangle(pass_through(), cookie=1234))
        talk = talk_with(rules).open(structured=True)
        talk.request(Cmd.READ, 0, 512)
        assert talk.chunks()[0].cookie == 1234

    def test_a_field_that_is_not_there_is_a_mistake_of_the_test(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH).reply(mangle(no_data(), colour=1))
        talk = talk_with(rules).open()
        with pytest.raises(UsageError, match=r"mangle\(\) names colour: SimpleReply has magic, error, cookie"):
            talk.request(Cmd.FLUSH)


class TestHandshakeRules:
    def test_two_sizes_in_one_answer(self) -> None:
        rules = RuleBook()
        rules.on(Opt.GO).reply(info_export(size=4096), info_export(size=8192), ack())
        told = talk_with(rules).greeted().go()
        assert [each.size for each in told if isinstance(each, InfoExport)] == [4096, 8192]

    def test_what_is_refused_is_not_agreed(self) -> None:
        rules = RuleBook()
        rules.on(Opt.STRUCTURED_REPLY).reply(opt_error(Rep.ERR_POLICY))
        talk = talk_with(rules).greeted()
        talk.option(Opt.STRUCTURED_REPLY)
        assert not talk.engine.session.structured

    def test_what_is_acknowledged_with_damage_is_agreed(self) -> None:
        rules = RuleBook()
        rules.on(Opt.STRUCTURED_REPLY).reply(mangle(ack(), magic=0x12345678))
        talk = talk_with(rules).greeted()
        talk.say(b"")
        talk.engine.receive(b"IHAVEOPT" + (8).to_bytes(4, "big") + bytes(4), 0.0)
        assert talk.engine.session.structured

    def test_flags_that_a_rule_offers_count(self) -> None:
        rules = RuleBook()
        rules.on(Opt.GO).reply(info_export(flags=TransmissionFlag.HAS_FLAGS), ack())
        talk = talk_with(rules).open()
        assert flushes(talk, 1) == [Errno.EINVAL]
        assert talk.violations == ["CMD-061"]

    def test_greeting(self) -> None:
        rules = RuleBook()
        rules.on(Moment.GREETING).reply(greeting(flags=HandshakeFlag.NO_ZEROES))
        talk = talk_with(rules).start()
        assert NewstyleGreeting.decode(talk.take()).flags == HandshakeFlag.NO_ZEROES

    def test_closing_at_connect(self) -> None:
        rules = RuleBook()
        rules.on(Moment.CONNECT).reply(close())
        talk = talk_with(rules).start()
        assert talk.end is End.FIN
        assert not talk.received

    def test_any_option_reply(self) -> None:
        rules = RuleBook()
        rules.on(Opt.LIST).reply(opt_reply(Rep(77), b"?", option=Opt.GO), ack())
        first, last = talk_with(rules).greeted().option(Opt.LIST)
        assert (first.type, first.option, first.data) == (77, Opt.GO, b"?")
        assert last.type == Rep.ACK

    def test_an_unknown_information_before_the_others(self) -> None:
        from nbdtest.fakeserver import info_other

        rules = RuleBook()
        rules.on(Opt.INFO).reply(info_other(Info(99), b"x"), pass_through())
        replies = talk_with(rules).greeted().option(Opt.INFO, InfoRequest())
        assert [reply.type for reply in replies] == [Rep.INFO, Rep.INFO, Rep.ACK]


class TestTime:
    def test_a_paused_reply_lets_others_pass(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ).reply(pause(2.0), pass_through())
        talk = talk_with(rules).open()
        read, flush = talk.request(Cmd.READ, 0, 4), talk.request(Cmd.FLUSH)
        assert talk.simple()[0].cookie == flush
        assert talk.engine.wake_at == 2.0
        talk.wait(2.0)
        assert talk.simple(4)[0].cookie == read

    def test_hold_and_release(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ, nth=1).reply(hold("first"), data(at=0))
        rules.on(Cmd.READ, nth=2).pass_through().then(release("first"))
        talk = talk_with(rules).open()
        first, second = talk.request(Cmd.READ, 0, 4), talk.request(Cmd.READ, 4, 4)
        assert talk.simple(4) == (SimpleReply(cookie=second), CONTENT[4:8])
        assert talk.simple(4) == (SimpleReply(cookie=first), CONTENT[:4])
        assert talk.engine.to_release == ["first"]

    def test_what_is_released_is_not_held(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=1).pass_through().then(release("it"))
        rules.on(Cmd.FLUSH, nth=2).reply(hold("it"), pass_through())
        assert flushes(talk_with(rules).open(), 2) == [Errno.OK, Errno.OK]

    def test_interleaved_chunks_of_two_replies(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ, nth=1).reply(data(at=0, length=2), hold("a"), data(at=2, length=2))
        rules.on(Cmd.READ, nth=2).reply(data(at=0, length=2), release("a"), data(at=2, length=2))
        talk = talk_with(rules).open(structured=True)
        one, two = talk.request(Cmd.READ, 0, 4), talk.request(Cmd.READ, 0, 4)
        assert [each.cookie for each in talk.chunks()] == [one, two, one, two]

    def test_a_held_option_holds_the_dialogue(self) -> None:
        rules = RuleBook()
        rules.on(Opt.LIST).reply(hold("list"), ack())
        talk = talk_with(rules).greeted()
        assert talk.option(Opt.LIST) == []
        assert talk.option(Opt.STRUCTURED_REPLY) == []
        talk.engine.release("list", 0.0)
        talk.say(b"")
        assert [reply.option for reply in talk.option_replies()] == [Opt.LIST, Opt.STRUCTURED_REPLY]

    def test_stall_is_silence(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=2).reply(stall())
        talk = talk_with(rules).open()
        flushes(talk, 1)
        talk.request(Cmd.FLUSH)
        talk.request(Cmd.FLUSH)
        talk.wait(1000)
        assert not talk.received
        assert talk.end is None

    def test_what_comes_before_a_stall_leaves(self) -> None:
        rules = RuleBook()
        rules.on(Opt.LIST).reply(ack(), stall())
        talk = talk_with(rules).greeted()
        assert [reply.type for reply in talk.option(Opt.LIST)] == [Rep.ACK]
        assert talk.option(Opt.STRUCTURED_REPLY) == []

    def test_drip_is_one_byte_at_a_time(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=1).reply(drip(every_s=1.0), pass_through())
        talk = talk_with(rules).open()
        talk.request(Cmd.FLUSH)
        assert len(talk.received) == 0
        for at in range(1, 17):
            talk.now += 1.0
            assert [len(piece) for piece in talk.engine.data_to_send(talk.now)] == [1], at
        assert flushes(talk, 1) == [Errno.OK]

    def test_drip_of_the_first_bytes_only(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=1).reply(drip(every_s=1.0, first=3), pass_through())
        talk = talk_with(rules).open()
        talk.request(Cmd.FLUSH)
        lengths = []
        for _ in range(4):
            talk.now += 1.0
            lengths += [len(piece) for piece in talk.engine.data_to_send(talk.now)]
        assert lengths == [1, 1, 1, 13]

    def test_disc_waits_for_what_is_pending(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH).reply(pause(1.0), pass_through())
        talk = talk_with(rules).open()
        talk.request(Cmd.FLUSH)
        talk.request(Cmd.DISC)
        assert talk.end is None
        talk.wait(1.0)
        assert talk.simple()[0].error == Errno.OK
        assert talk.end is End.FIN


class TestCuts:
    @pytest.mark.parametrize("after", [0, 1, 15, 16, 17, 40])
    def test_so_many_bytes_leave(self, after: int) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ).reply(cut(after=after), pass_through())
        talk = talk_with(rules).open()
        talk.request(Cmd.READ, 0, 24)
        assert len(talk.received) == after
        assert talk.end is End.FIN

    def test_the_next_reply_is_cut(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH, nth=1).pass_through().then(cut(after=7, rst=True))
        talk = talk_with(rules).open()
        assert flushes(talk, 1) == [Errno.OK]
        talk.request(Cmd.FLUSH)
        assert len(talk.received) == 7
        assert talk.end is End.RST

    def test_a_client_that_leaves_a_lying_server_is_right(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.FLUSH).reply(raw(b"garbage"))
        talk = talk_with(rules).open()
        talk.request(Cmd.FLUSH)
        talk.hang_up()
        assert talk.violations == []


class TestSending:
    def test_every_message_of_a_class_can_be_changed(self) -> None:
        rules = RuleBook()
        rules.on_send(SimpleReply).rewrite(lambda reply: replace(reply, cookie=reply.cookie + 1))
        talk = talk_with(rules).open()
        cookie = talk.request(Cmd.READ, 0, 4)
        assert talk.simple(4) == (SimpleReply(cookie=cookie + 1), CONTENT[:4])

    def test_where_sees_the_whole_chunk(self) -> None:
        rules = RuleBook()
        rules.on_send(StructuredReply, where={"type": ReplyType.OFFSET_DATA}).mangle(offset=7)
        talk = talk_with(rules).open(structured=True)
        talk.request(Cmd.READ, 0, 4)
        assert talk.chunks()[0].payload == (7).to_bytes(8, "big") + CONTENT[:4]

    def test_messages_can_be_dropped_and_multiplied(self) -> None:
        rules = RuleBook()
        rules.on_send(OptionReply, where={"type": Rep.SERVER}).drop()
        rules.on_send(OptionReply, where={"option": Opt.STRUCTURED_REPLY}).rewrite(lambda reply: [reply, b"raw"])
        talk = talk_with(rules).greeted()
        assert [reply.type for reply in talk.option(Opt.LIST)] == [Rep.ACK]
        talk.say(b"IHAVEOPT", (8).to_bytes(4, "big"), bytes(4))
        assert bytes(talk.received).endswith(b"raw")


class TestMomentsWithoutAnAnswer:
    def test_bytes_before_the_greeting(self) -> None:
        rules = RuleBook()
        rules.on(Moment.CONNECT).reply(raw(b"220 hello"), mangle(greeting(), keep=8))
        talk = talk_with(rules).start()
        assert talk.take(17) == b"220 helloNBDMAGIC"
        assert talk.take(8) == b"NBDMAGIC"

    def test_bytes_after_the_client_flags(self) -> None:
        rules = RuleBook()
        rules.on(Moment.CLIENT_FLAGS, where={"flags": 3}).reply(raw(b"welcome"))
        assert talk_with(rules).greeted().take() == b"welcome"

    @pytest.mark.parametrize("structured", [False, True])
    def test_replies_that_nobody_asked_for(self, structured: bool) -> None:
        rules = RuleBook()
        rules.on(Moment.TRANSMISSION).reply(simple(cookie=7), raw(b"!"), error(Errno.ESHUTDOWN))
        talk = talk_with(rules).greeted()
        if structured:
            talk.option(Opt.STRUCTURED_REPLY)
        talk.say(Option(option=Opt.GO, data=InfoRequest().encode()))
        told = bytes(talk.received)
        told = told[told.index(b"gD") :]  # the magic of a simple reply
        first = SimpleReply(cookie=7).encode() + b"!"
        assert told.startswith(first)
        rest = told[len(first) :]
        if structured:
            assert StructuredReply.decode(rest).type == ReplyType.ERROR
        else:
            assert SimpleReply.decode(rest) == SimpleReply(error=Errno.ESHUTDOWN, cookie=0)


class TestWhere:
    def test_an_option_is_known_by_what_its_data_say(self) -> None:
        rules = RuleBook()
        rules.on(Opt.GO, where={"name": "b"}).reply(opt_error(Rep.ERR_POLICY))
        rules.on(Opt.SET_META_CONTEXT, where={"queries": ("x:y",)}).reply(opt_error(Rep.ERR_POLICY))
        rules.on(Opt.EXPORT_NAME, where={"name": "c"}).reply(raw(b"gone"), close())
        talk = Talk(*map(Export, "abc"), rules=rules).greeted()
        assert talk.option(Opt.GO, InfoRequest(name="b"))[-1].type == Rep.ERR_POLICY
        assert talk.option(Opt.GO, b"nonsense")[-1].type == Rep.ERR_INVALID
        talk.option(Opt.STRUCTURED_REPLY)
        for query, told in (("x:z", Rep.ACK), ("x:y", Rep.ERR_POLICY)):
            request = MetaContextRequest(name="a", queries=(query,))
            assert talk.option(Opt.SET_META_CONTEXT, request)[-1].type == told
        talk.say(Option(option=Opt.EXPORT_NAME, data=b"c"))
        assert talk.take() == b"gone"

    def test_a_request_is_known_by_its_export(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ, where={"export": "b"}).reply(error(Errno.EIO))
        for name, told in (("a", Errno.OK), ("b", Errno.EIO)):
            talk = Talk(*map(Export, "ab"), rules=rules).greeted()
            talk.go(name)
            talk.request(Cmd.READ, 0, 4)
            assert talk.simple()[0].error == told

    def test_events_that_are_overlooked_are_counted_once(self) -> None:
        rules = RuleBook()
        second, fourth = rules.on(Cmd.READ, nth=2).pass_through(), rules.on(Cmd.READ, nth=4).pass_through()
        assert [rules.overlooks(Cmd.READ, None, 1) for _ in range(3)] == [True, False, False]
        assert rules.find(Cmd.READ, None, 1) is second
        assert [rules.overlooks(Cmd.READ, None, 1) for _ in range(2)] == [True, False]
        assert rules.find(Cmd.READ, None, 1) is fourth


class TestJSON:
    def test_rules_go_to_json_and_back(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ, nth=2, where={"offset": 512}).reply(data(at=1), error(Errno.EIO)).then(cut(after=7))
        rules.on(Opt.GO, times=1).pass_through()
        rules.on(Moment.GREETING, connection=2).reply(close())
        again = RuleBook()
        again.add_json(json.loads(json.dumps(rules.to_json())))
        assert list(map(repr, again.rules)) == list(map(repr, rules.rules))

    def test_rules_for_messages_go_to_json_and_back(self) -> None:
        rules = RuleBook()
        rules.on_send(StructuredReply, where={"type": ReplyType.OFFSET_DATA}, nth=2).mangle(offset=7, keep=-1)
        rules.on_send(OptionReply, where={"data": b"x"}).drop()
        again = RuleBook()
        again.add_json(json.loads(json.dumps(rules.to_json())))
        assert [repr(rule) for rule in again.send_rules] == [
            "on_send(StructuredReply, where={'type': 1}, nth=2).mangle(offset=7, keep=-1)",
            "on_send(OptionReply, where={'data': b'x'}).drop()",
        ]
        assert again.to_json() == rules.to_json()

    def test_a_rule_for_messages_that_does_nothing_cannot_be_saved(self) -> None:
        rules = RuleBook()
        rules.on_send(SimpleReply)
        with pytest.raises(UsageError, match=r"on_send\(SimpleReply\) cannot be saved: it does nothing"):
            rules.to_json()
        rules.send_rules[0].rewrite(lambda reply: reply)
        with pytest.raises(UsageError, match="it holds a function"):
            rules.to_json()

    def test_functions_cannot_be_saved(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ, where=lambda asked: True).reply(close())
        with pytest.raises(UsageError, match="holds a function"):
            rules.to_json()

    @pytest.mark.parametrize(
        "row",
        [
            {},
            {"on": {"Cmd": 0, "Opt": 1}},
            {"on": {"Dmc": 0}},
            {"on": {"Cmd": 0}, "nth": "2"},
            {"on": {"Cmd": 0}, "replies": []},
            {"on": {"Cmd": 0}, "reply": [{"action": "ack"}]},
            {"on_send": "Disk", "drop": True},
            {"on_send": "SimpleReply"},
            {"on_send": "SimpleReply", "mangle": {"action": "close"}},
        ],
    )
    def test_what_is_no_rule_is_refused(self, row: dict[str, object]) -> None:
        with pytest.raises(UsageError, match="no rule"):
            RuleBook().add_json([row])

    def test_one_row_is_no_list(self) -> None:
        with pytest.raises(UsageError, match="a list of rows"):
            RuleBook().add_json({"on": {"Cmd": 0}})  # type: ignore[arg-type] # it is wrong


def test_a_rule_prints_as_the_code_that_makes_it() -> None:
    rules = RuleBook()
    rule = rules.on(Cmd.READ, nth=2).reply(data(at=8192, length=4096), error(Errno.EIO, at=4096)).then(cut(after=7))
    assert repr(rule) == (
        "on(Cmd.READ, nth=2).reply(data(at=8192, length=4096), error(Errno.EIO, at=4096)).then(cut(after=7))"
    )
    assert repr(rules.on(Moment.CONNECT).pass_through()) == "on(Moment.CONNECT).pass_through()"
    assert repr(rules.on_send(SimpleReply, nth=1).mangle(magic=3)) == "on_send(SimpleReply, nth=1).mangle(magic=3)"
