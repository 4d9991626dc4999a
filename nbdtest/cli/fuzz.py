"""`nbdtest fuzz`: random sessions on a server, judged by what the specification allows and by what was written."""

import argparse
import json
import random
import sys
from pathlib import Path

from nbdtest.cli.fuzz_report import Reporter, summary
from nbdtest.conformance.target import ServerTarget
from nbdtest.errors import UsageError
from nbdtest.fixtures.client_command import CommandSource, parse_clients
from nbdtest.fixtures.deviations import read_deviations
from nbdtest.fixtures.foreseen import is_foreseen
from nbdtest.fixtures.parsing import FORMS, parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fixtures.subject import DEFAULT_TIMEOUT_S
from nbdtest.fuzz.campaign import Campaign, Limits
from nbdtest.fuzz.client_finding import format_rules
from nbdtest.fuzz.client_finding import save as save_client
from nbdtest.fuzz.clients import ClientCampaign
from nbdtest.fuzz.corpus import Corpus
from nbdtest.fuzz.player import Player

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = f"{parser.description}\n\nSPEC is one of\n{FORMS}"
    parser.add_argument("spec", metavar="SPEC", nargs="?", help="server to test")
    parser.add_argument(
        "--client",
        metavar="COMMAND",
        help="test a client instead: a command with {uri} in it, on a server that misbehaves",
    )
    parser.add_argument("--seconds", type=float, metavar="N", help="stop after so many seconds (default: 60)")
    parser.add_argument("--sessions", type=int, metavar="N", help="stop after so many sessions")
    parser.add_argument("--seed", type=int, metavar="N", help="repeat the sessions of an earlier run")
    parser.add_argument(
        "--into", default="findings", metavar="DIR", help="where findings are kept (default: %(default)s)"
    )
    parser.add_argument(
        "--corpus",
        metavar="DIR",
        help="keep sessions that show something new there, start from those that are there, and mutate them",
    )
    parser.add_argument("--stop-after", type=int, metavar="N", help="stop after so many different findings")
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="FILE",
        help="known deviations, which are no findings; 'packaged' means what nbdtest knows of released servers",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="how long to wait for an answer before it is a hang (default: %(default)g)",
    )
    parser.add_argument(
        "--allow-writes", action="store_true", help="write also to a server that is running already: data are lost"
    )
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON, and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Fuzz, print what is found, and return 1 if anything was.

    Raises:
        UsageError: an argument is wrong, or the server cannot be tested.
    """
    limits = Limits(
        sessions=arguments.sessions,
        seconds=60.0 if arguments.seconds is None and arguments.sessions is None else arguments.seconds,
        findings=arguments.stop_after,
    )
    if any(limit is not None and limit <= 0 for limit in (limits.sessions, limits.seconds, limits.findings)):
        raise UsageError("--seconds, --sessions and --stop-after take numbers above 0")
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    if bool(arguments.client) == bool(arguments.spec):
        raise UsageError("say either which server to test or, with --client, which client")
    if arguments.client:
        return _fuzz_client(arguments.client, limits, seed, Path(arguments.into))
    return _fuzz_server(arguments, limits, seed)


def _fuzz_server(arguments: argparse.Namespace, limits: Limits, seed: int) -> int:
    """Fuzz a server, print what is found, and return 1 if anything was."""
    spec = parse_server(arguments.spec)
    deviations = (*spec.deviations, *read_deviations(arguments.expect))
    source = open_source(spec, allow_writes=arguments.allow_writes)
    reporter = Reporter(Path(arguments.into), quiet=arguments.json)
    try:
        player = Player(ServerTarget(source, timeout_s=arguments.timeout))
        target = player.target.info()
        version = f" ({source.version})" if source.version else ""
        reporter.say(f"{source.name}{version}: seed {seed}{'' if player.ground.writable else ', reading only'}")
        corpus = None
        if arguments.corpus:
            corpus = Corpus(Path(arguments.corpus))
            corpus.load(player.ground, player.target.export)
            reporter.say(f"{len(corpus.scripts)} sessions from {corpus.folder}")
        campaign = Campaign(
            player,
            seed=seed,
            tell=reporter.tell,
            found=reporter.found,
            foreseen=lambda problem: is_foreseen(problem, target, deviations),
            corpus=corpus,
        )
        try:
            campaign.run(limits)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        reporter.close(campaign.progress)
        if arguments.json:
            json.dump(summary(campaign.progress, target, seed), sys.stdout, indent=2)
            print()
        return int(bool(campaign.progress.findings))
    finally:
        source.close()


def _fuzz_client(command: str, limits: Limits, seed: int, folder: Path) -> int:
    """Fuzz a client, print what is found first, and return 1 if anything was."""
    (spec,) = parse_clients([command])
    source = CommandSource(spec)
    try:
        print(f"{source.name}{f' ({source.version})' if source.version else ''}: seed {seed}")
        campaign = ClientCampaign(source, seed)
        campaign.rehearse()
        caught = campaign.run(runs=limits.sessions, seconds=limits.seconds)
    finally:
        source.close()
    print(f"{campaign.runs} runs in {campaign.seconds:.0f} s, {'1 finding' if caught else '0 findings'}")
    if caught is None:
        return 0
    place = save_client(caught.finding, folder, transcript=caught.transcript, output=caught.output)
    count = len(caught.finding.rules)
    print(
        f"\n{caught.finding.problem}\n  {count} misbehaviour{'' if count == 1 else 's'} of the server; kept in {place}"
    )
    print(f"  repeat: nbdtest replay {place}\n\n{format_rules(caught.finding.rules)}\n\n{caught.output}")
    return 1
