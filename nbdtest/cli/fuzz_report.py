"""What `nbdtest fuzz` says of a server: progress in one line on a terminal, each finding once, a summary at the end."""

import sys
from pathlib import Path
from typing import Any

from nbdtest.fuzz.campaign import Progress
from nbdtest.fuzz.finding import Finding, save
from nbdtest.fuzz.player import Player
from nbdtest.net.clock import monotonic_s
from nbdtest.report.results import TargetInfo

__all__ = ["Reporter", "summary"]

TELL_EVERY_S = 2.0


class Reporter:
    """Prints; when `quiet` only progress. Findings are kept below `folder` in any case."""

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        self._folder = folder
        self._quiet = quiet
        self._next_s = monotonic_s() + TELL_EVERY_S
        self._live = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print a line, in place of the progress."""
        if self._live:
            print("\r\033[K", end="", file=sys.stderr)
        if not self._quiet:
            print(text)

    def tell(self, progress: Progress) -> None:
        """Show how far it has come, now and then."""
        if self._live and monotonic_s() >= self._next_s:
            self._next_s = monotonic_s() + TELL_EVERY_S
            print(f"\r\033[K{_line(progress)}", end="", file=sys.stderr, flush=True)

    def found(self, finding: Finding, player: Player) -> None:
        """Keep a finding and say where."""
        place = save(finding, self._folder, transcript=player.transcript, output=player.target.source.output())
        self.say(f"\n{finding.problem}")
        if not finding.reproducible:
            self.say("  It did not happen again when the same session was repeated.")
        messages = finding.script.messages
        self.say(f"  {messages} message{'' if messages == 1 else 's'}; kept in {place}")
        self.say(f"  repeat: nbdtest replay {place}")

    def close(self, progress: Progress) -> None:
        """Say what came of it."""
        coverage = progress.coverage
        self.say(_line(progress))
        for what, counts in (
            ("requests", coverage.requests),
            ("replies", coverage.replies),
            ("options", coverage.options),
        ):
            if counts:
                self.say(f"  {what}: {', '.join(f'{kind} {count}' for kind, count in counts.most_common())}")
        self.say(f"  {len(coverage.requirements)} rules exercised: {' '.join(coverage.requirements)}")
        for problem, count in progress.foreseen.most_common():
            self.say(f"known: {problem}, seen {count} times")


def summary(progress: Progress, target: TargetInfo, seed: int) -> dict[str, Any]:
    """What came of it, as what `json.dump` takes."""
    coverage = progress.coverage
    return {
        "schema": 1,
        "target": target.name,
        "version": target.version,
        "seed": seed,
        "sessions": progress.sessions,
        "commands": progress.commands,
        "seconds": round(progress.seconds, 3),
        "findings": [{"name": finding.name, "problem": str(finding.problem)} for finding in progress.findings],
        "known": dict(progress.foreseen),
        "requests": dict(coverage.requests),
        "replies": dict(coverage.replies),
        "options": dict(coverage.options),
        "requirements": list(coverage.requirements),
    }


def _line(progress: Progress) -> str:
    count = len(progress.findings)
    return (
        f"{progress.sessions} sessions, {progress.commands} commands in {progress.seconds:.0f} s "
        f"({progress.rate:.0f} a second), "
        f"{len(progress.coverage.requirements)} rules, {count} finding{'' if count == 1 else 's'}"
        f"{f', seen {progress.repeated} more times' if progress.repeated else ''}"
    )
