"""Fuzzes a client command: the fake server misbehaves at random, and the client must neither crash nor stay for ever.

What a client makes of a wrong server is its own business: any exit status is right, and so is waiting for an answer
that never comes, but not after the server has gone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample

from nbdtest.conformance.client_source import ClientRun, ClientSource
from nbdtest.errors import UsageError
from nbdtest.fakeserver import FakeServer
from nbdtest.fakeserver.actions import PassThrough
from nbdtest.fakeserver.export import TLSMode
from nbdtest.fakeserver.rules import Trigger
from nbdtest.fuzz.campaign import Limits
from nbdtest.fuzz.client_finding import ClientFinding
from nbdtest.fuzz.last_words import crash_site, sanitizer_report, sanitizer_site
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.fuzz.strategies.exports import EVERY_TRIGGER, Misbehaviour, scripts
from nbdtest.model import MemoryDisk
from nbdtest.net.clock import monotonic_s
from nbdtest.net.process import Exit
from nbdtest.wire import Transcript

__all__ = ["CLIENT_PATIENCE_S", "Caught", "ClientCampaign"]

CLIENT_PATIENCE_S = 3.0

_SIZE = 1 << 20
_CONTENT = bytes(range(256)) * 64
_SHRINKING_RUNS = 150
_QUIET_S = 0.2
_Rules = tuple[Misbehaviour, ...]


class _Enough(BaseException):
    """Ends Hypothesis's search; it would take an `Exception` for a failure and look into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """One run in which a client did something wrong: what was exchanged, and what it printed."""

    finding: ClientFinding
    transcript: Transcript
    output: str


@dataclass(slots=True)
class ClientCampaign:
    """Runs one client again and again. `patience_s` is how long it may take, and then how long to notice the end.

    `tell` is called after every run, `found` with each new finding; what is `foreseen` is counted and no finding.
    """

    source: ClientSource
    seed: int = 0
    patience_s: float = CLIENT_PATIENCE_S
    tell: Callable[[ClientCampaign], None] = lambda campaign: None
    found: Callable[[Caught], None] = lambda caught: None
    foreseen: Callable[[Problem], bool] = lambda problem: False
    runs: int = 0
    seconds: float = 0.0
    findings: list[Caught] = field(default_factory=list, init=False)
    repeated: int = field(default=0, init=False)
    """Runs that failed in a way that was known already."""
    known: Counter[str] = field(default_factory=Counter, init=False)
    """How often each foreseen problem was seen."""
    acted: Counter[Trigger] = field(default_factory=Counter, init=False)
    """What the client did that got a wrong answer, and how often."""
    transcript: Transcript = field(default_factory=Transcript, init=False)
    """What the last run exchanged."""
    _last: Caught | None = field(default=None, init=False)
    _triggers: list[Trigger] = field(default_factory=lambda: list(EVERY_TRIGGER), init=False)

    def rehearse(self) -> None:
        """Run it once on the correct server, and see what it does: that is where misbehaviour is worth while.

        Raises:
            UsageError: it fails there as well, so nothing could be learned.
        """
        rightly = [Misbehaviour(trigger=trigger, nth=1, reply=(PassThrough(),)) for trigger in EVERY_TRIGGER]
        if (problem := self.play(rightly, correct=True)) is not None:
            assert self._last is not None
            raise UsageError(f"the client fails on a correct server: {problem}\n{self._last.output}")
        # What a client does when it is refused something cannot be seen here: the others have their turn as well.
        seen = list(self.acted)
        self._triggers = [*seen * (3 * len(EVERY_TRIGGER) // max(1, len(seen))), *EVERY_TRIGGER]
        self.acted.clear()

    def run(self, limits: Limits) -> None:
        """Let the server misbehave until a limit is reached; what is found is made small, and then looked past."""
        began = monotonic_s()

        def over() -> bool:
            self.seconds = monotonic_s() - began
            return (
                (limits.seconds is not None and self.seconds >= limits.seconds)
                or (limits.sessions is not None and self.runs >= limits.sessions)
                or (limits.findings is not None and len(self.findings) >= limits.findings)
            )

        chance = random.Random(self.seed)
        while not over():
            self._search(random.Random(chance.getrandbits(32)), over)

    def _search(self, chance: random.Random, over: Callable[[], bool]) -> None:
        """Look for one problem that is not known yet, and make it small."""
        caught: dict[_Rules, Caught | None] = {}
        smallest: Caught | None = None
        until = 0

        def wrong(rules: _Rules) -> bool:
            nonlocal smallest, until
            if rules not in caught:
                if smallest is None and over():
                    raise _Enough
                caught[rules] = None
                if smallest is None or self.runs < until:
                    caught[rules] = self._catch(rules, smallest)
                if caught[rules] is not None:
                    until = until or self.runs + _SHRINKING_RUNS
                    smallest = caught[rules]
            return caught[rules] is not None

        try:
            found = find(
                scripts(self._triggers),
                wrong,
                settings=settings(
                    max_examples=1_000_000,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck),
                ),
                random=chance,
            )
            smallest = caught[found]
        except (NoSuchExample, _Enough):
            pass
        finally:  # also when somebody has had enough of making it small
            over()
            if smallest is not None:
                self.findings.append(smallest)
                self.found(smallest)

    def _catch(self, rules: _Rules, wanted: Caught | None) -> Caught | None:
        """Run the client, and return what it did wrong if that is new, or again what is `wanted`."""
        problem = self.play(rules)
        self.tell(self)
        if problem is None:
            return None
        if wanted is not None:
            return self._last if problem.identity == wanted.finding.problem.identity else None
        if self.foreseen(problem):
            self.known[str(problem)] += 1
        elif any(problem.identity == caught.finding.problem.identity for caught in self.findings):
            self.repeated += 1
        else:
            return self._last
        return None

    def play(self, rules: Sequence[Misbehaviour], *, correct: bool = False) -> Problem | None:
        """Run the client once on a server that misbehaves by `rules`, and say what it did wrong.

        Of a server that is `correct` all the same it has to think so.
        """
        self.runs += 1
        tls = self.source.tls
        mode = TLSMode.NONE if tls is None else TLSMode.SELECTIVE
        server = FakeServer(disk=MemoryDisk(_SIZE, _CONTENT), tolerate="*", tls=tls, tls_mode=mode)
        for rule in rules:
            rule.install(server.rules)
        run = self.source.start(server, file=_CONTENT)
        try:
            ended = run.wait(self.patience_s) if correct else self._wait(run, server)
            if ended is None:
                server.stop()
                ended = run.wait(self.patience_s)
            self.transcript = server.journal.transcript()
            self.acted.update(rule.trigger for rule in server.rules.rules if rule.fired)
            problem = self._judge(ended, run.output, correct=correct)
            if problem is not None:
                finding = ClientFinding(
                    problem=problem,
                    rules=tuple(rules),
                    command=self.source.spec,
                    version=self.source.version,
                    seed=self.seed,
                )
                self._last = Caught(finding=finding, transcript=self.transcript, output=run.output)
            return problem
        finally:
            run.stop()
            server.stop()

    def _wait(self, run: ClientRun, server: FakeServer) -> Exit | None:
        """Wait until the client has ended, or until nothing is exchanged any more: what it waits for will not come."""
        limit_s = monotonic_s() + self.patience_s
        before = 0
        while monotonic_s() < limit_s:
            if (ended := run.wait(_QUIET_S)) is not None:
                return ended
            now = len(server.journal)
            if now and now == before:
                break
            before = now
        return None

    @staticmethod
    def _judge(ended: Exit | None, output: str, *, correct: bool) -> Problem | None:
        if report := sanitizer_report(output):
            site = sanitizer_site(output)
            return Problem(kind=Kind.SANITIZER, rule="a sanitizer complains", detail=report, site=site)
        if ended is None:
            return Problem(kind=Kind.HANG, rule="the client stays although the server has gone")
        if ended.signal is not None:
            site = crash_site(f"{ended}\n{output}")
            return Problem(kind=Kind.DEATH, rule="the client dies", detail=str(ended), site=site)
        if correct and ended.status:
            return Problem(kind=Kind.WRONG_REPLY, rule="the client fails on a correct server", detail=str(ended))
        return None
