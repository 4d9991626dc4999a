"""Each writer against its golden file; NBDTEST_UPDATE_GOLDEN=1 writes them anew, for the difference to be read."""

import json
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nbdtest.errors import UsageError
from nbdtest.report.html import html
from nbdtest.report.json_document import json_document, result_from_row, result_row, target_from_row, target_row
from nbdtest.report.junit import junit
from nbdtest.report.markdown import markdown
from nbdtest.report.rendering import WRITERS, writer_for
from nbdtest.report.results import Outcome, Report
from nbdtest.report.wording import counts, repeat_command, verdict
from tests.report.sample import SAMPLE

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_writer_gives_its_golden_file(suffix: str) -> None:
    written = WRITERS[suffix](SAMPLE)
    golden = GOLDEN / f"report{suffix}"
    if os.environ.get("NBDTEST_UPDATE_GOLDEN"):
        golden.write_text(written, encoding="utf-8")
    assert written == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_every_outcome_of_the_sample_is_in_every_report(suffix: str) -> None:
    assert {result.outcome for result in SAMPLE.results} == set(Outcome)
    written = WRITERS[suffix](SAMPLE)
    for result in SAMPLE.results:
        assert result.check in written
    for target in SAMPLE.targets:
        assert target.name in written


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_empty_report_is_written(suffix: str) -> None:
    assert WRITERS[suffix](Report(targets=(), results=()))


def test_json_document_has_the_promised_keys() -> None:
    document = json.loads(json_document(SAMPLE))
    assert document["schema"] == 1
    assert document["summary"] == {"passed": 2, "failed": 2, "warned": 2, "skipped": 1, "error": 1}
    assert {"check", "target", "outcome", "level", "requirements", "message", "seconds"} <= set(document["results"][0])
    assert [target["name"] for target in document["targets"]] == ["nbdkit", "stdio-odd", "idle"]
    assert document["failed"] is True


@pytest.mark.parametrize("result", SAMPLE.results, ids=lambda result: result.check)
def test_result_survives_its_row(result) -> None:  # type: ignore[no-untyped-def]  # the parameter of a table
    assert result_from_row(json.loads(json.dumps(result_row(result)))) == result


def test_target_survives_its_row() -> None:
    for target in SAMPLE.targets:
        assert target_from_row(json.loads(json.dumps(target_row(target)))) == target


def test_row_with_a_wrong_value_is_refused() -> None:
    row = result_row(SAMPLE.results[0])
    with pytest.raises(UsageError, match="no result of a check"):
        result_from_row(row | {"outcome": "splendid"})
    with pytest.raises(UsageError, match="no target"):
        target_from_row({"name": "nbdkit"})


def test_junit_counts_agree_with_its_cases() -> None:
    root = ET.fromstring(junit(SAMPLE))
    suites = {suite.get("name"): suite for suite in root.iter("testsuite")}
    for suite in suites.values():
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
        assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("errors", "")) == len(suite.findall("testcase/error"))
        assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
    assert [suites["nbdkit"].get(key) for key in ("failures", "errors", "skipped")] == ["1", "0", "1"]
    assert [suites["stdio-odd"].get(key) for key in ("failures", "errors", "skipped")] == ["1", "1", "2"]


def test_junit_of_a_strict_run_has_warnings_as_failures() -> None:
    root = ET.fromstring(junit(replace(SAMPLE, strict=True)))
    suite = root.find("testsuite[@name='nbdkit']")
    assert suite is not None
    assert suite.get("failures") == "2"


def test_html_holds_no_markup_of_the_server() -> None:
    class Tags(HTMLParser):
        seen: set[str] = set()  # noqa: RUF012 - one parser, one page

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen.add(tag)

    page = html(SAMPLE)
    parser = Tags()
    parser.feed(page)
    assert "script" not in parser.seen
    assert "\x1b" not in page


def test_html_links_lead_to_sections() -> None:
    class Anchors(HTMLParser):
        ids: set[str] = set()  # noqa: RUF012 - one parser, one page
        links: set[str] = set()  # noqa: RUF012 - one parser, one page

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            for name, value in attrs:
                if name == "id":
                    self.ids.add(value or "")
                if name == "href":
                    self.links.add((value or "").removeprefix("#"))

    parser = Anchors()
    parser.feed(html(SAMPLE))
    assert parser.links
    assert parser.links == parser.ids


def test_markdown_fence_is_longer_than_any_run_of_backticks_inside() -> None:
    text = markdown(SAMPLE)
    assert "`````\n````\nfence\n`````" in text


def test_verdict_names_the_worst_first() -> None:
    assert verdict(SAMPLE, "nbdkit") == "1 failed, 1 warned, 1 skipped, 1 passed"
    assert list(counts(SAMPLE, "stdio-odd"))[:2] == ["error", "passed unexpectedly"]
    assert verdict(SAMPLE, "idle") == "nothing was checked"


def test_repeat_command_is_safe_for_a_shell() -> None:
    assert repeat_command("stdio: a 'b'", "x.y") == """nbdtest check 'stdio: a '"'"'b'"'"'' --checks x.y"""


def test_writer_of_an_unknown_suffix_is_refused() -> None:
    assert writer_for("out/Report.XML") is junit
    with pytest.raises(UsageError, match=r"\.json, \.md, \.xml, \.html"):
        writer_for("report.txt")


@pytest.mark.parametrize(
    ("outcome", "expected", "unexpected_pass", "fails", "fails_strict"),
    [
        pytest.param(Outcome.PASSED, False, False, False, False, id="passed"),
        pytest.param(Outcome.PASSED, False, True, True, True, id="unexpected-pass"),
        pytest.param(Outcome.FAILED, False, False, True, True, id="failed"),
        pytest.param(Outcome.FAILED, True, False, False, False, id="expected-failure"),
        pytest.param(Outcome.WARNED, False, False, False, True, id="warned"),
        pytest.param(Outcome.WARNED, True, False, False, False, id="expected-warning"),
        pytest.param(Outcome.SKIPPED, False, False, False, False, id="skipped"),
        pytest.param(Outcome.ERROR, False, False, True, True, id="error"),
    ],
)
def test_what_fails_a_run(
    outcome: Outcome, expected: bool, unexpected_pass: bool, fails: bool, fails_strict: bool
) -> None:
    result = replace(SAMPLE.results[0], outcome=outcome, expected=expected, unexpected_pass=unexpected_pass)
    assert result.fails_run() is fails
    assert result.fails_run(strict=True) is fails_strict
