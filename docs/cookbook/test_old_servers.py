"""Servers of another time

Settings make the correct server an older or plainer one: does the client fall back?
"""

from typing import Any

import pytest

from nbdtest.client import NBD
from nbdtest.fakeserver import FakeServer, Style

OLD: list[dict[str, Any]] = [
    {"style": Style.OLDSTYLE},
    {"style": Style.NEWSTYLE},
    {"style": Style.NEWSTYLE, "no_zeroes": False},
    {"info_and_go": False},
    {"structured_replies": False, "extended_headers": False},
    {"extended_headers": False},
    {"meta_contexts": False},
    {"list_exports": False},
]


@pytest.mark.parametrize("settings", OLD, ids=lambda settings: ",".join(settings))
def test_a_client_falls_back(settings: dict[str, Any]) -> None:
    with FakeServer(size=4096, **settings) as server, NBD() as client:
        client.connect_uri(server.uri)
        client.pwrite(b"old", 0)
        assert client.pread(3, 0) == b"old"
        client.shutdown()
