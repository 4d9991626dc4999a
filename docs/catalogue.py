"""Makes requirements.md, checks.md and known-bugs.md from checks, catalogue and mutants: python docs/catalogue.py"""

import csv
from collections.abc import Iterable
from importlib.resources import files
from itertools import groupby
from pathlib import Path

from nbdtest.conformance import Check, Coverage, coverage, each_check
from nbdtest.fakeserver.mutants import MUTANTS

ROLES = ("server", "client")
REQUIREMENTS = """\
# Requirements

Every rule of the specification, of its two extension branches and of the URI format, with the checks that prove it, or
why none can. *Needs* says what all of these checks need of the server or client: without it the rule is not proved.
[checks.md](checks.md) tells what each check does.

{proved} of {total} rules are proved, {explained} are explained.
"""
CHECKS = """\
# Checks

Every check of the suite: the strongest level of the rules that it proves unless a weaker one was chosen for it, what it
holds the server or client to, these rules ([requirements.md](requirements.md)), and what it needs. *Mutants* are the
servers with one bug on which it is seen to fail; `nbdtest list mutants` says what is wrong with them.
"""

KNOWN_BUGS = """\
# Bugs of published servers

What servers got wrong in versions that were published: the check of the suite that sees it, and the mutant of the fake
server on which that is shown in every run of the tests. [checks.md](checks.md) tells what each check does,
`nbdtest check builtin:MUTANT` lets it be seen, and [fuzzing.md](fuzzing.md) how soon random sessions find them.

{seen} of {total} are seen; of the others the last column says why not.

"""


def cell(text: str) -> str:
    """The text such that it stays in its cell, and is not taken for markup."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def codes(names: Iterable[str]) -> str:
    """The names in the type of code."""
    return " ".join(f"`{name}`" for name in names)


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A table with these columns, separated by blanks."""
    columns = head.split()
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def common_needs(checks: Iterable[Check]) -> list[str]:
    """What each of the checks for servers needs, and then what each of those for clients does."""
    found: list[str] = []
    for _, members in groupby(sorted(checks, key=lambda check: ROLES.index(check.role)), key=lambda check: check.role):
        labels = [[need.label for need in check.needs] for check in members]
        found += [label for label in labels[0] if all(label in others for others in labels)]
    return found


def requirements_page() -> str:
    """The page docs/requirements.md."""
    checks = {check.id: check for role in ROLES for check in each_check(role)}
    rows = coverage(checks.values())

    def cells(row: Coverage) -> list[str]:
        rule = row.requirement
        proving = [checks[id] for id in row.checks]
        restated = f" (restates {rule.restates})" if rule.restates else ""
        proof = codes(row.checks) or cell(row.reason)
        return [rule.id, rule.kind.upper(), rule.role, cell(rule.text) + restated, proof, codes(common_needs(proving))]

    proved = sum(bool(row.checks) for row in rows)
    parts = [REQUIREMENTS.format(proved=proved, total=len(rows), explained=len(rows) - proved)]
    for section, members in groupby(rows, key=lambda row: row.requirement.section):
        found = list(members)
        url = found[0].requirement.url
        where = f"\n[In the specification]({url})\n" if "://" in url else ""
        heading = f"\n## {section}\n{where}\n"
        parts.append(heading + table("id level binds rule checks needs", map(cells, found)))
    return "".join(parts)


def checks_page() -> str:
    """The page docs/checks.md."""
    killers: dict[str, list[str]] = {}
    for name, mutant in sorted(MUTANTS.items()):
        for id in mutant.checks:
            killers.setdefault(id, []).append(name)

    def cells(check: Check) -> list[str]:
        shown = [f"`{check.id}`", check.level.value.upper(), cell(check.title), " ".join(check.proves)]
        shown.append(codes(need.label for need in check.needs))
        return [*shown, codes(killers.get(check.id, []))] if check.role == "server" else shown

    parts = [CHECKS]
    for role in ROLES:
        checks = each_check(role)
        head = "check level rule proves needs" + (" mutants" if role == "server" else "")
        parts.append(f"\n## {len(checks)} for {role}s\n\n{table(head, map(cells, checks))}")
    return "".join(parts)


def known_bugs_page() -> str:
    """The page docs/known-bugs.md."""
    data = files("nbdtest.conformance").joinpath("data/known-bugs.csv").read_text(encoding="utf-8")
    bugs = list(csv.DictReader(data.splitlines()))

    def cells(bug: dict[str, str]) -> list[str]:
        proof = [codes(bug[name].split()) for name in ("check", "mutant")]
        return [
            bug["id"],
            *(cell(bug[name]) for name in ("server", "reference", "affected")),
            *proof,
            cell(bug["remark"]),
        ]

    seen = sum(bool(bug["mutant"]) for bug in bugs)
    head = KNOWN_BUGS.format(seen=seen, total=len(bugs))
    return head + table("id server reference versions check mutant remark", map(cells, bugs))


if __name__ == "__main__":
    here = Path(__file__).parent
    (here / "requirements.md").write_text(requirements_page(), encoding="utf-8")
    (here / "checks.md").write_text(checks_page(), encoding="utf-8")
    (here / "known-bugs.md").write_text(known_bugs_page(), encoding="utf-8")
