"""Whatever is asked of the correct server, the oracle finds its answers legal."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from nbdtest.fakeserver import BlockSizes, Export, UserContext
from nbdtest.fakeserver.contexts import Allocation
from nbdtest.model import MemoryDisk, Situation, judge
from nbdtest.model.oracle import Chunk
from nbdtest.wire import Cmd, CmdFlag, ExtendedRequest, Request, SimpleReply
from tests.fakeserver.talk import Talk

SIZE = 1 << 17
NOISE = os.urandom(8192)
CONTEXTS = (Allocation(), UserContext("x-test:y", [(1000, 1)]))

edges = st.sampled_from([0, 1, 511, 512, 4096, 65536, SIZE - 512, SIZE - 1, SIZE, SIZE + 1, 1 << 31])
numbers = st.one_of(edges, st.integers(0, SIZE), st.integers(0, SIZE >> 9).map(lambda sector: sector << 9))
commands = st.builds(
    lambda type_, offset, length, flags: (type_, offset, length, flags),
    st.one_of(
        st.sampled_from([Cmd.READ, Cmd.BLOCK_STATUS]), st.sampled_from(sorted(set(Cmd) - {Cmd.DISC})), st.just(Cmd(99))
    ),
    numbers,
    numbers,
    st.one_of(
        st.just(0), st.integers(0, 0x1F), st.sampled_from([CmdFlag.DF, CmdFlag.REQ_ONE, CmdFlag.NO_HOLE, 1 << 9])
    ),
)
exports = st.builds(
    lambda read_only, whole, sizes: (read_only, whole, sizes),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, BlockSizes(minimum=512, maximum=65536)]),
)


@dataclass(frozen=True)
class Came:
    simple: SimpleReply | None = None
    data: bytes = b""
    chunks: tuple[Chunk, ...] = ()


def answer(talk: Talk) -> Came:
    if talk.received[:4] == bytes.fromhex("67446698"):
        reply, _ = talk.simple()
        return Came(simple=reply, data=talk.take())
    return Came(chunks=tuple(talk.chunks()))


@given(exports, st.booleans(), st.booleans(), st.lists(commands, min_size=1, max_size=8), st.lists(numbers, max_size=4))
def test_every_answer_is_legal(
    kind: tuple[bool, bool, BlockSizes | None],
    structured: bool,
    extended: bool,
    asked: list[tuple[Cmd, int, int, int]],
    written: list[int],
) -> None:
    read_only, whole, sizes = kind
    disk = MemoryDisk(SIZE)
    for at in written:
        at = min(at, SIZE - len(NOISE))
        disk.write(at, NOISE)
    export = Export(disk=disk, read_only=read_only, whole_reads=whole, block_sizes=sizes, contexts=CONTEXTS)
    wanted = tuple(context.name for context in CONTEXTS) if structured or extended else ()
    talk = Talk(export).open(structured=structured, extended=extended, contexts=wanted)
    session = talk.engine.session
    for type_, offset, length, flags in asked:
        if type_ == Cmd.WRITE and length > SIZE:
            continue
        payload = NOISE[:1] * length if type_ == Cmd.WRITE else b""
        cookie = talk.request(type_, offset, length, flags=flags, payload=payload)
        sent_flags = CmdFlag(flags | (CmdFlag.PAYLOAD_LEN if extended and payload else 0))
        said = (ExtendedRequest if extended else Request)(
            type=type_, cookie=cookie, offset=offset, length=length, flags=sent_flags
        )
        facts = Situation(
            size=SIZE,
            flags=session.flags,
            structured=structured,
            extended=extended,
            contexts=session.contexts,
            minimum=export.limits.minimum,
            maximum=export.limits.maximum,
            disk=disk,
        )
        assert judge(said, answer(talk), facts) == []
