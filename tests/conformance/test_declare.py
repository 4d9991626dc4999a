"""How checks are declared, found and chosen."""

from __future__ import annotations

import pytest

from nbdtest.conformance import Capability, check, each_check, select
from nbdtest.errors import UsageError
from nbdtest.report.results import Level


def nothing(t: object) -> None:
    """The rule in one line.

    More of it.
    """


def test_a_check_takes_its_level_from_the_strongest_requirement() -> None:
    made = check("family.some-rule", proves=["CONV-005", "OPT-040"], legal=True)(nothing)
    assert made.level is Level.MUST
    assert check("family.some-rule", proves=["CONV-005"], legal=True)(nothing).level is Level.SHOULD


def test_a_stated_level_wins() -> None:
    assert check("family.some-rule", proves=["OPT-040"], legal=True, level=Level.SHOULD)(nothing).level is Level.SHOULD


def test_error_values_are_never_more_than_a_should() -> None:
    assert check("family.some-rule", proves=["ERR-001"], legal=True)(nothing).level is Level.SHOULD


def test_family_and_title_come_from_id_and_docstring() -> None:
    made = check("family.some-rule", proves=["OPT-040"], legal=True)(nothing)
    assert (made.family, made.title) == ("family", "The rule in one line.")


def test_an_illegal_probe_is_hostile_unless_said_otherwise() -> None:
    assert check("family.some-rule", proves=["OPT-040"], legal=False)(nothing).hostile
    assert not check("family.some-rule", proves=["OPT-040"], legal=False, hostile=False)(nothing).hostile


@pytest.mark.parametrize("id", ["NoFamily", "family", "family.Upper", "family.", ".rule", "family.two words"])
def test_an_id_has_a_family_and_words_in_lower_case(id: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        check(id, proves=["OPT-040"], legal=True)


def test_a_check_proves_something_and_says_what() -> None:
    with pytest.raises(UsageError, match="proves no requirement"):
        check("family.some-rule", proves=[], legal=True)
    with pytest.raises(UsageError, match="does not say"):
        check("family.some-rule", proves=["OPT-040"], legal=True)(lambda t: None)


def test_every_check_is_found_once_and_proves_known_requirements() -> None:
    checks = each_check()
    assert len(checks) > 300
    assert len({item.id for item in checks}) == len(checks)
    for item in checks:
        assert item.requirements, item.id
        assert item.title.endswith((".", ".)")), item.id
        assert all(isinstance(need, Capability) for need in item.needs), item.id


def test_checks_that_need_a_writable_export_say_that_they_write() -> None:
    assert not [
        item.id for item in each_check() if Capability.WRITABLE in item.needs and not item.writes and item.hostile
    ]


@pytest.mark.parametrize(
    ("criteria", "chosen"),
    [
        ({"ids": ["greeting.*"]}, lambda item: item.family == "greeting"),
        ({"ids": ["option"]}, lambda item: item.family == "option"),
        ({"ids": ["OPT-040"]}, lambda item: "OPT-040" in item.proves),
        ({"ids": ["chunk.*", "!chunk.few"]}, lambda item: item.family == "chunk" and item.id != "chunk.few"),
        ({"ids": ["!tls"]}, lambda item: item.family != "tls"),
        (
            {"ids": ["#size-constraints"]},
            lambda item: "proto.md#size-constraints" in {r.section for r in item.requirements},
        ),
        ({"ids": ["resize/*"]}, lambda item: any(row.section.startswith("resize/") for row in item.requirements)),
        ({"level": Level.MUST}, lambda item: item.level is Level.MUST),
        ({"families": ["df", "trim"]}, lambda item: item.family in ("df", "trim")),
        ({"requirements": ["CMD-005"]}, lambda item: "CMD-005" in item.proves),
        ({"read_only": True}, lambda item: not item.writes),
        (
            {"sections": ["size-constraints"]},
            lambda item: any("size-constraints" in row.section for row in item.requirements),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_checks_can_be_chosen(criteria, chosen) -> None:  # type: ignore[no-untyped-def]  # a table of lambdas
    everything = each_check()
    assert select(everything, **criteria) == tuple(item for item in everything if chosen(item))


def test_a_pattern_that_matches_nothing_is_a_mistake() -> None:
    with pytest.raises(UsageError, match=r"no check, family, requirement or section matches 'optoin\.\*'"):
        select(each_check(), ids=["optoin.*"])


def test_there_is_no_third_role() -> None:
    with pytest.raises(UsageError, match="one of server, client"):
        each_check("proxy")
