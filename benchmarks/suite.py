"""How long the suite takes, on one core and with workers: `python -m benchmarks.suite [SPEC [ROUNDS]]`.

Each round runs pytest on the server: bound to one core together with the server; free; with two workers of
pytest-xdist; and with two workers and one check, which shows what workers cost before and after the checks. Medians
over the rounds; ratios are of one round each, so that a slow minute of the machine does not count on one side only.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = str(Path(__file__).parent.parent)
WORKERS = 2
ROUNDS = 5
ONE_CHECK = ("--nbd-checks", "greeting.nbd-magic")


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took: seconds, and seconds of CPU of pytest, its workers and the servers."""

    wall_s: float
    cpu_s: float


def run(spec: str, *options: str, cores: set[int]) -> Run:
    """Run the suite on a server by pytest, on these cores alone."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--nbd-server={spec}", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as empty:  # pytest would collect the tests that it finds here
        done = subprocess.run(
            command,
            cwd=empty,
            env={**os.environ, "PYTHONPATH": ROOT},
            stdout=subprocess.DEVNULL,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):  # 1: the server has faults, which is what the suite is for
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return Run(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main(spec: str = "nbdkit", rounds: str = str(ROUNDS)) -> None:
    """Measure and print."""
    cores = os.sched_getaffinity(0)
    one = {min(cores)}
    spread = (f"-n{WORKERS}",)
    run(spec, cores=cores)  # the first one may compile modules
    ways: dict[str, Callable[[], Run]] = {
        "one core": lambda: run(spec, cores=one),
        "one process": lambda: run(spec, cores=cores),
        f"{WORKERS} workers": lambda: run(spec, *spread, cores=cores),
        f"{WORKERS} workers, one check": lambda: run(spec, *spread, *ONE_CHECK, cores=cores),
    }
    found = [{name: way() for name, way in ways.items()} for _ in range(int(rounds))]
    for name in ways:
        wall_s = statistics.median(each[name].wall_s for each in found)
        cpu_s = statistics.median(each[name].cpu_s for each in found)
        print(f"{spec}: {name}: {wall_s:.2f} s, {cpu_s:.2f} s of CPU")
    for name in ("one core", "one process"):
        ratio = statistics.median(each[name].wall_s / each[f"{WORKERS} workers"].wall_s for each in found)
        print(f"{spec}: {WORKERS} workers are {ratio:.2f} times as fast as {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
