"""Any bytes are a session; a session is saved, printed, cut into waves and made small without becoming another."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdtest.errors import UsageError
from nbdtest.fuzz import replay
from nbdtest.fuzz.commands import Command, pattern
from nbdtest.fuzz.decoding import COMMAND_BYTES, HEAD_BYTES, commands_from, script_from
from nbdtest.fuzz.finding import format_script
from nbdtest.fuzz.ground import CHANGING, WITHOUT_RANGE, Ground, Law
from nbdtest.fuzz.script import Hostile, Leave, Mode, Opening, Script, Send, Way, script_from_json, script_to_json
from nbdtest.fuzz.shadow import Shadow
from nbdtest.fuzz.shrinking import shrink
from nbdtest.fuzz.waves import waves
from nbdtest.wire import Cmd, CmdFlag, ExtendedRequest, Opt, Option, Request
from tests.fuzz import grounds

every_ground = pytest.mark.parametrize(
    "ground",
    [grounds.EVERYTHING, grounds.ALIGNED, grounds.READ_ONLY, grounds.UNTOUCHABLE, grounds.SMALL],
    ids=["everything", "aligned", "read-only", "untouchable", "small"],
)
some_bytes = st.binary(max_size=HEAD_BYTES + 40 * COMMAND_BYTES)
LEGAL_CHOICE = st.integers(0, 0xEF)


@every_ground
@given(data=some_bytes)
def test_any_bytes_are_a_session_that_is_saved_and_printed_without_loss(ground: Ground, data: bytes) -> None:
    script = script_from(data, ground)
    assert script_from_json(json.loads(json.dumps(script_to_json(script)))) == script
    assert eval(repr(script), vars(replay).copy()) == script
    assert eval(format_script(script), vars(replay).copy()) == script


@every_ground
@given(data=st.lists(st.tuples(LEGAL_CHOICE, st.binary(min_size=7, max_size=7)), max_size=30))
def test_most_commands_are_legal_where_they_are_sent(ground: Ground, data: list[tuple[int, bytes]]) -> None:
    law = Law(ground, ground.flags, contexts=ground.contexts)
    for command in commands_from(b"".join(bytes([choice]) + rest for choice, rest in data), ground):
        assert law.objection(command) == ""


@every_ground
@given(data=some_bytes)
def test_nothing_is_written_where_nothing_may_be(ground: Ground, data: bytes) -> None:
    if ground.writable or ground.read_only:
        return
    assert not any(command.type in CHANGING for command in commands_from(data, ground))


@given(data=st.lists(st.binary(min_size=COMMAND_BYTES, max_size=COMMAND_BYTES), min_size=1), at=st.integers(0))
def test_taking_a_command_out_of_the_bytes_leaves_the_others(data: list[bytes], at: int) -> None:
    at %= len(data)
    whole = list(commands_from(b"".join(data), grounds.EVERYTHING))
    rest = list(commands_from(b"".join(data[:at] + data[at + 1 :]), grounds.EVERYTHING))
    assert rest == whole[:at] + whole[at + 1 :]


def test_no_bytes_are_the_simplest_session() -> None:
    assert script_from(b"", grounds.SMALL) == Script(openings=(Opening(),), steps=(Send(),))


@given(seed=st.integers(0, 1000), length=st.integers(0, 1 << 17))
def test_a_pattern_tells_where_each_byte_belongs(seed: int, length: int) -> None:
    data = pattern(seed, length)
    assert len(data) == length
    assert all(data[at] == (seed + at) % 251 for at in {0, 1, length // 2, length - 1} if 0 <= at < length)


@pytest.mark.parametrize("extended", [False, True], ids=["compact", "extended"])
def test_a_command_is_sent_as_the_message_it_stands_for(extended: bool) -> None:
    command = Command(type=Cmd.WRITE, flags=CmdFlag.FUA, offset=7, length=3, seed=5)
    message: Request | ExtendedRequest
    if extended:
        flags = CmdFlag.FUA | CmdFlag.PAYLOAD_LEN
        message = ExtendedRequest(flags=flags, type=Cmd.WRITE, cookie=9, offset=7, length=3)
    else:
        message = Request(flags=CmdFlag.FUA, type=Cmd.WRITE, cookie=9, offset=7, length=3)
    assert command.encode(9, extended=extended) == message.encode() + b"\x05\x06\x07"


@pytest.mark.parametrize(
    ("command", "objection"),
    [
        (Command(type=Cmd.READ, length=512), ""),
        (Command(type=Cmd.FLUSH), ""),
        (Command(type=Cmd.READ, offset=(1 << 20) - 1, length=2), "it reaches past the end"),
        (Command(type=Cmd.READ), "it has no length"),
        (Command(type=Cmd.WRITE, length=512), "the export is read-only"),
        (Command(type=Cmd(0x63), length=512), "the command is unknown"),
        (Command(type=Cmd.READ, flags=CmdFlag.FAST_ZERO, length=512), "a flag does not belong there"),
        (Command(type=Cmd.READ, flags=CmdFlag(0x8000), length=512), "a flag does not belong there"),
        (Command(type=Cmd.BLOCK_STATUS, length=512), "no metadata context was negotiated"),
    ],
    ids=repr,
)
def test_the_law_says_why(command: Command, objection: str) -> None:
    assert Law(grounds.READ_ONLY, grounds.READ_ONLY.flags, contexts=False).objection(command) == objection


def test_the_law_knows_alignment_and_size() -> None:
    law = Law(grounds.ALIGNED, grounds.ALIGNED.flags, contexts=True)
    assert law.objection(Command(type=Cmd.READ, offset=512, length=4096)) == "it is misaligned"
    assert law.objection(Command(type=Cmd.READ, length=(1 << 20) + 4096)) == "its payload is too large"
    assert law.objection(Command(type=Cmd.TRIM, length=(1 << 20) + 4096)) == ""


@given(data=some_bytes)
def test_what_is_in_flight_together_has_no_order(data: bytes) -> None:
    commands = list(commands_from(data, grounds.EVERYTHING))
    groups = list(waves(commands))
    assert [command for group in groups for command in group] == commands
    for group in groups:
        for number, one in enumerate(group):
            for other in group[:number]:
                if one.type in WITHOUT_RANGE or other.type in WITHOUT_RANGE:
                    continue
                overlap = one.offset < other.end and other.offset < one.end
                assert not (overlap and (one.type in CHANGING or other.type in CHANGING))


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["write", "zero", "forget", "read"]),
            st.integers(0, 511),
            st.integers(1, 600),
            st.integers(1, 255),
        )
    )
)
def test_the_shadow_complains_about_a_known_byte_that_differs_and_of_nothing_else(
    steps: list[tuple[str, int, int, int]],
) -> None:
    shadow = Shadow(grounds.SMALL)
    known: dict[int, int] = {}
    for what, start, length, value in steps:
        inside = range(start, min(start + length, 512))
        if what == "write":
            shadow.write(start, bytes([value]) * length)
            known |= dict.fromkeys(inside, value)
        elif what == "zero":
            shadow.zero(start, length)
            known |= dict.fromkeys(inside, 0)
        elif what == "forget":
            shadow.forget(start, length)
            for at in inside:
                known.pop(at, None)
        else:
            wrong = next((at for at in inside if known.get(at, value) != value), None)
            assert shadow.compare(start, bytes([value]) * length) == wrong
            if wrong is None:
                known |= dict.fromkeys(inside, value)
        assert shadow.first_nonzero(0, 512) == next((at for at in range(512) if known.get(at)), None)


def lost_write(script: Script) -> bool:
    """Whether a READ follows a WRITE on the same byte."""
    written: list[Command] = []
    for step in script.steps:
        for command in step.commands if isinstance(step, Send) else ():
            if command.type == Cmd.WRITE:
                written.append(command)
            elif command.type == Cmd.READ and any(
                max(command.offset, write.offset) < min(command.end, write.end) for write in written
            ):
                return True
    return False


@settings(max_examples=10)
@given(data=st.binary(min_size=HEAD_BYTES + 60 * COMMAND_BYTES, max_size=HEAD_BYTES + 60 * COMMAND_BYTES))
def test_what_fails_shrinks_to_the_messages_that_matter(data: bytes) -> None:
    script = script_from(data, grounds.EVERYTHING)
    if not lost_write(script):
        return
    small = shrink(script, lost_write)
    assert lost_write(small)
    assert small.commands == 2
    lengths = [command.length for step in small.steps if isinstance(step, Send) for command in step.commands]
    assert min(lengths) == 1


def test_everything_around_what_fails_is_taken_away() -> None:
    odd = Command(type=Cmd(0x63), flags=CmdFlag.FUA, offset=4096, length=512, seed=3)
    noise = Command(type=Cmd.READ, offset=8, length=3)
    script = Script(
        openings=(
            Opening(mode=Mode.EXTENDED, contexts=True, options=(Option(option=Opt.LIST),)),
            Opening(by_export_name=True),
        ),
        steps=(
            Send(on=1, commands=(noise, noise)),
            Send(on=0, commands=(noise, odd, noise)),
            Hostile(on=1, data=b"nonsense"),
            Leave(on=0, way=Way.RST),
        ),
    )

    def fails(candidate: Script) -> bool:
        return any(
            command.type == Cmd(0x63) for step in candidate.steps if isinstance(step, Send) for command in step.commands
        )

    assert shrink(script, fails) == Script(
        openings=(Opening(),), steps=(Send(commands=(Command(type=Cmd(0x63), length=1, seed=1),)),)
    )


@pytest.mark.parametrize(
    "row", [{}, {"openings": [], "steps": [{"step": "dance", "on": 0}]}, {"openings": [{"mode": "odd"}], "steps": []}]
)
def test_what_is_no_script_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="this is no script"):
        script_from_json(row)
