"""`nbdtest replay`: plays findings again and says whether they still are what they were."""

import argparse
from pathlib import Path

from nbdtest.conformance.target import ServerTarget
from nbdtest.errors import UsageError
from nbdtest.fixtures.client_command import CommandSource, parse_clients
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fixtures.subject import DEFAULT_TIMEOUT_S, usable_timeout
from nbdtest.fuzz.client_finding import ClientFinding, concerns_client
from nbdtest.fuzz.client_finding import load as load_client
from nbdtest.fuzz.clients import ClientCampaign
from nbdtest.fuzz.finding import Finding, load, read
from nbdtest.fuzz.player import Player
from nbdtest.fuzz.problem import Problem
from nbdtest.fuzz.replay import must_bear

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", nargs="+", help="finding of `nbdtest fuzz`")
    parser.add_argument("--server", metavar="SPEC", help="play it on this server instead of the one it was found on")
    parser.add_argument("--client", metavar="COMMAND", help="run this client instead of the one it was found in")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="how long to wait for an answer before it is a hang (default: %(default)g)",
    )
    parser.add_argument("--allow-writes", action="store_true", help="write also to a server that is running already")
    parser.add_argument("--transcript", action="store_true", help="show what was exchanged")


def run(arguments: argparse.Namespace) -> int:
    """Play each finding, and return 1 if any of them still is one.

    Raises:
        UsageError: a folder holds no finding, or the server cannot be tested.
    """
    folders = [Path(folder) for folder in arguments.folder]
    findings = [load_client(folder) if concerns_client(read(folder)) else load(folder) for folder in folders]
    for given, kind, what in ((arguments.server, ClientFinding, "a client"), (arguments.client, Finding, "a server")):
        if given and (wrong := [each.name for each in findings if isinstance(each, kind)]):
            raise UsageError(f"{wrong[0]} is a finding about {what}, and cannot be played on {given}")
    found = 0
    for finding in findings:
        found |= _play(finding, arguments) if isinstance(finding, Finding) else _run(finding, arguments)
    return found


def _run(finding: ClientFinding, arguments: argparse.Namespace) -> bool:
    (spec,) = parse_clients([arguments.client or finding.command])
    source = CommandSource(spec)
    try:
        campaign = ClientCampaign(source)
        problem = campaign.play(finding.rules)
    finally:
        source.close()
    _tell(f"{finding.name} on {source.name}", problem, finding.problem)
    if arguments.transcript:
        print(campaign.transcript.format())
    return problem is not None


def _play(finding: Finding, arguments: argparse.Namespace) -> bool:
    source = open_source(parse_server(arguments.server or finding.spec), allow_writes=arguments.allow_writes)
    try:
        player = Player(ServerTarget(source, timeout_s=usable_timeout(arguments.timeout)))
        must_bear(player, finding.script)
        problem = player.play(finding.script, record=True, afresh=True)
    finally:
        source.close()
    _tell(f"{finding.name} on {source.name}", problem, finding.problem)
    if arguments.transcript:
        print(player.transcript.format())
    return problem is not None


def _tell(what: str, problem: Problem | None, earlier: Problem) -> None:
    print(f"{what}: {problem or 'all is well'}")
    if problem is not None and problem.identity != earlier.identity:
        print(f"  it was: {earlier}")
