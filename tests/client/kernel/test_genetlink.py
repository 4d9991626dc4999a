"""Generic netlink messages against bytes taken from Linux 6.1, on a machine of either byte order's layout."""

from __future__ import annotations

import sys

import pytest

from nbdtest.client.kernel import genetlink
from nbdtest.client.kernel.genetlink import Message

little_endian = pytest.mark.skipif(
    sys.byteorder != "little", reason="the bytes were captured on a little-endian machine"
)


@little_endian
def test_a_family_query_is_the_bytes_the_kernel_knows() -> None:
    assert genetlink.family_query("nbd", sequence=1) == bytes.fromhex(
        "1c000000"  # length 28
        "1000"  # the controller
        "0500"  # REQUEST | ACK
        "01000000"  # sequence
        "00000000"  # port
        "03 02 0000"  # GETFAMILY, version 2, reserved
        "0800 0200 6e626400"  # FAMILY_NAME "nbd\0"
    )


@little_endian
def test_nested_attributes_are_marked_and_aligned() -> None:
    assert genetlink.nest(7, genetlink.nest(1, genetlink.u32(1, 5))) == bytes.fromhex(
        "1000 0780"  # SOCKETS, nested
        "0c00 0180"  # ITEM, nested
        "0800 0100 05000000"  # FD
    )


def test_an_attribute_is_padded_but_its_length_is_not() -> None:
    written = genetlink.attribute(3, b"abcde")
    assert len(written) == 12
    assert list(genetlink.attributes(written + genetlink.u64(4, 1 << 40))) == [
        (3, b"abcde"),
        (4, (1 << 40).to_bytes(8, sys.byteorder)),
    ]


def test_an_acknowledgement_has_no_error_and_a_refusal_has_its_number() -> None:
    done = _error(0, sequence=7)
    busy = _error(-16, sequence=8)
    assert list(genetlink.decode(done + busy)) == [
        Message(family=2, sequence=7, error=0),
        Message(family=2, sequence=8, error=16),
    ]


def test_a_request_reads_back() -> None:
    datagram = genetlink.encode(0x1D, 5, genetlink.u32(1, 3), sequence=9)
    assert list(genetlink.decode(datagram)) == [
        Message(family=0x1D, sequence=9, command=5, payload=genetlink.u32(1, 3)),
    ]


@pytest.mark.parametrize("kept", range(1, 28))
def test_a_datagram_cut_anywhere_yields_nothing(kept: int) -> None:
    datagram = genetlink.encode(0x1D, 5, genetlink.u32(1, 3), sequence=9)
    assert list(genetlink.decode(datagram[:kept])) == []


@pytest.mark.parametrize("length", [0, 3, 9])
def test_an_attribute_whose_length_cannot_be_right_ends_the_list(length: int) -> None:
    broken = length.to_bytes(2, sys.byteorder) + bytes(6)
    assert list(genetlink.attributes(genetlink.u32(1, 3) + broken)) == [(1, (3).to_bytes(4, sys.byteorder))]


def test_a_family_description_names_its_groups() -> None:
    group = genetlink.nest(1, genetlink.string(1, "nbd_mc_group"), genetlink.u32(2, 6))
    answer = genetlink.attribute(1, (0x1D).to_bytes(2, sys.byteorder)) + genetlink.nest(7, group)
    assert genetlink.parse_family(answer) == genetlink.Family(id=0x1D, groups={"nbd_mc_group": 6})


def _error(number: int, *, sequence: int) -> bytes:
    body = number.to_bytes(4, sys.byteorder, signed=True) + bytes(16)
    return (
        b"".join(
            value.to_bytes(width, sys.byteorder)
            for value, width in ((16 + len(body), 4), (2, 2), (0, 2), (sequence, 4), (0, 4))
        )
        + body
    )
