"""Commands that are not waited for: cookies, callbacks, retiring, direction, shutting down."""

from __future__ import annotations

import errno
import select
import socket
from ctypes import c_int

import pytest

from nbdtest.client import NBD, SHUTDOWN_ABANDON_PENDING, Buffer, Error
from nbdtest.wire import Cmd, Errno, Request, SimpleReply
from tests.client.prepared import Prepared, data_chunk, error_chunk


def ok(cookie: int) -> bytes:
    return SimpleReply(cookie=cookie).encode()


@pytest.fixture
def h(prepared: Prepared) -> NBD:
    return prepared.connect()


def test_a_lone_command_is_sent_at_once_and_others_when_somebody_looks(prepared: Prepared, h: NBD) -> None:
    assert h.aio_flush() == 1
    assert prepared.sent() == Request(type=Cmd.FLUSH, cookie=1).encode()
    assert [h.aio_flush(), h.aio_pread(Buffer(4), 0), h.aio_trim(4, 0)] == [2, 3, 4]
    assert prepared.sent() == b""
    assert h.aio_in_flight() == 4
    assert h.aio_get_direction() == 1
    assert prepared.sent() == b"".join(
        [
            Request(type=Cmd.FLUSH, cookie=2).encode(),
            Request(type=Cmd.READ, cookie=3, length=4).encode(),
            Request(type=Cmd.TRIM, cookie=4, length=4).encode(),
        ]
    )


def test_replies_in_any_order(prepared: Prepared, h: NBD) -> None:
    buffers = [Buffer(4) for _ in range(3)]
    cookies = [h.aio_pread(buffer, 4 * at) for at, buffer in enumerate(buffers)]
    prepared.answer(data_chunk(3, 8, b"cccc"), data_chunk(1, 0, b"aaaa"))
    h.poll(-1)
    assert h.aio_peek_command_completed() == 3
    assert [h.aio_command_completed(cookie) for cookie in cookies] == [True, False, True]
    assert [h.aio_command_completed(cookie) for cookie in cookies] == [False, False, False]
    assert h.aio_in_flight() == 1
    assert h.aio_peek_command_completed() == 0
    prepared.answer(data_chunk(2, 4, b"bbbb"))
    h.poll(-1)
    assert h.aio_command_completed(2)
    assert [bytes(buffer.to_buffer()) for buffer in buffers] == [b"aaaa", b"bbbb", b"cccc"]
    with pytest.raises(Error, match="no commands are in flight"):
        h.aio_peek_command_completed()


@pytest.mark.parametrize(
    ("answer", "value", "outcome"),
    [
        (0, None, True),
        (None, None, True),
        ("1", None, True),
        (7, errno.ERANGE, True),
        (1, None, False),
        (True, None, False),
        (-1, None, True),
        (-1, errno.ERANGE, errno.ERANGE),
    ],
)
def test_what_a_completion_callback_returns(
    prepared: Prepared, h: NBD, answer: object, value: int | None, outcome: object
) -> None:
    seen: list[int] = []

    def completion(error: c_int) -> object:
        seen.append(error.value)
        if value is not None:
            error.value = value
        return answer

    cookie = h.aio_flush(completion)
    prepared.answer(ok(1))
    h.poll(-1)
    assert seen == [0]
    if isinstance(outcome, bool):
        assert h.aio_command_completed(cookie) is outcome
    else:
        with pytest.raises(Error) as caught:
            h.aio_command_completed(cookie)
        assert caught.value.errnum == outcome


@pytest.mark.parametrize("company", [False, True], ids=["engine", "express"])
def test_a_failing_command_raises_once(prepared: Prepared, h: NBD, company: bool) -> None:
    if company:
        h.aio_flush()
    cookie = h.aio_pread(Buffer(4), 0)
    prepared.answer(error_chunk(cookie, Errno.EIO))
    h.poll(-1)
    with pytest.raises(Error, match="nbd_aio_command_completed: read: command failed: Input/output error"):
        h.aio_command_completed(cookie)
    assert h.aio_command_completed(cookie) is False


def test_an_exception_in_a_completion_callback_is_shown(
    prepared: Prepared, h: NBD, capsys: pytest.CaptureFixture[str]
) -> None:
    def completion(error: c_int) -> int:
        raise LookupError("nobody knows")

    cookie = h.aio_flush(completion)
    prepared.answer(ok(1))
    h.poll(-1)
    assert "LookupError: nobody knows" in capsys.readouterr().err
    assert h.aio_command_completed(cookie)


@pytest.mark.parametrize("company", [False, True], ids=["engine", "express"])
def test_an_assertion_in_a_completion_callback_is_raised_by_the_call_that_ran_it(
    prepared: Prepared, h: NBD, company: bool
) -> None:
    if company:
        h.aio_flush()

    def completion(error: c_int) -> int:
        raise AssertionError("not this")

    cookie = h.aio_pread(Buffer(4), 0, completion)
    prepared.answer(data_chunk(cookie, 0, b"abcd"))
    with pytest.raises(AssertionError, match="not this"):
        h.poll(-1)
    assert h.aio_command_completed(cookie)


def test_a_buffer_is_held_until_its_command_is_retired(prepared: Prepared, h: NBD) -> None:
    memory = bytearray(4)
    cookie = h.aio_pread(memory, 0)
    with pytest.raises(BufferError):
        memory.append(1)
    prepared.answer(data_chunk(1, 0, b"abcd"))
    h.poll(-1)
    assert h.aio_command_completed(cookie)
    memory.append(1)
    assert memory == b"abcd\1"


def test_replies_are_read_while_a_large_write_is_being_sent(prepared: Prepared, h: NBD) -> None:
    completed: list[int] = []
    h.set_strict_mode(0)
    h.aio_pread(Buffer(4), 0, lambda error: completed.append(1))
    payload = bytes(range(256)) * (1 << 13)
    h.aio_pwrite(payload, 0, lambda error: completed.append(2))
    assert h.aio_get_direction() == 3
    assert h.connection_state().startswith("ISSUE_COMMAND.SEND_WRITE_PAYLOAD: ")
    assert h.aio_is_processing()
    prepared.answer(data_chunk(1, 0, b"abcd"))
    h.aio_notify_read()
    assert completed == [1]
    received = prepared.sent()
    while h.aio_get_direction() == 3:
        h.aio_notify_write()
        received += prepared.sent()
    assert received.endswith(Request(type=Cmd.WRITE, cookie=2, length=len(payload)).encode() + payload)
    prepared.answer(ok(2))
    h.poll(-1)
    assert completed == [1, 2]


def test_notifications_have_to_be_wanted(h: NBD) -> None:
    with pytest.raises(Error) as caught:
        h.aio_notify_write()
    assert caught.value.string == ("nbd_aio_notify_write: external event 1 is invalid in state READY: Invalid argument")


def test_poll_waits_no_longer_than_it_is_told(h: NBD) -> None:
    assert h.poll(0) == 0
    assert h.poll(1) == 0


def test_poll2_waits_for_another_descriptor_too(h: NBD) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert h.poll2(one.fileno(), 0) == 0
        other.send(b"x")
        assert h.poll2(one.fileno(), -1) == 1


def test_the_descriptor_can_be_polled(prepared: Prepared, h: NBD) -> None:
    h.aio_flush()
    prepared.answer(ok(1))
    poller = select.poll()
    poller.register(h.aio_get_fd(), select.POLLIN)
    assert poller.poll(0)
    h.aio_notify_read()
    assert h.aio_in_flight() == 0


def test_the_end_of_the_connection_ends_every_command_once(prepared: Prepared, h: NBD) -> None:
    errors: list[int] = []
    memory = bytearray(b"\xee" * 4)
    cookies = [h.aio_flush(lambda error: errors.append(error.value)), h.aio_pread(memory, 0)]
    prepared.end()
    h.poll(-1)
    assert h.aio_is_closed()
    assert errors == [errno.ENOTCONN]
    for cookie in cookies:
        with pytest.raises(Error, match="command failed: Transport endpoint is not connected"):
            h.aio_command_completed(cookie)
    assert memory == bytes(4)
    assert h.aio_in_flight() == 0


def test_close_ends_commands(prepared: Prepared, h: NBD) -> None:
    errors: list[int] = []
    h.aio_flush(lambda error: errors.append(error.value))
    h.close()
    assert errors == [errno.ENOTCONN]


def test_shutdown_waits_for_what_was_asked(prepared: Prepared, h: NBD) -> None:
    completed: list[int] = []
    h.aio_flush(lambda error: completed.append(error.value))
    prepared.answer(ok(1))
    prepared.end()
    h.shutdown()
    assert completed == [0]
    assert h.aio_is_closed()
    assert prepared.sent().endswith(Request(type=Cmd.DISC, cookie=2).encode())
    assert prepared.far.recv(1) == b""


def test_after_disconnecting_nothing_more_can_be_asked(h: NBD) -> None:
    h.aio_disconnect()
    assert h.aio_in_flight() == 1
    with pytest.raises(Error, match="cannot request more commands after NBD_CMD_DISC"):
        h.pread(1, 0)


def test_abandoning_drops_what_was_not_begun(prepared: Prepared, h: NBD) -> None:
    h.set_strict_mode(0)
    ends: list[tuple[int, int]] = []
    payload = bytes(1 << 21)

    def note(number: int) -> None:
        h.aio_pwrite(payload, 0, lambda error: ends.append((number, error.value)))

    note(1)  # which fills the socket
    note(2)
    h.aio_flush(lambda error: ends.append((3, error.value)))
    h.set_timeout(0.05)
    with pytest.raises(Error, match="timed out"):
        h.shutdown(SHUTDOWN_ABANDON_PENDING)
    assert ends == [(2, errno.ENOTCONN), (3, errno.ENOTCONN)]
    received = bytearray(prepared.sent())
    while h.aio_get_direction() & 2:
        h.aio_notify_write()
        received += prepared.sent()
    first = Request(type=Cmd.WRITE, cookie=1, length=len(payload)).encode() + payload
    assert bytes(received) == first + Request(type=Cmd.DISC, cookie=4).encode()


def test_statistics(prepared: Prepared, h: NBD) -> None:
    sent, received = h.stats_bytes_sent(), h.stats_bytes_received()
    chunks = h.stats_chunks_sent(), h.stats_chunks_received()
    assert chunks == (3, 1)
    prepared.answer(data_chunk(1, 0, b"abcd"))
    h.pread(4, 0)
    h.aio_flush()
    assert h.stats_bytes_sent() - sent == 56
    assert h.stats_bytes_received() - received == 32
    assert (h.stats_chunks_sent(), h.stats_chunks_received()) == (5, 2)


def test_a_timeout_leaves_the_connection_usable(prepared: Prepared, h: NBD) -> None:
    h.set_timeout(0.01)
    with pytest.raises(Error) as caught:
        h.pread(4, 0)
    assert caught.value.errno == "ETIMEDOUT"
    assert caught.value.string == "nbd_pread: timed out after 0.01 s: Connection timed out"
    prepared.answer(data_chunk(1, 0, b"late"), data_chunk(2, 0, b"good"))
    h.set_timeout(60)
    assert h.pread(4, 0) == b"good"
    with pytest.raises(Error, match="no commands are in flight"):
        h.aio_peek_command_completed()
