"""The documentation points at files that exist and shows Python that compiles."""

import re
import runpy
import textwrap
from pathlib import Path

import pytest

from nbdtest.client.parity import calls_page

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}: no such heading"


@every_page
def test_python_examples_compile(page: Path) -> None:
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)):
        compile(textwrap.dedent(block), f"{page.name}:example-{number}", "exec")


def test_page_of_the_clients_calls_is_current() -> None:
    assert (ROOT / "docs" / "client-calls.md").read_text() == calls_page()


def test_page_of_findings_is_current() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "findings.py"))["findings_page"]()
    assert (ROOT / "docs" / "findings.md").read_text() == made


@pytest.mark.parametrize("name", ["requirements", "checks", "known-bugs"])
def test_pages_of_the_catalogue_are_current(name: str) -> None:
    # When this fails: python docs/catalogue.py
    made = runpy.run_path(str(ROOT / "docs" / "catalogue.py"))[f"{name.replace('-', '_')}_page"]()
    assert (ROOT / "docs" / f"{name}.md").read_text() == made
