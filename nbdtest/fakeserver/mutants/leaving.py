"""Mutants of how a session ends."""

from __future__ import annotations

from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer

__all__: list[str] = []


@mutant("disc.answered", breaks=["CMD-076"])
def disc_answered(server: FakeServer) -> None:
    """DISC gets a reply."""
    server.configure(quirks={"answers_disc"})


@mutant("disc.stays", breaks=["TERM-031", "CMD-073"])
def disc_stays(server: FakeServer) -> None:
    """The connection stays open after DISC."""
    server.configure(quirks={"stays_after_disc"})
