"""Handles for the tests of the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nbdtest.client import NBD
from tests.client.prepared import Prepared


@pytest.fixture
def prepared() -> Iterator[Prepared]:
    """A handle that is not connected yet, and the server's end of its socket."""
    made = Prepared()
    yield made
    made.close()


@pytest.fixture
def handle() -> Iterator[NBD]:
    """A new handle."""
    with NBD() as made:
        yield made


@pytest.fixture
def nbdkit(handle: NBD) -> NBD:
    """A handle connected to nbdkit with 1 MiB of zeroes and base:allocation."""
    handle.add_meta_context("base:allocation")
    handle.connect_command(["nbdkit", "-s", "--exit-with-parent", "memory", "1M"])
    return handle
