"""Printing for people: colours and progress by rich where there is a terminal, plain lines everywhere else.

rich is not needed for plain lines, so that `python3 -m nbdtest check builtin` runs with nothing but Python.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.console

__all__ = ["Console"]


class Console:
    """Where a command prints; `quiet` prints nothing at all."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._rich: rich.console.Console | None = None
        if not quiet and sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
            from rich import console

            self._rich = console.Console(highlight=False, markup=False, soft_wrap=True)

    def say(self, line: str = "", *, style: str = "") -> None:
        """Print a line. `style` is one of rich's, such as "bold" or "red"."""
        if self._rich is not None:
            self._rich.print(line, style=style or None)
        elif not self._quiet:
            encoding = sys.stdout.encoding or "utf-8"
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Show how many of `total` steps are done; the function that is given counts one."""
        if self._rich is None:
            yield lambda: None
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        with Progress(*columns, TimeElapsedColumn(), console=self._rich, transient=True) as progress:
            task = progress.add_task(name, total=total)
            yield lambda: progress.advance(task)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows: aligned and wrapped on a terminal, else one line each with tabs between the cells."""
        if self._rich is None:
            for row in rows:
                self.say("\t".join(row))
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")  # ids are told whole
        for row in rows:
            table.add_row(*row)
        self._rich.print(table)
