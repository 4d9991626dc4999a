"""Makes docs/findings.md from the lists of known deviations: python docs/findings.py > docs/findings.md"""

from itertools import groupby

from nbdtest.conformance import requirement
from nbdtest.fixtures.deviations import Deviation, packaged_deviations

INTRODUCTION = """\
# What the suite found in released servers and clients

Each row was confirmed by reading the bytes that went over the connection. A rule is a MUST or a SHOULD of the
specification, or a plain FACT of it. The same lists are what `--nbd-expect=packaged` foresees; [servers.md](servers.md)
shows every check on every server.

Four ways in which a client can end a released server were found as well: an assertion in nbdkit 1.32, one in nbdkit
1.32 and 1.42, one in qemu-nbd 7.2 and 10.0, and a segmentation fault in both of these. They are not described here.
"""


def program_of(deviation: Deviation) -> str:
    return (deviation.versions[0] if deviation.server == "*" else deviation.server).split()[0].rstrip("*")


def versions_of(deviation: Deviation) -> str:
    versions = [
        glob.rstrip("*").strip() for glob in deviation.versions if glob.rstrip("*").strip() != program_of(deviation)
    ]
    return ", ".join(versions) or "all that were tried"


def row(deviation: Deviation) -> str:
    rule = requirement(deviation.requirement)
    when = [*(["now and then"] if deviation.sometimes else []), *(["over TLS"] if deviation.features else [])]
    cells = [
        f"`{deviation.check}`" + (f" ({', '.join(when)})" if when else ""),
        f"{rule.id} {rule.kind.upper()}: {rule.text}",
        deviation.evidence,
        versions_of(deviation),
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def findings_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for program, deviations in groupby(sorted(packaged_deviations(), key=program_of), key=program_of):
        parts.append(f"\n## {program}\n\n| check | rule | what it does | versions |\n|---|---|---|---|\n")
        parts += [f"{row(deviation)}\n" for deviation in deviations]
    return "".join(parts)


if __name__ == "__main__":
    print(findings_page(), end="")
