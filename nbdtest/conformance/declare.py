"""How a check is declared, and how the declared ones are found and chosen.

One object carries everything about a check: the pytest item, the report's row, the documentation's row and the coverage
of the catalogue come from it. Nothing here runs a check.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any, TypeAlias

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.capability import Capability
from nbdtest.conformance.catalogue import Requirement, requirement
from nbdtest.errors import UsageError
from nbdtest.report.results import Level

__all__ = ["Check", "check", "checks_in", "each_check", "select"]

_ID = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9][a-z0-9-]*")
_PACKAGES = {"server": "nbdtest.conformance.server", "client": "nbdtest.conformance.client"}
Need: TypeAlias = Capability | Ability
"""What a check may need of a server, or of a client."""
_STRENGTH = (Level.MAY, Level.SHOULD, Level.MUST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One rule of the specification, and the probe that shows whether a target obeys it.

    `legal` says whether a client may send what the probe sends: an illegal probe tolerates being hung up on. Of a check
    for clients it says whether the server in it is a correct one. `writes`
    says whether it changes the export. `hostile` ones are followed by a look whether the target still serves.
    """

    id: str
    role: str
    proves: tuple[str, ...]
    legal: bool
    needs: tuple[Need, ...] = ()
    writes: bool = False
    hostile: bool = False
    stated_level: Level | None = None
    run: Callable[[Any], None] = field(repr=False)
    doc: str = field(repr=False, default="")

    @property
    def family(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @property
    def title(self) -> str:
        """The rule in one line."""
        return self.doc.partition("\n")[0]

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The rows of the catalogue that this check proves."""
        return tuple(requirement(id) for id in self.proves)

    @property
    def level(self) -> Level:
        """The strongest level of the requirements, unless the declaration states one."""
        if self.stated_level is not None:
            return self.stated_level
        return max((row.level for row in self.requirements), key=_STRENGTH.index)

    def __call__(self, target: Any) -> None:
        self.run(target)


def check(
    id: str,
    *,
    proves: Sequence[str],
    legal: bool,
    needs: Sequence[Need] = (),
    writes: bool = False,
    hostile: bool | None = None,
    level: Level | None = None,
    role: str = "server",
    doc: str = "",
) -> Callable[[Callable[[Any], None]], Check]:
    """Declare the decorated function as a check; its docstring, or `doc`, states the rule.

    An illegal probe counts as hostile unless `hostile` says otherwise.

    Raises:
        UsageError: the id is not `family.words-in-lower-case`, nothing is proved, or the rule is not stated.
    """
    if not _ID.fullmatch(id):
        raise UsageError(f"check id {id!r}: family.words-in-lower-case expected")
    if not proves:
        raise UsageError(f"check {id} proves no requirement")

    def declare(run: Callable[[Any], None]) -> Check:
        text = doc or inspect.getdoc(run) or ""
        if not text:
            raise UsageError(f"check {id} does not say which rule it proves")
        return Check(
            id=id,
            role=role,
            proves=tuple(proves),
            legal=legal,
            needs=tuple(needs),
            writes=writes,
            hostile=not legal if hostile is None else hostile,
            stated_level=level,
            run=run,
            doc=text,
        )

    return declare


def checks_in(module: ModuleType) -> Iterator[Check]:
    """Yield the checks that `module` declares, in the order of declaration, tables of them included."""
    for value in vars(module).values():
        if isinstance(value, Check):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Check))


def each_check(role: str = "server") -> tuple[Check, ...]:
    """Return every check for servers or for clients; modules in the order their package gives, then by declaration.

    Raises:
        UsageError: there is no such role, or two checks have one id.
    """
    if role not in _PACKAGES:
        raise UsageError(f"role {role!r}: one of {', '.join(_PACKAGES)} expected")
    package = importlib.import_module(_PACKAGES[role])
    names = getattr(package, "THEMES", None) or sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    found: dict[str, Check] = {}
    for name in names:
        for item in checks_in(importlib.import_module(f"{package.__name__}.{name}")):
            if found.setdefault(item.id, item) is not item:
                raise UsageError(f"two checks are called {item.id}")
    return tuple(found.values())


def select(
    checks: Iterable[Check],
    *,
    ids: Sequence[str] = (),
    level: Level = Level.MAY,
    sections: Sequence[str] = (),
    requirements: Sequence[str] = (),
    families: Sequence[str] = (),
    read_only: bool = False,
) -> tuple[Check, ...]:
    """Choose checks; an empty criterion chooses all.

    `ids` are globs and also match a family, a requirement's id or its section, in full or from the "#" on, so that one
    list serves `--nbd-checks`; a leading "!" takes out what it matches. `level` drops what is weaker. `sections` match
    anywhere in the section's name.

    Raises:
        UsageError: an entry of `ids` matches no check at all.
    """
    everything = tuple(checks)
    for pattern in ids:
        if not any(_matches(item, pattern.removeprefix("!")) for item in everything):
            raise UsageError(f"no check, family, requirement or section matches {pattern!r}")
    wanted = [pattern for pattern in ids if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in ids if pattern.startswith("!")]
    return tuple(
        item
        for item in everything
        if (not wanted or any(_matches(item, pattern) for pattern in wanted))
        and not any(_matches(item, pattern) for pattern in unwanted)
        and _STRENGTH.index(item.level) >= _STRENGTH.index(level)
        and (not sections or any(part in row.section for part in sections for row in item.requirements))
        and (not requirements or set(requirements) & set(item.proves))
        and (not families or item.family in families)
        and not (read_only and item.writes)
    )


def _matches(item: Check, pattern: str) -> bool:
    sections = {row.section for row in item.requirements}
    fragments = {section[section.index("#") :] for section in sections if "#" in section}
    return any(fnmatchcase(name, pattern) for name in (item.id, item.family, *item.proves, *sections, *fragments))
