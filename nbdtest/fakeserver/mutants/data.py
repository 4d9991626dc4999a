"""Mutants of what is stored and read back."""

from __future__ import annotations

from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer

__all__: list[str] = []


@mutant("data.writes-forgotten", breaks=["CMD-060"])
def writes_forgotten(server: FakeServer) -> None:
    """WRITE is acknowledged, and nothing is stored."""
    server.configure(quirks={"forgets_writes"})


@mutant("data.zeroes-forgotten", breaks=["CMD-103", "CMD-108"])
def zeroes_forgotten(server: FakeServer) -> None:
    """WRITE_ZEROES is acknowledged, and nothing is zeroed."""
    server.configure(quirks={"forgets_zeroes"})


@mutant("data.zeroes-too-much", breaks=["CMD-083"])
def zeroes_too_much(server: FakeServer) -> None:
    """WRITE_ZEROES and TRIM reach to the end of the 4096-byte block."""
    server.configure(quirks={"zeroes_too_much"})


@mutant("data.private-caches", breaks=["FLAG-022", "FLAG-023"])
def private_caches(server: FakeServer) -> None:
    """CAN_MULTI_CONN is offered, but each connection has a cache of its own."""
    server.configure(quirks={"hides_writes_from_others"})
