"""`nbdtest shell`: Python with a handle `h`, run line by line or from the command line, with nbdsh's options.

nbdtest shell -u nbd://localhost -c 'print(h.get_size())'
nbdtest shell -u nbd://localhost --pread 512 0
"""

from __future__ import annotations

import argparse
import code
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import nbdtest
from nbdtest import client
from nbdtest.client import CONTEXT_BASE_ALLOCATION, NBD, Error
from nbdtest.client.drop_in import install_as_nbd
from nbdtest.client.handle.exporting import LIBNBD_VERSION
from nbdtest.wire.dump import hexdump

__all__ = ["add_arguments", "main", "run"]

USAGE_FAULT = 1
HEXDUMP_LIMIT = 1 << 20


class Step(argparse.Action):
    """Notes an option together with its place on the command line: they are carried out in that order."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.steps = [*(namespace.steps or []), (self.dest, values)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = (
        "Python with a handle 'h' of nbdtest.client, which is there as 'nbd' and as\n"
        "'client'. Options are carried out in the order in which they are given; without\n"
        "-c, --pread and --hexdump a prompt follows."
    )
    parser.set_defaults(steps=[], run=run)

    def step(*names: str, nargs: int | None = None, **words: Any) -> None:
        parser.add_argument(*names, action=Step, nargs=nargs, default=argparse.SUPPRESS, **words)

    step("-u", "--uri", "--connect", dest="uri", metavar="URI", help="connect to an NBD URI")
    step("-c", "--command", dest="command", metavar="PYTHON", help="run Python; - reads it from standard input")
    step("--base-allocation", dest="base_allocation", nargs=0, help="ask for the metadata context base:allocation")
    step("--opt-mode", dest="opt_mode", nargs=0, help="stop in option mode when connecting")
    step("--pread", dest="pread", nargs=2, metavar=("COUNT", "OFFSET"), help="write what is read to standard output")
    step("--hexdump", dest="hexdump", nargs=2, metavar=("COUNT", "OFFSET"), help="show what is read in hexadecimal")
    version = f"nbdtest {nbdtest.__version__}, with the API of libnbd {LIBNBD_VERSION}"
    parser.add_argument("-V", "--version", action="version", version=version, help="show the versions")
    parser.add_argument("-n", dest="no_handle", action="store_true", help="do not make the handle 'h'")
    parser.add_argument("-v", "--verbose", action="store_true", help="show debug messages")


def run(arguments: argparse.Namespace) -> int:
    """Carry out the options, then talk to the user if there is nothing else to do; return the exit status."""
    steps: list[tuple[str, Any]] = arguments.steps
    if arguments.no_handle and any(kind != "command" for kind, _ in steps):
        print("nbdtest shell: -n leaves no handle for the other options", file=sys.stderr)
        return USAGE_FAULT
    if arguments.verbose:
        os.environ["LIBNBD_DEBUG"] = "1"
    nbd = install_as_nbd()
    names: dict[str, Any] = {"__name__": "__main__", "nbd": nbd, "client": client, "hexdump": hexdump}
    handle = None
    if not arguments.no_handle:
        handle = names["h"] = NBD()
        handle.set_handle_name("nbdsh")
    try:
        for kind, value in steps:
            _STEPS[kind](names, value)
    except Error as error:
        if arguments.verbose or os.environ.get("LIBNBD_DEBUG") == "1":
            traceback.print_exc()
        else:
            print(f"nbdtest shell: {error.string}", file=sys.stderr)
        return 1
    else:
        if not any(kind in ("command", "pread", "hexdump") for kind, _ in steps):
            sys.ps1 = "nbd> "
            code.interact(banner=_banner(handle is not None), local=names, exitmsg="")
        return 0
    finally:
        if handle is not None and not handle._closed:
            handle.close()


def main(argv: Sequence[str] | None = None) -> int:
    """The shell as a program of its own."""
    parser = argparse.ArgumentParser(prog="nbdtest shell")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _execute(names: dict[str, Any], source: str) -> None:
    exec(sys.stdin.read() if source == "-" else source, names)


def _read(names: dict[str, Any], words: Sequence[str]) -> bytearray:
    count, offset = (int(word, 0) for word in words)
    data: bytearray = names["h"].pread(count, offset)
    return data


def _write_out(names: dict[str, Any], words: Sequence[str]) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(_read(names, words))
    sys.stdout.buffer.flush()


_STEPS: dict[str, Callable[[dict[str, Any], Any], object]] = {
    "uri": lambda names, uri: names["h"].connect_uri(uri),
    "command": _execute,
    "base_allocation": lambda names, _: names["h"].add_meta_context(CONTEXT_BASE_ALLOCATION),
    "opt_mode": lambda names, _: names["h"].set_opt_mode(True),
    "pread": _write_out,
    "hexdump": lambda names, words: print(hexdump(_read(names, words), limit=HEXDUMP_LIMIT)),
}


def _banner(has_handle: bool) -> str:
    examples = [
        ("h.get_size()", "the size of the export"),
        ("print(hexdump(h.pread(512, 0)))", "its first bytes"),
        ("help(nbd.NBD)", "all calls"),
        ("exit()", "leave, as does Ctrl-D"),
    ]
    if not has_handle:
        examples.insert(0, ("h = nbd.NBD()", "make a handle"))
    lines = [f"{example:<34} # {text}" for example, text in examples]
    opening = "An NBD handle 'h' is there." if has_handle else "The module 'nbd' is there."
    return "\n".join(["", f"{opening} For example:", "", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
