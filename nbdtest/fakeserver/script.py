"""Scripts: a function that plays the server on one whole connection, step by step.

The peer reads with the engine's understanding, so violations are recognised and the journal is kept as usual; what is
sent is the script's own business.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from nbdtest.errors import Disconnected, UsageError
from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.engine import Engine
from nbdtest.fakeserver.fitting import CHUNKS, GREETINGS, OPTION_REPLIES, checked_plan
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.outbox import End
from nbdtest.fakeserver.outgoing import Outgoing
from nbdtest.fakeserver.rendering import Asked, Reply, handshake_flags, render_greeting, render_option_reply
from nbdtest.fakeserver.session import Phase, Session
from nbdtest.model import Disk
from nbdtest.net.clock import Deadline, monotonic_s
from nbdtest.net.stream import SocketStream, Stream
from nbdtest.net.tls import TLSContext, TLSStream, start_tls
from nbdtest.wire import Cmd, Errno, Message, Option, TransmissionFlag
from nbdtest.wire.layout import Readable

__all__ = ["Peer", "Prepared", "ReceivedOption", "ReceivedRequest", "Script", "Sendable"]

PATIENCE_S = 30.0
_AnyMessage = TypeVar("_AnyMessage", bound=Message)


@dataclass(slots=True)
class Script:
    """A function that waits for a connection to play."""

    function: Callable[[Peer], None]
    used: bool = False

    @property
    def name(self) -> str:
        """What the function is called."""
        return getattr(self.function, "__name__", repr(self.function))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A reply, or a part of one, that `Peer.send` sends; it is read from the disk then."""

    steps: Callable[[], Iterator[Outgoing | Action]]


Sendable: TypeAlias = Prepared | Message | Readable | Action


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request that the script has to answer, or not."""

    asked: Asked
    _disk: Disk = field(repr=False)
    _correct: Callable[[], None] = field(repr=False)
    _peer: Peer = field(repr=False)

    @property
    def type(self) -> Cmd:
        """The command."""
        return self.asked.type

    @property
    def cookie(self) -> int:
        """What a reply has to echo."""
        return self.asked.cookie

    @property
    def offset(self) -> int:
        """Where it begins in the export."""
        return self.asked.offset

    @property
    def length(self) -> int:
        """The length of its effect."""
        return self.asked.length

    @property
    def payload(self) -> bytes:
        """The data of a WRITE."""
        return bytes(self.asked.payload)

    def ok(self) -> Prepared:
        """The whole reply of success: the data of a READ, no data for anything else. Nothing is done to the disk."""
        return self.reply(actions.Data() if self.type == Cmd.READ else actions.NoData())

    def error(self, errno: Errno, *, at: int | None = None, message: str = "") -> Prepared:
        """The whole reply of failure."""
        return self.reply(actions.Error(errno, at=at, message=message))

    def reply(self, *plan: Action) -> Prepared:
        """A whole reply of these actions, framed as was negotiated; the last chunk gets DONE.

        Raises:
            UsageError: one of them is no part of a reply.
        """
        fitting = _checked_plan(plan, CHUNKS, f"a reply to {self.type}")
        return Prepared(lambda: Reply(fitting, self.asked, self._disk).steps())

    def chunks(self, *plan: Action) -> Prepared:
        """A part of a reply: no chunk gets DONE unless it says so itself.

        Raises:
            UsageError: one of them is no part of a reply.
        """
        fitting = _checked_plan(plan, CHUNKS, f"a reply to {self.type}")
        return Prepared(lambda: Reply(fitting, self.asked, self._disk, complete=False).steps())

    def answer_correctly(self) -> None:
        """Answer as the correct server does, and do to the disk what was asked for."""
        self._correct()
        self._peer.flush()


@dataclass(frozen=True, slots=True)
class ReceivedOption:
    """An option that the script has to answer, or not."""

    option: Option
    _correct: Callable[[], None] = field(repr=False)
    _peer: Peer = field(repr=False)

    def reply(self, *plan: Action) -> Prepared:
        """These option replies. What the option would have changed stays as it is.

        Raises:
            UsageError: one of them is no option reply.
        """
        fitting = _checked_plan(plan, OPTION_REPLIES, f"an answer to {self.option.option}")
        export = self._peer.engine.settings.find("")
        flags = TransmissionFlag.HAS_FLAGS
        if export is not None:
            flags = export.transmission_flags(structured=False, extended=False, contexts_selected=False)
        return Prepared(lambda: (render_option_reply(each, self.option.option, export, flags) for each in fitting))

    def answer_correctly(self) -> None:
        """Answer as the correct server does, with all that follows from it."""
        self._correct()
        self._peer.flush()


class Peer:
    """The server's end of one connection, in the hands of a script."""

    def __init__(
        self,
        stream: SocketStream,
        engine: Engine,
        journal: Journal,
        *,
        tls: TLSContext | None = None,
        released: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`released` is told the names that the script releases, for the other connections."""
        self.engine = engine
        self.interrupted = False
        self._stream: Stream = stream
        self._tls = tls
        self._journal = journal
        self._patience = threading.Event()
        self._released = released
        self._released_elsewhere: deque[str] = deque()
        self._wake, self._waker = socket.socketpair()
        self._requests: list[ReceivedRequest] = []
        self._options: list[ReceivedOption] = []
        self._started = False
        engine.lied = True

    @property
    def number(self) -> int:
        """The connection's number."""
        return self.engine.connection

    @property
    def disk(self) -> Disk:
        """The disk of the export that was negotiated, or of the first one."""
        export = self.engine.session.export or self.engine.settings.exports[0]
        disk: Disk = export.disk
        return disk

    # Reading with understanding.

    def negotiate(self) -> None:
        """Go through a correct handshake, up to the first request.

        Raises:
            Disconnected: the client left before.
        """
        self._start()
        self.engine.on_option = None
        while self.engine.session.phase is not Phase.TRANSMISSION:
            self._exchange("the handshake")

    def option(self) -> ReceivedOption:
        """Wait for the client's next option, which the script answers; the greeting is sent if it has not been."""
        self._start()
        self.engine.on_option = self._note_option
        while not self._options:
            self._exchange("an option")
        return self._options.pop(0)

    def request(self) -> ReceivedRequest:
        """Wait for the next request, which the script answers; the handshake is gone through if it has not been."""
        return self.requests(1)[0]

    def requests(self, count: int) -> list[ReceivedRequest]:
        """Wait for so many requests without answering any."""
        if self.engine.session.phase is not Phase.TRANSMISSION:
            self.negotiate()
        while len(self._requests) < count:
            self._exchange(f"request {len(self._requests) + 1} of {count}")
        taken, self._requests = self._requests[:count], self._requests[count:]
        return taken

    def serve(self) -> None:
        """Serve correctly until the client leaves."""
        self._start()
        self.engine.on_option = None
        self.engine.on_request = None
        try:
            while self.engine.end is None:
                self._exchange("a message", patience_s=None)
        except Disconnected:
            self.engine.receive_end(monotonic_s())
        self.flush()

    def resume(
        self,
        phase: Phase,
        *,
        structured: bool = False,
        extended: bool = False,
        contexts: Mapping[str, int] | None = None,
    ) -> None:
        """Understand from here on what the client says, after a part of the handshake that the script has spoken raw.

        Args:
            phase: what comes next: `Phase.GREETED` the client's flags, `Phase.HAGGLING` an option,
                `Phase.TRANSMISSION` a request, for the first export.
            structured: structured replies have been agreed on; so for `extended` and headers.
            contexts: the ids of the metadata contexts that have been selected.

        Raises:
            UsageError: there is nothing to understand in this phase.
        """
        if phase not in (Phase.GREETED, Phase.HAGGLING, Phase.TRANSMISSION):
            raise UsageError(f"resume() takes Phase.GREETED, HAGGLING or TRANSMISSION, not {phase!r}")
        known, export = self.engine, self.engine.settings.exports[0]
        chosen = dict(contexts or {})
        session = Session(
            phase=phase,
            offered=handshake_flags(known.settings),
            fixed=True,
            no_zeroes=True,
            structured=structured,
            extended=extended,
            contexts=chosen,
            contexts_of=export.name,
            export=export if phase is Phase.TRANSMISSION else None,
            flags=export.transmission_flags(structured=structured, extended=extended, contexts_selected=bool(chosen)),
        )
        unread = known.take_unread()
        self.engine = Engine(known.settings, known.rules, known.observer, connection=known.connection, session=session)
        self.engine.released = known.released
        self.engine.lied = True
        self.engine.on_request = self._note_request
        self.engine.put_back(unread)
        self._started = True

    # Raw bytes.

    def receive(self, count: int) -> bytes:
        """Wait for exactly so many bytes."""
        early = self.engine.take_unread()
        if len(early) >= count:
            self.engine.put_back(early[count:])
            return early[:count]
        data = early + self._stream.receive_exact(count - len(early), Deadline(PATIENCE_S), what="bytes for a script")
        self._journal.received(self.number, monotonic_s(), data, f"{count} bytes for the script")
        return data

    def receive_message(self, kind: type[_AnyMessage]) -> _AnyMessage:
        """Wait for a message of fixed size."""
        return kind.decode(self.receive(kind.wire_size()))

    def wait_for_end(self) -> bytes:
        """Wait until the client ends the connection; give what it sent before that."""
        data = self.engine.take_unread()
        try:
            while True:
                data += self._stream.receive_some(deadline=Deadline(PATIENCE_S))
        except Disconnected:
            return data

    # Sending.

    def send(self, *things: Sendable) -> None:
        """Send prepared replies, messages, bytes; actions such as `drip()` or `cut(after=9)` take effect in turn.

        Raises:
            UsageError: something cannot be sent, or only as a part of a reply.
        """
        for thing in things:
            self.engine.now = monotonic_s()
            match thing:
                case Prepared(steps=steps):
                    self.engine.play(steps())
                case Message():
                    self.engine.play(iter([Outgoing(message=thing)]))
                case bytes() | bytearray() | memoryview():
                    self.engine.play(iter([Outgoing(tail=(bytes(thing),))]))
                case Action():
                    (action,) = _checked_plan([thing], GREETINGS, "what is sent by itself; see reply() of a request")
                    self.engine.play(iter([render_greeting(action, self.engine.settings)]))
                case _:
                    raise UsageError(f"send() takes prepared replies, messages, bytes and actions, not {thing!r}")
            self.flush()

    def flush(self) -> None:
        """Send what waits, and carry out a cut."""
        while self._released_elsewhere:
            self.engine.release(self._released_elsewhere.popleft(), monotonic_s())
        self._send_what_waits()
        names, self.engine.to_release = self.engine.to_release, []
        for name in names:
            self._released(name)

    def _send_what_waits(self) -> None:
        while True:
            pieces = self.engine.data_to_send(monotonic_s())
            if pieces:
                try:
                    self._stream.send_all(*pieces, deadline=Deadline(PATIENCE_S))
                except Disconnected:
                    # That a client does not stay to hear the rest of a lie is no mistake of the script's.
                    self._journal.event(self.number, monotonic_s(), "the client has gone")
                    return
                continue
            if self.engine.wants_tls and self.engine.has_said_all:
                self.start_tls()
            wait_s = self.engine.wake_at - monotonic_s()
            if wait_s > PATIENCE_S:
                break
            self.pause(max(wait_s, 0))
        if self.engine.end is not None:
            self._stream.cut(rst=self.engine.end is End.RST)

    def start_tls(self) -> None:
        """Do the TLS handshake; what is sent and received from now on is encrypted.

        An answer to STARTTLS that says yes does this by itself. A script may do it where nobody asked.

        Raises:
            UsageError: the server has no credentials.
            HandshakeFailed: no session came about.
        """
        self.engine.wants_tls = False
        if self._tls is None:
            raise UsageError("the fake server has no TLS credentials: give it tls=server_context(...)")
        early = self.engine.take_unread()
        self._stream = start_tls(self._stream, self._tls, Deadline(PATIENCE_S), received=early)
        self._journal.event(self.number, monotonic_s(), f"TLS is up: {self._stream.pipe.version}")

    def pause(self, seconds: float) -> None:
        """Do nothing for a while; cut short when the server is stopped."""
        if self._patience.wait(seconds):
            raise Disconnected("the server is being stopped")

    def cut(self, *, rst: bool = False) -> None:
        """End the connection now."""
        self._journal.event(self.number, monotonic_s(), f"cut(rst={rst})")
        self._stream.cut(rst=rst)

    def close(self) -> None:
        """End the connection by FIN, and TLS before it. Any number of times."""
        if isinstance(self._stream, TLSStream):
            self._stream = self._stream.close_session()
        self._stream.cut()
        self._wake.close()
        self._waker.close()

    def release(self, name: str) -> None:
        """Let go what replies of this script hold under `name`. From any thread."""
        self._released_elsewhere.append(name)
        with suppress(OSError):  # the script has ended
            self._waker.send(b"r", socket.MSG_DONTWAIT)

    def interrupt(self) -> None:
        """Make the script's thread give up. From any thread."""
        self.interrupted = True
        self._patience.set()
        self._stream.interrupt()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self.engine.on_request = self._note_request
            self.engine.start(monotonic_s())
            self.flush()

    def _exchange(self, what: str, patience_s: float | None = PATIENCE_S) -> None:
        if self.engine.go_on(monotonic_s()):
            self.flush()
            return
        if self._stream.fileno() < 0:
            raise UsageError(f"the script waits for {what} after it has ended the connection")
        deadline = Deadline(patience_s)
        self._wait_for_releases(deadline)
        data = self._stream.receive_some(deadline=deadline, what=what)
        self.engine.receive(data, monotonic_s())
        self.flush()
        if self.engine.end is not None and self.engine.session.phase is Phase.CLOSED:
            raise Disconnected(f"the session ended while {what} was expected")

    def _wait_for_releases(self, deadline: Deadline) -> None:
        """Let go what is released elsewhere until the client says something, if replies are held."""
        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLIN)
        poll.register(self._wake.fileno(), select.POLLIN)
        while self.engine.pending() and not deadline.expired:
            ready = {number for number, _ in poll.poll(deadline.remaining_ms())}
            if self._stream.fileno() in ready:
                return
            if ready:
                self._wake.recv(4096)
                self.flush()

    def _note_request(self, asked: Asked, correct: Callable[[], None]) -> None:
        self._requests.append(ReceivedRequest(asked, self.disk, correct, self))

    def _note_option(self, option: Option, correct: Callable[[], None]) -> None:
        self._options.append(ReceivedOption(option, correct, self))


def _checked_plan(plan: Iterable[Action], messages: tuple[type[Action], ...], where: str) -> Plan:
    fitting = checked_plan(plan, messages, where)
    if any(isinstance(action, actions.PassThrough) for action in fitting):
        raise UsageError("pass_through() is for rules: a script calls answer_correctly() of a request or an option")
    return fitting
