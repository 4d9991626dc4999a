"""The page that puts servers side by side."""

from dataclasses import replace

from nbdtest.report.matrix import matrix
from nbdtest.report.results import Level, Outcome, Result, TargetInfo

ONE = TargetInfo(name="one", spec="one", version="one 1.0")
TWO = TargetInfo(name="two", spec="two", version="two 2.0")


def result(check: str, outcome: Outcome, message: str = "") -> Result:
    return Result(check=check, target="one", outcome=outcome, level=Level.MUST, message=message)


def rows(page: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]


def test_every_server_is_a_column_and_every_check_a_row() -> None:
    first = [result("a.x", Outcome.PASSED), result("a.y", Outcome.FAILED)]
    second = [replace(row, target="two", outcome=Outcome.SKIPPED) for row in first]
    table = rows(matrix([(ONE, first), (TWO, second)]))
    assert table[0] == ["check", "one<br>one 1.0", "two<br>two 2.0"]
    assert ["`a.x`", "·", ""] in table
    assert ["`a.y`", "**fails**", ""] in table


def test_outcomes_are_counted() -> None:
    table = rows(matrix([(ONE, [result("a.x", Outcome.WARNED), result("a.y", Outcome.WARNED)])]))
    assert ["*warned*", "2"] in table
    assert ["*failed*", "0"] in table


def test_check_that_ended_a_server_is_counted_and_not_named() -> None:
    page = matrix(
        [(ONE, [result("a.x", Outcome.FAILED, "the server was killed by SIGABRT"), result("a.y", Outcome.PASSED)])]
    )
    assert "a.x" not in page
    assert "1 checks that ended one of these servers are left out" in page
