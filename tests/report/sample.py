"""One report that holds every outcome, and text that would break a careless writer."""

from nbdtest.report.results import Level, Outcome, Report, Result, Rule, TargetInfo

TRANSCRIPT = (
    "   0.0001 <-- server NewstyleGreeting flags=FIXED_NEWSTYLE|NO_ZEROES\n"
    "              0000  4e 42 44 4d 41 47 49 43                          NBDMAGIC\n"
    "   0.0002 client --> Option option=OPT_0x7fff0001 data=78 78"
)

SAMPLE = Report(
    tool="nbdtest 1.2.3",
    targets=(
        TargetInfo(
            name="nbdkit", spec="nbdkit", version="nbdkit 1.32.5", capabilities=("fixed newstyle", "structured")
        ),
        TargetInfo(name="stdio-odd", spec="stdio: ./my server --flag='a|b'"),
        TargetInfo(name="idle", spec="nbd://localhost:10810"),
    ),
    rules=(
        Rule(
            id="COMPAT-005", level="MUST", section="proto.md#compatibility", text="Answer unknown options with UNSUP."
        ),
        Rule(
            id="RPL-024", level="SHOULD", section="proto.md#replies", text="Use <structured> & not `simple` | errors."
        ),
    ),
    results=(
        Result(
            check="command.read",
            target="nbdkit",
            outcome=Outcome.PASSED,
            level=Level.MUST,
            title="A read returns the data.",
            seconds=0.25,
        ),
        Result(
            check="command.trim",
            target="nbdkit",
            outcome=Outcome.SKIPPED,
            level=Level.MUST,
            title="A trimmed range may read as anything.",
            message="the export does not set SEND_TRIM",
        ),
        Result(
            check="option.unknown",
            target="nbdkit",
            outcome=Outcome.FAILED,
            level=Level.MUST,
            title="An option the server does not know is answered with REP_ERR_UNSUP.",
            requirements=("COMPAT-005", "ZZZ-001"),
            message="seen: the server closed the connection\nwanted: REP_ERR_UNSUP",
            seconds=1.5,
            transcript=TRANSCRIPT,
        ),
        Result(
            check="reply.errors",
            target="nbdkit",
            outcome=Outcome.WARNED,
            level=Level.SHOULD,
            title="Errors come as structured replies.",
            requirements=("RPL-024",),
            message="a simple reply to WRITE",
        ),
        Result(
            check="command.cache",
            target="stdio-odd",
            outcome=Outcome.FAILED,
            level=Level.MUST,
            message="known for long",
            expected=True,
        ),
        Result(
            check="command.flush",
            target="stdio-odd",
            outcome=Outcome.PASSED,
            level=Level.MUST,
            message="passed, and was expected to be failed: remove it from the list",
            unexpected_pass=True,
        ),
        Result(
            check="option.list",
            target="stdio-odd",
            outcome=Outcome.ERROR,
            level=Level.MAY,
            message="text with \x00 \x1b[31m </pre><script> ]]> ``` and \ud800 in it | and *stars*",
            transcript="````\nfence",
        ),
        Result(
            check="option.other",
            target="stdio-odd",
            outcome=Outcome.WARNED,
            level=Level.SHOULD,
            message="known",
            expected=True,
        ),
    ),
)
