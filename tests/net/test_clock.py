"""Deadlines: what is left, and never."""

import math

from nbdtest.net.clock import Deadline, monotonic_s, pause


def test_never_has_no_limit() -> None:
    never = Deadline(None)
    assert not never.expired
    assert never.remaining() == math.inf
    assert never.remaining_or_none() is None
    assert never.remaining_ms() is None


def test_a_deadline_of_no_seconds_has_passed() -> None:
    now = Deadline(0)
    assert now.expired
    assert now.remaining() == 0
    assert now.remaining_or_none() == 0
    assert now.remaining_ms() == 0


def test_what_remains_is_never_negative() -> None:
    past = Deadline(-5)
    assert past.expired
    assert past.remaining() == 0
    assert past.remaining_ms() == 0


def test_milliseconds_are_rounded_up_so_that_poll_does_not_spin() -> None:
    assert Deadline(0.0009).remaining_ms() in (0, 1)
    remaining = Deadline(1000).remaining_ms()
    assert remaining is not None
    assert 990_000 < remaining <= 1_000_000


def test_a_pause_moves_the_monotonic_clock() -> None:
    before = monotonic_s()
    pause(0.001)
    assert monotonic_s() > before


def test_it_prints_its_length() -> None:
    assert repr(Deadline(None)) == "Deadline(never)"
    assert repr(Deadline(0)).startswith("Deadline(0 s, 0.000 s")
