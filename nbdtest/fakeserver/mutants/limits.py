"""Mutants of size constraints, bounds and read-only exports."""

from __future__ import annotations

from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer

__all__: list[str] = []


@mutant("limits.past-end-succeeds", breaks=["SIZE-040", "ERR-020", "ERR-022"])
def past_end_succeeds(server: FakeServer) -> None:
    """Requests past the end of the export succeed."""
    server.configure(quirks={"skips_bounds_check"})


@mutant("limits.read-only-writes", breaks=["FLAG-012"])
def read_only_writes(server: FakeServer) -> None:
    """An export with READ_ONLY set can be written to."""
    server.change_exports(read_only=True)
    server.configure(quirks={"skips_read_only_check"})


@mutant("limits.refused-write-left", breaks=["CMD-064"])
def refused_write_left(server: FakeServer) -> None:
    """The data of a WRITE that is refused are not read, and taken for the next request."""
    server.configure(quirks={"leaves_refused_payload"})
