"""The report as a JSON document of schema 1, and single results as JSON-able rows and back. Pure."""

import json
from typing import Any

from nbdtest.errors import UsageError
from nbdtest.report.results import Level, Outcome, Report, Result, TargetInfo

__all__ = ["SCHEMA", "json_document", "result_from_row", "result_row", "target_from_row", "target_row"]

SCHEMA = 1


def json_document(report: Report) -> str:
    """Write the report; keys may be added within a schema, never renamed."""
    document = {
        "schema": SCHEMA,
        "tool": report.tool,
        "strict": report.strict,
        "seed": report.seed,
        "failed": report.failed,
        "summary": report.summary(),
        "targets": [target_row(target) for target in report.targets],
        "results": [result_row(result) for result in report.results],
        "requirements": {
            rule.id: {"level": rule.level, "section": rule.section, "text": rule.text} for rule in report.rules
        },
    }
    return json.dumps(document, indent=1) + "\n"


def result_row(result: Result) -> dict[str, Any]:
    """A result as JSON values."""
    return {
        "check": result.check,
        "target": result.target,
        "outcome": result.outcome.value,
        "level": result.level.value,
        "title": result.title,
        "requirements": list(result.requirements),
        "message": result.message,
        "seconds": round(result.seconds, 6),
        "expected": result.expected,
        "unexpected_pass": result.unexpected_pass,
        "transcript": result.transcript,
    }


def result_from_row(row: dict[str, Any]) -> Result:
    """Read what `result_row` wrote.

    Raises:
        UsageError: a value is missing or is none of those possible.
    """
    try:
        return Result(
            check=row["check"],
            target=row["target"],
            outcome=Outcome(row["outcome"]),
            level=Level(row["level"]),
            title=row["title"],
            requirements=tuple(row["requirements"]),
            message=row["message"],
            seconds=float(row["seconds"]),
            expected=bool(row["expected"]),
            unexpected_pass=bool(row["unexpected_pass"]),
            transcript=row["transcript"],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"no result of a check ({error!r}): {row}") from error


def target_row(target: TargetInfo) -> dict[str, Any]:
    """A target as JSON values."""
    return {
        "name": target.name,
        "spec": target.spec,
        "version": target.version,
        "capabilities": list(target.capabilities),
    }


def target_from_row(row: dict[str, Any]) -> TargetInfo:
    """Read what `target_row` wrote.

    Raises:
        UsageError: a value is missing.
    """
    try:
        return TargetInfo(
            name=row["name"], spec=row["spec"], version=row["version"], capabilities=tuple(row["capabilities"])
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"no target ({error!r}): {row}") from error
