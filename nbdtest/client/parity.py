"""The table of all calls, printed from the calls themselves: what libnbd has, what is permitted when.

python -m nbdtest.client.parity > docs/client-calls.md
"""

from __future__ import annotations

import inspect

from nbdtest.client.constants import __all__ as constants
from nbdtest.client.handle import NBD
from nbdtest.client.handle.call import Call, calls_of
from nbdtest.client.handle.exporting import LIBNBD_VERSION
from nbdtest.client.states import Group

__all__ = ["calls_page", "calls_table", "main"]

_COLUMNS = (
    (Group.CREATED, "created"),
    (Group.CONNECTING, "connecting"),
    (Group.NEGOTIATING, "negotiating"),
    (Group.CONNECTED, "connected"),
    (Group.CLOSED, "closed"),
    (Group.DEAD, "dead"),
)


def calls_table() -> str:
    """All calls as a Markdown table, libnbd's first, each part in alphabetical order."""
    calls = sorted(calls_of(NBD).values(), key=lambda call: (not call.since, call.name))
    heading = ["call", "libnbd", *(name for _, name in _COLUMNS)]
    rows = [heading, ["---"] * len(heading), *(_row(call) for call in calls)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def calls_page() -> str:
    """The page docs/client-calls.md."""
    calls = calls_of(NBD)
    of_libnbd = sum(1 for call in calls.values() if call.since)
    return f"""# Calls of the client

`nbdtest.client` has the {of_libnbd} calls and all constants of libnbd {LIBNBD_VERSION}, and {len(calls) - of_libnbd} \
calls of its own. "libnbd" is the release that introduced a call; a dot marks a state in which it is permitted.
{len(constants)} names of constants and their groups are in `nbdtest.client.constants`.

{calls_table()}"""


def main() -> None:
    """Print the page."""
    print(calls_page(), end="")


def _row(call: Call) -> list[str]:
    signature = inspect.signature(getattr(NBD, call.name))
    parameters = [str(p.replace(annotation=p.empty)) for p in signature.parameters.values() if p.name != "self"]
    states = ["·" if group in call.permitted else "" for group, _ in _COLUMNS]
    return [f"`{call.name}({', '.join(parameters)})`", call.since or "own", *states]


if __name__ == "__main__":
    main()
