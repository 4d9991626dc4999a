"""What a parent process hands over: a connection on stdin and stdout, or listening sockets."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from nbdtest.errors import Disconnected, TimedOut, UsageError
from nbdtest.net.addresses import Address, TCPAddress, UnixAddress
from nbdtest.net.clock import Deadline
from nbdtest.net.inherited import PipeStream, activated_listeners
from nbdtest.net.process import start_activated, start_on_stdio
from nbdtest.net.scratch import ScratchDirectory
from nbdtest.net.sockets import connect, listen
from nbdtest.net.stream import Arrival

NOW = Deadline(0)

ECHO_ON_STDIO = """
from nbdtest.net.inherited import stdio_stream
stream = stdio_stream(timeout_s=10)
print("a stray print")
stream.send_all(type(stream).__name__.encode() + b":" + stream.receive_exact(4))
stream.close()
"""

ECHO_ACTIVATED = """
import os
from nbdtest.net.inherited import activated_listeners
listener, = activated_listeners()
print(os.environ.get("LISTEN_PID"), listener.address)
with listener.accept() as stream:
    stream.send_all(stream.receive_exact(4))
"""


@pytest.fixture
def pipes() -> Iterator[tuple[PipeStream, PipeStream]]:
    to_one, from_other = os.pipe()
    to_other, from_one = os.pipe()
    with PipeStream(to_one, from_one) as one, PipeStream(to_other, from_other) as other:
        yield one, other


def test_pipes_carry_both_directions(pipes: tuple[PipeStream, PipeStream]) -> None:
    one, other = pipes
    one.send_all(b"ab", b"", b"cd")
    assert other.receive_exact(4) == b"abcd"
    other.send_all(b"efgh")
    assert one.receive_exact(4) == b"efgh"
    assert not one.can_reset


def test_megabytes_pass_through_pipes(pipes: tuple[PipeStream, PipeStream]) -> None:
    one, other = pipes
    sent = bytes(range(256)) * (4 << 12)
    sender = threading.Thread(target=one.send_all, args=(sent,))
    sender.start()
    assert other.receive_exact(len(sent)) == sent
    sender.join()


def test_arrival_on_a_pipe_tells_silence_bytes_and_end_apart(pipes: tuple[PipeStream, PipeStream]) -> None:
    one, other = pipes
    assert other.nothing_arrives(0)
    one.send_all(b"x")
    one.half_close()
    assert other.arrival(5) is Arrival.BYTES
    assert other.receive_exact(1) == b"x"
    assert other.arrival(5) is Arrival.END


def test_the_end_of_a_pipe_is_a_disconnect(pipes: tuple[PipeStream, PipeStream]) -> None:
    one, other = pipes
    one.send_all(b"NBD")
    one.close()
    with pytest.raises(Disconnected) as caught:
        other.receive_exact(8)
    assert caught.value.received == b"NBD"
    with pytest.raises(Disconnected):
        other.send_all(b"x")


def test_a_pipe_is_timed_out_in_both_directions(pipes: tuple[PipeStream, PipeStream]) -> None:
    one, other = pipes
    with pytest.raises(TimedOut, match="while a greeting was expected"):
        other.receive_some(deadline=NOW, what="a greeting")
    with pytest.raises(TimedOut, match="the peer stopped reading"):
        one.send_all(bytes(4 << 20), deadline=NOW)


def test_interrupt_wakes_a_thread_that_reads_a_pipe(pipes: tuple[PipeStream, PipeStream]) -> None:
    one, _ = pipes
    caught: list[BaseException] = []
    begun = threading.Event()

    def receive() -> None:
        begun.set()
        try:
            one.receive_exact(1, Deadline(None))
        except Disconnected as error:
            caught.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    begun.wait()
    one.interrupt()
    thread.join(5)
    assert len(caught) == 1


def test_the_blocking_mode_of_a_shared_pipe_is_restored() -> None:
    reading, writing = os.pipe()
    shared = os.dup(reading)
    try:
        with PipeStream(reading, writing):
            assert not os.get_blocking(shared)
        assert os.get_blocking(shared)
    finally:
        os.close(shared)


def test_a_socket_on_stdin_and_stdout_is_used_as_such_and_prints_go_elsewhere() -> None:
    process, stream = start_on_stdio([sys.executable, "-c", ECHO_ON_STDIO])
    with process, stream:
        stream.send_all(b"ping")
        assert stream.receive_to_end() == b"SocketStream:ping"
        process.wait(10)
        assert process.output.text() == "a stray print\n"


def test_two_pipes_on_stdin_and_stdout() -> None:
    ran = subprocess.run([sys.executable, "-c", ECHO_ON_STDIO], input=b"ping", capture_output=True, check=True)
    assert ran.stdout == b"PipeStream:ping"
    assert ran.stderr == b"a stray print\n"


def test_a_terminal_is_refused() -> None:
    leader, follower = os.openpty()
    try:
        ran = subprocess.run([sys.executable, "-c", ECHO_ON_STDIO], stdin=follower, capture_output=True, check=False)
    finally:
        os.close(leader)
        os.close(follower)
    assert b"UsageError: stdin is a terminal" in ran.stderr


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_an_activated_process_accepts_on_the_listener_it_was_given(transport: str) -> None:
    with ScratchDirectory() as scratch:
        wanted: Address = UnixAddress(scratch.file("s")) if transport == "unix" else TCPAddress("127.0.0.1", 0)
        listener = listen(wanted)
        address = listener.address
        with start_activated([sys.executable, "-c", ECHO_ACTIVATED], listener) as process, connect(address) as stream:
            stream.send_all(b"ping")
            assert stream.receive_exact(4) == b"ping"
            process.wait(10)
            assert process.output.text() == f"None {address}\n"


@pytest.mark.parametrize(
    "environ",
    [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "1"}],
    ids=["none", "another-process", "no-pid", "no-count"],
)
def test_without_activation_there_are_no_listeners(environ: dict[str, str]) -> None:
    before = dict(environ)
    assert activated_listeners(environ) == []
    assert environ == before


@pytest.mark.parametrize("environ", [{"LISTEN_PID": "x", "LISTEN_FDS": "1"}, {"LISTEN_PID": "1", "LISTEN_FDS": "-1"}])
def test_malformed_activation(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="two numbers were expected"):
        activated_listeners(environ)


def test_the_variables_are_taken_away_with_the_listeners() -> None:
    with listen() as listener:
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "HOME": "/"}
        descriptor = os.dup(listener.fileno())
        (adopted,) = activated_listeners(environ, first=descriptor)
        with adopted:
            assert adopted.address == listener.address
        assert environ == {"HOME": "/"}
