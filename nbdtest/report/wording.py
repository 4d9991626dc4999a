"""How results are put into words, the same in every report and in the terminal. Pure; knows no file format."""

import shlex

from nbdtest.report.results import Outcome, Report, Result

__all__ = ["counts", "needs_detail", "printable", "repeat_command", "rule_lines", "verdict", "word"]


def word(result: Result) -> str:
    """The outcome in a word or two: "failed", "failed (expected)", "passed unexpectedly"."""
    if result.unexpected_pass:
        return "passed unexpectedly"
    return f"{result.outcome} (expected)" if result.expected else str(result.outcome)


def counts(report: Report, target: str) -> dict[str, int]:
    """The target's results by `word`, worst first, without what did not occur."""
    order = [
        "error",
        "failed",
        "passed unexpectedly",
        "warned",
        "failed (expected)",
        "warned (expected)",
        "error (expected)",
    ]
    found: dict[str, int] = dict.fromkeys([*order, "skipped (expected)", "passed (expected)", "skipped", "passed"], 0)
    for result in report.of(target):
        found[word(result)] += 1
    return {key: number for key, number in found.items() if number}


def verdict(report: Report, target: str) -> str:
    """One sentence on one target, such as "2 failed, 1 warned, 80 passed"; "nothing was checked" without results."""
    return ", ".join(f"{number} {key}" for key, number in counts(report, target).items()) or "nothing was checked"


def repeat_command(spec: str, check: str, seed: int = 0) -> str:
    """The command that runs one check on one server again, with the same random data."""
    return shlex.join(["nbdtest", "check", spec, "--checks", check, *(["--seed", str(seed)] if seed else [])])


def rule_lines(report: Report, result: Result) -> list[str]:
    """Each requirement that the check proves, as "ID LEVEL SECTION: its words"."""
    lines = []
    for id in result.requirements:
        rule = report.rule(id)
        lines.append(f"{id} {rule.level} {rule.section}: {rule.text}" if rule else id)
    return lines


def printable(text: str) -> str:
    """`text` without the control characters that a server may have put into it: each becomes its \\x escape."""
    return "".join(
        character
        if character in "\n\t" or (character.isprintable() and character not in "\ufffe\uffff")
        else _escape(character)
        for character in text
    )


def needs_detail(result: Result) -> bool:
    """Whether a reader wants more than a line on this result."""
    return result.unexpected_pass or result.outcome in (Outcome.FAILED, Outcome.WARNED, Outcome.ERROR)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
