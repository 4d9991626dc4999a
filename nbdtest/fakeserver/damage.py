"""`mangle`: an action whose bytes are changed on their way out, by field, by byte or in length."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nbdtest.fakeserver.actions import ACTIONS, Action
from nbdtest.wire import mangle as bytewise

__all__ = ["Mangle", "damaged", "mangle"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Mangle(Action):
    """The action `of` with damage.

    Fields are those of the frame, then those of what it carries; `inner_` skips the frame.
    """

    of: Action = field(kw_only=False)
    fields: tuple[tuple[str, int | bytes], ...] = ()
    flip: int | None = None
    overwrite: tuple[int, bytes] | None = None
    insert: tuple[int, bytes] | None = None
    append: bytes = b""
    keep: int | None = None

    def around(self, action: Action) -> Mangle:
        """Give the same damage to another action."""
        return replace(self, of=action)

    def __repr__(self) -> str:
        shown = [repr(self.of), *(f"{name}={value!r}" for name, value in self.fields)]
        for name in ("flip", "overwrite", "insert", "keep"):
            if (value := getattr(self, name)) is not None:
                shown.append(f"{name}={value!r}")
        if self.append:
            shown.append(f"append={self.append!r}")
        return f"mangle({', '.join(shown)})"


ACTIONS.add(Mangle)


def mangle(
    action: Action,
    *,
    flip: int | None = None,
    overwrite: tuple[int, bytes] | None = None,
    insert: tuple[int, bytes] | None = None,
    append: bytes = b"",
    keep: int | None = None,
    **fields: int | bytes,
) -> Mangle:
    """Send `action` damaged: slots of its layout by name (also magics and lengths), then one bit flipped, bytes
    overwritten or inserted at a position or appended, then only the first `keep` bytes (all but -keep if negative).
    """
    return Mangle(
        action, fields=tuple(fields.items()), flip=flip, overwrite=overwrite, insert=insert, append=append, keep=keep
    )


def damaged(encoded: bytes, damage: Mangle) -> bytes:
    """Apply the damage that is not by field."""
    if damage.flip is not None:
        encoded = bytewise.flip(encoded, damage.flip)
    if damage.overwrite is not None:
        encoded = bytewise.overwrite(encoded, *damage.overwrite)
    if damage.insert is not None:
        encoded = bytewise.insert(encoded, *damage.insert)
    encoded += damage.append
    return encoded if damage.keep is None else bytewise.cut(encoded, damage.keep)
