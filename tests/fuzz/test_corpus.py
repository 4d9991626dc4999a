"""Sessions become bytes, bytes become sessions, and what is changed in between harms no disk that is not ours."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.cli import main
from nbdtest.errors import UsageError
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.corpus import Corpus
from nbdtest.fuzz.decoding import script_from
from nbdtest.fuzz.ground import CHANGING, Ground
from nbdtest.fuzz.mutating import mutated
from nbdtest.fuzz.script import Hostile, Leave, Mode, Opening, Script, Send
from nbdtest.fuzz.shrinking import shrink
from nbdtest.fuzz.streams import messages_of, script_of
from nbdtest.fuzz.visits import visit
from nbdtest.wire import Cmd, CmdFlag, InfoRequest, Opt, Option, Record, Sender, Transcript
from tests.fuzz import grounds

EXPORT = "disk"
READ = Command(type=Cmd.READ, offset=512, length=512)
WRITE = Command(type=Cmd.WRITE, flags=CmdFlag.FUA, offset=4096, length=600, seed=7)

every_ground = pytest.mark.parametrize(
    "ground",
    [grounds.EVERYTHING, grounds.READ_ONLY, grounds.UNTOUCHABLE],
    ids=["everything", "read-only", "untouchable"],
)


def stream_of(script: Script) -> bytes:
    return b"".join(messages_of(script, EXPORT))


@pytest.mark.parametrize(
    "opening",
    [
        Opening(),
        Opening(mode=Mode.STRUCTURED, contexts=True),
        Opening(mode=Mode.EXTENDED),
        Opening(by_export_name=True, padded=True),
        Opening(options=(Option(option=Opt.LIST), Option(option=Opt(0x63), data=b"what?"))),
    ],
    ids=repr,
)
def test_a_legal_session_is_read_back_from_its_bytes(opening: Opening) -> None:
    script = Script(openings=(opening,), steps=(Send(commands=(WRITE, READ)), Leave()))
    read = script_of(stream_of(script), grounds.EVERYTHING, EXPORT)
    assert read is not None
    assert read.steps == script.steps
    assert stream_of(read) == stream_of(script)


@given(data=st.binary(max_size=200), seed=st.integers(0, 1000))
def test_bytes_are_the_same_whatever_they_are_read_as(data: bytes, seed: int) -> None:
    for script in (
        script_from(data, grounds.EVERYTHING),
        visit(random.Random(seed), grounds.EVERYTHING, [EXPORT]),
    ):
        read = script_of(stream_of(script), grounds.EVERYTHING, EXPORT)
        assert read is not None
        assert stream_of(read) == stream_of(script)


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("nothing", b""),
        ("unknown flags", b"\0\0\0\x07" + stream_of(Script())[4:]),
        ("no GO", stream_of(Script())[:4]),
        ("half a GO", stream_of(Script())[:-1]),
        ("another export", b"\0\0\0\x03" + Option(option=Opt.GO, data=InfoRequest(name="x").encode()).encode()),
        ("half a request", stream_of(Script(steps=(Send(commands=(READ,)),)))[:-1]),
        ("half a payload", stream_of(Script(steps=(Send(commands=(WRITE,)),)))[:-1]),
        ("a FLUSH of a range", stream_of(Script()) + Command(type=Cmd.FLUSH, offset=512).encode(1)),
        ("more than DISC", stream_of(Script(steps=(Leave(),))) + READ.encode(1)),
        ("a surplus in LIST", stream_of(Script(openings=(Opening(options=(Option(option=Opt.LIST, data=b"x"),)),)))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_breaks_a_rule_is_sent_as_it_is_and_only_survival_is_asked(name: str, stream: bytes) -> None:
    expected = Script(steps=(Hostile(data=stream, early=True), Send()))
    assert script_of(stream, grounds.EVERYTHING, EXPORT) == expected
    assert script_of(stream, grounds.UNTOUCHABLE, EXPORT) is None


@every_ground
@given(first=st.binary(max_size=120), second=st.binary(max_size=120), seed=st.integers(0, 1 << 32))
def test_mutants_are_sessions_and_change_no_disk_that_is_not_to_be_changed(
    ground: Ground, first: bytes, second: bytes, seed: int
) -> None:
    one, other = (messages_of(script_from(data, grounds.EVERYTHING), EXPORT) for data in (first, second))
    mutant = script_of(mutated(one, other, random.Random(seed)), ground, EXPORT)
    if mutant is None:
        assert ground is grounds.UNTOUCHABLE
    elif ground is grounds.UNTOUCHABLE:
        assert not any(isinstance(step, Hostile) for step in mutant.steps)
        assert not any(
            command.type in CHANGING for step in mutant.steps if isinstance(step, Send) for command in step.commands
        )


def test_the_same_seed_makes_the_same_mutant_and_another_one_others() -> None:
    messages = messages_of(Script(steps=(Send(commands=(WRITE, READ)),)), EXPORT)
    made = [mutated(messages, messages, random.Random(seed)) for seed in (1, 1, 2, 3, 4, 5)]
    assert made[0] == made[1]
    assert len(set(made)) == 5


def test_nonsense_shrinks_to_the_bytes_that_matter() -> None:
    script = Script(steps=(Hostile(data=bytes(700) + b"boom" + bytes(321), early=True), Send()))

    def fails(candidate: Script) -> bool:
        return any(isinstance(step, Hostile) and b"boom" in step.data for step in candidate.steps)

    assert shrink(script, fails) == Script(steps=(Hostile(data=b"boom", early=True),))


def corpus_in(folder: Path) -> Corpus:
    corpus = Corpus(folder)
    corpus.load(grounds.EVERYTHING, EXPORT)
    return corpus


def test_what_is_kept_is_there_the_next_time(tmp_path: Path) -> None:
    script = Script(steps=(Send(commands=(READ,)),))
    corpus = corpus_in(tmp_path / "new" / "corpus")
    for _ in range(2):
        corpus.add(script)
    assert corpus.scripts == [script]
    assert corpus_in(tmp_path / "new" / "corpus").scripts == [script]


def test_what_another_process_has_added_meanwhile_is_read_as_well(tmp_path: Path) -> None:
    first, second = corpus_in(tmp_path), corpus_in(tmp_path)
    script = Script(steps=(Send(commands=(READ,)),))
    second.add(script)
    (tmp_path / "odd.json").write_text("{")
    for _ in range(2):
        first.refresh(grounds.EVERYTHING, EXPORT)
    assert first.scripts == [script]


def test_what_was_not_finished_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".0123456789abcdef.json.4711").write_text('{"openings": [')
    assert corpus_in(tmp_path).scripts == []


def test_a_transcript_is_a_starting_point_as_well(tmp_path: Path) -> None:
    script = Script(steps=(Send(commands=(WRITE, READ)),))
    records = [Record(sender=Sender.CLIENT, data=data) for data in messages_of(script, EXPORT)]
    (tmp_path / "session.jsonl").write_text(Transcript(records).to_json_lines())
    assert corpus_in(tmp_path).scripts == [script]


def test_the_bytes_of_one_client_are_a_starting_point(tmp_path: Path) -> None:
    script = Script(steps=(Send(commands=(WRITE, READ)),))
    (tmp_path / "0001.bin").write_bytes(stream_of(script))
    assert corpus_in(tmp_path).scripts == [script]


@pytest.mark.parametrize("text", ["", "[]", '{"openings": 5}'], ids=repr)
def test_a_file_that_holds_no_session_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(UsageError, match=r"odd\.json holds no session"):
        corpus_in(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no corpus can be kept"):
        Corpus(tmp_path / "file")


def test_the_next_run_goes_on_from_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, into = tmp_path / "corpus", tmp_path / "found"
    arguments = ["--corpus", str(corpus), "--into", str(into)]
    assert main(["fuzz", "builtin", "--sessions", "40", "--seed", "1", *arguments]) == 0
    kept = len(list(corpus.iterdir()))
    assert kept > 5
    assert main(["fuzz", "builtin", "--sessions", str(kept), "--seed", "2", *arguments]) == 0
    assert f"{kept} sessions from {corpus}" in capsys.readouterr().out
