"""Whether a server rests while nobody is connected."""

from __future__ import annotations

from nbdtest.conformance.target import ServerTarget

__all__ = ["WATCHED_S", "restless_s"]

WATCHED_S = 0.4
_IDLE_CPU_S = 0.01
"""What an idle server may use in that time, a tick of the kernel's."""
_TIMES_WATCHED = 8
"""A machine that is crowded itself lets the server's farewell to its clients take that long."""


def restless_s(target: ServerTarget) -> float:
    """Return how many seconds of processor the server goes on using in `WATCHED_S`, after it had time to come to rest.

    One that waits for a processor, as on a crowded machine, does not rest. 0.0 when it rests, and also when its
    processes cannot be watched. Nobody may be connected meanwhile.
    """
    used = 0.0
    for _ in range(_TIMES_WATCHED):
        before = target.source.vitals()
        target.wait(WATCHED_S)
        after = target.source.vitals()
        if before is None or after is None:
            return 0.0
        used = after.cpu_s - before.cpu_s
        if used <= _IDLE_CPU_S and not (before.runnable and after.runnable):
            return 0.0
    return max(used, _IDLE_CPU_S)
