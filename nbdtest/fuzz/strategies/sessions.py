"""The strategy for whole sessions: Hypothesis makes and shrinks the bytes, the fuzzer's decoder makes the session."""

from __future__ import annotations

from hypothesis import strategies as st

from nbdtest.fuzz.decoding import COMMAND_BYTES, HEAD_BYTES, script_from
from nbdtest.fuzz.ground import Ground
from nbdtest.fuzz.script import Script

__all__ = ["sessions"]


def sessions(ground: Ground, *, most: int = 100) -> st.SearchStrategy[Script]:
    """Generate sessions of up to `most` commands for an export like `ground`; play them with a `Player`.

    A hundred commands come from one `binary()` example: drawn one by one they would cost more than they find.
    """
    return st.binary(max_size=HEAD_BYTES + most * COMMAND_BYTES).map(lambda data: script_from(data, ground))
