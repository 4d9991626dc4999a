"""Option data that contradict themselves are about the target's own export, so that only they can be refused."""

from __future__ import annotations

from nbdtest.conformance.server.malformed import info_requests, meta_requests
from tests.conformance.configurations import CONFIGURATIONS, target_of

NAME = b"\0\0\0\4data"


def test_what_follows_a_name_follows_the_name_of_the_export() -> None:
    with target_of(CONFIGURATIONS["named"]) as target:
        for requests in (info_requests(target), meta_requests(target)):
            whole = [data for what, data in requests.items() if "infos" in what or "queries" in what or "query" in what]
            assert len(whole) >= 3
            assert [data for data in whole if not data.startswith(NAME)] == []
