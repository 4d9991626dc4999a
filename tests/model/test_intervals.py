"""IntervalMap against a plain list, and the shape it keeps."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nbdtest.model import IntervalMap, Run

SIZE = 40
ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, 2))


@given(st.lists(ranges))
def test_it_holds_what_a_list_holds(changes: list[tuple[int, int, int]]) -> None:
    seen, plain = IntervalMap(SIZE), [0] * SIZE
    for start, end, value in changes:
        seen.set(start, end, value)
        plain[start:end] = [value] * max(end - start, 0)
    runs = list(seen.runs(0, SIZE))
    assert [run.value for run in runs for _ in range(run.end - run.start)] == plain
    assert all(one.value != other.value for one, other in itertools.pairwise(runs))
    assert all(seen.run_at(position).value == value for position, value in enumerate(plain))
    assert all(seen.total(value) == plain.count(value) for value in range(3))


@given(st.lists(ranges), st.integers(0, SIZE), st.integers(0, SIZE))
def test_a_part_is_cut_out_of_the_whole(changes: list[tuple[int, int, int]], start: int, end: int) -> None:
    seen, plain = IntervalMap(SIZE), [0] * SIZE
    for change_start, change_end, value in changes:
        seen.set(change_start, change_end, value)
        plain[change_start:change_end] = [value] * max(change_end - change_start, 0)
    assert [run.value for run in seen.runs(start, end) for _ in range(run.end - run.start)] == plain[start:end]


@given(st.lists(st.one_of(ranges, st.integers(0, 2 * SIZE))))
def test_resizing_keeps_the_front(changes: list[tuple[int, int, int] | int]) -> None:
    seen, plain = IntervalMap(SIZE, 1), [1] * SIZE
    for change in changes:
        if isinstance(change, int):
            seen.resize(change, 2)
            plain = plain[:change] + [2] * (change - len(plain))
        else:
            start, end = min(change[0], seen.size), min(change[1], seen.size)
            seen.set(start, end, change[2])
            plain[start:end] = [change[2]] * max(end - start, 0)
    assert [run.value for run in seen.runs(0, seen.size) for _ in range(run.end - run.start)] == plain
    assert seen.size == len(plain)


def test_a_run_is_whole_and_a_range_is_cut() -> None:
    seen = IntervalMap(100)
    seen.set(10, 20, 7)
    assert seen.run_at(15) == Run(10, 20, 7)
    assert list(seen.runs(15, 25)) == [Run(15, 20, 7), Run(20, 25, 0)]


def test_there_are_no_runs_past_the_end() -> None:
    seen = IntervalMap(100)
    assert list(seen.runs(90, 120)) == [Run(90, 100, 0)]
    assert list(seen.runs(100, 120)) == list(seen.runs(110, 120)) == []
