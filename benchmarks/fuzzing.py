"""How many commands a second the fuzzer plays, and what one costs it: `python -m benchmarks.fuzzing [SPEC...]`.

Three take turns on the same server in one run: the seeded generator, Hypothesis's, and a bare loop that sends prepared
READs 64 at a time and looks at nothing, which is what this machine could do. The figures are medians over the rounds,
and the best round, which the machine's other load disturbed least. CPU time is this process's.

With `--boofuzz-python PYTHON`, a Python that has boofuzz, both send one mutated request on each fresh connection, after
the same handshake, to an nbdkit with one thread, which spends little on a connection itself.

On a machine with two processors that did nothing else, against nbdkit 1.32 in memory with 4 threads: seeded 51,500
commands a second (17 us of CPU each), Hypothesis 43,000 (21 us), the bare loop 186,000; against nbdkit with its disk on
ext4, which has to be flushed: 23,600, 23,000 and 172,000. Fresh connections: 1.6 to 1.7 times as many as boofuzz 0.4.2,
with 0.37 of its CPU time.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from nbdtest.conformance.target import ServerTarget
from nbdtest.errors import UsageError
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fuzz.decoding import COMMAND_BYTES, HEAD_BYTES, script_from
from nbdtest.fuzz.player import Player
from nbdtest.fuzz.script import Hostile, Leave, Opening, Script, Step, Way
from nbdtest.fuzz.strategies import sessions
from nbdtest.net.scratch import ScratchDirectory
from nbdtest.net.stream import SocketStream
from nbdtest.wire import Cmd, Request
from nbdtest.wire.mangle import flip

ROUNDS = 7
SESSIONS = 30
COMMANDS_EACH = 400
IN_MEMORY = "listen: nbdkit -f -U {unix} -t 4 memory 64M"
BARE_COMMANDS = 12_800
BARE_IN_FLIGHT = 64
BARE_LENGTH = 512
ONE_THREAD = "nbdkit -f -U {path} -t 1 memory 64M"
VISITS = 960
VISITORS_EACH = 64
"""How many connections make a session; afterwards the player looks whether the server still lives."""
FRESH_ROUNDS = 5


def seeded(player: Player) -> int:
    """Play sessions from random bytes."""
    chance = random.Random(1)
    before = player.coverage.played.total()
    for _ in range(SESSIONS):
        player.play(script_from(chance.randbytes(HEAD_BYTES + COMMANDS_EACH * COMMAND_BYTES), player.ground))
    return player.coverage.played.total() - before


def by_hypothesis(player: Player) -> int:
    """Play sessions from Hypothesis's examples, which shrink."""

    @settings(max_examples=SESSIONS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(sessions(player.ground, fewest=COMMANDS_EACH, most=COMMANDS_EACH))
    def play(script: Script) -> None:
        player.play(script)

    before = player.coverage.played.total()
    play()
    return player.coverage.played.total() - before


def bare(player: Player) -> int:
    """Send prepared requests and count the bytes that come back."""
    request = Request(type=Cmd.READ, cookie=1, offset=0, length=BARE_LENGTH).encode()
    batch, answer = request * BARE_IN_FLIGHT, bytearray((16 + BARE_LENGTH) * BARE_IN_FLIGHT)
    with player.target.peer.transmitting() as session:
        stream = session.peer.stream
        if not isinstance(stream, SocketStream):
            raise UsageError("the bare loop needs a socket")
        stream.raw_socket.setblocking(True)
        for _ in range(BARE_COMMANDS // BARE_IN_FLIGHT):
            stream.raw_socket.sendall(batch)
            waiting = memoryview(answer)
            while waiting:
                waiting = waiting[stream.raw_socket.recv_into(waiting) :]
    return BARE_COMMANDS


def fresh_connections(player: Player) -> int:
    """Send one mutated request on each connection, in sessions of several."""
    chance = random.Random(1)
    request = Request(type=Cmd.READ, cookie=1, offset=0, length=512).encode()
    openings = (Opening(),) * VISITORS_EACH
    for _ in range(VISITS // VISITORS_EACH):
        steps: list[Step] = []
        for number in range(VISITORS_EACH):
            mutant = flip(request, chance.randrange(8 * len(request)))
            steps += [Hostile(on=number, data=mutant), Leave(on=number, way=Way.FIN)]
        player.play(Script(openings=openings, steps=tuple(steps)))
    return VISITS


def measure(play: Callable[[Player], int], player: Player) -> tuple[float, float]:
    """Return how many a second, and microseconds of CPU for each."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = play(player)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return count / wall, cpu / count * 1e6


def commands(spec: str) -> None:
    plays = (seeded, by_hypothesis, bare)
    source = open_source(parse_server(spec), allow_writes=False)
    try:
        player = Player(ServerTarget(source))
        seeded(player)
        rounds = [[measure(play, player) for play in plays] for _ in range(ROUNDS)]
    finally:
        source.close()
    for play, row in zip(plays, zip(*rounds, strict=True), strict=True):
        print(f"{spec}: {play.__name__}: {_shown('commands', row)}")
    ratio = statistics.median(ours[0] / theirs[0] for ours, theirs, _ in rounds)
    print(f"{spec}: the seeded generator plays {ratio:.2f} times as many as Hypothesis")


def beside_boofuzz(python: str) -> None:
    with ScratchDirectory() as scratch:
        path = scratch.file("nbd")
        server = subprocess.Popen(ONE_THREAD.format(path=path).split(), stderr=subprocess.DEVNULL)
        try:
            while not Path(path).exists():
                time.sleep(0.01)
            source = open_source(parse_server(f"nbd+unix:///?socket={path}"), allow_writes=False)
            player = Player(ServerTarget(source))
            fresh_connections(player)
            rounds = [(measure(fresh_connections, player), boofuzz(python, path)) for _ in range(FRESH_ROUNDS)]
            source.close()
        finally:
            server.kill()
            server.wait()
    for name, row in zip(("nbdtest", "boofuzz"), zip(*rounds, strict=True), strict=True):
        print(f"one mutated request on each connection: {name}: {_shown('requests', row)}")
    ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in rounds)
    print(f"one mutated request on each connection: {ratio:.2f} times as many as boofuzz")


def boofuzz(python: str, path: str) -> tuple[float, float]:
    """Have boofuzz send as many, and return what `measure` does; its start does not count."""
    script = str(Path(__file__).with_name("boofuzz_nbd.py"))
    told = subprocess.run([python, script, path, str(VISITS)], check=True, capture_output=True, text=True).stdout
    count, wall, cpu = map(float, told.splitlines()[-1].split())
    return count / wall, cpu / count * 1e6


def _shown(what: str, rounds: Sequence[tuple[float, float]]) -> str:
    rates, costs = zip(*rounds, strict=True)
    return (
        f"{statistics.median(rates):,.0f} {what} a second, {max(rates):,.0f} at best, "
        f"{statistics.median(costs):.1f} us of CPU each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="*", help=f"servers; by default nbdkit, and {IN_MEMORY!r}")
    parser.add_argument("--boofuzz-python", metavar="PYTHON", help="compare with the boofuzz that this Python has")
    options = parser.parse_args()
    if options.boofuzz_python:
        beside_boofuzz(options.boofuzz_python)
    if options.spec or not options.boofuzz_python:
        for spec in options.spec or [IN_MEMORY, "nbdkit"]:
            commands(spec)


if __name__ == "__main__":
    main()
