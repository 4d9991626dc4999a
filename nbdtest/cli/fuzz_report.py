"""What `nbdtest fuzz` says: how far it has come, each finding once, a summary at the end."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from nbdtest.fakeserver.rules import Moment
from nbdtest.fuzz.campaign import Progress
from nbdtest.fuzz.client_finding import format_rules
from nbdtest.fuzz.client_finding import save as save_client
from nbdtest.fuzz.clients import Caught, ClientCampaign
from nbdtest.fuzz.finding import Finding, save
from nbdtest.fuzz.player import Player
from nbdtest.net.clock import monotonic_s
from nbdtest.report.results import TargetInfo

__all__ = ["ClientReporter", "Reporter", "client_summary", "summary"]

TELL_EVERY_S = 2.0
"""On a terminal, where one line is written over again."""
LOG_EVERY_S = 60.0
"""Elsewhere, a line each."""


class _Teller:
    """Prints; when `quiet` only progress. Findings are kept below `folder` in any case."""

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        self._folder = folder
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._every_s = TELL_EVERY_S if self._live else LOG_EVERY_S
        self._next_s = monotonic_s() + self._every_s

    def say(self, text: str) -> None:
        """Print a line, in place of the progress."""
        if self._live:
            print("\r\033[K", end="", file=sys.stderr)
        if not self._quiet:
            print(text, flush=True)

    def _tell(self, line: str) -> None:
        self._next_s = monotonic_s() + self._every_s
        if self._live:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _kept(self, what: str, place: Path) -> None:
        self.say(f"  {what}; kept in {place}")
        self.say(f"  repeat: nbdtest replay {place}")

    def _counts(self, *rows: tuple[str, Counter[str]]) -> None:
        for what, counts in rows:
            if counts:
                self.say(f"  {what}: {', '.join(f'{kind} {count}' for kind, count in counts.most_common())}")


class Reporter(_Teller):
    """What is said while a server is fuzzed."""

    def tell(self, progress: Progress) -> None:
        """Show how far it has come, now and then."""
        if monotonic_s() >= self._next_s:
            self._tell(_line(progress))

    def found(self, finding: Finding, player: Player) -> None:
        """Keep a finding and say where."""
        place = save(finding, self._folder, transcript=player.transcript, output=player.target.source.output())
        self.say(f"\n{finding.problem}")
        if not finding.reproducible:
            self.say("  It did not happen again when the same session was repeated.")
        self._kept(_counted(finding.script.messages, "message"), place)

    def close(self, progress: Progress) -> None:
        """Say what came of it."""
        coverage = progress.coverage
        self.say(_line(progress))
        self._counts(("requests", coverage.requests), ("replies", coverage.replies), ("options", coverage.options))
        self.say(f"  {len(coverage.requirements)} rules exercised: {' '.join(coverage.requirements)}")
        for problem, count in progress.foreseen.most_common():
            self.say(f"known: {problem}, seen {_counted(count, 'time')}")


class ClientReporter(_Teller):
    """What is said while a client is fuzzed."""

    def tell(self, campaign: ClientCampaign) -> None:
        """Show how far it has come, now and then."""
        if monotonic_s() >= self._next_s:
            self._tell(_line_of_client(campaign))

    def found(self, caught: Caught) -> None:
        """Keep a finding and say where."""
        finding = caught.finding
        place = save_client(finding, self._folder, transcript=caught.transcript, output=caught.output)
        self.say(f"\n{finding.problem}")
        self._kept(f"{_counted(len(finding.rules), 'misbehaviour')} of the server", place)
        self.say(format_rules(finding.rules))

    def close(self, campaign: ClientCampaign) -> None:
        """Say what came of it."""
        self.say(_line_of_client(campaign))
        self._counts(("answered wrongly", _acted(campaign)))
        for problem, count in campaign.known.most_common():
            self.say(f"known: {problem}, seen {_counted(count, 'time')}")


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


def client_summary(campaign: ClientCampaign, target: TargetInfo) -> dict[str, Any]:
    """The same of a client."""
    found = [caught.finding for caught in campaign.findings]
    return {
        "schema": 1,
        "client": target.name,
        "version": target.version,
        "seed": campaign.seed,
        "runs": campaign.runs,
        "seconds": round(campaign.seconds, 3),
        "findings": [{"name": finding.name, "problem": str(finding.problem)} for finding in found],
        "known": dict(campaign.known),
        "answered_wrongly": dict(_acted(campaign)),
    }


def _acted(campaign: ClientCampaign) -> Counter[str]:
    named = {trigger: trigger.value if isinstance(trigger, Moment) else str(trigger) for trigger in campaign.acted}
    return Counter({named[trigger]: count for trigger, count in campaign.acted.items()})


def _line(progress: Progress) -> str:
    return (
        f"{_counted(progress.sessions, 'session')}, {progress.commands} commands in {progress.seconds:.0f} s "
        f"({progress.rate:.0f} a second), {len(progress.coverage.requirements)} rules, "
        f"{_findings(len(progress.findings), progress.repeated)}"
    )


def _line_of_client(campaign: ClientCampaign) -> str:
    rate = campaign.runs / campaign.seconds if campaign.seconds else 0.0
    return (
        f"{_counted(campaign.runs, 'run')} in {campaign.seconds:.0f} s ({rate:.1f} a second), "
        f"{campaign.acted.total()} answered wrongly, {_findings(len(campaign.findings), campaign.repeated)}"
    )


def _findings(count: int, repeated: int) -> str:
    more = f", seen {repeated} more {'time' if repeated == 1 else 'times'}" if repeated else ""
    return f"{_counted(count, 'finding')}{more}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
