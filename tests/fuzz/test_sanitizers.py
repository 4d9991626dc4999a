"""What a sanitizer says of a server is a finding, whatever else the session shows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nbdtest.conformance.target import ServerTarget
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.player import Player
from nbdtest.fuzz.problem import Kind
from nbdtest.fuzz.script import Script, Send
from nbdtest.wire import Cmd

SOURCE = Path(__file__).with_name("overflowing.c")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A server in C with a buffer overflow, built with AddressSanitizer."""
    program = tmp_path_factory.mktemp("built") / "overflowing"
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    built = subprocess.run(["gcc", "-g", "-fsanitize=address", "-o", program, SOURCE], capture_output=True, check=False)
    if built.returncode:
        pytest.skip(f"gcc cannot build it with AddressSanitizer: {built.stderr.decode()[:200]}")
    return f"stdio: env ASAN_OPTIONS=detect_leaks=0 {program}"


def read(length: int) -> Script:
    return Script(steps=(Send(commands=(Command(type=Cmd.READ, length=length),)),))


def test_a_sanitizers_report_is_a_finding(server: str) -> None:
    source = open_source(parse_server(server), allow_writes=False)
    try:
        player = Player(ServerTarget(source))
        assert player.play(read(4096)) is None
        problem = player.play(read(5000))
    finally:
        source.close()
    assert problem is not None
    assert problem.kind is Kind.SANITIZER
    assert "heap-buffer-overflow" in problem.detail
    assert problem.site == "AddressSanitizer heap-buffer-overflow main"


def test_a_report_that_is_still_being_written_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = "==1==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x1\n"
    ended = "SUMMARY: AddressSanitizer: heap-buffer-overflow server.c:5 in reply\n"
    source = open_source(parse_server("builtin"), allow_writes=False)
    printed = iter([begun, begun])
    monkeypatch.setattr(source, "output", lambda: next(printed, begun + ended))
    try:
        problem = Player(ServerTarget(source)).trouble()
    finally:
        source.close()
    assert problem is not None
    assert problem.site == "AddressSanitizer heap-buffer-overflow reply"
