"""Handshakes from memory: what the correct server said to the same bytes before, it says again without thinking.

The engine is a function of its settings and of what it receives, so its handshakes can be remembered: a tree whose
edges are what clients sent at once, and whose nodes are what was answered, written down and agreed on. A guest is a
connection that walks along this tree. Where the tree ends, or a rule acts, an engine that knows what has been agreed on
goes on.
"""

from __future__ import annotations

import copy
import math
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nbdtest.fakeserver.connection import Connection
from nbdtest.fakeserver.engine import Engine
from nbdtest.fakeserver.export import Settings
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.outbox import End
from nbdtest.fakeserver.rules import RuleBook, Trigger
from nbdtest.fakeserver.session import Phase, Session
from nbdtest.net.clock import monotonic_s
from nbdtest.net.stream import SocketStream

__all__ = ["Guest", "Handshakes"]

MOST_STEPS = 512
LONGEST_SAID = 4096
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


@dataclass(slots=True, kw_only=True)
class Step:
    """A moment at which nothing waits: what was said to get here, how things stand, and what followed on what."""

    reply: bytes
    notes: Journal
    events: Sequence[tuple[Trigger, object]]
    """What rules were asked about, and are to be asked about each time."""
    session: Session
    ends: bool
    after: dict[bytes, Step] = field(default_factory=dict)


class Handshakes:
    """The tree of one server, as long as neither settings nor rules change."""

    def __init__(self, settings: Settings, rules: RuleBook, sizes: tuple[int, ...]) -> None:
        self.root: Step | None = None
        self.settings = settings
        self.sizes = sizes
        """The sizes of the exports, which clients were told."""
        self.version = rules.version
        self.rules = rules
        self._steps = 0

    @property
    def valid(self) -> bool:
        """Whether no rule has been added or changed since."""
        return self.rules.version == self.version

    def remember(self, engine: Engine, notes: Journal) -> Step | None:
        """Make a step of what the engine has just said; None if something waits, or has been done that counts."""
        done = engine.session.requests - (engine.session.phase is Phase.CLOSED)  # the last may have been DISC
        if done > 0 or engine.ruled or engine.end is End.RST or self._steps >= MOST_STEPS or not engine.at_rest:
            return None
        self._steps += 1
        reply = b"".join(bytes(piece) for piece in engine.data_to_send(engine.now))
        ends = engine.end is not None
        return Step(
            reply=reply, notes=notes, events=tuple(engine.shown or ()), session=copy.copy(engine.session), ends=ends
        )


class Guest:
    """A connection in its handshake, served from memory as far as that reaches. Like a `Connection` to its loop.

    When it has a `successor`, that goes on with the same stream.
    """

    def __init__(
        self,
        stream: SocketStream,
        number: int,
        journal: Journal,
        handshakes: Handshakes,
        *,
        engine: Callable[[Session | None], Engine],
        connection: Callable[[Engine], Connection],
    ) -> None:
        self.stream = stream
        self.descriptor = stream.fileno()
        self.number = number
        self.closed = False
        self.successor: Connection | None = None
        self._journal = journal
        self._handshakes = handshakes
        self._make_engine = engine
        self._make_connection = connection
        self._step: Step | None = None
        self._unsent = b""

    @property
    def wants_read(self) -> bool:
        """Whether to wait for the client's bytes."""
        return not self._unsent

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for room in the socket."""
        return bool(self._unsent)

    @property
    def wake_at(self) -> float:
        """Never: a memory has no timers."""
        return math.inf

    def start(self) -> None:
        """Begin, and send the greeting."""
        root = self._handshakes.root
        if root is not None:
            if self._overlooked(root):
                self._go_on(root)
            else:
                self._hand_over().start()
            return
        engine = self._make_engine(None)
        notes = self._overhear(engine, lambda: engine.start(monotonic_s()))
        self._handshakes.root = self._learn(engine, notes)

    def receive(self, buffer: memoryview) -> bool:
        """Take in what has arrived, at most a buffer full; False if nothing had."""
        try:
            count = self.stream.raw_socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self._hand_over().end(gone=True)
            return True
        if count:
            self._answer(bytes(buffer[:count]))
        else:
            self._hand_over().end()
        return True

    def flush(self) -> None:
        """Send what fits."""
        if not self._unsent:
            return
        try:
            sent = self.stream.raw_socket.send(self._unsent, _FLAGS)
        except BlockingIOError:
            return
        except OSError:
            self._unsent = b""
            self._hand_over().end(gone=True)
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent and self._step is not None and self._step.ends:
            self.close()

    @property
    def unfinished(self) -> bool:
        """Whether the client is owed something: its successor knows."""
        return False

    def shut_down(self) -> None:
        """Let an engine answer that the server is about to end."""
        if not self.closed:
            self._hand_over().shut_down()

    def release(self, name: str) -> None:
        """Do nothing: nothing is held."""

    def close(self, *, rst: bool = False) -> None:
        """End the connection now. Any number of times."""
        if not self.closed:
            self.closed = True
            self._journal.event(self.number, monotonic_s(), "RST" if rst else "FIN")
            if rst or self._has_unread():
                self.stream.cut(rst=rst)
            else:
                self.stream.close()  # a FIN by itself, and the client is woken once instead of twice

    def _has_unread(self) -> bool:
        try:
            return bool(self.stream.raw_socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK))
        except OSError:
            return False

    def _answer(self, said: bytes) -> None:
        step = self._step
        if step is None or not self._handshakes.valid:
            self._hand_over().take_in(said)
            return
        known = step.after.get(said)
        if known is not None:
            if self._overlooked(known):
                self._go_on(known)
            else:
                self._hand_over().take_in(said)
            return
        engine = self._make_engine(step.session)
        notes = self._overhear(engine, lambda: engine.receive(said, monotonic_s()))
        learned = self._learn(engine, notes)
        if learned is not None and len(said) <= LONGEST_SAID:
            step.after[said] = learned

    def _overlooked(self, step: Step) -> bool:
        """Whether no rule acts this time; then the rules have counted it."""
        return self._handshakes.rules.overlooks_all(step.events, self.number)

    def _go_on(self, step: Step) -> None:
        self._step = step
        self._journal.repeat(step.notes, self.number, monotonic_s())
        self._unsent = step.reply
        if step.ends and not step.reply:
            self.close()
        else:
            self.flush()

    def _overhear(self, engine: Engine, deed: Callable[[], None]) -> Journal:
        """Let the engine do something, and keep apart what it writes down meanwhile."""
        journal, notes = engine.observer, self._journal.empty_copy()
        engine.observer = notes
        engine.shown = []
        try:
            deed()
        except BaseException:
            self._journal.repeat(notes, self.number, monotonic_s())
            raise
        finally:
            engine.observer = journal
        return notes

    def _learn(self, engine: Engine, notes: Journal) -> Step | None:
        """Go on from what the engine has said, as a guest if it can be remembered, else with the engine."""
        step = self._handshakes.remember(engine, notes)
        engine.shown = None
        if step is not None:
            self._go_on(step)
        else:
            self._journal.repeat(notes, self.number, monotonic_s())
            self.successor = self._make_connection(engine)
            self.successor.flush()
        return step

    def _hand_over(self) -> Connection:
        """Let an engine go on from where the memory is left."""
        engine = self._make_engine(self._step.session if self._step is not None else None)
        self.successor = self._make_connection(engine)
        return self.successor
