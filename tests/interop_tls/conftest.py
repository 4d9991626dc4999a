"""A place for each release, made once for all tests of this package."""

from collections.abc import Iterator

import pytest

from tests.interop_tls.peers import Place, place_in
from tests.releases import RELEASES


@pytest.fixture(scope="module", params=RELEASES, ids=lambda release: release.name)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with place_in(request.param) as made:
        yield made
