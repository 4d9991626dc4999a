"""Numbers are open: a value that nobody assigned is a value like any other."""

import pickle
from copy import copy, deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbdtest import wire
from nbdtest.wire.numbers import Flags, Number

NUMBERS = Number.__subclasses__()
FLAGS = Flags.__subclasses__()

every_number = pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
every_flag_set = pytest.mark.parametrize("kind", FLAGS, ids=lambda kind: kind.__name__)


@every_number
@given(value=st.integers(0, 2**32 - 1))
def test_any_value_stays_what_it_is(kind: type[Number], value: int) -> None:
    number = kind(value)
    assert number == value
    assert hash(number) == hash(value)
    for same in (kind(number), pickle.loads(pickle.dumps(number)), copy(number), deepcopy(number)):
        assert same == number
        assert type(same) is kind
    assert eval(repr(number), vars(wire).copy()) == number


@every_flag_set
@given(value=st.integers(0, 2**32 - 1))
def test_any_set_of_bits_stays_what_it_is(kind: type[Flags], value: int) -> None:
    flags = kind(value)
    assert flags == value
    for same in (kind(flags), pickle.loads(pickle.dumps(flags)), copy(flags), deepcopy(flags)):
        assert same == flags
        assert type(same) is kind
    assert eval(repr(flags), vars(wire).copy()) == flags


@pytest.mark.parametrize(
    ("number", "shown", "written"),
    [
        (wire.Cmd.READ, "CMD_READ", "Cmd.READ"),
        (wire.Cmd(0x63), "CMD_0x63", "Cmd(0x63)"),
        (wire.Opt(7), "OPT_GO", "Opt.GO"),
        (wire.Rep(0x8000_00FF), "REP_0x800000ff", "Rep(0x800000ff)"),
        (wire.Info(9), "INFO_0x9", "Info(0x9)"),
        (wire.ReplyType(3), "REPLY_TYPE_0x3", "ReplyType(0x3)"),
        (wire.Errno.EIO, "EIO", "Errno.EIO"),
        (wire.Errno(2), "0x2", "Errno(0x2)"),
        (wire.CmdFlag(0), "0", "CmdFlag(0)"),
        (wire.CmdFlag.FUA | wire.CmdFlag.DF, "FUA|DF", "CmdFlag.FUA | CmdFlag.DF"),
        (wire.TransmissionFlag(0xC001), "HAS_FLAGS|0xc000", "TransmissionFlag.HAS_FLAGS | TransmissionFlag(0xc000)"),
        (wire.State.HOLE | wire.State(1 << 20), "HOLE|0x100000", "State.HOLE | State(0x100000)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_number_prints_the_name_of_the_specification(number: object, shown: str, written: str) -> None:
    assert str(number) == shown
    assert repr(number) == written


def test_only_assigned_values_are_known() -> None:
    assert wire.Cmd.BLOCK_STATUS.is_known
    assert not wire.Cmd(0x63).is_known


@pytest.mark.parametrize("kind", NUMBERS, ids=lambda kind: kind.__name__)
def test_a_negative_value_is_none(kind: type[Number]) -> None:
    with pytest.raises(ValueError, match="-1 is not a valid"):
        kind(-1)


@pytest.mark.parametrize(
    ("number", "is_error"),
    [
        (wire.Rep.ACK, False),
        (wire.Rep.ERR_UNSUP, True),
        (wire.Rep(0x9000_0000), True),
        (wire.Rep(0x7FFF_FFFF), False),
        (wire.ReplyType.OFFSET_DATA, False),
        (wire.ReplyType.ERROR_OFFSET, True),
        (wire.ReplyType(0xFFFF), True),
    ],
    ids=str,
)
def test_one_bit_marks_errors_also_unknown_ones(number: wire.Rep | wire.ReplyType, is_error: bool) -> None:
    assert number.is_error is is_error


def test_the_bits_beyond_the_allowed_ones_may_be_unassigned() -> None:
    assert wire.CmdFlag(0x8003).beyond(wire.CmdFlag.FUA | wire.CmdFlag.NO_HOLE) == 0x8000
    assert wire.ClientFlag(0x8000_0003).beyond(3) == 0x8000_0000


@every_flag_set
def test_values_without_a_name_are_not_remembered_for_ever(kind: type[Flags]) -> None:
    before = len(kind._value2member_map_)
    for number in range(1, 200):
        assert kind(number << 32).names() == [f"0x{number << 32:x}"]
    assert len(kind._value2member_map_) == before
