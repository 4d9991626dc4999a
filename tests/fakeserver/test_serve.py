"""`nbdtest serve`: every place where it can serve, what its options change, and how it ends."""

from __future__ import annotations

import argparse
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbdtest.fakeserver import BlockSizes, RuleBook, error
from nbdtest.fakeserver.serve import add_arguments, parse_block_sizes, parse_size
from nbdtest.wire import Cmd, Errno, OldstyleGreeting, Opt, Rep, Request
from tests.fakeserver.wire_client import WireClient

SERVE = [sys.executable, "-m", "nbdtest", "serve"]
LIMIT_S = 30


@contextmanager
def serving(*arguments: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*SERVE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]  # more of its own options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


def tcp(process: subprocess.Popen[bytes]) -> WireClient:
    """Connect to a server that was started with `--tcp 0`: it prints its port once it listens."""
    assert process.stdout is not None
    return WireClient(socket.create_connection(("127.0.0.1", int(process.stdout.readline()))))


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=LIMIT_S)
    return process.returncode, told.decode()


def test_tcp_until_a_signal() -> None:
    with serving("--tcp", "0", "--size", "1M") as process:
        client = tcp(process).open()
        client.write(4096, b"stored")
        assert client.read(4096, 6) == b"stored"
        client.leave()
        assert ended(process) == (0, "")


def test_a_unix_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "nbd.sock"
    with serving("--unix", str(path), "--log") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"nbdtest serve: listening at {path}\n".encode()
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(path))
        WireClient(made).open().leave()
        status, told = ended(process)
        assert status == 0
        assert "--> Option option=OPT_GO" in told
        assert "--> Request flags=0 type=CMD_DISC" in told
    assert not path.exists()


def test_a_signal_in_the_handshake_is_told_and_ends_with_it() -> None:
    with serving("--tcp", "0") as process:
        client = tcp(process).greet()
        client.option(Opt.LIST)
        process.send_signal(signal.SIGTERM)
        replies: list[Rep] = []
        while Rep.ERR_SHUTDOWN not in replies:  # the signal takes its time
            replies = [reply.type for reply in client.option(Opt.LIST)]
        assert [reply.type for reply in client.option(Opt.ABORT)] == [Rep.ACK]
        assert client.rest() == b""
        assert process.wait(LIMIT_S) == 0
        client.socket.close()


def test_what_was_asked_before_a_signal_is_answered() -> None:
    with serving("--tcp", "0", "--size", "8M") as process:
        client = tcp(process).open()
        # In one piece: when the first answer is there, all four have arrived.
        client.say(*(Request(type=Cmd.READ, cookie=cookie, length=1 << 20) for cookie in range(4)))
        first = client.take(16)
        process.send_signal(signal.SIGTERM)
        assert len(first + client.rest()) == 4 * (16 + (1 << 20))
        assert process.wait(LIMIT_S) == 0
        client.socket.close()


def test_stdin_and_stdout_as_one_socket() -> None:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([*SERVE, "--stdio", "--size", "512"], stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    client = WireClient(ours).open()
    assert client.read(0, 512) == bytes(512)
    client.leave()
    assert process.wait(LIMIT_S) == 0


def test_stdin_and_stdout_as_two_pipes() -> None:
    with serving("--stdio", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read(18).startswith(b"NBDMAGICIHAVEOPT")
        process.stdin.write(bytes([0, 0, 0, 3]) + b"IHAVEOPT" + bytes([0, 0, 0, Opt.ABORT]) + bytes(4))
        process.stdin.flush()
        assert len(process.stdout.read()) == 20
        assert process.wait(LIMIT_S) == 0


def test_socket_activation() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    # As systemd does: the process that sets LISTEN_PID becomes the server, which finds the socket as descriptor 3.
    become = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    command = [sys.executable, "-c", become, str(listening.fileno()), *SERVE, "--size", "2M"]
    process = subprocess.Popen(command, pass_fds=[listening.fileno()])
    try:
        client = WireClient(socket.create_connection(listening.getsockname())).open()
        client.request(Cmd.READ, 2 << 20, 1)
        assert client.reply()[0].error == Errno.EINVAL
        client.leave()
    finally:
        listening.close()
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_a_file_is_served_and_changed(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"front" + bytes(1 << 20))
    with serving("--tcp", "0", "--file", str(image)) as process:
        client = tcp(process).open()
        assert client.read(0, 5) == b"front"
        client.write(512, b"written")
        client.request(Cmd.FLUSH)
        client.reply()
        client.leave()
    assert image.read_bytes()[512:519] == b"written"


def test_several_exports(tmp_path: Path) -> None:
    (tmp_path / "b.img").write_bytes(b"bbbb" + bytes(508))
    with serving("--tcp", "0", "--export", "a=1M", "--export", f"b={tmp_path / 'b.img'}", "--read-only") as process:
        client = tcp(process).greet()
        listed = [reply for reply in client.option(Opt.LIST) if reply.type == Rep.SERVER]
        assert [reply.data[4:] for reply in listed] == [b"a", b"b"]
        client.option(Opt.GO, b"\0\0\0\1b\0\0")
        assert client.read(0, 4) == b"bbbb"
        client.request(Cmd.WRITE, 0, payload=b"x")
        assert client.reply()[0].error == Errno.EPERM
        client.leave()


def test_oldstyle() -> None:
    with serving("--tcp", "0", "--oldstyle") as process:
        client = tcp(process)
        assert OldstyleGreeting.decode(client.take(152)).size == 1 << 20
        client.leave()


@pytest.mark.parametrize(
    ("option", "asked"),
    [("--no-structured", Opt.STRUCTURED_REPLY), ("--no-extended", Opt.EXTENDED_HEADERS), ("--no-go", Opt.GO)],
)
def test_what_is_switched_off_is_unsupported(option: str, asked: Opt) -> None:
    with serving("--tcp", "0", option) as process, tcp(process).greet() as client:
        assert [reply.type for reply in client.option(asked, b"")] == [Rep.ERR_UNSUP]


def test_a_mutant() -> None:
    with serving("--tcp", "0", "--mutant", "disc.answered") as process:
        client = tcp(process).open()
        client.say(Request(type=Cmd.DISC, cookie=7))
        assert client.reply()[0].cookie == 7
        client.socket.close()


def test_rules_from_a_file(tmp_path: Path) -> None:
    book = RuleBook()
    book.on(Cmd.READ, nth=2).reply(error(Errno.EIO))
    file = tmp_path / "rules.json"
    for saved in (book.to_json(), {"rules": book.to_json()}):
        file.write_text(json.dumps(saved))
        with serving("--tcp", "0", "--rules", str(file)) as process:
            client = tcp(process).open()
            told = []
            for _ in range(3):
                client.request(Cmd.READ, 0, 1)
                told.append(client.reply()[0].error)
                if not told[-1]:
                    client.take(1)
            assert told == [Errno.OK, Errno.EIO, Errno.OK]
            client.leave()


@pytest.mark.parametrize(
    ("saved", "text"),
    [
        ("[", "is no JSON"),
        ("{}", "holds no list of rules"),
        ('[{"on": {"Cmd": 0}, "x": 1}]', "it says x"),
        (None, "read"),
    ],
)
def test_what_are_no_rules_is_explained(saved: str | None, text: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    if saved is not None:
        file.write_text(saved)
    arguments = [*SERVE, "--tcp", "0", "--rules", str(file)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert text in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "where to serve?"),
        (["--unix", "/nowhere/nbd.sock"], "cannot listen at /nowhere/nbd.sock"),
        (["--tcp", "0", "--mutant", "nobody"], "there is no mutant 'nobody'"),
        (["--tcp", "0", "--file", "/nowhere"], "cannot open /nowhere"),
        (["--tcp", "0", "--file", "x", "--size", "1"], "leave --size out"),
        (["--tcp", "0", "--export", "x"], "NAME=SIZE or NAME=FILE"),
        (["--tcp", "0", "--export", "x=1", "--export", "x=2"], "two exports named 'x'"),
        (["--tcp", "0", "--tls", "required"], "needs --tls-certificates or --tls-psk"),
        (["--tcp", "0", "--size", "1X"], "'1X' is no size"),
        (["--tcp", "0", "--unix", "x"], "not allowed with"),
        (["--tcp", "0", "--vsock", "7"], "not allowed with"),
        (["--vsock", "4294967295"], "'4294967295' is no vsock port"),
        (["--vsock", "0"], "'0' is no vsock port"),
        (["--vsock", "-1"], "'-1' is no vsock port"),
    ],
)
def test_what_makes_no_sense_is_explained(arguments: list[str], text: str) -> None:
    done = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("512", 512), ("64K", 65536), ("1m", 1 << 20), ("7E", 7 << 60)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5M", "8E", "1KB", "٣"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_size(text)


def test_block_sizes() -> None:
    assert parse_block_sizes("512") == BlockSizes(minimum=512)
    assert parse_block_sizes("64K") == BlockSizes(minimum=65536, preferred=65536)
    assert parse_block_sizes("1:512:1M") == BlockSizes(minimum=1, preferred=512, maximum=1 << 20)
    for wrong in ("3", "128K", "512:256", "512:4096:512", "1:512:1M:2"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse_block_sizes(wrong)


def test_help_shows_examples() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert "nbdtest serve --unix" in parser.format_help()
