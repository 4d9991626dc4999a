"""Damage by position changes what it says and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest.errors import UsageError
from nbdtest.wire.mangle import cut, flip, insert, overwrite

some = st.binary(min_size=1, max_size=40)


@given(some, st.data())
def test_a_bit_flipped_twice_is_as_before(data: bytes, draw: st.DataObject) -> None:
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    once = flip(data, bit)
    assert int.from_bytes(once, "big") ^ int.from_bytes(data, "big") == 1 << (8 * len(data) - 1 - bit)
    assert flip(once, bit) == data


@pytest.mark.parametrize("bit", [-1, 16])
def test_a_bit_outside_cannot_be_flipped(bit: int) -> None:
    with pytest.raises(UsageError, match=f"bit {bit} wanted: the data has 16"):
        flip(b"ab", bit)


@given(some, some, st.integers(0, 40))
def test_inserted_bytes_push_the_rest_on(data: bytes, extra: bytes, at: int) -> None:
    at = min(at, len(data))
    longer = insert(data, at, extra)
    assert longer[at : at + len(extra)] == extra
    assert longer[:at] + longer[at + len(extra) :] == data


@pytest.mark.parametrize(("after", "left"), [(0, b""), (2, b"ab"), (9, b"abcd"), (-1, b"abc")])
def test_a_cut_keeps_the_front(after: int, left: bytes) -> None:
    assert cut(b"abcd", after) == left


def test_overwritten_bytes_leave_the_length() -> None:
    assert overwrite(b"abcdef", 2, b"XY") == b"abXYef"


@pytest.mark.parametrize("at", [-1, 5])
def test_nothing_is_overwritten_outside(at: int) -> None:
    with pytest.raises(UsageError, match="wanted: the data has 6"):
        overwrite(b"abcdef", at, b"XY")
