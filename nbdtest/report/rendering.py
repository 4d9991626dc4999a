"""Which writer a report file gets, by the end of its name. Pure: the text is returned, whoever asked writes it."""

import importlib.util
from collections.abc import Callable
from pathlib import PurePath

from nbdtest.errors import UsageError
from nbdtest.report.html import html
from nbdtest.report.json_document import json_document
from nbdtest.report.junit import junit
from nbdtest.report.markdown import markdown
from nbdtest.report.results import Report

__all__ = ["WRITERS", "writer_for"]

WRITERS: dict[str, Callable[[Report], str]] = {
    ".json": json_document,
    ".md": markdown,
    ".xml": junit,
    ".html": html,
}
_NEEDS = {".html": "jinja2"}


def writer_for(path: str | PurePath) -> Callable[[Report], str]:
    """The writer for a file of this name.

    Raises:
        UsageError: no writer has that suffix, or it needs a package that is not installed.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix not in WRITERS:
        raise UsageError(f"a report named {str(path)!r} cannot be written: its name has to end in {', '.join(WRITERS)}")
    if suffix in _NEEDS and importlib.util.find_spec(_NEEDS[suffix]) is None:
        raise UsageError(f"no report can be written to {path}: the Python package {_NEEDS[suffix]} is not installed")
    return WRITERS[suffix]
