"""Known contents: what a check writes in order to recognize it, and what it reads back."""

from __future__ import annotations

from nbdtest.conformance.expect import expect_bytes, expect_success
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget

__all__ = ["expect_contents", "read_back", "write_pattern"]


def write_pattern(t: ServerTarget, session: Session, offset: int, length: int) -> bytes:
    """Write random bytes, none of them zero, and return them."""
    data = t.random.randbytes(length).replace(b"\0", b"\xa5")
    expect_success(session.write(offset, data))
    return data


def read_back(session: Session, offset: int, length: int) -> bytes:
    """Read, and return the bytes."""
    return expect_success(session.read(offset, length)).bytes_read()


def expect_contents(session: Session, offset: int, wanted: bytes, what: str, *, requirement: str = "") -> None:
    """Complain unless the export holds `wanted` at `offset`."""
    seen = read_back(session, offset, len(wanted))
    expect_bytes(seen, wanted, what, offset=offset, requirement=requirement)
