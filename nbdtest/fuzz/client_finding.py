"""A finding about a client as a folder like those about servers: the fake server's rules, what came, and a test.

finding.json     the client's command, the rules as values, what was wrong, the seed
test_finding.py  the same as Python, for people and for pytest
session.txt      the exchange, drawn; also as a transcript (.jsonl) and for Wireshark (.pcapng)
client.txt       what the client printed
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbdtest.errors import UsageError
from nbdtest.fakeserver.actions import action_from_json, action_to_json
from nbdtest.fakeserver.rules import trigger_from_json, trigger_to_json
from nbdtest.fuzz.finding import docstring, name_of, problem_from_json, problem_to_json, read, write
from nbdtest.fuzz.problem import Problem
from nbdtest.fuzz.strategies.exports import Misbehaviour
from nbdtest.wire import Transcript

__all__ = [
    "ClientFinding",
    "concerns_client",
    "format_rules",
    "load",
    "python_of",
    "rules_from_json",
    "rules_to_json",
    "save",
]

_KEPT_RECORDS = 80
_STRING = re.compile(r"""b?'(?:\\.|[^'\\])*'|b?"(?:\\.|[^"\\])*\"""")
_CALL, _OWNER = re.compile(r"\b([A-Za-z_]+)\("), re.compile(r"\b([A-Z][A-Za-z]*)\.")

_TEST = '''\
"""{rule}

Found by `nbdtest fuzz --client`{version}, with a fake server that misbehaves by RULES. Run it with pytest.
"""

from nbdtest.fixtures.client_replay import {names}, replay_client

COMMAND = {command!r}
RULES = {rules}


def test_finding():
    problem = replay_client(COMMAND, RULES)
    assert problem is None, str(problem)
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFinding:
    """What a client did wrong, and the fewest misbehaviours of the server known to provoke it."""

    problem: Problem
    rules: tuple[Misbehaviour, ...]
    command: str
    version: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        """The folder's name: equal findings have equal names."""
        return f"client-{name_of(self.problem)}"


def save(finding: ClientFinding, folder: Path, *, transcript: Transcript, output: str) -> Path:
    """Write the finding into a folder of its own in `folder`, and return that.

    Raises:
        UsageError: it cannot be written.
    """
    place = folder / finding.name
    row = {
        "problem": problem_to_json(finding.problem),
        "client": finding.command,
        "rules": rules_to_json(finding.rules),
        "version": finding.version,
        "seed": finding.seed,
    }
    story = transcript.format(last=_KEPT_RECORDS)
    write(place, row, test=python_of(finding), transcript=transcript, story=story, output={"client.txt": output})
    return place


def python_of(finding: ClientFinding) -> str:
    """Write the finding as a test for pytest."""
    rules = format_rules(finding.rules)
    return _TEST.format(
        rule=docstring(str(finding.problem)),
        version=f", {finding.version}" if finding.version else "",
        names=", ".join(sorted({"Misbehaviour", *_names_in(rules)})),
        command=finding.command,
        rules=rules,
    )


def concerns_client(row: Mapping[str, Any]) -> bool:
    """Whether what `finding.read` gave is about a client."""
    return "client" in row


def load(folder: Path) -> ClientFinding:
    """Read a finding about a client.

    Raises:
        UsageError: the folder holds none.
    """
    row = read(folder)
    try:
        return ClientFinding(
            problem=problem_from_json(row["problem"]),
            rules=rules_from_json(row["rules"]),
            command=row["client"],
            version=row["version"],
            seed=row["seed"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} holds no finding about a client ({error})") from error


def format_rules(rules: Sequence[Misbehaviour]) -> str:
    """Write the rules as Python, one a line."""
    lines = [
        f"    Misbehaviour(trigger={rule.trigger!r}, nth={rule.nth}, reply={tuple(rule.reply)!r}),\n" for rule in rules
    ]
    return f"(\n{''.join(lines)})"


def rules_to_json(rules: Sequence[Misbehaviour]) -> list[dict[str, Any]]:
    """Give the rules as what `json.dumps` takes."""
    return [
        {
            "on": trigger_to_json(rule.trigger),
            "nth": rule.nth,
            "reply": [action_to_json(action) for action in rule.reply],
        }
        for rule in rules
    ]


def rules_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[Misbehaviour, ...]:
    """Make the rules again that `rules_to_json` described."""
    return tuple(
        Misbehaviour(
            trigger=trigger_from_json(row["on"]),
            nth=row["nth"],
            reply=tuple(action_from_json(action) for action in row["reply"]),
        )
        for row in rows
    )


def _names_in(text: str) -> set[str]:
    """The functions and classes that the rules' Python mentions."""
    code = _STRING.sub("", text)
    return set(_CALL.findall(code)) | set(_OWNER.findall(code))
