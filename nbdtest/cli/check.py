"""`nbdtest check`: the suite without pytest, with the same targets, verdicts and reports."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import nbdtest
from nbdtest.cli.console import Console
from nbdtest.conformance.declare import Check, each_check, select
from nbdtest.conformance.suite import in_order
from nbdtest.errors import UsageError
from nbdtest.fixtures.deviations import deviation_for, format_deviations, read_deviations
from nbdtest.fixtures.parsing import FORMS, parse_servers
from nbdtest.fixtures.report_files import refuse_unwritable, write_report, write_text
from nbdtest.fixtures.subject import DEFAULT_TIMEOUT_S, Settings, Subject, locked_out, rules_of
from nbdtest.report.json_document import json_document
from nbdtest.report.rendering import WRITERS
from nbdtest.report.results import Level, Outcome, Report, Result, TargetInfo
from nbdtest.report.wording import needs_detail, printable, repeat_command, verdict, word

__all__ = ["add_arguments", "run"]

STYLES = {"failed": "red", "error": "magenta", "warned": "yellow", "passed unexpectedly": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = f"{parser.description}\n\nSPEC is one of\n{FORMS}"
    parser.add_argument("spec", metavar="SPEC", nargs="+", help="server to test")
    parser.add_argument(
        "--checks",
        action="append",
        default=[],
        metavar="GLOB,...",
        help="run these checks only: globs on a check's id, its family, a requirement's id or its section "
        "(#option-types); !GLOB leaves out",
    )
    parser.add_argument(
        "--level", choices=[level.value for level in Level], default=Level.MAY.value, help="leave out weaker rules"
    )
    parser.add_argument("--strict", action="store_true", help="a broken SHOULD fails instead of warning")
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="FILE",
        help="known deviations, which do not fail the run; 'packaged' means what nbdtest knows of released servers",
    )
    parser.add_argument("--update-expect", metavar="FILE", help="write what was found to this list of known deviations")
    parser.add_argument(
        "--report", action="append", default=[], metavar="PATH", help=f"write a report: {', '.join(WRITERS)}"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long to wait for each single answer (default: {DEFAULT_TIMEOUT_S:g})",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="draw data and offsets from this number; the same one repeats a run (default: 0)",
    )
    parser.add_argument(
        "--allow-writes", action="store_true", help="write also to servers that are running already: data are lost"
    )
    parser.add_argument(
        "--pcap", metavar="DIR", help="write what each check exchanged to DIR/TARGET/CHECK-ID.pcapng, for Wireshark"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")
    parser.add_argument("--verbose", "-v", action="store_true", help="name every check, and why one was skipped")


def run(arguments: argparse.Namespace) -> int:
    """Run the checks, print what came of them and write the reports.

    Raises:
        UsageError: an argument is wrong, or a server cannot be tested.
    """
    refuse_unwritable(arguments.report)
    settings = Settings(
        timeout_s=arguments.timeout,
        seed=arguments.seed,
        strict=arguments.strict,
        allow_writes=arguments.allow_writes,
        deviations=read_deviations(_lists(arguments)),
        captures=Path(arguments.pcap) if arguments.pcap else None,
    )
    specs = parse_servers(arguments.spec)
    patterns = [glob for option in arguments.checks for glob in option.split(",") if glob]
    checks = select(in_order(each_check()), ids=patterns, level=Level(arguments.level))
    if not checks:
        raise UsageError("no check is selected")
    console = Console(quiet=arguments.json)
    targets: list[TargetInfo] = []
    results: list[Result] = []
    with ExitStack() as stack:
        subjects = [Subject(spec, settings) for spec in specs]
        for subject in subjects:
            stack.callback(subject.close)
            subject.preflight()
        try:
            for subject in subjects:
                results += _run(subject, checks, console, seed=arguments.seed, verbose=arguments.verbose)
                targets.append(subject.info())
        except KeyboardInterrupt:
            console.say("interrupted: the results so far are not reported", style="bold")
            raise
    report = Report(
        tool=f"nbdtest {nbdtest.__version__}",
        targets=tuple(targets),
        results=Report.merged(results),
        rules=rules_of(checks),
        strict=arguments.strict,
        seed=arguments.seed,
    )
    for target in targets:
        console.say(f"{target.name}: {verdict(report, target.name)}", style="bold")
        if advice := locked_out(target):
            console.say(f"  {advice}")
    if arguments.json:
        sys.stdout.write(json_document(report))
    for path in arguments.report:
        write_report(path, report)
        console.say(f"report written to {path}")
    if arguments.update_expect:
        return _update(Path(arguments.update_expect), report, console)
    return int(report.failed)


def _run(subject: Subject, checks: Sequence[Check], console: Console, *, seed: int, verbose: bool) -> list[Result]:
    """Run all checks on one server, and print what is not as it should be."""
    version = subject.source.version
    console.say(f"{subject.spec.name}{f' ({version})' if version else ''}, seed {seed}", style="bold")
    if not subject.source.writable:
        why = "its profile says read_only" if subject.spec.read_only else "it was not started here; see --allow-writes"
        console.say(f"  checks that write are skipped: {why}")
    results = []
    with console.progress(subject.spec.name, len(checks)) as advance:
        for check in checks:
            result = subject.run(check)
            results.append(result)
            if needs_detail(result) and not result.expected:
                _print_details(console, result, repeat_command(subject.spec.text, result.check, seed))
            elif verbose:
                console.say(f"  {word(result)}: {result.check}{_reason(result)}")
            advance()
    return results


def _print_details(console: Console, result: Result, again: str) -> None:
    console.say(f"\n  {word(result)}: {result.check}: {result.title}", style=STYLES.get(word(result), ""))
    blocks = [result.message]
    if result.transcript:
        blocks.append(f"what was sent and received:\n{result.transcript}")
    blocks.append(f"again: {again}")
    for block in blocks:
        for line in printable(block).strip("\n").split("\n"):
            console.say(f"    {line}")
    console.say()


def _reason(result: Result) -> str:
    return f": {printable(result.message)}" if result.message else ""


def _lists(arguments: argparse.Namespace) -> list[str]:
    updated = arguments.update_expect
    return [*arguments.expect, *([updated] if updated and Path(updated).exists() else [])]


def _update(path: Path, report: Report, console: Console) -> int:
    """Make the list say what was found: without what has passed, with what is new."""
    targets = {target.name: target for target in report.targets}
    listed = read_deviations([str(path)]) if path.exists() else ()
    passed = [result for result in report.results if result.outcome is Outcome.PASSED]
    kept = [
        deviation
        for deviation in listed
        if not any(deviation.concerns(result, targets[result.target]) for result in passed)
    ]
    new = [
        deviation_for(result, targets[result.target])
        for result in report.results
        if result.outcome in (Outcome.FAILED, Outcome.WARNED) and not result.expected
    ]
    write_text(path, format_deviations([*kept, *new]))
    console.say(f"{path}: {len(kept)} kept, {len(new)} added, {len(listed) - len(kept)} taken off")
    return int(any(result.outcome is Outcome.ERROR for result in report.results))
