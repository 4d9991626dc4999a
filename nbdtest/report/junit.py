"""The report as JUnit XML, for the servers that collect test results. Pure.

JUnit has no word for a warning or an expected failure: a broken SHOULD is a passed test case with the message in its
system-out (a failure when the run is strict), an expected deviation is a skipped one.
"""

import xml.etree.ElementTree as ET

from nbdtest.report.results import Outcome, Report, Result, TargetInfo
from nbdtest.report.wording import printable, repeat_command, rule_lines, word

__all__ = ["junit"]


def junit(report: Report) -> str:
    """Write the report: a test suite for each target, a test case for each check."""
    root = ET.Element("testsuites", {"name": "nbdtest"})
    for target in report.targets:
        results = report.of(target.name)
        suite = ET.SubElement(root, "testsuite", {"name": _text(target.name), "tests": str(len(results))})
        cases = [_case(report, target, result) for result in results]
        for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            suite.set(attribute, str(sum(case.find(kind) is not None for case in cases)))
        suite.set("time", f"{sum(result.seconds for result in results):.3f}")
        properties = ET.SubElement(suite, "properties")
        for name, value in (
            ("spec", target.spec),
            ("version", target.version),
            ("capabilities", " ".join(target.capabilities)),
        ):
            ET.SubElement(properties, "property", {"name": name, "value": _text(value)})
        suite.extend(cases)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(report: Report, target: TargetInfo, result: Result) -> ET.Element:
    attributes = {
        "classname": f"nbd.{_text(target.name)}",
        "name": _text(result.check),
        "time": f"{result.seconds:.3f}",
    }
    case = ET.Element("testcase", attributes)
    if result.fails_run(strict=report.strict):
        kind = "error" if result.outcome is Outcome.ERROR else "failure"
    elif result.expected or result.outcome is Outcome.SKIPPED:
        kind = "skipped"
    else:
        kind = ""
    message = result.message if result.outcome is Outcome.SKIPPED else f"{word(result)}: {result.message}"
    details = _details(report, target, result)
    if kind == "skipped":
        ET.SubElement(case, kind, {"message": _text(message.partition("\n")[0])})
    elif kind:
        ET.SubElement(case, kind, {"type": word(result), "message": _text(message.partition("\n")[0])}).text = _text(
            details
        )
    if kind in ("", "skipped") and result.outcome not in (Outcome.PASSED, Outcome.SKIPPED):
        ET.SubElement(case, "system-out").text = _text(f"{word(result)}\n{details}")
    return case


def _details(report: Report, target: TargetInfo, result: Result) -> str:
    parts = [result.title, result.message, "\n".join(rule_lines(report, result)), result.transcript]
    again = repeat_command(target.spec, result.check, report.seed)
    return "\n\n".join(part for part in [*parts, f"again: {again}"] if part)


def _text(text: str) -> str:
    # XML 1.0 cannot hold most control characters, not even escaped; a lone surrogate cannot be encoded.
    return printable(text)
