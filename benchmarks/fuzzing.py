"""How many commands a second the fuzzer plays, and what one costs it: `python -m benchmarks.fuzzing [SPEC...]`.

The seeded generator and Hypothesis's take turns on the same server in one run; the ratio of their rates is a median
over the rounds, the absolute rates are worth what the machine's other load leaves of them. CPU time is this process's.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings

from nbdtest.conformance.target import ServerTarget
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fuzz.decoding import COMMAND_BYTES, HEAD_BYTES, script_from
from nbdtest.fuzz.player import Player
from nbdtest.fuzz.script import Script
from nbdtest.fuzz.strategies import sessions

ROUNDS = 7
SESSIONS = 60
COMMANDS_EACH = 200


def seeded(player: Player) -> None:
    """Play sessions from random bytes."""
    chance = random.Random(1)
    for _ in range(SESSIONS):
        player.play(script_from(chance.randbytes(HEAD_BYTES + COMMANDS_EACH * COMMAND_BYTES), player.ground))


def by_hypothesis(player: Player) -> None:
    """Play sessions from Hypothesis's examples, which shrink."""

    @settings(max_examples=SESSIONS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(sessions(player.ground, fewest=COMMANDS_EACH, most=COMMANDS_EACH))
    def play(script: Script) -> None:
        player.play(script)

    play()


def measure(play: Callable[[Player], None], player: Player) -> tuple[float, float]:
    """Return commands a second, and microseconds of CPU for each."""
    before = player.coverage.played.total()
    wall, cpu = time.perf_counter(), time.process_time()
    play(player)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = max(1, player.coverage.played.total() - before)
    return count / wall, cpu / count * 1e6


def main(specs: list[str]) -> None:
    for spec in specs or ["nbdkit"]:
        source = open_source(parse_server(spec), allow_writes=False)
        try:
            player = Player(ServerTarget(source))
            seeded(player)
            rounds = [(measure(seeded, player), measure(by_hypothesis, player)) for _ in range(ROUNDS)]
        finally:
            source.close()
        for name, number in (("seeded", 0), ("hypothesis", 1)):
            rate = statistics.median(each[number][0] for each in rounds)
            cost = statistics.median(each[number][1] for each in rounds)
            print(f"{spec}: {name}: {rate:,.0f} commands a second, {cost:.1f} us of CPU each")
        ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in rounds)
        print(f"{spec}: the seeded generator plays {ratio:.2f} times as many")


if __name__ == "__main__":
    main(sys.argv[1:])
