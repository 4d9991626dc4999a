"""What our parent process handed over: a connection on stdin and stdout, or listening sockets (systemd activation).

The other direction, handing them to a server that we start, is `nbdtest.net.process`.
"""

import os
import select
import stat
from collections.abc import MutableMapping
from contextlib import suppress

from nbdtest.errors import Disconnected, TimedOut, TransportError, UsageError
from nbdtest.net.clock import Deadline
from nbdtest.net.sockets import Listener, adopt, adopt_listener
from nbdtest.net.stream import MAX_PIECES, Arrival, BytesLike, Stream, WritableBuffer, unsent, wait_for

__all__ = ["FIRST_ACTIVATED", "PipeStream", "activated_listeners", "stdio_stream"]

FIRST_ACTIVATED = 3
"""The descriptor at which systemd's protocol begins."""


class PipeStream(Stream):
    """A pipe in each direction. It owns both descriptors."""

    def __init__(self, reading: int, writing: int, *, timeout_s: float | None = 10.0) -> None:
        self._reading = reading
        self._writing = writing
        self.timeout_s = timeout_s
        self._waker, self._wake = os.pipe()
        self._interrupted = False
        # The mode belongs to the pipe's end, which others may share (such as the next command of a shell script).
        self._modes = {descriptor: os.get_blocking(descriptor) for descriptor in (reading, writing)}
        for descriptor in self._modes:
            os.set_blocking(descriptor, False)

    @property
    def can_reset(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._reading

    def receive_into(self, buffer: WritableBuffer, deadline: Deadline | None = None, *, what: str = "") -> int:
        expected = f" while {what} was expected" if what else ""
        deadline = deadline or Deadline(self.timeout_s)
        while not self._interrupted:
            try:
                count = os.readv(self._reading, [buffer])
            except BlockingIOError:
                if not self._wait(self._reading, select.POLLIN, deadline):
                    raise TimedOut(f"nothing arrived in {deadline.seconds:g} s{expected}") from None
                continue
            except OSError as error:
                raise TransportError(f"cannot read from the pipe{expected}: {error.strerror}") from error
            if count:
                return count
            break
        raise Disconnected(f"the peer closed the pipe{expected}")

    def send_all(self, *pieces: BytesLike, deadline: Deadline | None = None) -> None:
        deadline = deadline or Deadline(self.timeout_s)
        pending = unsent(pieces, 0)
        while pending:
            if self._interrupted:
                raise Disconnected("the stream was interrupted")
            try:
                sent = os.writev(self._writing, pending[:MAX_PIECES])
            except BlockingIOError:
                if not self._wait(self._writing, select.POLLOUT, deadline):
                    left = sum(piece.nbytes for piece in pending)
                    message = f"the peer stopped reading: {left} bytes could not be sent in {deadline.seconds:g} s"
                    raise TimedOut(message) from None
                continue
            except BrokenPipeError:
                raise Disconnected("the peer closed the pipe") from None
            except OSError as error:
                raise TransportError(f"cannot write to the pipe: {error.strerror}") from error
            pending = unsent(pending, sent)

    def arrival(self, within: float) -> Arrival:
        if not wait_for(self._reading, select.POLLIN, Deadline(within)):
            return Arrival.NOTHING
        poller = select.poll()
        poller.register(self._reading, select.POLLIN)
        # A pipe cannot be peeked into; POLLHUP alone, without POLLIN, is its end.
        return Arrival.BYTES if any(events & select.POLLIN for _, events in poller.poll(0)) else Arrival.END

    def half_close(self) -> None:
        self._writing = self._closed(self._writing)

    def interrupt(self) -> None:
        self._interrupted = True
        with suppress(OSError):
            os.write(self._wake, b"x")

    def cut(self, *, rst: bool = False) -> None:
        self.close()

    def close(self) -> None:
        self._writing = self._closed(self._writing)
        self._reading = self._closed(self._reading)
        self._waker = self._closed(self._waker)
        self._wake = self._closed(self._wake)

    def _closed(self, descriptor: int) -> int:
        if descriptor >= 0:
            if descriptor in self._modes:
                os.set_blocking(descriptor, self._modes[descriptor])
            os.close(descriptor)
        return -1

    def _wait(self, descriptor: int, events: int, deadline: Deadline) -> bool:
        if descriptor < 0:
            return True
        poller = select.poll()
        poller.register(descriptor, events)
        poller.register(self._waker, select.POLLIN)
        return bool(poller.poll(deadline.remaining_ms()))


def stdio_stream(*, timeout_s: float | None = None) -> Stream:
    """Take this process's stdin and stdout as the connection, a socket or two pipes.

    From then on descriptor 0 is /dev/null and descriptor 1 is stderr, so that a stray print cannot get into the
    protocol.

    Raises:
        UsageError: either is a terminal or closed.
    """
    for number, name in ((0, "stdin"), (1, "stdout")):
        try:
            if os.isatty(number):
                raise UsageError(f"{name} is a terminal: a server on stdin and stdout is started by its client")
            os.fstat(number)
        except OSError as error:
            raise UsageError(f"{name} cannot be used: {error.strerror}") from error
    print(end="", flush=True)
    reading, writing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no stderr
        os.dup2(null, 1)
    os.close(null)
    first, second = os.fstat(reading), os.fstat(writing)
    if stat.S_ISSOCK(first.st_mode) and (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino):
        os.close(writing)
        return adopt(reading, timeout_s=timeout_s)
    return PipeStream(reading, writing, timeout_s=timeout_s)


def activated_listeners(
    environ: MutableMapping[str, str] | None = None, *, first: int = FIRST_ACTIVATED
) -> list[Listener]:
    """Take over the listening sockets that systemd, or who acts like it, passed to this process; often there are none.

    The LISTEN_* variables are removed from `environ` (default: that of the process), so that no child takes them for
    its own.

    Raises:
        UsageError: the variables are malformed, or a descriptor is no listening stream socket.
    """
    environ = os.environ if environ is None else environ
    pid, count = environ.get("LISTEN_PID"), environ.get("LISTEN_FDS")
    if pid is None or count is None:
        return []
    if not (pid.isascii() and pid.isdigit() and count.isascii() and count.isdigit()):
        raise UsageError(f"LISTEN_PID={pid!r} and LISTEN_FDS={count!r}: two numbers were expected")
    if int(pid) != os.getpid():
        return []  # meant for a process above us
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    return [adopt_listener(descriptor) for descriptor in range(first, first + int(count))]
