"""The report as one self-contained HTML page: a matrix of checks and targets, then what went wrong in full. Pure."""

import importlib.resources

from nbdtest.report.results import Report, Result
from nbdtest.report.wording import needs_detail, printable, repeat_command, rule_lines, verdict, word

__all__ = ["html"]


def html(report: Report) -> str:
    """Write the report; everything in it that came from a server or a command line is escaped."""
    import jinja2  # needed by this writer alone

    template = importlib.resources.files("nbdtest.report").joinpath("templates", "report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters.update(printable=printable, word=word)
    return environment.from_string(template).render(
        report=report,
        checks=sorted({result.check for result in report.results}),
        cells={(result.check, result.target): result for result in report.results},
        detailed=[result for result in report.results if needs_detail(result)],
        specs={target.name: target.spec for target in report.targets},
        anchor=_anchor,
        needs_detail=needs_detail,
        repeat_command=repeat_command,
        rule_lines=rule_lines,
        verdict=verdict,
    )


def _anchor(result: Result) -> str:
    return f"{result.target}/{result.check}"
