"""Where honest servers differ: none of these is complained about as if it broke a MUST."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nbdtest.conformance import Check, each_check, run_check
from nbdtest.fakeserver import FakeServer, actions
from nbdtest.fakeserver.export import BlockSizes
from nbdtest.fakeserver.rendering import Frames
from nbdtest.report.results import Outcome, Result
from nbdtest.wire import Cmd, Errno, Opt, SimpleReply
from tests.conformance.configurations import BAD_RANGE, CONFIGURATIONS, target_of


def late_error_ends_connection(server: FakeServer) -> None:
    """CMD-014: once a simple reply has said success, an error can only be told by hanging up."""

    def crosses(asked: object) -> bool:
        first, length = getattr(asked, "offset", 0), getattr(asked, "length", 0)
        simple = getattr(asked, "frames", None) is Frames.SIMPLE
        return simple and first < BAD_RANGE[0] + BAD_RANGE[1] and first + length > BAD_RANGE[0]

    server.on(Cmd.READ, where=crosses).rewrite(
        lambda asked, plan: [
            actions.raw(SimpleReply(cookie=asked.cookie).encode() + bytes(asked.length // 2)),
            actions.close(),
        ]
    )


def hangs_up_after_read_errors(server: FakeServer) -> None:
    """CMD-012: after an error reply to READ a server without structured replies may hang up."""
    server.on(Cmd.READ, where=lambda asked: asked.frames is Frames.SIMPLE).rewrite(
        lambda asked, plan: [*plan, actions.close()] if any(isinstance(each, actions.Error) for each in plan) else plan
    )


def without_export_name(server: FakeServer) -> None:
    """COMPAT-019 is a SHOULD: who does not serve EXPORT_NAME can say so only by hanging up."""
    server.on(Opt.EXPORT_NAME).reply(actions.close())


def serves_misaligned(server: FakeServer) -> None:
    """SIZE-039 is a SHOULD: requests that break the minimum block size may be served."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096))
    server.configure(quirks={"skips_alignment_check"})


def past_end_is_einval(server: FakeServer) -> None:
    """SIZE-040 against ERR-020: WRITE past the end fails with either value."""
    server.on(Cmd.WRITE).rewrite(
        lambda asked, plan: [
            actions.error(Errno.EINVAL) if isinstance(each, actions.Error) and asked.offset else each for each in plan
        ]
    )


ROWS: tuple[tuple[Callable[[FakeServer], None], str, tuple[str, ...]], ...] = (
    (late_error_ends_connection, "with-bad-range", ()),
    (hangs_up_after_read_errors, "full", ("CMD-012",)),
    (without_export_name, "full", ("COMPAT-019",)),
    (serves_misaligned, "full", ()),
    (past_end_is_einval, "full", ()),
)
"""What is different, the configuration, and the rules that a warning may name."""


def checks_for(configuration: str) -> list[Check]:
    only = CONFIGURATIONS[configuration].only
    return [item for item in each_check() if not item.hostile and (not only or item.family in only)]


@pytest.mark.parametrize(("change", "configuration", "warned"), ROWS, ids=[row[0].__name__ for row in ROWS])
def test_an_honest_server_breaks_no_must(
    change: Callable[[FakeServer], None], configuration: str, warned: tuple[str, ...]
) -> None:
    with target_of(CONFIGURATIONS[configuration], change=change) as target:
        results = [run_check(item, target) for item in checks_for(configuration)]

    def foreseen(result: Result) -> bool:
        named = any(f"rule:   {id}," in result.message for id in warned)
        return result.outcome in (Outcome.PASSED, Outcome.SKIPPED) or (named and result.outcome is Outcome.WARNED)

    assert {result.check: result.message for result in results if not foreseen(result)} == {}
