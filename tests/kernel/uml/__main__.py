"""python -m tests.kernel.uml [--root DIR] [--writable DIR]... [--timeout S] [-v] -- COMMAND ARGS

Runs COMMAND in User Mode Linux and ends with its status; 124: time limit, 125: the guest died,
69: User Mode Linux cannot run here (stderr says why).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.kernel.uml import guest, package

UNAVAILABLE = os.EX_UNAVAILABLE


def main() -> int:
    parser = argparse.ArgumentParser(prog="uml", usage=__doc__)
    parser.add_argument("--root", type=Path, help="an unpacked user-mode-linux package")
    parser.add_argument(
        "--writable", type=Path, action="append", default=[], help="a directory that the command may write"
    )
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds until the guest is killed")
    parser.add_argument("--modules", default=",".join(guest.MODULES), metavar="NAME,...", help="kernel modules to load")
    parser.add_argument("--memory", type=int, default=guest.MEMORY_MB, metavar="MB")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the kernel's messages and times")
    parser.add_argument("command", nargs="+")
    wanted = parser.parse_args()
    try:
        return guest.run(
            package.find(wanted.root),
            wanted.command,
            writable=wanted.writable,
            modules=[name for name in wanted.modules.split(",") if name],
            memory_mb=wanted.memory,
            timeout_s=wanted.timeout,
            verbose=wanted.verbose,
        )
    except package.CannotRun as reason:
        print(f"uml: {reason}", file=sys.stderr)
        return UNAVAILABLE


sys.exit(main())
