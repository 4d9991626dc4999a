"""Which writer a report file gets, by the end of its name. Pure: the text is returned, whoever asked writes it."""

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


def writer_for(path: str | PurePath) -> Callable[[Report], str]:
    """The writer for a file of this name.

    Raises:
        UsageError: no writer has that suffix.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix not in WRITERS:
        raise UsageError(f"a report named {str(path)!r} cannot be written: its name has to end in {', '.join(WRITERS)}")
    return WRITERS[suffix]
