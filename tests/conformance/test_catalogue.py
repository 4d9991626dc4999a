"""The catalogue of requirements, and what the suite covers of it."""

from __future__ import annotations

import pytest

from nbdtest.conformance import coverage, each_check, each_requirement, requirement
from nbdtest.errors import UsageError
from nbdtest.report.results import Level

EXTENSIONS = ("EXT-", "RSZ-")


def test_every_requirement_of_the_specification_is_there() -> None:
    rows = each_requirement()
    assert len(rows) == 828
    assert len({row.id for row in rows}) == len(rows)
    assert {row.role for row in rows} == {"server", "client", "both"}
    assert {row.visible for row in rows} == {"yes", "partial", "no"}


def test_370_requirements_of_proto_md_bind_servers_and_can_be_seen() -> None:
    binding = [row for row in each_requirement() if row.role != "client" and row.binds]
    assert len([row for row in binding if not row.id.startswith(EXTENSIONS)]) == 370


def test_what_a_requirement_restates_exists() -> None:
    for row in each_requirement():
        if row.restates:
            assert requirement(row.restates).id == row.restates


def test_an_unknown_requirement_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="no requirement 'OPT-999'"):
        requirement("OPT-999")


@pytest.mark.parametrize(("id", "level"), [("OPT-040", Level.MUST), ("CONV-005", Level.SHOULD), ("HS-002", Level.MAY)])
def test_the_level_is_the_words_of_the_specification(id: str, level: Level) -> None:
    assert requirement(id).level is level


def test_every_requirement_is_proved_or_explained() -> None:
    rows = coverage([*each_check("server"), *each_check("client")])
    assert [row.requirement.id for row in rows if not row.checks and not row.reason] == []


def test_an_explanation_is_a_sentence() -> None:
    rows = coverage([*each_check("server"), *each_check("client")])
    assert [row.requirement.id for row in rows if row.reason and not row.reason.endswith(".")] == []


def test_every_must_that_can_be_seen_without_more_is_proved() -> None:
    missing = [
        row.requirement.id
        for row in coverage(each_check())
        if row.requirement.role != "client"
        and row.requirement.binds
        and row.requirement.visible == "yes"
        and row.requirement.level is Level.MUST
        and not row.checks
    ]
    assert missing == []


def test_a_restated_rule_is_proved_by_the_checks_of_the_rule_it_restates() -> None:
    rows = {row.requirement.id: row for row in coverage(each_check())}
    assert rows["COMPAT-007"].requirement.restates == "OPT-040"
    assert "option.abort-is-acknowledged" in rows["COMPAT-007"].checks


def test_the_address_points_at_the_section() -> None:
    address = "https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md#option-types"
    assert requirement("OPT-040").url == address
