"""A finding as a folder: what was sent, what came, what was wrong, and a test that fails as long as it is.

finding.json     everything that `nbdtest replay` needs, and from where it comes
test_finding.py  the same as Python, for people and for pytest
session.txt      the exchange, drawn
session.jsonl    the exchange, as a transcript
server.txt       what the server printed
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbdtest
from nbdtest.errors import UsageError
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.fuzz.script import Script, Send, script_from_json, script_to_json
from nbdtest.report.pcapng import pcapng
from nbdtest.wire import Transcript

__all__ = [
    "Finding",
    "docstring",
    "format_script",
    "load",
    "name_of",
    "problem_from_json",
    "problem_to_json",
    "read",
    "save",
    "write",
]

_TEST = '''\
"""{rule}

Found by `nbdtest fuzz`{version}. `pytest` runs it on the same server, `pytest --nbd-server=SPEC` on another one.
"""

import pytest

from nbdtest.fuzz.replay import {names}, replay

SCRIPT = {script}


@pytest.mark.nbd_server({spec})
def test_finding(nbd_server):
    problem = replay(SCRIPT, nbd_server.source)
    assert problem is None, str(problem)
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem and the smallest script known to provoke it."""

    problem: Problem
    script: Script
    spec: str
    version: str = ""
    seed: int = 0
    reproducible: bool = True
    """Whether it happened again when the same session was played again."""

    @property
    def name(self) -> str:
        """The folder's name: equal findings have equal names."""
        return name_of(self.problem)


def name_of(problem: Problem) -> str:
    """The name of a finding of this problem."""
    digest = hashlib.sha256("\0".join(problem.identity).encode()).hexdigest()[:8]
    kind, about, _ = problem.identity
    words = f"{kind} {about.lower().replace('cmd_', '')} {digest}"
    return "-".join(words.replace("_", " ").split())


def save(finding: Finding, folder: Path, *, transcript: Transcript, output: str) -> Path:
    """Write the finding into a folder of its own in `folder`, and return that.

    Raises:
        UsageError: it cannot be written.
    """
    place = folder / finding.name
    problem = finding.problem
    row = {
        "problem": problem_to_json(problem),
        "script": script_to_json(finding.script),
        "spec": finding.spec,
        "version": finding.version,
        "seed": finding.seed,
        "reproducible": finding.reproducible,
    }
    test = _TEST.format(
        rule=docstring(str(problem)),
        spec=json.dumps(finding.spec, ensure_ascii=False),
        version=f", {finding.version}" if finding.version else "",
        script=format_script(finding.script),
        names=", ".join(_names_in(finding.script)),
    )
    write(place, row, test=test, transcript=transcript, story=transcript.format(), output={"server.txt": output})
    return place


def write(
    place: Path, row: Mapping[str, Any], *, test: str, transcript: Transcript, story: str, output: Mapping[str, str]
) -> None:
    """Write the folder of a finding, whatever it is about.

    Raises:
        UsageError: it cannot be written.
    """
    whole = {"schema": 1, **row, "nbdtest": nbdtest.__version__, "python": platform.python_version()}
    files = {
        "finding.json": json.dumps(whole, indent=2) + "\n",
        f"test_{place.name.replace('-', '_')}.py": test,
        "session.txt": story + "\n",
        "session.jsonl": transcript.to_json_lines(),
        **output,
    }
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        (place / "session.pcapng").write_bytes(pcapng(transcript))
    except OSError as error:
        raise UsageError(f"the finding cannot be written to {place}: {error.strerror}") from error


def docstring(text: str) -> str:
    """The text so that it can stand in a docstring."""
    return text.replace("\\", "/").replace('"""', "'''")


def problem_to_json(problem: Problem) -> dict[str, str]:
    """Give the problem as what `json.dumps` takes."""
    return {
        "kind": problem.kind.value,
        "rule": problem.rule,
        "about": problem.about,
        "requirement": problem.requirement,
        "detail": problem.detail,
        "site": problem.site,
    }


def problem_from_json(row: Mapping[str, str]) -> Problem:
    """Make the problem again that `problem_to_json` described."""
    return Problem(
        kind=Kind(row["kind"]),
        rule=row["rule"],
        about=row["about"],
        requirement=row["requirement"],
        detail=row["detail"],
        site=row.get("site", ""),
    )


def format_script(script: Script) -> str:
    """Write the script as Python, one command a line."""
    lines = ["Script("]
    lines.append(f"    openings={script.openings!r},")
    lines.append("    steps=(")
    for step in script.steps:
        if isinstance(step, Send):
            lines.append(f"        Send(on={step.on}, commands=(")
            lines += [f"            {command!r}," for command in step.commands]
            lines.append("        )),")
        else:
            lines.append(f"        {step!r},")
    return "\n".join([*lines, "    ),", ")"])


def _names_in(script: Script) -> list[str]:
    """The classes that the script's Python mentions."""
    return sorted(set(re.findall(r"\b([A-Z][A-Za-z]+)(?=[.(])", format_script(script))))


def load(folder: Path) -> Finding:
    """Read a finding about a server.

    Raises:
        UsageError: the folder holds none.
    """
    row = read(folder)
    try:
        return Finding(
            problem=problem_from_json(row["problem"]),
            script=script_from_json(row["script"]),
            spec=row["spec"],
            version=row["version"],
            seed=row["seed"],
            reproducible=row["reproducible"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} holds no finding ({error})") from error


def read(folder: Path) -> dict[str, Any]:
    """Read what finding.json says, of a server or of a client.

    Raises:
        UsageError: there is none.
    """
    path = folder / "finding.json" if folder.is_dir() else folder
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"there is no finding at {folder}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} holds no finding ({error})") from error
    if not isinstance(row, dict):
        raise UsageError(f"{path} holds no finding")
    return row
