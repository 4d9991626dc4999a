"""The cookbook: every recipe is a test file that passes, and the page shows the files as they are.

`python -m tests.fakeserver.test_cookbook` writes the page anew.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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


def rendered() -> str:
    """The page, made of the recipes."""
    contents, sections = [], []
    for name in RECIPES:
        source = (DOCS / "cookbook" / f"test_{name}.py").read_text()
        title, text = (ast.get_docstring(ast.parse(source)) or "").split("\n\n", 1)
        contents.append(f"- [{title}](#{anchor(title)})")
        sections.append(f"## {title}\n\n{text}\n\n```python\n{after_docstring(source).strip()}\n```\n")
    return INTRODUCTION + "\n".join(contents) + "\n\n" + "\n".join(sections)


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
