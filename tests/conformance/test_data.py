"""The shadow copy on exports that leave it little room."""

from __future__ import annotations

import pytest

from nbdtest.conformance import each_check, run_check
from nbdtest.fakeserver import FakeServer
from nbdtest.fakeserver.export import BlockSizes
from nbdtest.report.results import Outcome
from tests.conformance.configurations import CONFIGURATIONS, target_of


@pytest.mark.parametrize(("blocks", "outcome"), [(15, Outcome.PASSED), (2, Outcome.SKIPPED)])
@pytest.mark.parametrize("name", ["data.shadow-copy", "data.shadow-copy-by-turns"])
def test_blocks_larger_than_the_area_of_a_check(name: str, blocks: int, outcome: Outcome) -> None:
    """SIZE-017 forbids such blocks. That is for its own check to say, and no fault of this one."""

    def of_large_blocks(server: FakeServer) -> None:
        sizes = BlockSizes(minimum=1 << 19, preferred=1 << 19, maximum=1 << 20)
        server.change_exports(size=blocks << 19, block_sizes=sizes)

    [wanted] = [each for each in each_check() if each.id == name]
    with target_of(CONFIGURATIONS["full"], change=of_large_blocks) as target:
        result = run_check(wanted, target)
    assert result.outcome is outcome, result.message
