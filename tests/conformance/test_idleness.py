"""Who rests, told from what its processes use."""

from collections.abc import Iterator

import pytest

from nbdtest.conformance.idleness import restless_s
from nbdtest.conformance.source import Vitals
from tests.conformance.configurations import CONFIGURATIONS, target_of


def vitals(cpu_s: float, runnable: int) -> Vitals:
    return Vitals(processes=1, threads=1, runnable=runnable, descriptors=4, resident_bytes=1 << 20, cpu_s=cpu_s)


def always(cpu_s: float, runnable: int) -> Iterator[Vitals]:
    """What a server looks like that uses `cpu_s` between two looks."""
    used = 0.0
    while True:
        yield vitals(used, runnable)
        used += cpu_s


def farewell() -> Iterator[Vitals]:
    """What a server looks like that is busy at first."""
    yield vitals(0.0, 1)
    yield vitals(0.3, 1)
    yield from always(0.0, 0)


@pytest.mark.parametrize(
    ("looks", "restless"),
    [
        pytest.param(always(0.0, 0), False, id="at-rest"),
        pytest.param(always(0.01, 0), False, id="one-tick"),
        pytest.param(farewell(), False, id="comes-to-rest"),
        pytest.param(always(0.1, 0), True, id="busy"),
        pytest.param(always(0.0, 1), True, id="busy-without-a-processor"),
    ],
)
def test_restless(looks: Iterator[Vitals], restless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with target_of(CONFIGURATIONS["full"]) as target:
        monkeypatch.setattr(target.source, "vitals", lambda: next(looks))
        monkeypatch.setattr(target, "wait", lambda _seconds: None)
        assert (restless_s(target) > 0) is restless
