"""Two crashes are the same when they happen in the same place, whatever led to them and whichever numbers are in it."""

from __future__ import annotations

import pytest

from nbdtest.fuzz.finding import name_of
from nbdtest.fuzz.last_words import crash_site, sanitizer_report, sanitizer_site
from nbdtest.fuzz.problem import Kind, Problem

ABORTED = "./server -U /tmp/s26 was killed by SIGABRT; it printed:\n"


@pytest.mark.parametrize(
    ("obituary", "site"),
    [
        (f"{ABORTED}server: a.c:402: send_it: Assertion `sock >= 0' failed.", "send_it: Assertion `sock >= N' failed"),
        (
            f"{ABORTED}x\nERROR:srv.c:410:main: assertion failed: (fd == 3)\nBail out!",
            "main: assertion failed: (fd == N)",
        ),
        ("./s exited with status 101; it printed:\nthread 'main' panicked at src/wire.rs:10:5:\nno", "src/wire.rs"),
        (
            "./s exited with status 2; it printed:\npanic: runtime error: index out of range [7]\n\ngoroutine 1",
            "panic: runtime error: index out of range [N]",
        ),
        (f"{ABORTED}*** stack smashing detected ***: terminated", "*** stack smashing detected ***"),
        (f"{ABORTED}free(): invalid pointer", "free(): invalid pointer"),
        (f"{ABORTED}nothing of note", "SIGABRT"),
        ("./s was killed by SIGSEGV and dumped core and printed nothing", "SIGSEGV"),
        ("./s exited with status 3 and printed nothing", "status 3"),
        ("", ""),
    ],
    ids=["glibc", "glib", "rust", "go", "guard", "heap", "silent", "signal", "status", "alive"],
)
def test_the_place_of_a_crash(obituary: str, site: str) -> None:
    assert crash_site(obituary) == site


def test_the_last_of_several_assertions_is_what_killed() -> None:
    said = "x: a.c:1: first: Assertion `a' failed.\nx: a.c:2: second: Assertion `b' failed."
    assert crash_site(ABORTED + said) == "second: Assertion `b' failed"


ASAN = """\
==4711==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x61d000001880 at pc 0x7f
READ of size 5000 at 0x61d000001880 thread T0
    #0 0x7f in __interceptor_memcpy ../../../../src/libsanitizer/sanitizer_common/sanitizer_common_interceptors.inc:827
    #1 0x55 in read_it ./server.c:40
    #2 0x55 in main ./server.c:90
SUMMARY: AddressSanitizer: heap-buffer-overflow ../../../../src/libsanitizer/x.inc:827 in __interceptor_memcpy
"""
UBSAN = "server.c:12:5: runtime error: left shift of 255 by 24 places cannot be represented in type 'int'"


@pytest.mark.parametrize(
    ("output", "begins", "site"),
    [
        (ASAN, "==4711==ERROR", "AddressSanitizer heap-buffer-overflow read_it"),
        (UBSAN, "server.c:12:5", "server.c: left shift of N by N places cannot be represented in type 'int'"),
        ("all is well", "", ""),
    ],
    ids=["address", "undefined", "none"],
)
def test_what_a_sanitizer_reports(output: str, begins: str, site: str) -> None:
    assert sanitizer_report(output).startswith(begins)
    assert bool(sanitizer_report(output)) == bool(begins)
    assert sanitizer_site(output) == site


def died(site: str, about: str = "") -> str:
    return name_of(Problem(kind=Kind.DEATH, rule="the server dies", about=about, site=site))


def test_another_place_is_another_finding_and_another_request_is_not() -> None:
    assert died("first: Assertion `a' failed") != died("second: Assertion `b' failed")
    assert died("SIGSEGV", "CMD_READ") == died("SIGSEGV", "CMD_WRITE")
    assert died("", "CMD_READ") != died("", "CMD_WRITE")
