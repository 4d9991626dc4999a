"""`nbdtest info`: what a server offers, asked as the suite asks it before it chooses checks."""

import argparse
import json
from typing import Any

from nbdtest.conformance.target import ServerTarget
from nbdtest.errors import UsageError
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.preflight import preflight
from nbdtest.fixtures.sources import open_source
from nbdtest.fixtures.subject import DEFAULT_TIMEOUT_S, usable_timeout
from nbdtest.report.wording import printable
from nbdtest.wire import InfoBlockSize, OldstyleGreeting

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("uri", metavar="URI", help="an NBD URI, or any SPEC that `nbdtest check` takes")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--timeout", type=float, default=DEFAULT_TIMEOUT_S, metavar="SECONDS", help="for each answer")


def run(arguments: argparse.Namespace) -> int:
    """Ask and print.

    Raises:
        UsageError: there is no NBD server.
    """
    with open_source(parse_server(arguments.uri)) as source:
        preflight(source, usable_timeout(arguments.timeout))
        target = ServerTarget(source, timeout_s=arguments.timeout)
        found = _found(target)
        target.end()
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    for key, value in found.items():
        shown = ["unknown"] if value is None else map(str, value) if isinstance(value, list) else [str(value)]
        print(f"{key.replace('_', ' ')}: {', '.join(printable(word) or chr(34) * 2 for word in shown) or 'none'}")
    return 0


def _found(target: ServerTarget) -> dict[str, Any]:
    facts = target.facts
    if facts.trouble:
        raise UsageError(f"{target.source.spec!r}: {facts.trouble}")
    flags = facts.structured_flags or facts.flags
    return {
        "server": target.source.version or None,
        "handshake": "oldstyle" if isinstance(facts.greeting, OldstyleGreeting) else "newstyle",
        "export": target.source.export_name,
        "size": facts.size,
        "flags": [flag.name for flag in type(flags) if flag in flags],
        "block_size": _sizes(facts.block_size),
        "contexts": list(facts.contexts),
        "exports": list(facts.exports),
        "capabilities": sorted(capability.label for capability in facts.capabilities),
    }


def _sizes(block_size: InfoBlockSize | None) -> list[int] | None:
    return None if block_size is None else [block_size.minimum, block_size.preferred, block_size.maximum]
