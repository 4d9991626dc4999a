"""Where a program died, as far as its last words tell: what makes one crash the same as another. Pure text.

Line numbers, addresses and values are left out: they differ from run to run, or from version to version.
"""

from __future__ import annotations

import re

__all__ = ["SANITIZER_WORDS", "crash_site", "sanitizer_report", "sanitizer_site"]

SANITIZER_WORDS = ("AddressSanitizer", "UndefinedBehaviorSanitizer", "ThreadSanitizer", "runtime error:")
"""What the reports of sanitizers say."""

_WORDS = (
    re.compile(r"(?P<where>\w+): (?P<what>Assertion [`'].*' failed)"),  # glibc
    re.compile(r"ERROR:[^:\s]+:\d+:(?P<where>\w+): (?P<what>assertion failed: .*)"),  # GLib
    re.compile(r"panicked at (?P<where>[^:\s]+)"),  # Rust
    re.compile(r"^(?P<what>(?:panic|fatal error): .*)", re.MULTILINE),  # Go
    re.compile(r"(?P<what>\*\*\* [a-z ]+ detected \*\*\*)"),  # the compiler's and glibc's guards
    re.compile(
        r"^(?P<what>(?:free|malloc|realloc|munmap_chunk|corrupted|double free)\b.*)", re.MULTILINE
    ),  # glibc's heap
)
_HOW = re.compile(r"was killed by (\w+)|exited with (status \d+)")
_SUMMARY = re.compile(r"SUMMARY: (\w+): ([\w-]+)(?:.* in (\w+))?")
_FRAME = re.compile(r"^ *#\d+ 0x[0-9a-f]+ in (.+) (\S+)$", re.MULTILINE)
_RUNTIME_ERROR = re.compile(r"([^\s:]+):\d+:\d+: runtime error: (.*)")
_NUMBER = re.compile(r"0x[0-9a-f]+|-?\d+")


def crash_site(obituary: str) -> str:
    """Name the place where a program died: function and assertion if it said so, else the signal or the status."""
    for pattern in _WORDS:
        for found in [*pattern.finditer(obituary)][-1:]:
            return _NUMBER.sub("N", ": ".join(part for part in found.groupdict().values() if part))
    how = _HOW.search(obituary)
    return (how[1] or how[2]) if how else ""


def sanitizer_report(output: str) -> str:
    """The first line in which a sanitizer complains, "" if none does."""
    return next((line for line in output.splitlines() if any(word in line for word in SANITIZER_WORDS)), "")


def sanitizer_site(output: str) -> str:
    """Name what the first sanitizer that complains in `output` has found, and in which function or file."""
    if found := _SUMMARY.search(output):
        tool, what, where = found.groups()
        # The summary names memcpy when somebody else gave it the wrong length.
        own = (name for name, file in _FRAME.findall(output) if not name.startswith("__") and "sanitizer" not in file)
        return " ".join(part for part in (tool, what, next(own, where)) if part)
    if found := _RUNTIME_ERROR.search(output):
        return f"{found[1]}: {_NUMBER.sub('N', found[2])}"
    return ""
