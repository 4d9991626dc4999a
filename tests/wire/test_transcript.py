"""A transcript is saved and loaded without loss, and drawn as a sequence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.errors import UsageError
from nbdtest.wire import Record, Sender, SimpleReply, Transcript, dump
from nbdtest.wire.dump import hexdump, shorten

records = st.builds(
    Record,
    connection=st.integers(0, 99),
    sender=st.sampled_from(Sender),
    time_s=st.integers(0, 10**9).map(lambda microseconds: microseconds / 10**6),
    data=st.binary(max_size=40),
    summary=st.text(max_size=20),
)
TWO = Transcript(
    [
        Record(sender=Sender.SERVER, time_s=0.5, data=b"NBDMAGIC", summary="greeting"),
        Record(sender=Sender.CLIENT, time_s=1.25, data=bytes(range(0x20, 0x34))),
        Record(sender=Sender.CLIENT, time_s=2, summary="FIN"),
    ]
)


@given(st.lists(records))
def test_json_lines_load_as_what_was_saved(rows: list[Record]) -> None:
    text = Transcript(rows).to_json_lines()
    assert len(text.splitlines()) == len(rows)
    assert list(Transcript.from_json_lines(text)) == rows


@given(st.text())
def test_any_text_loads_or_is_refused_with_its_line(text: str) -> None:
    try:
        Transcript.from_json_lines(text)
    except UsageError as refusal:
        assert str(refusal).startswith("line ")  # noqa: PT017  (most texts are refused, a few are not)


@pytest.mark.parametrize(
    "damage",
    [
        {"sender": "nobody"},
        {"data": "0g"},
        {"connection": None},
        {"connection": float("inf")},
        {"time_s": "later"},
        {"data": 5},
    ],
    ids=json.dumps,
)
def test_a_damaged_record_is_refused_with_its_line(damage: dict[str, object]) -> None:
    lines = TWO.to_json_lines().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | damage)
    with pytest.raises(UsageError, match="line 2 is no transcript record"):
        Transcript.from_json_lines("\n".join(lines))


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UsageError, match="line 1 is no transcript record \\('connection'\\)"):
        Transcript.from_json_lines("{}")


def test_a_sequence_has_the_client_left_and_the_bytes_below() -> None:
    assert TWO.format() == (
        "   0.5000 <-- server greeting\n"
        "     0000  4e 42 44 4d 41 47 49 43                          NBDMAGIC\n"
        "   1.2500 client --> 20 bytes\n"
        "     0000  20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f   !\"#$%&'()*+,-./\n"
        "     0010  30 31 32 33                                      0123\n"
        "   2.0000 client --> FIN"
    )


def test_only_the_last_records_are_drawn_when_asked() -> None:
    assert TWO.format(last=1).splitlines() == ["… 2 earlier records", "   2.0000 client --> FIN"]


def test_several_connections_are_told_apart() -> None:
    both = Transcript([*TWO, Record(connection=1, sender=Sender.CLIENT, summary="FIN")])
    assert both.format(hex_limit=0).splitlines()[-1] == "   0.0000 [1] client --> FIN"
    assert both.format(hex_limit=0).splitlines()[0] == "   0.5000 [0] <-- server greeting"


def test_what_one_side_sent_is_joined() -> None:
    assert TWO.sent_by(Sender.SERVER) == b"NBDMAGIC"
    assert TWO.sent_by(Sender.CLIENT) == bytes(range(0x20, 0x34))
    assert TWO.sent_by(Sender.CLIENT, connection=1) == b""


@given(st.binary(max_size=600), st.integers(1, 512))
def test_a_hexdump_holds_every_byte_up_to_its_limit(data: bytes, limit: int) -> None:
    rows = hexdump(data, limit=limit).splitlines()
    shown = bytes.fromhex("".join(row[6:53] for row in rows if not row.startswith("…")))
    assert shown == data[:limit]
    assert (rows[-1] == f"… {len(data) - limit} more bytes") if len(data) > limit else True


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "(empty)"),
        (b"\x01\xff", "01 ff"),
        (bytes(17), "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 … (17 bytes)"),
    ],
    ids=["none", "few", "many"],
)
def test_bytes_are_shortened_to_their_front_and_length(data: bytes, line: str) -> None:
    assert shorten(data) == line


def test_dump_shows_a_cookie_in_hexadecimal() -> None:
    assert dump(SimpleReply(cookie=0xDEAD)) == "SimpleReply error=OK cookie=0xdead"
