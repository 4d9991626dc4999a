"""Misbehaviour from a file

Rules and actions are values. They print as the code that makes them, and go to JSON and back, so that a finding can be
kept beside the test that it became. `nbdtest serve --rules FILE` misbehaves by such a file without any Python, also by
the `finding.json` of `nbdtest fuzz --client`.
"""

import json
from pathlib import Path

import pytest

from nbdtest.client import NBD, Error
from nbdtest.fakeserver import FakeServer, RuleBook, cut, data, error
from nbdtest.wire import Cmd, Errno


def test_a_saved_finding_is_found_again(tmp_path: Path) -> None:
    found = RuleBook()
    found.on(Cmd.READ, nth=1).reply(data(length=100), error(Errno.EIO, at=100)).then(cut(after=7))
    assert repr(found.rules[0]) == (
        "on(Cmd.READ, nth=1).reply(data(length=100), error(Errno.EIO, at=100)).then(cut(after=7))"
    )
    saved = tmp_path / "finding.json"
    saved.write_text(json.dumps(found.to_json()))

    with FakeServer(size=4096) as server, NBD() as client:
        server.rules.add_json(json.loads(saved.read_text()))
        client.connect_uri(server.uri)
        with pytest.raises(Error):
            client.pread(512, 0)
