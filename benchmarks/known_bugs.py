"""How long random sessions take to find the known bugs of servers, and how small they make what they find.

Each bug of the table in nbdtest/conformance/data/known-bugs.csv that has a mutant of the fake server is looked for on
that mutant. Prints the rows of the table in docs/fuzzing.md:

    python benchmarks/known_bugs.py [MUTANT ...]
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files

from nbdtest.conformance.target import ServerTarget
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fuzz.campaign import Campaign, Limits
from nbdtest.fuzz.player import Player
from nbdtest.fuzz.problem import Problem

ENOUGH_S = 60.0
TIMEOUT_S = 5.0
SEED = 1

OUT_OF_REACH = {
    "leaving.idle-crowd-blocks": "five clients have to stay without a word; those of a session leave",
    "published.talks-instead-of-greeting": "it is refused before the first session: no NBD server",
    "tls.leaving-spins": "the processor is looked at every 500 sessions, and what spins makes them take minutes",
}
"""Mutants that no session can tell from a correct server, and why."""

LONG_BY_NATURE = {
    "leaving.connections-wear-out": "eighty connections",
    "leaving.long-reads-wear-out": "ten long READs",
    "option.fifteen-at-most": "sixteen options",
}
"""Mutants that show their bug after many messages only, and which."""


@dataclass(frozen=True)
class Hunt:
    """What came of looking for one mutant's bug."""

    problem: Problem | None
    seconds: float
    sessions: int
    messages: int


def bugs_by_mutant() -> dict[str, list[str]]:
    """Mutant -> ids of the known bugs that it has."""
    text = files("nbdtest.conformance").joinpath("data/known-bugs.csv").read_text(encoding="utf-8")
    found = defaultdict(list)
    for row in csv.DictReader(text.splitlines()):
        if row["mutant"]:
            found[row["mutant"]].append(row["id"])
    return dict(sorted(found.items()))


def hunt(mutant: str, *, seconds: float = ENOUGH_S) -> Hunt:
    """Look for the bug until it is found, or for so long."""
    source = open_source(parse_server(f"builtin:{mutant}"), allow_writes=False)
    try:
        campaign = Campaign(Player(ServerTarget(source, timeout_s=TIMEOUT_S)), seed=SEED)
        progress = campaign.run(Limits(seconds=seconds, findings=1))
    finally:
        source.close()
    if not progress.findings:
        return Hunt(None, progress.seconds, progress.sessions, 0)
    (finding,) = progress.findings
    return Hunt(finding.problem, progress.seconds, progress.sessions, finding.script.messages)


def row(mutant: str, bugs: list[str]) -> str:
    """One line of the table."""
    begin = f"| `{mutant}` | {', '.join(bugs)} |"
    if mutant in OUT_OF_REACH:
        return f"{begin} | | out of reach: {OUT_OF_REACH[mutant]} |"
    found = hunt(mutant)
    if found.problem is None:
        return f"{begin} {found.seconds:.0f} | | not found in {found.sessions} sessions |"
    about = f"{found.problem.about}: " if found.problem.about else ""
    messages = LONG_BY_NATURE.get(mutant, str(found.messages))
    return f"{begin} {max(1, round(found.seconds))} | {messages} | {found.problem.kind}: {about}{found.problem.rule} |"


def main(mutants: list[str]) -> None:
    for mutant, bugs in bugs_by_mutant().items():
        if not mutants or mutant in mutants:
            print(row(mutant, bugs), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
