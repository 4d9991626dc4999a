"""The `nbdtest` command: its subcommands, and what their exit status means.

Each subcommand is a module with `add_arguments(parser)` and `run(arguments) -> int`, loaded when it is the one wanted.
"""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import nbdtest
from nbdtest.errors import NBDTestError

__all__ = ["main"]

INTERRUPTED = 130
UNUSABLE = 2
DEPENDENCIES = {"cryptography", "hypothesis", "jinja2", "pytest", "rich"}
"""What may be missing where nbdtest runs from a checkout and is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A subcommand: the module that holds it, what it does, an example, and what exit status 1 says if it has that."""

    module: str
    help: str
    example: str
    found: str = ""

    @property
    def epilog(self) -> str:
        """What stands below the options in its --help."""
        found = f"1 {self.found}, " if self.found else ""
        status = f"Exit status: 0 all is well, {found}2 it cannot be done,\n130 interrupted."
        return f"Example: {self.example}\n\n{status}"


COMMANDS = {
    "check": Command(
        module="nbdtest.cli.check",
        help="run the conformance suite on servers",
        example="nbdtest check 'listen: ./my-server --socket {unix}' --report r.html",
        found="a check failed",
    ),
    "serve": Command(
        module="nbdtest.fakeserver.serve",
        help="run the fake server, correct or with one deliberate bug",
        example="nbdtest serve --tcp 10809 --size 64M",
    ),
    "fuzz": Command(
        module="nbdtest.cli.fuzz",
        help="look for requests that a server answers wrongly",
        example="nbdtest fuzz 'listen: ./my-server --socket {unix}'",
        found="something was found",
    ),
    "replay": Command(
        module="nbdtest.cli.replay",
        help="play a finding of `nbdtest fuzz` again",
        example="nbdtest replay findings/wrong-data-read-1a2b3c4d --server nbdkit",
        found="a finding is one still",
    ),
    "info": Command(
        module="nbdtest.cli.info",
        help="say what a server offers",
        example="nbdtest info nbd://localhost:10809/disk",
    ),
    "list": Command(
        module="nbdtest.cli.listing",
        help="list the checks, the requirements of the specification or the mutants",
        example="nbdtest list requirements --json",
    ),
    "attach": Command(
        module="nbdtest.client.kernel.attach",
        help="make an export a block device of this machine",
        example="nbdtest attach nbd://localhost/disk /dev/nbd0",
    ),
    "detach": Command(
        module="nbdtest.client.kernel.detach",
        help="free block devices again",
        example="nbdtest detach /dev/nbd0",
    ),
    "shell": Command(
        module="nbdtest.client.shell",
        help="Python with a connected handle, as nbdsh",
        example="nbdtest shell -u nbd://localhost",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = _parser(words).parse_args(words)
        return int(arguments.run(arguments))
    except NBDTestError as error:
        print(f"nbdtest: {error}", file=sys.stderr)
        return UNUSABLE
    except ModuleNotFoundError as error:
        if error.name not in DEPENDENCIES:
            raise
        print(
            f"nbdtest: the Python package {error.name} is not installed. `pip install .` installs nbdtest with all "
            "that it needs; without it there are check, serve, info, list, shell, attach and detach",
            file=sys.stderr,
        )
        return UNUSABLE
    except KeyboardInterrupt:
        print("nbdtest: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has had enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nbdtest",
        description="Tests NBD (Network Block Device) servers and clients.",
        epilog=f"{COMMANDS['check'].epilog}\n\n`nbdtest COMMAND --help` tells more of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nbdtest {nbdtest.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    wanted = next((word for word in words if not word.startswith("-")), "")
    for name, command in COMMANDS.items():
        if not _exists(command.module):
            continue
        subparser = subparsers.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == wanted:
            module = importlib.import_module(command.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def _exists(module: str) -> bool:
    """Whether the module is there, found without importing it."""
    package, _, name = module.rpartition(".")
    top = importlib.util.find_spec(package.partition(".")[0])
    if top is None or not top.submodule_search_locations:
        return False
    folder = os.path.join(top.submodule_search_locations[0], *package.split(".")[1:])
    return os.path.exists(os.path.join(folder, f"{name}.py"))
