"""The client's side of a connection without the connection: bytes in, bytes out, commands completed, nothing that
waits or reads a clock.

A driver moves the bytes: it receives into `receive_space()` and says `received(count)`; it sends `output()` and says
`sent(count)`. Whatever the server sends ends in a result, in the state CLOSED or in the state DEAD with `failure` set.
Large payloads never pass through here: the space to receive into is then the caller's own buffer, and the output refers
to it.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from ctypes import c_int
from typing import Any

from nbdtest.client import states
from nbdtest.client.commands import Command, CompletionCallback
from nbdtest.client.errors import Failure
from nbdtest.client.express import LARGE_READ
from nbdtest.client.headers import EXTENDED_REQUEST, REQUEST
from nbdtest.client.inbox import Inbox
from nbdtest.client.negotiation import Dialogue, handshake
from nbdtest.client.replies import Program, read_replies
from nbdtest.client.settings import Export, Settings
from nbdtest.client.states import State
from nbdtest.wire import EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC, Cmd

__all__ = ["Engine"]

BATCH_BYTES = 1 << 18  # beyond that, payloads that wait to be sent are not copied
COPY_BELOW = 1 << 16  # payloads up to here are copied behind their header: cheaper than one more piece to gather
MOST_CONTEXTS = 1 << 16
_ENDED = object()
_READ = Cmd.READ.value
_DISC = Cmd.DISC.value


def _retire(error: object) -> int:
    return 1


class Engine:
    """The protocol state of one connection.

    `log` takes debug messages, `report` exceptions of callbacks that no call can raise.
    """

    __slots__ = (  # faster than a dict, which so many names would not share among engines
        "_large_reads",
        "_log",
        "_option_completion",
        "_program",
        "_report",
        "bytes_received",
        "bytes_sent",
        "calm",
        "chunks_received",
        "chunks_sent",
        "contexts",
        "disconnecting",
        "done",
        "escaped",
        "export",
        "extended",
        "failure",
        "half_close_wanted",
        "in_flight",
        "inbox",
        "lent_to",
        "meta_valid",
        "mid_message",
        "next_cookie",
        "outgoing",
        "protocol",
        "refusal",
        "resting",
        "running",
        "settings",
        "structured",
        "tail",
        "tls_negotiated",
        "tls_wanted",
    )

    def __init__(
        self,
        settings: Settings,
        log: Callable[[str], None] | None = None,
        report: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.settings = settings
        self._log = log
        self._report = report
        self.resting: State = states.START
        """The state, leaving aside whether there is something to be sent."""
        self.failure: Failure | None = None
        """Why the connection is dead."""
        self.refusal: Failure | None = None
        """Why the server refused the last option, if it did."""
        self.escaped: BaseException | None = None
        """What a callback raised that must not be swallowed."""

        self.export = Export()
        self.protocol = ""
        self.structured = False
        self.extended = False
        self.contexts: list[tuple[int, str]] = []
        self.meta_valid = False
        self.tls_wanted = False
        self.tls_negotiated = False

        self.inbox = Inbox()
        self.mid_message = False
        self.calm = False
        """Set by the fast lane when it has seen that there is nothing to do; cleared here by whatever gives us
        something.
        """
        self._program: Program | None = None
        self.running = False
        """Whether the engine is in the middle of something; who calls it now is a callback."""
        self._option_completion: CompletionCallback | None = None

        self.outgoing: deque[bytearray | memoryview] = deque()
        """What has to be sent, as far as it is not in `tail`."""
        self.tail = bytearray()
        """What has to be sent after that: headers and small payloads, gathered for one system call."""
        self.in_flight: dict[int, Command] = {}
        """Commands that are not finished, by cookie, in the order in which they are sent."""
        self.done: dict[int, Command] = {}
        """Finished commands that nobody has asked for, oldest first."""
        self.disconnecting = False
        self.half_close_wanted = False
        """The driver shuts the sending side when the output is gone."""
        self._large_reads = 0
        self.lent_to: Command | None = None
        """The read into whose buffer bytes are received, if any are."""
        self.next_cookie = 1

        self.bytes_sent = 0
        self.chunks_sent = 0
        self.bytes_received = 0
        self.chunks_received = 0

    # ---- state

    @property
    def state(self) -> State:
        """Where the connection rests."""
        if not self.has_output:
            return self.resting
        if self.resting is not states.READY:
            return states.SENDING_FIRST.get(self.resting, self.resting)
        if self.outgoing and isinstance(self.outgoing[0], memoryview):
            return states.SENDING_PAYLOAD
        return states.SENDING_REQUEST

    @state.setter
    def state(self, state: State) -> None:
        self.resting = state

    def rest_in(self, state: State) -> None:
        """Note where a dialogue waits."""
        self.resting = state

    @property
    def transmitting(self) -> bool:
        """Whether requests can be sent and replies received."""
        return self.resting is states.READY

    @property
    def over(self) -> bool:
        """Whether the connection has ended, one way or the other."""
        return self.resting is states.CLOSED or self.resting is states.DEAD

    @property
    def pending(self) -> int:
        """How many commands are not finished."""
        return len(self.in_flight)

    def debug(self, text: str, *values: object) -> None:
        """Say something to whoever debugs; `values` fill the places of `text` then."""
        if self._log is not None and self.settings.debug:
            self._log(text.format(*values) if values else text)

    # ---- connection

    def start(self) -> None:
        """The transport is connected: begin the handshake."""
        self._run(handshake(self))

    def begin_option(
        self, dialogue: Dialogue, completion: CompletionCallback | None, *, then: State = states.NEGOTIATING
    ) -> None:
        """Hold a dialogue about an option; afterwards rest in `then`, or in NEGOTIATING when the server refused."""
        self.refusal = None
        self._option_completion = completion
        self._run(self._option(dialogue, then))

    def _option(self, dialogue: Dialogue, then: State) -> Program:
        self.refusal = yield from dialogue
        self.resting = then if self.refusal is None else states.NEGOTIATING
        self._complete_option(0 if self.refusal is None else self.refusal.errnum or errno.ENOTSUP)
        if self.resting is states.CLOSED:
            self._end(states.CLOSED)

    def _complete_option(self, number: int) -> None:
        completion, self._option_completion = self._option_completion, None
        if completion is not None:
            self.call_back(None, completion, c_int(number))

    def tls_established(self) -> None:
        """The driver has TLS running."""
        self.tls_wanted = False
        self.tls_negotiated = True
        self.inbox.worth_lending = LARGE_READ  # to decrypt much in one go is cheaper than to spare a copy
        self.advance()

    # ---- bytes in

    def receive_space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self.inbox.space()

    def received(self, count: int) -> None:
        """The first `count` bytes of `receive_space()` have been filled."""
        self.calm = False
        self.bytes_received += count
        self.inbox.received(count)
        self.advance()

    def received_end(self) -> None:
        """The server has ended the connection."""
        if self.over:
            return
        if self.transmitting and not self.mid_message and not len(self.inbox):
            self._end(states.CLOSED)
        else:
            self.die(Failure("recv: server disconnected unexpectedly"))

    def advance(self) -> None:
        """Go on with whatever the engine was waiting for: the handshake, an option, or replies."""
        if self.running:
            return
        self.running = True
        try:
            while (program := self._program) is not None or (self.resting is states.READY and len(self.inbox)):
                if program is None:
                    program = self._program = read_replies(self)
                if next(program, _ENDED) is not _ENDED:
                    break
                self._program = None
        except Failure as failure:
            self._program = None
            self.die(failure)
        except BaseException:
            # An interrupt in the middle of a message: nobody knows what has been taken out of the inbox.
            self._program = None
            self.die(Failure("interrupted while a message was being read", errno.EINTR))
            raise
        finally:
            self.running = False

    def _run(self, program: Program) -> None:
        self._program = program
        self.advance()

    # ---- the export

    def set_size_and_flags(self, size: int, flags: int) -> None:
        """Take over what the server says about the export."""
        self.debug("exportsize: {} eflags: 0x{:x}", size, flags)
        self.export.set_size_and_flags(size, flags, structured=self.structured, extended=self.extended)
        if self.settings.request_meta_context and not (self.structured and self.settings.meta_contexts):
            self.meta_valid = True

    def forget_export(self) -> None:
        """What was known of the export no longer counts."""
        self.export = Export()

    def add_context(self, number: int, name: str) -> None:
        """The server selected a metadata context.

        Raises:
            Failure: it selects without end.
        """
        if len(self.contexts) == MOST_CONTEXTS:
            raise Failure("handshake: the server selects more metadata contexts than anybody can want")
        self.contexts.append((number, name))

    # ---- bytes out

    @property
    def has_output(self) -> bool:
        """Whether there is anything to be sent."""
        return bool(self.outgoing or self.tail)

    def send(self, data: bytes) -> None:
        """Add bytes to what is to be sent."""
        self.tail += data

    def end_output(self) -> None:
        """Nothing follows what is to be sent now."""
        self.half_close_wanted = True

    def output(self) -> deque[bytearray | memoryview]:
        """What is to be sent, in order; to be passed on as it is and not changed."""
        if self.tail:
            self.outgoing.append(self.tail)
            self.tail = bytearray()
        return self.outgoing

    def sent(self, count: int) -> None:
        """The first `count` bytes of `output()` are gone."""
        self.bytes_sent += count
        outgoing = self.outgoing
        while outgoing and count >= len(outgoing[0]):
            count -= len(outgoing.popleft())
        if count:
            outgoing[0] = memoryview(outgoing[0])[count:]
        if not outgoing and not self.tail:
            if self.resting is not states.READY:
                if self.resting.direction == states.WRITING or len(self.inbox):
                    self.advance()
            elif self.disconnecting:
                self.half_close_wanted = True

    def _encode(self, command: Command) -> None:
        self.chunks_sent += 1
        if self.extended:
            self.tail += EXTENDED_REQUEST.pack(
                EXTENDED_REQUEST_MAGIC, command.flags, command.type, command.cookie, command.offset, command.count
            )
        else:
            self.tail += REQUEST.pack(
                REQUEST_MAGIC, command.flags, command.type, command.cookie, command.offset, command.count
            )
        payload = command.payload
        if payload is None:
            return
        if len(payload) < COPY_BELOW and len(self.tail) < BATCH_BYTES:
            self.tail += payload
        else:
            self.outgoing += (self.tail, payload)
            self.tail = bytearray()

    def _unsent(self) -> list[Command]:
        """The commands of which no byte has been sent, newest first."""
        waiting = sum(map(len, self.outgoing)) + len(self.tail)
        header = EXTENDED_REQUEST.size if self.extended else REQUEST.size
        found: list[Command] = []
        for command in reversed(self.in_flight.values()):
            waiting -= header if command.payload is None else header + len(command.payload)
            if waiting < 0:
                break
            found.append(command)
        return found

    @property
    def last_sent(self) -> int:
        """The cookie of the newest command of which something has been sent: nobody can reply to a later one."""
        if not self.has_output or not self.in_flight:
            return self.next_cookie - 1
        unsent = self._unsent()
        return unsent[-1].cookie - 1 if unsent else self.next_cookie - 1

    # ---- commands

    def submit(self, command: Command) -> int:
        """Take a command to be sent and return its cookie."""
        self.calm = False
        cookie = command.cookie = self.next_cookie
        self.next_cookie = cookie + 1
        if command.type == _READ and command.count >= LARGE_READ:
            self._large_reads += 1
            self.inbox.narrow = True
        self.in_flight[cookie] = command
        self._encode(command)
        return cookie

    def disconnect(self, flags: int = 0) -> None:
        """Send CMD_DISC, after which nothing is sent any more."""
        self.submit(Command(_DISC, 0, 0, flags))
        self.disconnecting = True

    def resume(self, command: Command, sent: int, received: bytes) -> None:
        """Take over a command that was begun by another way: `sent` bytes of it are gone, `received` came after them.

        To be called with nothing else in flight, to be sent or in the inbox.
        """
        self.submit(command)
        self.output()
        self.sent(sent)
        if received:
            self.bytes_received += len(received)
            self.inbox.preload(received)
            self.advance()

    def find(self, cookie: int) -> Command | None:
        """The command that a reply with this cookie answers."""
        command = self.in_flight.get(cookie)
        return command if command is not None and cookie <= self.last_sent else None

    def finish(self, command: Command) -> None:
        """The reply to `command` is complete."""
        if self.in_flight.pop(command.cookie, None) is None:
            return
        command.settle()
        self._finished(command)

    def _finished(self, command: Command) -> None:
        if command.type == _READ and command.count >= LARGE_READ:
            self._large_reads -= 1
            self.inbox.narrow = self._large_reads > 0
        if command.type != _DISC:
            cell = c_int(command.error)
            answer = 0 if command.completion is None else self.call_back(command, command.completion, cell)
            self.conclude(command, answer, cell)

    def conclude(self, command: Command, answer: object, cell: c_int) -> None:
        """Keep a finished command, unless the `answer` of its completion callback retires it; -1 makes it fail."""
        if isinstance(answer, int):
            if answer == 1:
                return
            if answer == -1:
                command.error = cell.value or command.error
                if not command.error and command.raised is not None:
                    self._keep(None, command.raised)
        self.done[command.cookie] = command

    def disown(self, command: Command) -> None:
        """Nobody waits for a command any more: its reply leads to nothing, and its buffer is the caller's again."""
        command.completion = _retire
        self.done.pop(command.cookie, None)
        if command.view is None or command.view.readonly or command.cookie not in self.in_flight:
            return
        command.view = memoryview(bytearray(len(command.view)))
        if command.type != _READ:  # what has been begun must be sent as it is
            self.outgoing = deque(
                memoryview(bytes(piece)) if isinstance(piece, memoryview) else piece for piece in self.outgoing
            )
        elif self.lent_to is command and (rest := self.inbox.lent_rest):
            self.inbox.lend(command.view[:rest])

    def abandon_unsent(self) -> None:
        """Drop every command of which no byte has been sent; they fail with ENOTCONN."""
        dropped = self._unsent()
        header = EXTENDED_REQUEST.size if self.extended else REQUEST.size
        keep = sum(map(len, self.output()))
        for command in dropped:
            keep -= header if command.payload is None else header + len(command.payload)
            del self.in_flight[command.cookie]
            self.chunks_sent -= 1
        kept: deque[bytearray | memoryview] = deque()
        for piece in self.outgoing:
            part = memoryview(piece)[:keep]
            keep -= len(part)
            if len(part):
                kept.append(part)
        self.outgoing = kept
        for command in reversed(dropped):
            self._abort(command)

    def _abort(self, command: Command) -> None:
        command.fail(errno.ENOTCONN)
        command.cut_off = True
        command.clear_missing()
        self._finished(command)

    def call_back(self, command: Command | None, function: Callable[..., Any], *arguments: object) -> int:
        """Call a caller's function and return its answer: 0 unless it is an int; -1 when it raised.

        What it raised is kept: with the command, whose error it explains, or, when it must not be swallowed, in
        `escaped`.
        """
        try:
            answer = function(*arguments)
        except BaseException as error:  # noqa: BLE001 - kept, and raised again or chained by the call
            return self.callback_raised(command, error)
        return answer if isinstance(answer, int) else 0

    def callback_raised(self, command: Command | None, error: BaseException) -> int:
        """Keep what a callback raised, and return what such a callback counts as: -1."""
        if isinstance(error, Exception):
            self._keep(command, error)
        else:
            self.escaped = self.escaped or error
        return -1

    def _keep(self, command: Command | None, error: BaseException) -> None:
        if isinstance(error, AssertionError):
            self.escaped = self.escaped or error
        elif command is None:
            if self._report is not None:
                self._report(error)
        elif command.raised is None:
            command.raised = error

    # ---- the end

    def die(self, failure: Failure) -> None:
        """The connection is lost."""
        if self.over:
            return
        self.failure = failure
        self.debug(f"handle dead: {failure.text}")
        self._end(states.DEAD, failure.errnum)

    def close(self) -> None:
        """The owner gives the connection up: whoever waits is told."""
        if not self.over:
            self._end(states.CLOSED)

    def _end(self, state: State, number: int = 0) -> None:
        self.calm = False
        self.resting = state
        program, self._program = self._program, None
        if program is not None and not self.running:
            program.close()
        self.outgoing.clear()
        self.tail = bytearray()
        self.inbox.withdraw()
        self.lent_to = None
        self._complete_option(number or errno.ENOTCONN)
        unfinished = list(self.in_flight.values())
        self.in_flight.clear()
        for command in unfinished:
            self._abort(command)
