"""A run of many checks on one target: in which order, and with which seed. Reports are written by others."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from nbdtest.conformance.declare import Check
from nbdtest.conformance.runner import run_check
from nbdtest.conformance.target import ServerTarget
from nbdtest.report.results import Report, Result

__all__ = ["in_order", "run_suite"]


def in_order(checks: Iterable[Check], *, shuffle_seed: int | None = None) -> tuple[Check, ...]:
    """Return the checks with the hostile ones last, so that a server that dies of one has been judged by the others.

    A `shuffle_seed` gives any order instead, the same one for the same seed: no check depends on another.
    """
    if shuffle_seed is None:
        return tuple(sorted(checks, key=lambda check: check.hostile))
    shuffled = list(checks)
    random.Random(shuffle_seed).shuffle(shuffled)
    return tuple(shuffled)


def run_suite(
    checks: Iterable[Check],
    target: ServerTarget,
    *,
    strict: bool = False,
    on_result: Callable[[Result], None] | None = None,
) -> Report:
    """Run `checks` on `target`, one after the other."""
    return Report(targets=(target.info(),), results=tuple(_run(checks, target, strict, on_result)))


def _run(
    checks: Iterable[Check], target: ServerTarget, strict: bool, on_result: Callable[[Result], None] | None
) -> Iterator[Result]:
    for check in checks:
        result = run_check(check, target, strict=strict)
        if on_result is not None:
            on_result(result)
        yield result
