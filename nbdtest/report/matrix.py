"""Several servers side by side, one row for each check: a Markdown page from the JSON reports of their runs.

python -m nbdtest.report.matrix REPORT.json... > docs/servers.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from nbdtest.report.json_document import result_from_row, target_from_row
from nbdtest.report.results import Outcome, Result, TargetInfo

__all__ = ["main", "matrix"]

_MARKS = {
    Outcome.PASSED: "·",
    Outcome.FAILED: "**fails**",
    Outcome.WARNED: "warns",
    Outcome.SKIPPED: "",
    Outcome.ERROR: "error",
}
_KILLED = "was killed by SIG"


def matrix(runs: Iterable[tuple[TargetInfo, Sequence[Result]]]) -> str:
    """Draw the table. A check whose probe ended a server that was released is left out, and only counted.

    What ends a server that people run is told to its maintainers, not printed here.
    """
    columns = [(target, {result.check: result for result in results}) for target, results in runs]
    checks = sorted({check for _, results in columns for check in results})
    deadly = {
        check
        for check in checks
        if any(check in results and _KILLED in results[check].message for _, results in columns)
    }
    heading = ["check", *(f"{target.name}<br>{target.version}" for target, _ in columns)]
    lines = [heading, ["---"] * len(heading)]
    for outcome in Outcome:
        counts = [sum(result.outcome is outcome for result in results.values()) for _, results in columns]
        lines.append([f"*{outcome}*", *map(str, counts)])
    for check in checks:
        if check not in deadly:
            marks = [_MARKS[results[check].outcome] if check in results else "" for _, results in columns]
            lines.append([f"`{check}`", *marks])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        "# Servers and checks\n\n"
        "How released servers fared, as their packages configure them and on a scratch disk; those with `:x509` insist "
        "on TLS. A dot is a pass; an empty cell is a check that does not apply. Why something fails stands in "
        "[findings.md](findings.md).\n\n"
        f"{len(deadly)} checks that ended one of these servers are left out.\n\n{table}\n"
    )


def main() -> None:
    """Print the page for the reports named on the command line."""
    runs = []
    for name in sys.argv[1:]:
        document = json.loads(Path(name).read_text(encoding="utf-8"))
        results = [result_from_row(row) for row in document["results"]]
        for target in map(target_from_row, document["targets"]):
            runs.append((target, [result for result in results if result.target == target.name]))
    print(matrix(runs), end="")


if __name__ == "__main__":
    main()
