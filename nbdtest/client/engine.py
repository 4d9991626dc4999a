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
from nbdtest.client.express import LARGE_READ, Express
from nbdtest.client.headers import EXTENDED_REQUEST, REQUEST
from nbdtest.client.inbox import Inbox
from nbdtest.client.negotiation import Dialogue, handshake
from nbdtest.client.replies import Program, read_replies
from nbdtest.client.settings import Export, Settings
from nbdtest.client.states import State
from nbdtest.wire import EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC, Cmd

__all__ = ["Engine"]

BATCH_BYTES = 1 << 18  # how much is encoded ahead of the socket
COPY_BELOW = 1 << 16  # payloads up to here are copied behind their header: cheaper than one more piece to gather
MOST_CONTEXTS = 1 << 16
_READ = Cmd.READ.value
_DISC = Cmd.DISC.value
_WITH_PAYLOAD = (Cmd.WRITE.value, Cmd.BLOCK_STATUS.value)  # a BLOCK_STATUS that filters its contexts has a view


class Engine:
    """The protocol state of one connection.

    `log` takes debug messages, `report` exceptions of callbacks that no call can raise.
    """

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
        self._program: Program | None = None
        self.running = False
        """Whether the engine is in the middle of something; who calls it now is a callback."""
        self._option_completion: CompletionCallback | None = None
        self._express = Express(self)

        self.outgoing: deque[bytes | bytearray | memoryview] = deque()
        """What is encoded and has to be sent."""
        self._batch: list[tuple[Command, int]] = []  # commands in the output, with their lengths
        self._batch_sent = 0
        self.queue: deque[Command] = deque()
        """Commands of which no byte has been encoded."""
        self.in_flight: dict[int, Command] = {}
        """Commands that the server knows or is just being told, by cookie."""
        self.done: dict[int, Command] = {}
        """Finished commands that nobody has asked for, oldest first."""
        self.disconnecting = False
        self.half_close_wanted = False
        """The driver shuts the sending side when the output is gone."""
        self._large_reads = 0
        self.next_cookie = 1

        self.bytes_sent = 0
        self.chunks_sent = 0
        self.bytes_received = 0
        self.chunks_received = 0

    # ---- state

    @property
    def state(self) -> State:
        """Where the connection rests."""
        if self.resting is not states.READY or not self.has_output:
            return self.resting
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
        """How many commands have been issued or queued and are not finished."""
        return len(self.queue) + len(self.in_flight)

    def debug(self, text: str) -> None:
        """Say something to whoever debugs."""
        if self._log is not None and self.settings.debug:
            self._log(text)

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
        self.advance()

    # ---- bytes in

    def receive_space(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        return self.inbox.space()

    def received(self, count: int) -> None:
        """The first `count` bytes of `receive_space()` have been filled."""
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
        """Go on with whatever the engine was waiting for."""
        program = self._program
        if program is None or self.running:
            return
        self.running = True
        try:
            next(program)
            if self.over:
                self._program = None
        except StopIteration:
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
        if self._program is None and self.resting is states.READY:
            self._run(read_replies(self))

    def _run(self, program: Program) -> None:
        self._program = program
        self.advance()

    def take_ordinary_replies(self) -> None:
        """Let the express lane have all complete, ordinary replies in the inbox."""
        self._express.take_replies()

    # ---- the export

    def set_size_and_flags(self, size: int, flags: int) -> None:
        """Take over what the server says about the export."""
        self.debug(f"exportsize: {size} eflags: 0x{flags:x}")
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
        """Whether there is anything to be sent, encoded already or not."""
        return bool(self.outgoing or self.queue)

    def send(self, data: bytes) -> None:
        """Add bytes of the handshake."""
        self.outgoing.append(data)

    def end_output(self) -> None:
        """Nothing follows what is to be sent now."""
        self.half_close_wanted = True

    def output(self) -> deque[bytes | bytearray | memoryview]:
        """What is to be sent, in order; to be passed on as it is and not changed."""
        if not self.outgoing and self.queue:
            self._encode_batch()
        return self.outgoing

    def sent(self, count: int) -> None:
        """The first `count` bytes of `output()` are gone."""
        self.bytes_sent += count
        self._batch_sent += count
        output = self.outgoing
        while output and count >= len(output[0]):
            count -= len(output.popleft())
        if count:
            output[0] = memoryview(output[0])[count:]
        if not output:
            self._batch.clear()
            self._batch_sent = 0
            if not self.queue and self.disconnecting and self.resting is states.READY:
                self.half_close_wanted = True
            if self.resting is not states.READY:
                self.advance()

    def _encode_batch(self) -> None:
        small = bytearray()
        total = 0
        queue, in_flight = self.queue, self.in_flight
        while queue and total < BATCH_BYTES:
            command = queue.popleft()
            in_flight[command.cookie] = command
            header = self._header(command)
            small += header
            payload = command.view if command.type in _WITH_PAYLOAD else None
            length = len(header)
            if payload is not None:
                length += len(payload)
                if len(payload) < COPY_BELOW:
                    small += payload
                else:
                    self.outgoing += (small, payload)
                    small = bytearray()
            self._batch.append((command, length))
            total += length
        if small:
            self.outgoing.append(small)

    def _header(self, command: Command) -> bytes:
        self.chunks_sent += 1
        if self.extended:
            return EXTENDED_REQUEST.pack(
                EXTENDED_REQUEST_MAGIC, command.flags, command.type, command.cookie, command.offset, command.count
            )
        return REQUEST.pack(REQUEST_MAGIC, command.flags, command.type, command.cookie, command.offset, command.count)

    # ---- commands

    def submit(self, command: Command) -> int:
        """Queue a command and return its cookie."""
        cookie = command.cookie = self.next_cookie
        self.next_cookie = cookie + 1
        self._large_read_begins(command)
        self.queue.append(command)
        return cookie

    def _large_read_begins(self, command: Command) -> None:
        if command.type == _READ and command.count >= LARGE_READ:
            self._large_reads += 1
            self.inbox.narrow = True

    def disconnect(self, flags: int = 0) -> None:
        """Queue CMD_DISC, after which nothing is sent any more."""
        self.submit(Command(_DISC, 0, 0, flags=flags))
        self.disconnecting = True

    def resume(self, command: Command, cookie: int, sent: int, received: bytes) -> None:
        """Take over a command that was begun by another way: `sent` bytes of it are gone, `received` came after them.

        To be called with nothing else queued, in flight or in the inbox.
        """
        command.cookie = cookie
        self._large_read_begins(command)
        self.queue.append(command)
        self._encode_batch()
        self.sent(sent)
        if received:
            self.bytes_received += len(received)
            self.inbox.preload(received)
            self.advance()

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
            self.conclude(command)

    def conclude(self, command: Command) -> None:
        """Tell whoever waits for a finished command, and keep it unless they retire it."""
        if command.completion is not None:
            cell = c_int(command.error)
            answer = self.call_back(command, command.completion, cell)
            if answer == 1:
                return
            if answer == -1:
                command.error = cell.value or command.error
                if not command.error and command.raised is not None:
                    self._keep(None, command.raised)
        self.done[command.cookie] = command

    def abandon_unsent(self) -> None:
        """Drop every command of which no byte has been sent; they fail with ENOTCONN."""
        dropped: list[Command] = []
        end = 0
        for at, (_, length) in enumerate(self._batch):
            if end >= self._batch_sent:
                dropped = [command for command, _ in self._batch[at:]]
                keep = end - self._batch_sent
                del self._batch[at:]
                self._truncate_output(keep)
                break
            end += length
        for command in dropped:
            del self.in_flight[command.cookie]
        dropped += self.queue
        self.queue.clear()
        for command in dropped:
            self._abort(command)

    def _truncate_output(self, keep: int) -> None:
        kept: deque[bytes | bytearray | memoryview] = deque()
        for piece in self.outgoing:
            part = memoryview(piece)[:keep]
            keep -= len(part)
            if len(part):
                kept.append(part)
        self.outgoing = kept

    def _abort(self, command: Command) -> None:
        command.fail(errno.ENOTCONN)
        command.clear_missing()
        self._finished(command)

    def call_back(self, command: Command | None, function: Callable[..., Any], *arguments: object) -> int:
        """Call a caller's function and return its answer: 0 unless it is an int; -1 when it raised.

        What it raised is kept: with the command, whose error it explains, or, when it must not be swallowed, in
        `escaped`.
        """
        try:
            answer = function(*arguments)
        except Exception as error:  # noqa: BLE001 - kept, and raised again or chained by the call
            self._keep(command, error)
            return -1
        except BaseException as error:  # noqa: BLE001 - raised again by the call that ran the callback
            self.escaped = self.escaped or error
            return -1
        return answer if isinstance(answer, int) else 0

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
        self.resting = state
        if self._program is not None and not self.running:
            self._program.close()
            self._program = None
        self.outgoing.clear()
        self._batch.clear()
        self.inbox.withdraw()
        self._complete_option(number or errno.ENOTCONN)
        unfinished = [*self.queue, *self.in_flight.values()]
        self.queue.clear()
        self.in_flight.clear()
        for command in unfinished:
            self._abort(command)
