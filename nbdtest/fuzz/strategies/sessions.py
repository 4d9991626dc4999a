"""The strategy for whole sessions: Hypothesis makes and shrinks the bytes, the fuzzer's decoder makes the session."""

from __future__ import annotations

from hypothesis import strategies as st

from nbdtest.fuzz.decoding import COMMAND_BYTES, HEAD_BYTES, script_from
from nbdtest.fuzz.ground import Ground
from nbdtest.fuzz.script import Script

__all__ = ["sessions"]


def sessions(ground: Ground, *, fewest: int = 0, most: int = 100) -> st.SearchStrategy[Script]:
    """Generate sessions of `fewest` to `most` commands for an export like `ground`; play them with a `Player`.

    Hypothesis prefers short ones: a high `fewest` plays more commands a second, and `shrink` makes small what fails. A
    hundred commands come from one `binary()` example: drawn one by one they would cost more than they find.
    """
    shortest = HEAD_BYTES + fewest * COMMAND_BYTES if fewest else 0
    return st.binary(min_size=shortest, max_size=HEAD_BYTES + most * COMMAND_BYTES).map(
        lambda data: script_from(data, ground)
    )
