"""The registry of mutants: each is described, wrong in some way, and still a server. What complains about which is
tested with the suite's checks."""

from __future__ import annotations

import contextlib
import csv
import importlib.resources
from dataclasses import replace

import pytest

from nbdtest.errors import UsageError
from nbdtest.fakeserver import FakeServer
from nbdtest.fakeserver.mutants import MUTANTS, Mutant, mutant
from tests.fakeserver.wire_client import WireClient

every_mutant = pytest.mark.parametrize("each", MUTANTS.values(), ids=lambda each: each.name)


@every_mutant
def test_it_says_in_one_sentence_what_is_wrong(each: Mutant) -> None:
    assert each.description.endswith(".")
    assert len(each.description) < 200
    assert each.breaks


@every_mutant
def test_it_is_not_correct_but_serves(each: Mutant) -> None:
    correct = FakeServer(size=1 << 20)
    with contextlib.ExitStack() as stack:
        server = FakeServer(size=1 << 20)
        each.apply(server)
        settings_same = replace(server.settings, exports=()) == replace(correct.settings, exports=())
        exports_same = repr(server.settings.exports) == repr(correct.settings.exports)
        assert server.rules.rules or server.rules.send_rules or not (settings_same and exports_same)
        stack.callback(server.stop)
        client = WireClient(server.connect())
        client.say(b"\0\0\0\3")
        client.socket.close()
    assert server.journal.problems == []


def test_requirements_are_in_the_catalogue() -> None:
    catalogue = importlib.resources.files("nbdtest.conformance") / "data" / "requirements.csv"
    if not catalogue.is_file():
        pytest.fail("the catalogue of requirements has moved")
    known = {row["id"] for row in csv.DictReader(catalogue.read_text().splitlines())}
    broken = {requirement for each in MUTANTS.values() for requirement in each.breaks}
    assert broken <= known


def test_names_are_unique_and_docstrings_needed() -> None:
    name = next(iter(MUTANTS))
    with pytest.raises(UsageError, match="two mutants"):

        @mutant(name, breaks=["RPL-005"])
        def again(server: FakeServer) -> None:
            """Is there already."""

    with pytest.raises(UsageError, match="docstring"):

        @mutant("nobody.knows", breaks=["RPL-005"])
        def silent(server: FakeServer) -> None:
            pass
