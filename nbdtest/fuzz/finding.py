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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbdtest
from nbdtest.errors import UsageError
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.fuzz.script import Script, Send, script_from_json, script_to_json
from nbdtest.report.pcapng import pcapng
from nbdtest.wire import Transcript

__all__ = ["Finding", "format_script", "load", "name_of", "save"]

_TEST = '''\
"""{rule}

Found by `nbdtest fuzz {spec}`{version}. Run it on a server with `pytest --nbd-server=SPEC`.
"""

from nbdtest.fuzz.replay import {names}, replay

SCRIPT = {script}


def test_finding(nbd_server):
    assert replay(SCRIPT, nbd_server.source) is None
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
    words = f"{problem.kind} {problem.about.lower().replace('cmd_', '')} {digest}"
    return "-".join(words.replace("_", " ").split())


def save(finding: Finding, folder: Path, *, transcript: Transcript, output: str) -> Path:
    """Write the finding into a folder of its own in `folder`, and return that.

    Raises:
        UsageError: it cannot be written.
    """
    place = folder / finding.name
    problem = finding.problem
    row = {
        "schema": 1,
        "problem": {
            "kind": problem.kind.value,
            "rule": problem.rule,
            "about": problem.about,
            "requirement": problem.requirement,
            "detail": problem.detail,
        },
        "script": script_to_json(finding.script),
        "spec": finding.spec,
        "version": finding.version,
        "seed": finding.seed,
        "reproducible": finding.reproducible,
        "nbdtest": nbdtest.__version__,
        "python": platform.python_version(),
    }
    test = _TEST.format(
        rule=str(problem).replace("\\", "/").replace('"""', "'''"),
        spec=finding.spec.replace('"""', "'''").replace("\\", "/"),
        version=f", {finding.version}" if finding.version else "",
        script=format_script(finding.script),
        names=", ".join(_names_in(finding.script)),
    )
    files = {
        "finding.json": json.dumps(row, indent=2) + "\n",
        f"test_{finding.name.replace('-', '_')}.py": test,
        "session.txt": transcript.format() + "\n",
        "session.jsonl": transcript.to_json_lines(),
        "server.txt": output,
    }
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        (place / "session.pcapng").write_bytes(pcapng(transcript))
    except OSError as error:
        raise UsageError(f"the finding cannot be written to {place}: {error.strerror}") from error
    return place


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
    """Read a finding.

    Raises:
        UsageError: the folder holds none.
    """
    path = folder / "finding.json" if folder.is_dir() else folder
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        problem = row["problem"]
        return Finding(
            problem=Problem(
                kind=Kind(problem["kind"]),
                rule=problem["rule"],
                about=problem["about"],
                requirement=problem["requirement"],
                detail=problem["detail"],
            ),
            script=script_from_json(row["script"]),
            spec=row["spec"],
            version=row["version"],
            seed=row["seed"],
            reproducible=row["reproducible"],
        )
    except OSError as error:
        raise UsageError(f"there is no finding at {folder}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no finding ({error})") from error
