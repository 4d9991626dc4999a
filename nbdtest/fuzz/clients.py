"""Fuzzes a client command: the fake server misbehaves at random, and the client must neither crash nor stay for ever.

What a client makes of a wrong server is its own business: any exit status is right, and so is waiting for an answer
that never comes, but not after the server has gone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from nbdtest.conformance.client_source import ClientSource
from nbdtest.errors import UsageError
from nbdtest.fakeserver import FakeServer
from nbdtest.fuzz.client_finding import ClientFinding
from nbdtest.fuzz.last_words import crash_site, sanitizer_report, sanitizer_site
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.fuzz.strategies.exports import Misbehaviour, misbehaviours
from nbdtest.model import MemoryDisk
from nbdtest.net.clock import monotonic_s
from nbdtest.net.process import Exit
from nbdtest.wire import Transcript

__all__ = ["Caught", "ClientCampaign"]

_SIZE = 1 << 20
_CONTENT = bytes(range(256)) * 64
_MOST_RULES = 3
_SHRINKING_RUNS = 150


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
    """Runs one client again and again. `patience_s` is how long it may take, and then how long to notice the end."""

    source: ClientSource
    seed: int = 0
    patience_s: float = 3.0
    runs: int = 0
    seconds: float = 0.0
    transcript: Transcript = field(default_factory=Transcript, init=False)
    """What the last run exchanged."""
    _last: Caught | None = field(default=None, init=False)

    def rehearse(self) -> None:
        """Run it once on the correct server.

        Raises:
            UsageError: it fails there as well, so nothing could be learned.
        """
        if (problem := self.play(())) is not None:
            assert self._last is not None
            raise UsageError(f"the client fails on a correct server: {problem}\n{self._last.output}")

    def run(self, *, runs: int | None = None, seconds: float | None = None) -> Caught | None:
        """Let the server misbehave until something is found, made small, or a limit is reached."""
        began = monotonic_s()

        def over() -> bool:
            self.seconds = monotonic_s() - began
            return (seconds is not None and self.seconds >= seconds) or (runs is not None and self.runs >= runs)

        seen: dict[tuple[Misbehaviour, ...], bool] = {}
        found_at: int | None = None

        def wrong(rules: Sequence[Misbehaviour]) -> bool:
            nonlocal found_at
            key = tuple(rules)
            if key not in seen:
                if found_at is None and over():
                    raise _Enough
                enough = found_at is not None and self.runs >= found_at + _SHRINKING_RUNS
                seen[key] = not enough and self.play(rules) is not None
                if seen[key] and found_at is None:
                    found_at = self.runs
            return seen[key]

        try:
            rules = find(
                st.lists(misbehaviours(), min_size=1, max_size=_MOST_RULES),
                wrong,
                settings=settings(
                    max_examples=runs or 1_000_000,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck),
                ),
                random=random.Random(self.seed),
            )
        except (NoSuchExample, _Enough):
            return None
        finally:
            over()
        self.play(rules)
        return self._last

    def play(self, rules: Sequence[Misbehaviour]) -> Problem | None:
        """Run the client once on a server that misbehaves by `rules`, and say what it did wrong."""
        self.runs += 1
        server = FakeServer(disk=MemoryDisk(_SIZE, _CONTENT), tolerate="*")
        for rule in rules:
            rule.install(server.rules)
        run = self.source.start(server, file=_CONTENT)
        try:
            ended = run.wait(self.patience_s)
            if ended is None:
                server.stop()
                ended = run.wait(self.patience_s)
            self.transcript = server.journal.transcript()
            problem = self._judge(ended, run.output, correct=not rules)
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
