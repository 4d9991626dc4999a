"""Transcripts as captures: the format by hand, and what Wireshark makes of it."""

import json
import struct
import subprocess
from pathlib import Path

import pytest

from nbdtest.report.pcapng import pcapng
from nbdtest.wire import (
    ClientFlag,
    ClientFlags,
    Cmd,
    HandshakeFlag,
    NewstyleGreeting,
    Opt,
    Option,
    Record,
    Request,
    Sender,
)

GREETING = NewstyleGreeting(flags=HandshakeFlag(3)).encode()
RECORDS = [
    Record(sender=Sender.SERVER, data=GREETING, summary="the greeting", time_s=0.5),
    Record(sender=Sender.CLIENT, data=ClientFlags(flags=ClientFlag(3)).encode(), summary="flags"),
    Record(sender=Sender.CLIENT, data=Option(option=Opt.LIST).encode(), summary="LIST"),
    Record(sender=Sender.SERVER, summary="FIN"),
]


def blocks(capture: bytes) -> list[tuple[int, bytes]]:
    found = []
    while capture:
        kind, length = struct.unpack_from("<II", capture)
        assert length % 4 == 0
        assert struct.unpack_from("<I", capture, length - 4) == (length,)
        found.append((kind, capture[8 : length - 4]))
        capture = capture[length:]
    return found


def packets(capture: bytes) -> list[bytes]:
    bodies = [body for kind, body in blocks(capture) if kind == 6]
    return [body[20 : 20 + struct.unpack_from("<I", body, 12)[0]] for body in bodies]


def payload(packet: bytes) -> bytes:
    return packet[40:]


def test_capture_begins_with_a_section_and_one_interface() -> None:
    kinds = [kind for kind, _ in blocks(pcapng(RECORDS))]
    assert kinds[:2] == [0x0A0D0D0A, 1]
    assert set(kinds[2:]) == {6}


def test_empty_transcript_is_an_empty_capture() -> None:
    assert len(blocks(pcapng([]))) == 2


def test_payloads_are_the_bytes_of_the_transcript_in_order() -> None:
    sent = [payload(packet) for packet in packets(pcapng(RECORDS)) if payload(packet)]
    assert sent == [record.data for record in RECORDS if record.data]


def test_checksums_are_right() -> None:
    for packet in packets(pcapng(RECORDS)):
        words = struct.unpack(">10H", packet[:20])
        assert sum(words) % 0xFFFF == 0
        segment = packet[12:20] + struct.pack(">HH", 6, len(packet) - 20) + packet[20:]
        segment += bytes(len(segment) % 2)
        assert sum(struct.unpack(f">{len(segment) // 2}H", segment)) % 0xFFFF == 0


def test_long_record_is_split_and_numbered_on() -> None:
    data = bytes(range(256)) * 600
    capture = pcapng([Record(sender=Sender.SERVER, data=data, summary="long")])
    parts = [packet for packet in packets(capture) if payload(packet)]
    assert b"".join(payload(packet) for packet in parts) == data
    assert [struct.unpack_from(">I", packet, 24)[0] for packet in parts] == [1, 65001, 130001]


def test_time_is_that_of_the_record_after_the_epoch() -> None:
    body = blocks(pcapng(RECORDS, epoch_s=2.0))[2][1]
    assert struct.unpack_from("<II", body, 4) == (0, 2_500_000)


def test_connections_have_ports_of_their_own() -> None:
    records = [Record(sender=Sender.CLIENT, data=b"x", connection=number) for number in (0, 7)]
    ports = {struct.unpack_from(">H", packet, 20)[0] for packet in packets(pcapng(records)) if payload(packet)}
    assert ports == {40000, 40007}


def test_comment_that_cannot_be_encoded_is_escaped() -> None:
    assert rb"odd \udc80" in pcapng([Record(sender=Sender.CLIENT, data=b"x", summary="odd \udc80")])


@pytest.mark.interop
def test_wireshark_decodes_it_as_nbd(tmp_path: Path) -> None:
    transmission = [
        Record(sender=Sender.CLIENT, data=Request(type=Cmd.READ, cookie=7, offset=4096, length=512).encode()),
    ]
    path = tmp_path / "x.pcapng"
    path.write_bytes(pcapng([*RECORDS[:3], *transmission]))
    done = subprocess.run(
        ["tshark", "-r", str(path), "-T", "json", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"],
        capture_output=True,
        text=True,
        check=True,
    )
    frames = [frame["_source"]["layers"] for frame in json.loads(done.stdout)]
    (request,) = [frame["nbd"] for frame in frames if "nbd.from" in frame.get("nbd", {})]
    assert (int(request["nbd.from"], 0), int(request["nbd.len"], 0)) == (4096, 512)
    assert "Bad" not in done.stdout
    assert any("the greeting" in json.dumps(frame) for frame in frames)
