"""Correct answers to requests in all three framings, and what a client does wrong in transmission."""

from __future__ import annotations

import pytest

from nbdtest.fakeserver import BlockSizes, DirtyBitmap, Export, RuleBook, UserContext, hold, pass_through
from nbdtest.fakeserver.contexts import Allocation
from nbdtest.fakeserver.outbox import End
from nbdtest.model import DiskError, MemoryDisk
from nbdtest.wire import (
    BlockStatus,
    BlockStatusExt,
    Cmd,
    CmdFlag,
    Errno,
    ErrorChunk,
    ErrorOffset,
    ExtendedReply,
    ExtendedRequest,
    Extent,
    Message,
    OffsetData,
    OffsetHole,
    Opt,
    Option,
    ReplyFlag,
    ReplyType,
    Request,
    StatusFilter,
    TransmissionFlag,
    decode_chunk_payload,
)
from tests.fakeserver.talk import Talk

K = 1024
CONTENT = bytes(range(256)) * 4 * K  # 1 MiB


def filled(**fields: object) -> Export:
    return Export(disk=MemoryDisk(len(CONTENT), CONTENT), **fields)  # type: ignore[arg-type]  # fields of Export


def payloads(talk: Talk) -> list[Message]:
    """What the chunks of one reply say; DONE stands on the last, and only there."""
    chunks = talk.chunks()
    assert [bool(chunk.flags & ReplyFlag.DONE) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert len({chunk.cookie for chunk in chunks}) == 1
    return [decode_chunk_payload(chunk.type, chunk.payload) for chunk in chunks]


def errno_of(talk: Talk, *request: int, flags: int = 0, payload: bytes = b"") -> Errno:
    """Send a request in a session with simple replies, and give its error."""
    talk.request(Cmd(request[0]), *request[1:], flags=flags, payload=payload)
    return talk.simple()[0].error


class TestSimpleReplies:
    def test_read_is_header_and_data(self) -> None:
        talk = Talk(filled()).open()
        cookie = talk.request(Cmd.READ, 256, 512)
        reply, data = talk.simple(512)
        assert reply.cookie == cookie
        assert data == CONTENT[256:768]
        assert not talk.received

    def test_write_is_read_back(self) -> None:
        talk = Talk().open()
        assert errno_of(talk, Cmd.WRITE, 100, payload=b"hello") == Errno.OK
        assert talk.disk.read(100, 5) == b"hello"

    def test_several_requests_in_one_piece(self) -> None:
        talk = Talk(filled()).open()
        read = Request(type=Cmd.READ, cookie=1, offset=0, length=4).encode()
        write = Request(type=Cmd.WRITE, cookie=2, offset=0, length=4).encode() + b"abcd"
        talk.say(read + write + read)
        assert talk.simple(4)[1] == CONTENT[:4]
        talk.simple()
        assert talk.simple(4)[1] == b"abcd"

    def test_zero_length_requests_succeed(self) -> None:
        talk = Talk().open()
        for command in (Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES, Cmd.CACHE):
            assert errno_of(talk, command) == Errno.OK
        assert {noted.violation.binding for noted in talk.journal.violations} == {False}

    def test_disc_has_no_reply(self) -> None:
        talk = Talk().open()
        talk.request(Cmd.DISC)
        assert talk.end is End.FIN
        assert not talk.received
        talk.hang_up()
        assert talk.violations == []

    @pytest.mark.parametrize(
        ("request_", "expected"),
        [
            ((Cmd.READ, 1 << 20, 1), Errno.EINVAL),
            ((Cmd.READ, (1 << 64) - 1, 512), Errno.EINVAL),
            ((Cmd.TRIM, 1 << 19, 1 << 20), Errno.EINVAL),
            ((Cmd.WRITE_ZEROES, 1 << 20, 1), Errno.ENOSPC),
            ((Cmd.CACHE, 1 << 20, 1), Errno.EINVAL),
            ((Cmd.BLOCK_STATUS, 0, 512), Errno.EINVAL),
            ((Cmd(0x63), 0, 0), Errno.EINVAL),
            ((Cmd.RESIZE, 512, 0), Errno.EINVAL),
        ],
    )
    def test_errors(self, request_: tuple[int, ...], expected: Errno) -> None:
        talk = Talk().open()
        assert errno_of(talk, *request_) == expected
        assert errno_of(talk, Cmd.FLUSH) == Errno.OK

    def test_a_refused_write_stays_in_step(self) -> None:
        talk = Talk(size=512).open()
        assert errno_of(talk, Cmd.WRITE, 512, payload=b"x" * 512) == Errno.ENOSPC
        assert errno_of(talk, Cmd.FLUSH) == Errno.OK

    def test_a_long_write_is_read_and_refused(self) -> None:
        talk = Talk(Export(size=1 << 26, block_sizes=BlockSizes(maximum=1 << 20))).open()
        assert errno_of(talk, Cmd.WRITE, payload=bytes(2 << 20)) == Errno.EINVAL
        assert errno_of(talk, Cmd.FLUSH) == Errno.OK
        assert talk.disk.allocated() == 0
        assert talk.violations == ["SIZE-030"]

    def test_a_write_above_32_mib_ends_the_connection_unread(self) -> None:
        talk = Talk(size=1 << 30).open()
        talk.say(Request(type=Cmd.WRITE, cookie=1, length=(32 << 20) + 1))
        assert talk.end is End.FIN

    def test_a_long_read_is_refused(self) -> None:
        talk = Talk(size=1 << 30).open()
        assert errno_of(talk, Cmd.READ, 0, (32 << 20) + 1) == Errno.EINVAL


class TestReadOnlyAndFlags:
    @pytest.mark.parametrize("command", [Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES])
    def test_read_only_refuses_writing(self, command: Cmd) -> None:
        talk = Talk(filled(read_only=True)).open()
        payload = b"x" * 512 if command == Cmd.WRITE else b""
        assert errno_of(talk, command, 0, 512, payload=payload) == Errno.EPERM
        assert talk.disk.read(0, 512) == CONTENT[:512]

    @pytest.mark.parametrize(
        ("command", "flags", "expected"),
        [
            (Cmd.READ, CmdFlag.FUA, Errno.OK),
            (Cmd.FLUSH, CmdFlag.FUA, Errno.OK),
            (Cmd.READ, CmdFlag.DF, Errno.EINVAL),
            (Cmd.READ, CmdFlag.NO_HOLE, Errno.EINVAL),
            (Cmd.READ, CmdFlag(1 << 15), Errno.EINVAL),
            (Cmd.WRITE_ZEROES, CmdFlag.NO_HOLE, Errno.OK),
            (Cmd.WRITE_ZEROES, CmdFlag.FAST_ZERO, Errno.OK),
            (Cmd.TRIM, CmdFlag.FAST_ZERO, Errno.EINVAL),
            (Cmd.TRIM, CmdFlag.PAYLOAD_LEN, Errno.EINVAL),
        ],
    )
    def test_flags(self, command: Cmd, flags: CmdFlag, expected: Errno) -> None:
        assert errno_of(Talk().open(), command, 0, 0, flags=flags) == expected

    @pytest.mark.parametrize(
        ("field", "command"),
        [("can_flush", Cmd.FLUSH), ("can_trim", Cmd.TRIM), ("can_zero", Cmd.WRITE_ZEROES), ("can_cache", Cmd.CACHE)],
    )
    def test_what_is_not_offered_is_refused(self, field: str, command: Cmd) -> None:
        talk = Talk(filled(**{field: False})).open()
        assert errno_of(talk, command) == Errno.EINVAL

    def test_fua_that_is_not_offered_is_refused(self) -> None:
        talk = Talk(filled(can_fua=False)).open()
        assert errno_of(talk, Cmd.WRITE, flags=CmdFlag.FUA, payload=b"x") == Errno.EINVAL
        assert talk.violations == ["FLAG-004"]


class TestBlockSizes:
    def talk(self) -> Talk:
        return Talk(Export(size=1 << 20, block_sizes=BlockSizes(minimum=4096, preferred=4096, maximum=1 << 20))).open()

    @pytest.mark.parametrize("place", [(1, 4096), (0, 4095), (512, 512)])
    @pytest.mark.parametrize("command", [Cmd.READ, Cmd.TRIM, Cmd.WRITE_ZEROES])
    def test_misaligned_requests_are_refused(self, command: Cmd, place: tuple[int, int]) -> None:
        assert errno_of(self.talk(), command, *place) == Errno.EINVAL

    def test_the_client_is_bound_only_if_it_asked(self) -> None:
        talk = self.talk()
        errno_of(talk, Cmd.READ, 1, 1)
        assert talk.violations == []


class TestStructuredReplies:
    def test_data_and_holes_are_told_apart(self) -> None:
        talk = Talk()
        talk.disk.write(4096, CONTENT[:4096])
        talk.open(structured=True)
        talk.request(Cmd.READ, 0, 16384)
        assert payloads(talk) == [
            OffsetHole(offset=0, length=4096),
            OffsetData(offset=4096, data=CONTENT[:4096]),
            OffsetHole(offset=8192, length=8192),
        ]

    def test_df_is_one_chunk(self) -> None:
        talk = Talk()
        talk.disk.write(4096, CONTENT[:4096])
        talk.open(structured=True)
        talk.request(Cmd.READ, 0, 16384, flags=CmdFlag.DF)
        assert payloads(talk) == [OffsetData(offset=0, data=bytes(4096) + CONTENT[:4096] + bytes(8192))]

    def test_whole_reads_are_one_chunk(self) -> None:
        talk = Talk(Export(size=8192, whole_reads=True)).open(structured=True)
        talk.request(Cmd.READ, 0, 8192)
        assert payloads(talk) == [OffsetData(offset=0, data=bytes(8192))]

    def test_a_fragmented_range_is_one_chunk(self) -> None:
        talk = Talk()
        for at in range(0, 1 << 20, 1024):
            talk.disk.write(at, b"x")
        talk.open(structured=True)
        talk.request(Cmd.READ, 0, 1 << 20)
        assert len(payloads(talk)) == 1

    def test_errors_say_why(self) -> None:
        talk = Talk(size=512).open(structured=True)
        talk.request(Cmd.READ, 512, 512)
        (error,) = payloads(talk)
        assert error == ErrorChunk(error=Errno.EINVAL, message="[512, 1024) reaches past the end at 512")

    def test_an_error_of_the_disk_has_its_offset(self) -> None:
        class Bad:
            size = 1 << 20

            def read(self, offset: int, length: int) -> bytes:
                raise DiskError(Errno.EIO, "bad sector", offset=offset + 512)

        talk = Talk(Export(disk=Bad(), can_df=False)).open(structured=True)
        talk.request(Cmd.READ, 0, 4096)
        assert payloads(talk) == [ErrorOffset(error=Errno.EIO, message="bad sector", offset=512)]

    def test_success_without_data_is_a_none_chunk(self) -> None:
        talk = Talk().open(structured=True)
        talk.request(Cmd.FLUSH)
        (chunk,) = talk.chunks()
        assert (chunk.type, chunk.flags, chunk.payload) == (ReplyType.NONE, ReplyFlag.DONE, b"")

    def test_too_long_a_read_is_eoverflow(self) -> None:
        talk = Talk(size=1 << 30).open(structured=True)
        talk.request(Cmd.READ, 0, (32 << 20) + 1)
        (error,) = payloads(talk)
        assert isinstance(error, ErrorChunk)
        assert error.error == Errno.EOVERFLOW


class TestBlockStatus:
    def test_extents_of_the_disk(self) -> None:
        talk = Talk(size=16384)
        talk.disk.write(4096, b"x" * 4096)
        talk.disk.zero(8192, 4096, allocate=True)
        talk.open(structured=True, contexts=("base:allocation",))
        talk.request(Cmd.BLOCK_STATUS, 0, 16384)
        (status,) = payloads(talk)
        assert isinstance(status, BlockStatus)
        assert status.extents == (Extent(4096, 3), Extent(4096, 0), Extent(4096, 2), Extent(4096, 3))

    def test_req_one_is_one_extent_inside_the_request(self) -> None:
        talk = Talk().open(structured=True, contexts=("base:allocation",))
        talk.request(Cmd.BLOCK_STATUS, 0, 1000, flags=CmdFlag.REQ_ONE)
        (status,) = payloads(talk)
        assert isinstance(status, BlockStatus)
        assert status.extents == (Extent(1000, 3),)

    def test_every_context_gets_its_chunk(self) -> None:
        bitmap = DirtyBitmap("b", granularity=512)
        export = Export(size=4096, contexts=(Allocation(), bitmap, UserContext("x-test:u", [(1024, 7)])))
        talk = Talk(export).open(structured=True, contexts=("base:allocation", bitmap.name, "x-test:u"))
        talk.request(Cmd.WRITE, 600, payload=b"x")
        talk.chunks()
        talk.request(Cmd.BLOCK_STATUS, 0, 4096)
        _, dirty, own = payloads(talk)
        assert isinstance(dirty, BlockStatus)
        assert dirty.extents == (Extent(512, 0), Extent(512, 1), Extent(3072, 0))
        assert isinstance(own, BlockStatus)
        assert own.extents == (Extent(1024, 7), Extent(3072, 0))

    def test_the_number_of_extents_is_bounded(self) -> None:
        talk = Talk(Export(size=1 << 20, block_sizes=BlockSizes(maximum=8192, preferred=512)))
        for at in range(0, 1 << 20, 1024):
            talk.disk.write(at, b"x")
        talk.open(structured=True, contexts=("base:allocation",))
        talk.request(Cmd.BLOCK_STATUS, 0, 1 << 20)
        (chunk,) = talk.chunks()
        assert len(chunk.payload) <= 8192


class TestExtendedHeaders:
    def talk(self, *contexts: str) -> Talk:
        export = Export(
            size=1 << 40, contexts=(Allocation(), UserContext("x-test:wide", [(1 << 40, 1 << 40)], wide=True))
        )
        return Talk(export).open(extended=True, contexts=contexts)

    def test_replies_echo_the_offset(self) -> None:
        talk = self.talk()
        talk.request(Cmd.READ, 1 << 39, 512)
        (chunk,) = talk.chunks()
        assert isinstance(chunk, ExtendedReply)
        assert chunk.offset == 1 << 39

    def test_effects_may_be_longer_than_32_bits(self) -> None:
        talk = self.talk("base:allocation", "x-test:wide")
        talk.request(Cmd.WRITE_ZEROES, 0, 1 << 39, flags=CmdFlag.NO_HOLE)
        assert talk.chunks()[0].type == ReplyType.NONE
        talk.request(Cmd.BLOCK_STATUS, 0, 1 << 40)
        base, wide = payloads(talk)
        assert isinstance(base, BlockStatusExt)
        assert base.extents == (Extent(1 << 39, 2), Extent(1 << 39, 3))
        assert isinstance(wide, BlockStatusExt)
        assert wide.extents == (Extent(1 << 40, 1 << 40),)

    def test_a_filter_selects_contexts(self) -> None:
        talk = self.talk("base:allocation", "x-test:wide")
        assert TransmissionFlag.BLOCK_STATUS_PAYLOAD in talk.engine.session.flags
        ids = talk.engine.session.contexts
        wanted = StatusFilter(length=512, context_ids=(ids["x-test:wide"],))
        talk.request(Cmd.BLOCK_STATUS, payload=wanted.encode())
        (wide,) = payloads(talk)
        assert isinstance(wide, BlockStatusExt)
        assert wide.context_id == ids["x-test:wide"]
        assert talk.violations == []

    @pytest.mark.parametrize("ids", [(1, 1), (77,)])
    def test_a_filter_with_bad_ids_is_refused(self, ids: tuple[int, ...]) -> None:
        talk = self.talk("base:allocation")
        talk.request(Cmd.BLOCK_STATUS, payload=StatusFilter(length=512, context_ids=ids).encode())
        assert isinstance(payloads(talk)[0], ErrorChunk)

    def test_a_malformed_filter_is_refused_in_step(self) -> None:
        talk = self.talk("base:allocation")
        talk.request(Cmd.BLOCK_STATUS, payload=b"short")
        assert isinstance(payloads(talk)[0], ErrorChunk)
        talk.request(Cmd.FLUSH)
        assert talk.chunks()[0].type == ReplyType.NONE
        assert talk.violations == ["EXT-066"]

    def test_an_unexpected_payload_is_read_and_refused(self) -> None:
        talk = self.talk()
        talk.request(Cmd.READ, payload=bytes(1000))
        assert isinstance(payloads(talk)[0], ErrorChunk)
        talk.request(Cmd.FLUSH)
        assert talk.chunks()[0].type == ReplyType.NONE

    def test_a_write_without_payload_flag_is_served_and_noted(self) -> None:
        talk = self.talk()
        talk.say(ExtendedRequest(type=Cmd.WRITE, cookie=1, length=4).encode() + b"qemu")
        assert talk.chunks()[0].type == ReplyType.NONE
        assert talk.disk.read(0, 4) == b"qemu"
        assert talk.violations == ["EXT-005"]


def test_requests_that_come_during_a_shutdown() -> None:
    talk = Talk().open()
    talk.engine.shutting_down = True
    assert errno_of(talk, Cmd.READ, 0, 4) == Errno.ESHUTDOWN
    talk.request(Cmd.DISC)
    assert talk.end is End.FIN


class TestResize:
    def test_growing_and_shrinking(self) -> None:
        talk = Talk(Export(size=4096, can_resize=True)).open()
        assert errno_of(talk, Cmd.WRITE, 4096, payload=b"x" * 512) == Errno.ENOSPC
        assert errno_of(talk, Cmd.RESIZE, 8192) == Errno.OK
        assert errno_of(talk, Cmd.WRITE, 4096, payload=b"x" * 512) == Errno.OK
        assert errno_of(talk, Cmd.RESIZE, 512) == Errno.OK
        assert errno_of(talk, Cmd.WRITE, 512, payload=b"x" * 512) == Errno.ENOSPC

    def test_only_for_writable_exports(self) -> None:
        talk = Talk(Export(size=4096, can_resize=True, read_only=True)).open()
        assert TransmissionFlag.SEND_RESIZE not in talk.engine.session.flags


class TestClientsMistakes:
    @pytest.mark.parametrize(
        ("request_", "flags", "requirement"),
        [
            ((Cmd.READ, 1 << 20, 512), 0, "SIZE-038"),
            ((Cmd.READ, 0, (32 << 20) + 512), 0, "SIZE-038 SIZE-030"),
            ((Cmd.FLUSH, 1, 0), 0, "CMD-079"),
            ((Cmd.BLOCK_STATUS, 0, 512), 0, "META-007"),
            ((Cmd(99), 0, 0), 0, "COMPAT-013"),
            ((Cmd.READ, 0, 1), CmdFlag.DF, "FLAG-050"),
            ((Cmd.READ, 0, 1), CmdFlag.REQ_ONE, "FLAG-041"),
            ((Cmd.READ, 0, 1), CmdFlag(1 << 9), "FLAG-041"),
            ((Cmd.READ, 0, 1), CmdFlag.PAYLOAD_LEN, "EXT-003"),
            ((Cmd.READ, 0, 1), CmdFlag.FUA, "FLAG-043"),
            ((Cmd.RESIZE, 0, 0), 0, "RSZ-005"),
        ],
    )
    def test_requests(self, request_: tuple[int, ...], flags: int, requirement: str) -> None:
        talk = Talk().open()
        talk.request(Cmd(request_[0]), *request_[1:], flags=flags)
        assert talk.violations == requirement.split()

    @pytest.mark.parametrize(
        ("command", "field", "requirement"),
        [
            (Cmd.FLUSH, "can_flush", "CMD-061"),
            (Cmd.TRIM, "can_trim", "CMD-087"),
            (Cmd.WRITE_ZEROES, "can_zero", "CMD-105"),
        ],
    )
    def test_commands_without_their_flag(self, command: Cmd, field: str, requirement: str) -> None:
        talk = Talk(filled(**{field: False})).open()
        talk.request(command, 0, 0 if command == Cmd.FLUSH else 512)
        assert talk.violations == [requirement]

    @pytest.mark.parametrize("held", [True, False], ids=["before the answer", "in the same piece"])
    @pytest.mark.parametrize(
        ("size", "offset", "requirement"),
        [
            (1 << 16, (1 << 16) - 512, ""),
            (1 << 16, 1 << 16, "RSZ-008"),
            (1 << 16, (1 << 20) - 512, "RSZ-008"),
            (1 << 16, 1 << 20, "RSZ-009"),
            (1 << 24, (1 << 20) - 512, ""),
            (1 << 24, 1 << 20, "RSZ-008"),
            (1 << 24, 1 << 24, "RSZ-010"),
        ],
    )
    def test_a_request_while_resize_is_under_way(self, size: int, offset: int, requirement: str, held: bool) -> None:
        rules = RuleBook()
        talk = Talk(Export(size=1 << 20, can_resize=True), rules=rules).open()
        both = [
            Request(type=Cmd.RESIZE, cookie=1, offset=size),
            Request(type=Cmd.READ, cookie=2, offset=offset, length=512),
        ]
        if held:
            rules.on(Cmd.RESIZE).reply(hold("later"), pass_through())
            talk.say(both[0])
            talk.say(both[1])
        else:
            talk.say(*both)
        # What reaches past the end of the disk breaks SIZE-038 besides.
        assert [each for each in talk.violations if each.startswith("RSZ-")] == ([requirement] if requirement else [])

    def test_a_request_after_resize_was_answered(self) -> None:
        talk = Talk(Export(size=1 << 20, can_resize=True)).open()
        talk.request(Cmd.RESIZE, 1 << 24)
        talk.request(Cmd.READ, 1 << 20, 512)
        assert talk.violations == []

    def test_resize_while_a_request_for_what_it_takes_away_is_under_way(self) -> None:
        rules = RuleBook()
        rules.on(Cmd.READ).reply(hold("later"), pass_through())
        talk = Talk(Export(size=1 << 20, can_resize=True), rules=rules).open()
        talk.request(Cmd.READ, 0, 512)
        talk.request(Cmd.READ, 1 << 19, 512)
        talk.request(Cmd.RESIZE, 1 << 16)
        assert talk.violations == ["RSZ-011"]

    @pytest.mark.parametrize(
        ("said", "requirement"),
        [
            (bytes(28), "REQ-001"),
            (Option(option=Opt.LIST).encode() + bytes(12), "OPT-107"),
            (ExtendedRequest(type=Cmd.READ, cookie=1).encode(), "MAGIC-004"),
        ],
    )
    def test_no_request_at_all(self, said: bytes, requirement: str) -> None:
        talk = Talk().open()
        talk.say(said)
        assert talk.end is End.FIN
        assert talk.violations == [requirement]

    def test_a_compact_request_under_extended_headers(self) -> None:
        talk = Talk().open(extended=True)
        talk.say(Request(type=Cmd.READ, cookie=1).encode() + bytes(4))
        assert talk.violations == ["EXT-001"]

    def test_leaving_without_disc(self) -> None:
        talk = Talk().open()
        talk.hang_up()
        assert talk.violations == ["TERM-042"]

    def test_talking_after_disc(self) -> None:
        talk = Talk().open()
        talk.say(Request(type=Cmd.DISC, cookie=1), Request(type=Cmd.FLUSH, cookie=2))
        assert talk.violations == ["CMD-074"]

    def test_disc_with_a_place(self) -> None:
        talk = Talk().open()
        talk.say(Request(type=Cmd.DISC, cookie=1, offset=1))
        assert talk.violations == ["CMD-075"]
