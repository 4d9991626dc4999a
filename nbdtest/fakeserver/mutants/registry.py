"""The table of mutants and the decorator that fills it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbdtest.errors import UsageError

if TYPE_CHECKING:
    from nbdtest.fakeserver.server import FakeServer

__all__ = ["MUTANTS", "Mutant", "mutant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One deliberate bug."""

    name: str
    description: str
    """One sentence: what is wrong."""
    breaks: tuple[str, ...]
    """The requirements that it breaks."""
    checks: tuple[str, ...]
    """The checks of the suite that have to complain about it."""
    apply: Callable[[FakeServer], None]
    """Makes a server have the bug; to be called before it serves."""
    sometimes: tuple[str, ...] = ()
    """The checks that complain or not, by who was faster."""
    spoils: str = ""
    """Why checks of other things may complain, too: what the bug takes away from them. "" if none may."""
    certificates: bool = False
    """Whether its bug is about certificates, so that a server with keys cannot have it."""


MUTANTS: dict[str, Mutant] = {}
"""Every mutant by its name."""


def mutant(
    name: str,
    *,
    breaks: Iterable[str],
    checks: Iterable[str] = (),
    sometimes: Iterable[str] = (),
    spoils: str = "",
    certificates: bool = False,
) -> Callable[[Callable[[FakeServer], None]], Callable[[FakeServer], None]]:
    """Register the decorated function as a mutant; its docstring is the description.

    Raises:
        UsageError: the name is taken, or there is no docstring.
    """

    def register(function: Callable[[FakeServer], None]) -> Callable[[FakeServer], None]:
        if name in MUTANTS:
            raise UsageError(f"there are two mutants named {name}")
        if not function.__doc__:
            raise UsageError(f"mutant {name} needs a docstring that says what is wrong")
        MUTANTS[name] = Mutant(
            name=name,
            description=" ".join(function.__doc__.split()),
            breaks=tuple(breaks),
            checks=tuple(checks),
            apply=function,
            sometimes=tuple(sometimes),
            spoils=spoils,
            certificates=certificates,
        )
        return function

    return register
