"""`nbdtest list`: the checks, the requirements that they prove, and the mutants that prove the checks."""

import argparse
import json
from typing import Any

from nbdtest.cli.console import Console
from nbdtest.conformance.catalogue import coverage
from nbdtest.conformance.declare import each_check
from nbdtest.errors import UsageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=sorted(_ROWS), help="what to list")
    parser.add_argument("--json", action="store_true", help="print JSON: a list of objects")


def run(arguments: argparse.Namespace) -> int:
    """Print the list.

    Raises:
        UsageError: it is not known what to list.
    """
    if arguments.what not in _ROWS:
        raise UsageError(f"{arguments.what!r} cannot be listed; {', '.join(sorted(_ROWS))} can")
    rows = _ROWS[arguments.what]()
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    columns = _COLUMNS[arguments.what]
    Console().table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    return 0


def _checks() -> list[dict[str, Any]]:
    return [
        {
            "id": check.id,
            "role": check.role,
            "level": check.level.value,
            "requirements": list(check.proves),
            "needs": [capability.label for capability in check.needs],
            "writes": check.writes,
            "legal": check.legal,
            "title": check.title,
        }
        for role in ("server", "client")
        for check in each_check(role)
    ]


def _requirements() -> list[dict[str, Any]]:
    checks = [check for role in ("server", "client") for check in each_check(role)]
    return [
        {
            "id": row.requirement.id,
            "role": row.requirement.role,
            "level": row.requirement.kind,
            "section": row.requirement.section,
            "text": row.requirement.text,
            "checks": list(row.checks),
            "reason": row.reason,
        }
        for row in coverage(checks)
    ]


def _mutants() -> list[dict[str, Any]]:
    from nbdtest.fakeserver.mutants import MUTANTS

    return [
        {
            "name": name,
            "checks": sorted(mutant.checks),
            "sometimes": sorted(mutant.sometimes),
            "spoils": mutant.spoils,
            "breaks": sorted(mutant.breaks),
            "description": mutant.description,
        }
        for name, mutant in sorted(MUTANTS.items())
    ]


_ROWS = {"checks": _checks, "requirements": _requirements, "mutants": _mutants}
_COLUMNS = {
    "checks": ("id", "role", "level", "title"),
    "requirements": ("id", "level", "role", "checks", "text"),
    "mutants": ("name", "checks", "description"),
}


def _cell(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)
