"""Mutants of INFO and GO."""

from __future__ import annotations

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Opt

__all__: list[str] = []


@mutant("info.export-withheld", breaks=["OPT-083", "OPT-089", "REP-008"])
def export_withheld(server: FakeServer) -> None:
    """INFO and GO are acknowledged without INFO_EXPORT."""
    server.on(Opt.INFO).reply(actions.ack())
    server.on(Opt.GO).reply(actions.ack())


@mutant("info.export-little-endian", breaks=["CONV-001"])
def export_little_endian(server: FakeServer) -> None:
    """The size in INFO_EXPORT is little-endian."""
    little = int.from_bytes(server.disk.size.to_bytes(8, "little"), "big")
    server.on(Opt.GO).rewrite(lambda option, plan: (mangle(plan[0], size=little), *plan[1:]))


@mutant("info.differs-from-go", breaks=["OPT-070"])
def differs_from_go(server: FakeServer) -> None:
    """GO says another size than INFO."""
    server.on(Opt.INFO).reply(actions.info_export(size=512), actions.ack())
