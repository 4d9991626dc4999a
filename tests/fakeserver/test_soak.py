"""A server that a million clients have visited is what it was before.

Seen: three minutes on two processors that others used as well, 5,400 connections a second from one client, and neither
a descriptor, nor a thread, nor 8 MiB more than after the first tenth.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from nbdtest.conformance import ServerSource, Vitals
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.net.clock import pause
from nbdtest.net.stream import SocketStream

pytestmark = pytest.mark.nightly

CLIENTS = 1_000_000
GREETING = 18
MEMORY_THAT_MAY_STAY = 8 << 20
"""Far less than the smallest thing kept for each of a million clients."""


@pytest.fixture
def server() -> Iterator[ServerSource]:
    """The fake server as a program."""
    with open_source(parse_server("builtin")) as source:
        yield source


def visit(path: str, clients: int) -> None:
    """Open and drop so many connections; the last one is greeted, and so all before it have been accepted."""
    for left in reversed(range(clients)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            if not left:
                client.recv(GREETING, socket.MSG_WAITALL)


def at_rest(server: ServerSource) -> Vitals:
    """What the server uses once it has noticed that its clients have gone."""
    last = None
    while True:
        found = server.vitals()
        assert found is not None
        if last is not None and found.descriptors == last.descriptors:
            return found
        last = found
        pause(0.2)


def test_a_million_connections_leave_nothing_behind(server: ServerSource) -> None:
    stream = server.connect(5.0)
    assert isinstance(stream, SocketStream)
    path = stream.raw_socket.getpeername()
    stream.close()
    visit(path, CLIENTS // 10)
    before = at_rest(server)
    visit(path, CLIENTS - CLIENTS // 10)
    after = at_rest(server)
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
    assert after.resident_bytes - before.resident_bytes < MEMORY_THAT_MAY_STAY
