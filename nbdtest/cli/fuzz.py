"""`nbdtest fuzz`: random sessions on a server, judged by what the specification allows and by what was written."""

import argparse
import json
import random
import sys
from pathlib import Path

from nbdtest.cli import INTERRUPTED
from nbdtest.cli.fuzz_report import ClientReporter, Reporter, client_summary, summary
from nbdtest.conformance.target import ServerTarget
from nbdtest.errors import UsageError
from nbdtest.fixtures.client_command import CommandSource, parse_clients
from nbdtest.fixtures.deviations import read_deviations
from nbdtest.fixtures.foreseen import is_foreseen
from nbdtest.fixtures.parsing import FORMS, parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fixtures.subject import DEFAULT_TIMEOUT_S, usable_timeout
from nbdtest.fuzz.campaign import Campaign, Limits
from nbdtest.fuzz.clients import CLIENT_PATIENCE_S, ClientCampaign
from nbdtest.fuzz.corpus import Corpus
from nbdtest.fuzz.player import Player
from nbdtest.report.results import TargetInfo

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
    parser.add_argument("--sessions", type=int, metavar="N", help="stop after so many sessions, or runs of a client")
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
        metavar="SECONDS",
        help="how long to wait for an answer before it is a hang, or for a client to notice that the server has gone "
        f"(default: {DEFAULT_TIMEOUT_S:g}, for clients {CLIENT_PATIENCE_S:g})",
    )
    parser.add_argument(
        "--allow-writes", action="store_true", help="write also to a server that is running already: data are lost"
    )
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON, and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Fuzz, print what is found, and return 1 if anything was, 130 if somebody had enough before.

    Raises:
        UsageError: an argument is wrong, or the server cannot be tested.
    """
    limits = Limits(
        sessions=arguments.sessions,
        seconds=60.0 if arguments.seconds is None and arguments.sessions is None else arguments.seconds,
        findings=arguments.stop_after,
    )
    numbers = (limits.sessions, limits.seconds, limits.findings, arguments.timeout)
    if any(number is not None and number <= 0 for number in numbers):
        raise UsageError("--seconds, --sessions, --stop-after and --timeout take numbers above 0")
    if arguments.timeout is not None:
        usable_timeout(arguments.timeout)
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    if bool(arguments.client) == bool(arguments.spec):
        raise UsageError("say either which server to test or, with --client, which client")
    if arguments.client:
        if arguments.corpus or arguments.allow_writes:
            raise UsageError("--corpus and --allow-writes are for servers")
        return _fuzz_client(arguments, limits, seed)
    return _fuzz_server(arguments, limits, seed)


def _fuzz_server(arguments: argparse.Namespace, limits: Limits, seed: int) -> int:
    """Fuzz a server, print what is found, and return the exit status."""
    spec = parse_server(arguments.spec)
    deviations = (*spec.deviations, *read_deviations(arguments.expect))
    source = open_source(spec, allow_writes=arguments.allow_writes)
    reporter = Reporter(Path(arguments.into), quiet=arguments.json)
    try:
        player = Player(ServerTarget(source, timeout_s=arguments.timeout or DEFAULT_TIMEOUT_S))
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
        status = 0
        try:
            campaign.run(limits)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            status = INTERRUPTED
        reporter.close(campaign.progress)
        if arguments.json:
            json.dump(summary(campaign.progress, target, seed), sys.stdout, indent=2)
            print()
        return 1 if campaign.progress.findings else status
    finally:
        source.close()


def _fuzz_client(arguments: argparse.Namespace, limits: Limits, seed: int) -> int:
    """Fuzz a client, print what is found, and return the exit status."""
    deviations = read_deviations(arguments.expect)
    (spec,) = parse_clients([arguments.client])
    source = CommandSource(spec)
    target = TargetInfo(name=source.name, spec=spec.text, version=source.version)
    reporter = ClientReporter(Path(arguments.into), quiet=arguments.json)
    try:
        reporter.say(f"{source.name}{f' ({source.version})' if source.version else ''}: seed {seed}")
        campaign = ClientCampaign(
            source,
            seed,
            arguments.timeout or CLIENT_PATIENCE_S,
            tell=reporter.tell,
            found=reporter.found,
            foreseen=lambda problem: is_foreseen(problem, target, deviations),
        )
        campaign.rehearse()
        status = 0
        try:
            campaign.run(limits)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            status = INTERRUPTED
        reporter.close(campaign)
        if arguments.json:
            json.dump(client_summary(campaign, target), sys.stdout, indent=2)
            print()
        return 1 if campaign.findings else status
    finally:
        source.close()
