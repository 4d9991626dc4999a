"""The report in Markdown, to be read in a terminal, a pull request or a wiki. Pure."""

import re

from nbdtest.report.results import Outcome, Report, Result, TargetInfo
from nbdtest.report.wording import needs_detail, printable, repeat_command, rule_lines, verdict, word

__all__ = ["markdown"]


def markdown(report: Report) -> str:
    """Write the report: a row for each target, then for each what went wrong in full and everything else as a table."""
    lines = ["# NBD conformance report", "", f"Written by {_text(report.tool)}.", ""]
    lines += ["| target | SPEC | version | verdict |", "|---|---|---|---|"]
    for target in report.targets:
        cells = [target.name, target.spec, target.version or "unknown", verdict(report, target.name)]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    for target in report.targets:
        lines += ["", f"## {_text(target.name)}", *_target(report, target)]
    return "\n".join(lines) + "\n"


def _target(report: Report, target: TargetInfo) -> list[str]:
    results = report.of(target.name)
    lines: list[str] = []
    if target.capabilities:
        lines += ["", f"Found able to: {_text(', '.join(target.capabilities))}."]
    for result in results:
        if needs_detail(result):
            lines += ["", f"### {_text(result.check)}: {word(result)}", *_detail(report, target, result)]
    if results:
        lines += [
            "",
            "### All checks",
            "",
            "| check | outcome | level | requirements | message |",
            "|---|---|---|---|---|",
        ]
    for result in results:
        message = result.message if result.outcome is Outcome.SKIPPED else result.message.partition("\n")[0]
        cells = [result.check, word(result), result.level.value, " ".join(result.requirements), message]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return lines


def _detail(report: Report, target: TargetInfo, result: Result) -> list[str]:
    lines = ["", _text(result.title)] if result.title else []
    if result.requirements:
        lines += ["", *(f"- {_text(line)}" for line in rule_lines(report, result))]
    if result.message:
        lines += ["", *_fenced(result.message)]
    if result.transcript:
        lines += ["", "What was sent and received:", "", *_fenced(result.transcript)]
    return [*lines, "", "Again:", "", *_fenced(repeat_command(target.spec, result.check, report.seed))]


def _fenced(text: str) -> list[str]:
    text = printable(text).strip("\n")
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *text.split("\n"), fence]


def _text(text: str) -> str:
    """Text as running Markdown: nothing in it is taken for markup, and it stays on one line."""
    return re.sub(r"([\\`*_<>\[\]#&])", r"\\\1", " ".join(printable(text).split()))


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")
