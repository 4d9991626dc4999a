"""A long run: session after session, until the time is up, somebody stops it, or enough has been found.

Sessions come from Hypothesis, which shrinks its own examples and grows a corpus, or from a seeded source of random
bytes, which is faster. What fails is played again, made small, and handed out as a `Finding`.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from nbdtest.conformance.idleness import WATCHED_S, restless_s
from nbdtest.fuzz.corpus import Corpus
from nbdtest.fuzz.coverage import Coverage
from nbdtest.fuzz.decoding import COMMAND_BYTES, HEAD_BYTES, script_from
from nbdtest.fuzz.finding import Finding
from nbdtest.fuzz.mutating import mutated
from nbdtest.fuzz.player import STAYS_OPEN, Player
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.fuzz.script import Script, Send
from nbdtest.fuzz.shrinking import shrink
from nbdtest.fuzz.streams import messages_of, script_of
from nbdtest.fuzz.visits import visit
from nbdtest.net.clock import monotonic_s

__all__ = ["Campaign", "Limits", "Progress"]

_COMMANDS_EACH = (1, 8, 64, 200, 200)
"""How many commands a session has: short ones reach the handshake more often, long ones the disk."""
_VISITS = 4
"""One session in so many is none of random commands."""
_MUTANTS = 3
"""With a corpus, one session in so many is a mutant."""
_KEPT = 8
"""How many messages of a session a mutant keeps from its beginning, and then from somewhere in it."""
_VITALS_EVERY = 500
_SHRINKING_S = 30.0
_PATIENCE_S = (0.5, 2.0)
"""How long a hang is waited for while a session is made small; in the end it has to last as long as any other."""
_HISTORY = 64
_TRIES = 3
_TRIES_OF_A_RACE = 8
"""How often what happens now and then is played before it is thought to be gone."""
_GROWTH_BYTES = 128 << 20
_GROWTH_DESCRIPTORS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a campaign ends: after so many sessions, or seconds, or different findings; None for never."""

    sessions: int | None = None
    seconds: float | None = None
    findings: int | None = None


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a campaign has come."""

    sessions: int = 0
    commands: int = 0
    seconds: float = 0.0
    coverage: Coverage = field(default_factory=Coverage)
    findings: list[Finding] = field(default_factory=list)
    repeated: int = 0
    """Sessions that failed in a way that was known already."""
    foreseen: Counter[str] = field(default_factory=Counter)
    """How often each known deviation was seen."""

    @property
    def rate(self) -> float:
        """Commands a second."""
        return self.commands / self.seconds if self.seconds else 0.0


class Campaign:
    """Fuzzes one server. `tell` is called now and then; `found` with each new finding.

    A problem that is `foreseen` is counted and no finding, and is not waited for. With a `corpus`, its sessions are
    played first, what shows something new joins it, and a part of the sessions are mutants of those in it.
    """

    def __init__(
        self,
        player: Player,
        *,
        seed: int,
        tell: Callable[[Progress], None] = lambda progress: None,
        found: Callable[[Finding, Player], None] = lambda finding, player: None,
        foreseen: Callable[[Problem], bool] = lambda problem: False,
        corpus: Corpus | None = None,
    ) -> None:
        self.player = player
        self.seed = seed
        self.progress = Progress(coverage=player.coverage)
        self._tell = tell
        self._found = found
        self._corpus = corpus
        self._foreseen = foreseen
        if foreseen(STAYS_OPEN):
            player.known.add(STAYS_OPEN.identity)
        target = player.target
        self._names = (target.export, *(name for name in target.facts.exports if name != target.export))
        self._history: deque[Script] = deque(maxlen=_HISTORY)
        self._first_vitals = player.target.source.vitals()

    def run(self, limits: Limits) -> Progress:
        """Play sessions until a limit is reached."""
        source = random.Random(self.seed)
        began = monotonic_s()
        progress = self.progress
        first = iter(tuple(self._corpus.scripts) if self._corpus is not None else ())
        while not self._over(limits, began):
            script = next(first, None)
            self.play(self._next(source) if script is None else script)
            progress.seconds = monotonic_s() - began
            self._tell(progress)
        return progress

    def _next(self, source: random.Random) -> Script:
        if self._corpus is not None and self._corpus.scripts and source.randrange(_MUTANTS) == 0:
            mutant = self._mutant(self._corpus.scripts, source)
            if mutant is not None:
                return mutant
        if source.randrange(_VISITS) == 0:
            return visit(source, self.player.ground, self._names)
        size = source.choice(_COMMANDS_EACH)
        return script_from(source.randbytes(HEAD_BYTES + COMMAND_BYTES * size), self.player.ground)

    def _mutant(self, scripts: Sequence[Script], source: random.Random) -> Script | None:
        export = self.player.target.export
        one, other = (messages_of(source.choice(scripts), export) for _ in range(2))
        start = source.randrange(len(one))
        # The handshake, and a few of the many commands that a session may have.
        messages = [*one[:start][:_KEPT], *one[start:][:_KEPT]]
        return script_of(mutated(messages, other, source), self.player.ground, export)

    def play(self, script: Script) -> Problem | None:
        """Play one session, and look into it if it fails."""
        progress = self.progress
        seen_before = self.player.coverage.size
        problem = self.player.play(script)
        if self._corpus is not None and self.player.coverage.size > seen_before:
            self._corpus.add(script)
        progress.sessions += 1
        progress.commands += script.commands
        if progress.sessions % _VITALS_EVERY == 0:
            if self._corpus is not None:
                self._corpus.refresh(self.player.ground, self.player.target.export)
            problem = problem or self._growth()
        if problem is not None:
            if self._foreseen(problem):
                progress.foreseen[str(replace(problem, detail=""))] += 1
            elif problem.identity in self.player.known:
                progress.repeated += 1
            else:
                self._look_into(script, problem)
                self.player.known.add(problem.identity)
            self._history.clear()
        else:
            self._history.append(script)
        return problem

    def _look_into(self, script: Script, problem: Problem) -> None:
        """Make the script small and hand out the finding, also when somebody has had enough in the middle of that."""
        last, smallest, reproducible, tries = problem, script, False, 1

        def fails(candidate: Script) -> bool:
            nonlocal last, smallest
            for _ in range(tries):
                seen = self.player.play(candidate, afresh=True)
                if seen is not None and seen.identity == problem.identity:
                    last, smallest = seen, candidate
                    return True
            return False

        try:
            for number, candidate in enumerate(() if problem.kind is Kind.GROWTH else self._again(script, problem)):
                if fails(candidate):
                    reproducible = True
                    # What does not happen every time is a race: then once is not enough to call it gone.
                    patient = number and problem.kind is not Kind.HANG
                    if patient and not all(fails(candidate) for _ in range(_TRIES)):
                        tries = _TRIES_OF_A_RACE
                    break
            if reproducible:
                smallest = self._shrunk(smallest, fails)
        except KeyboardInterrupt:
            self._hand_out(smallest, last, reproducible=reproducible)
            raise
        self._hand_out(smallest, last, reproducible=reproducible)

    def _hand_out(self, script: Script, problem: Problem, *, reproducible: bool) -> None:
        self.player.play(script, record=True, afresh=True)
        finding = Finding(
            problem=problem,
            script=script,
            spec=self.player.target.source.spec,
            version=self.player.target.source.version,
            seed=self.seed,
            reproducible=reproducible,
        )
        self.progress.findings.append(finding)
        if self._corpus is not None:
            self._corpus.add(script)
        self._found(finding, self.player)

    def _shrunk(self, script: Script, fails: Callable[[Script], bool]) -> Script:
        """Make the script small, with little patience at first: a session that hangs is played hundreds of times."""
        target = self.player.target
        timeout_s = target.timeout_s
        for patience_s in _PATIENCE_S:
            enough_s = monotonic_s() + _SHRINKING_S

            def fails_in_time(candidate: Script, enough_s: float = enough_s) -> bool:
                return monotonic_s() < enough_s and fails(candidate)

            target.timeout_s = min(timeout_s, patience_s)
            try:
                small = shrink(script, fails_in_time)
            finally:
                target.timeout_s = timeout_s
            if small == script or fails(small):
                return small
        return script

    def _again(self, script: Script, problem: Problem) -> Iterator[Script]:
        """What to play to see the problem again: the script, more than once as it may be a race, then with a history.

        Damage is often seen later than it is done: then the script does what earlier sessions did as well.
        """
        yield from [script] * (1 if problem.kind is Kind.HANG else _TRIES)
        earlier = [step for session in self._history for step in session.steps if isinstance(step, Send)]
        for count in (4, 16, len(earlier)):
            before = tuple(replace(step, on=0) for step in earlier[-count:])
            yield Script(openings=script.openings, steps=(*before, *script.steps))

    def _over(self, limits: Limits, began: float) -> bool:
        progress = self.progress
        return (
            (limits.sessions is not None and progress.sessions >= limits.sessions)
            or (limits.seconds is not None and monotonic_s() - began >= limits.seconds)
            or (limits.findings is not None and len(progress.findings) >= limits.findings)
        )

    def _growth(self) -> Problem | None:
        """Compare what the server uses with what it used at first; every connection has been closed meanwhile."""
        first, now = self._first_vitals, self.player.target.source.vitals()
        if first is None or now is None:
            return None
        more_bytes = now.resident_bytes - first.resident_bytes
        more_descriptors = now.descriptors - first.descriptors
        if more_bytes > _GROWTH_BYTES + self.player.ground.size:
            return Problem(kind=Kind.GROWTH, rule="the server's memory grows", detail=f"{more_bytes >> 20} MiB more")
        if more_descriptors > _GROWTH_DESCRIPTORS:
            detail = f"{more_descriptors} more"
            return Problem(kind=Kind.GROWTH, rule="the server's open descriptors grow", detail=detail)
        if used_s := restless_s(self.player.target):
            detail = f"{used_s:.2f} s of processor in {WATCHED_S} s"
            return Problem(kind=Kind.GROWTH, rule="the server is busy while nobody is connected", detail=detail)
        return None
