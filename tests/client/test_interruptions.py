"""What comes between a call and its end: other threads, signals, forks, and servers that talk without end."""

from __future__ import annotations

import errno
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from nbdtest.client import NBD, ClosedHandle, Error
from nbdtest.wire import InfoExport, Opt, OptionReply, Rep, ReplyFlag, Request, ServerExport, SimpleReply
from tests.client.prepared import ALL_FLAGS, Prepared, data_chunk, done, go_info, handshake, hole_chunk, refuse

PATIENCE_S = 30.0
"""Until a test that would hang is given up."""
NEGOTIATING = handshake()[:18] + refuse(Opt.EXTENDED_HEADERS) + refuse(Opt.STRUCTURED_REPLY)


@pytest.fixture
def h(prepared: Prepared) -> NBD:
    """A connected handle whose fast lane is open."""
    handle = prepared.connect()
    prepared.answer(data_chunk(1, 0, b"warm"))
    assert handle.pread(4, 0) == b"warm"
    prepared.sent()
    return handle


def wait_for_request(prepared: Prepared) -> None:
    assert select.select([prepared.far], [], [], PATIENCE_S)[0], "a request"


# ---- threads


@pytest.mark.parametrize("limit_s", [None, PATIENCE_S])
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda h: h.pread(4, 0), id="read"),
        pytest.param(lambda h: h.pwrite(bytes(1 << 20), 0), id="write"),
        pytest.param(lambda h: h.trim(4, 0), id="order"),
        pytest.param(lambda h: [h.aio_flush(), *(h.poll(-1) for _ in range(9))], id="poll"),
    ],
)
def test_close_ends_a_call_that_waits_in_another_thread(
    prepared: Prepared, h: NBD, call: Callable[[NBD], object], limit_s: float | None
) -> None:
    h.set_timeout(limit_s)
    with in_background(lambda: call(h)) as found:
        wait_for_request(prepared)
        h.close()
    assert isinstance(found[0], Error | ClosedHandle)
    with pytest.raises(ClosedHandle):
        h.get_size()


def test_close_ends_an_attempt_to_connect_in_another_thread(prepared: Prepared) -> None:
    handle = prepared.handle
    prepared.answer(NEGOTIATING)
    with in_background(lambda: handle.connect_socket(prepared._near)) as found:
        wait_for_request(prepared)
        handle.close()
    assert isinstance(found[0], Error | ClosedHandle)


# ---- signals


def test_a_signal_handler_cannot_disturb_the_call_that_it_interrupts(prepared: Prepared, h: NBD) -> None:
    found: list[object] = []

    def handler(number: int, frame: object) -> None:
        if prepared.sent():  # the call has begun
            with pytest.raises(Error, match="nbd_pread: called from a callback of the same handle"):
                h.pread(4, 4)
            found.append(h.aio_is_ready())
            prepared.answer(data_chunk(2, 0, b"data"))

    with alarms(handler):
        assert h.pread(4, 0) == b"data"
    prepared.answer(data_chunk(3, 0, b"next"))
    assert h.pread(4, 0) == b"next"
    assert found


@pytest.mark.parametrize("error", [TimeoutError("too slow"), KeyboardInterrupt(), LookupError()], ids=repr)
@pytest.mark.parametrize(
    "call", [pytest.param(lambda h: h.pread(4, 0), id="read"), pytest.param(lambda h: h.flush(), id="flush")]
)
@pytest.mark.parametrize("lane", [True, False], ids=["fast lane", "engine"])
def test_what_a_signal_handler_raises_reaches_the_caller(
    prepared: Prepared, h: NBD, error: BaseException, call: Callable[[NBD], object], lane: bool
) -> None:
    def handler(number: int, frame: object) -> None:
        if prepared.sent():  # the call has begun
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise error

    if not lane:
        h.set_strict_mode(0)
    with alarms(handler), pytest.raises(type(error)) as caught:
        call(h)
    assert caught.value is error
    # Between two system calls it is known what has been received. Else no reply could be told from another.
    if h.aio_is_dead():
        with pytest.raises(Error, match="invalid state: DEAD"):
            h.pread(4, 0)
    else:
        prepared.answer(done(2), data_chunk(3, 0, b"next"))
        assert h.pread(4, 0) == b"next"


# ---- forks


def test_a_forked_child_does_not_end_its_parents_server() -> None:
    program = """if True:
        import os
        from nbdtest.client.subprocesses import start_on_socketpair
        started, connected = start_on_socketpair(["cat"])
        if (child := os.fork()) == 0:
            connected.close()
            started.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        connected.send(b"alive")
        assert connected.recv(5) == b"alive"
        connected.close()
        started.close()
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=PATIENCE_S)


def test_a_forked_child_can_close_a_handle_that_another_thread_was_using() -> None:
    program = """if True:
        import os, socket, threading
        from tests.client.prepared import Prepared, data_chunk
        prepared = Prepared()
        h = prepared.connect()
        reading = threading.Thread(target=lambda: print(h.pread(4, 0)))
        reading.start()
        prepared.far.setblocking(True)
        prepared.far.recv(100)
        if (child := os.fork()) == 0:
            h.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        prepared.answer(data_chunk(1, 0, b"data"))
        reading.join()
        prepared.close()
    """
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], check=True, timeout=PATIENCE_S, stdout=subprocess.PIPE
    )
    assert found.stdout == b"bytearray(b'data')\n"


# ---- time limits


@pytest.mark.parametrize(
    ("beginning", "flood", "call"),
    [
        pytest.param(
            NEGOTIATING,
            OptionReply(option=Opt.LIST, type=Rep.SERVER, data=ServerExport(name="x").encode()).encode(),
            lambda h: h.opt_list(lambda name, description: 0),
            id="exports",
        ),
        pytest.param(
            NEGOTIATING, go_info(InfoExport(size=512, flags=ALL_FLAGS)), lambda h: h.opt_go(), id="information"
        ),
        pytest.param(handshake(), done(77), lambda h: h.pread(4, 0), id="replies"),
        pytest.param(handshake(), hole_chunk(1, 0, 4, flags=ReplyFlag(0)), lambda h: h.pread(4, 0), id="chunks"),
    ],
)
def test_a_server_that_talks_without_end_is_given_up_in_time(
    prepared: Prepared, beginning: bytes, flood: bytes, call: Callable[[NBD], object]
) -> None:
    handle = prepared.handle
    handle.set_opt_mode(beginning is NEGOTIATING)
    prepared.answer(beginning)
    handle.connect_socket(prepared._near)
    handle.set_timeout(0.2)
    prepared.far.setblocking(True)

    def talk() -> None:
        while True:
            prepared.far.sendall(flood * 100)

    with in_background(talk) as found:
        with pytest.raises(Error) as caught:
            call(handle)
        handle.close()
    assert caught.value.errnum == errno.ETIMEDOUT
    assert isinstance(found[0], OSError)


@pytest.mark.parametrize("arrived", [0, 5, 20_000])
def test_after_a_timeout_the_buffer_is_the_callers_again(prepared: Prepared, h: NBD, arrived: int) -> None:
    size = 100_000
    reply = data_chunk(2, 0, bytes([1]) * size)
    prepared.answer(reply[:arrived])
    h.set_timeout(0.01)
    buffer = bytearray(b"mine" * (size // 4))
    with pytest.raises(Error, match="timed out"):
        h.pread_into(buffer, 0)
    held = bytes(buffer)
    h.set_timeout(PATIENCE_S)
    prepared.answer(reply[arrived:], data_chunk(3, 0, b"next"))
    assert h.pread(4, 0) == b"next"
    assert buffer == held
    buffer.append(0)  # nobody holds it


def test_after_a_timeout_what_was_to_be_written_still_is(prepared: Prepared, h: NBD) -> None:
    size = 1 << 20
    h.set_timeout(0.01)
    buffer = bytearray(b"x" * size)
    with pytest.raises(Error, match="timed out"):
        h.pwrite(buffer, 0)
    buffer[:] = b"y" * size
    buffer.append(0)  # nobody holds it
    received = b""
    while len(received) < 28 + size:
        h.poll(0)
        received += prepared.sent()
    assert received[28:] == b"x" * size
    prepared.answer(SimpleReply(cookie=2).encode(), data_chunk(3, 0, b"next"))
    assert h.pread(4, 0) == b"next"
    assert prepared.sent() == Request(type=0, cookie=3, length=4).encode()


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1"])
def test_a_time_limit_is_a_duration(handle: NBD, seconds: float) -> None:
    with pytest.raises((TypeError, ValueError), match="argument 'seconds' must"):
        handle.set_timeout(seconds)
    assert handle.get_timeout() is None


def test_a_time_limit_beyond_all_clocks(prepared: Prepared, h: NBD) -> None:
    h.set_timeout(1e300)
    prepared.answer(data_chunk(2, 0, b"data"))
    assert h.pread(4, 0) == b"data"


# ---- how


@contextmanager
def in_background(function: Callable[[], object]) -> Iterator[list[object]]:
    """Run `function` in a thread, which has to end when the block does; yields what it returned or raised."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(function())
        except (Error, ClosedHandle, OSError) as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield found
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@contextmanager
def alarms(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Have the handler called again and again: one signal could come just before the system call that it is for."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
