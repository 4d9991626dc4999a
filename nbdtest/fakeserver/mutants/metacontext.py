"""Mutants of LIST_META_CONTEXT, SET_META_CONTEXT and block status."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, Extent

__all__: list[str] = []


@mutant("meta.wildcard-selects", breaks=["META-021"])
def wildcard_selects(server: FakeServer) -> None:
    """SET_META_CONTEXT with "base:" alone selects base:allocation."""
    server.configure(quirks={"wildcards_select"})


@mutant("meta.failure-keeps-selection", breaks=["META-072"])
def failure_keeps_selection(server: FakeServer) -> None:
    """A SET_META_CONTEXT that fails leaves the earlier selection valid."""
    server.configure(quirks={"keeps_contexts_after_failure"})


@mutant("status.empty-extent", breaks=["RPL-083"])
def empty_extent(server: FakeServer) -> None:
    """Every block status begins with an extent of no length."""
    server.on(Cmd.BLOCK_STATUS).rewrite(
        lambda asked, plan: [
            replace(each, extents=(Extent(0, 0), *each.extents)) if isinstance(each, actions.Status) else each
            for each in plan
        ]
    )
