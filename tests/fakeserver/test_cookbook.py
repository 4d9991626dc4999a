"""The cookbook: every recipe is a test file that passes, and the page shows the files as they are.

`python -m tests.fakeserver.test_cookbook` writes the page anew.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from nbdtest import fakeserver
from nbdtest.fakeserver.actions import ACTIONS, Action
from nbdtest.fakeserver.fitting import CHUNKS, GREETINGS, OPTION_REPLIES

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = DOCS / "cookbook.md"
RECIPES = [
    "error_in_a_read",
    "out_of_order",
    "size_changes",
    "silence",
    "cut_everywhere",
    "broken_chunks",
    "script",
    "own_disk",
    "backup",
    "old_servers",
    "lies_about_tls",
    "bad_certificates",
    "strict_about_clients",
    "saved",
    "real_client",
]
INTRODUCTION = """# Cookbook of the fake server

Recipes for testing NBD clients with `nbdtest.fakeserver`: a server that answers correctly until a test tells it not to.
Each is a test file in [cookbook](cookbook) that runs as it stands; `fake_nbd_server` is a fixture that nbdtest's pytest
plugin brings, and `with FakeServer(...) as server:` is the same outside of pytest. At its end a test fails for rules
that never acted, exceptions in scripts, and violations of the protocol by the client.

"""


REFERENCE = "All words"
RULES = """`server.on(trigger, nth=, times=, where=, connection=, per_connection=)` begins a rule for a command
(`Cmd.READ`), an option (`Opt.GO`) or a moment (`Moment.CONNECT`, `GREETING`, `CLIENT_FLAGS`,
`TRANSMISSION`). `nth` counts from 1, `times` limits how often it acts, `where` is a function of what was
received or values of its attributes: `type`, `cookie`, `offset`, `length`, `flags`, `payload`,
`contexts`, `export` of a request, `name`, `infos`, `queries` of what an option says. `.reply(*actions)`
answers instead of the correct server, `.pass_through()` lets it answer, `.rewrite(function)` changes its
actions, `.then(*actions)` is what follows. `server.on_send(SimpleReply).mangle(cookie=1)`, `.drop()` and
`.rewrite(function)` change messages of a class on their way out, whoever made them.
"""
ANYWHERE = "anywhere"
PLACES: dict[str, tuple[type[Action], ...]] = {
    "answers to commands": CHUNKS,
    "answers to options": OPTION_REPLIES,
    "greetings": GREETINGS,
}


def rendered() -> str:
    """The page, made of the recipes."""
    contents, sections = [], []
    for name in RECIPES:
        source = (DOCS / "cookbook" / f"test_{name}.py").read_text()
        title, text = (ast.get_docstring(ast.parse(source)) or "").split("\n\n", 1)
        contents.append(f"- [{title}](#{anchor(title)})")
        sections.append(f"## {title}\n\n{text}\n\n```python\n{after_docstring(source).strip()}\n```\n")
    contents.append(f"- [{REFERENCE}](#{anchor(REFERENCE)})")
    return INTRODUCTION + "\n".join(contents) + "\n\n" + "\n".join(sections) + reference()


def reference() -> str:
    """Every action with the first line of what it says of itself."""
    rows: dict[str, list[str]] = {title: [] for title in (*PLACES, ANYWHERE)}
    for name, kind in ACTIONS.items():
        title = next((title for title, kinds in PLACES.items() if kind in kinds), ANYWHERE)
        maker = getattr(fakeserver, name)
        fields = [_shown(each) for each in inspect.signature(maker).parameters.values()]
        about = " ".join((inspect.getdoc(maker) or "").partition("\n\n")[0].split())
        rows[title].append(f"| `{name}({', '.join(fields)})` | {about} |")
    tables = "\n\n".join(f"| {title} | |\n|---|---|\n" + "\n".join(lines) for title, lines in rows.items())
    return f"\n## {REFERENCE}\n\n{RULES}\n{tables}\n"


def _shown(parameter: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    return f"{stars}{parameter.name}{'=' if parameter.kind is inspect.Parameter.KEYWORD_ONLY else ''}"


def after_docstring(source: str) -> str:
    node = ast.parse(source).body[0]
    return "\n".join(source.splitlines()[node.end_lineno :])


def anchor(title: str) -> str:
    kept = "".join(character for character in title.lower() if character.isalnum() or character in " -_")
    return kept.replace(" ", "-")


def test_the_page_shows_the_recipes() -> None:
    assert PAGE.read_text() == rendered(), "write it anew: python -m tests.fakeserver.test_cookbook"


def test_every_recipe_is_on_the_page() -> None:
    assert {path.stem for path in (DOCS / "cookbook").glob("*.py")} == {f"test_{name}" for name in RECIPES}


@pytest.mark.parametrize("chosen", ["not interop", pytest.param("interop", marks=pytest.mark.interop)])
def test_the_recipes_work(chosen: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen, str(DOCS / "cookbook")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=DOCS.parent, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    PAGE.write_text(rendered())
