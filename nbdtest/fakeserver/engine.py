"""The server side of one connection without I/O: bytes and the time go in, bytes and events come out.

The engine carries out plans (what the correct server or a rule wants) and keeps those that wait. What is understood of
the client's bytes is in `conversation`. It never blocks and never reads a clock.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.conversation import Conversation
from nbdtest.fakeserver.export import Settings
from nbdtest.fakeserver.outbox import End, Outbox
from nbdtest.fakeserver.outgoing import Outgoing
from nbdtest.fakeserver.rendering import Asked
from nbdtest.fakeserver.rules import RuleBook, SendRule, Trigger
from nbdtest.fakeserver.session import Phase, Session
from nbdtest.fakeserver.tls import TLSQuirks
from nbdtest.fakeserver.violations import Violation
from nbdtest.wire import ByteQueue, Message, Option
from nbdtest.wire.layout import Readable

__all__ = ["Engine", "Observer", "Task"]

HIGH_WATER = 8 << 20
"""So many unsent bytes make the engine stop taking requests: a client that does not read costs bounded memory."""
_HONEST_TLS = TLSQuirks()
MOST_RECEIVED = 256 << 10
"""So many unread bytes are kept beyond what the next message needs."""


class Observer(Protocol):
    """Who writes down what happens. Called in order, and must not fail."""

    def received(self, connection: int, now: float, data: Readable, message: Message | str) -> None:
        """Take down a message of the client."""

    def sent(self, connection: int, now: float, pieces: list[Readable], outgoing: Outgoing) -> None:
        """Take down what is put on its way."""

    def event(self, connection: int, now: float, text: str, *, by_client: bool = False) -> None:
        """Take down something that is not bytes."""

    def violation(self, connection: int, now: float, violation: Violation) -> None:
        """Take down what the client did wrong."""


@dataclass(slots=True, eq=False)
class Task:
    """A plan that is being carried out. `asked` is the request it answers, None for anything else."""

    steps: Iterator[Outgoing | Action]
    asked: Asked | None = None
    when_done: Callable[[], None] | None = None
    done: bool = False


class Engine:
    """One connection."""

    def __init__(
        self,
        settings: Settings,
        rules: RuleBook,
        observer: Observer,
        *,
        connection: int = 1,
        session: Session | None = None,
    ) -> None:
        """Set up; with a `session` it goes on where another engine was at rest, and is not to be started."""
        self.settings = settings
        self.rules = rules
        self.observer = observer
        self.connection = connection
        self.session = Session() if session is None else copy.copy(session)
        self.now = 0.0
        self.released: set[str] = set()
        """Names that have been released, here or elsewhere."""
        self.to_release: list[str] = []
        """Names released here since the driver last emptied this list; it has to tell the other connections."""
        self.wants_tls = False
        """Set when the next bytes in both directions belong to TLS; the driver clears it."""
        self.lied = settings.quirks.any or settings.tls_quirks != _HONEST_TLS
        """Whether a rule or quirk has made the server misbehave on this connection."""
        self.ruled = False
        """Whether a rule has acted on this connection."""
        self.shown: list[tuple[Trigger, object]] | None = None
        """What the rules have been asked about, if somebody wants to know."""
        self.shutting_down = False
        """Whether everything but ABORT and DISC is refused because the server is about to end."""
        self.on_request: Callable[[Asked, Callable[[], None]], None] | None = None
        """Gets every request, also DISC, and what answers it correctly, instead of its being answered: the script's."""
        self.on_option: Callable[[Option, Callable[[], None]], None] | None = None
        """Gets every option, and what answers it correctly, instead of its being answered: the script's."""
        self.scripts_turn = False
        """Set when an option waits for the script: nothing more is read until `go_on`."""
        self.received_bytes = 0
        """So much the client has said by now."""
        self.awaited: Task | None = None
        """The plan that has to be over before the next message is read."""
        self._queue = ByteQueue()
        self._outbox = Outbox()
        self._held: dict[str, list[Task]] = {}
        self._paused: list[tuple[float, Task]] = []
        self._finishing = False
        self._client_ended = False
        self._conversation = Conversation(self)
        self._talk = self._conversation.talk()
        self._want = (0, True)
        self._over = False
        if session is not None:
            self._want = next(self._talk)

    # What a driver calls.

    def start(self, now: float) -> None:
        """Begin: the greeting, as a rule."""
        self.now = now
        self._want = next(self._talk)
        self._pump()

    def receive(self, data: Readable, now: float) -> None:
        """Take in what the client sent."""
        self.now = now
        self.received_bytes += len(data)
        self._queue.append(data)
        if self.settings.quirks.takes_segments_for_headers and 0 < len(self._queue) < min(self._want[0], 32):
            self._queue.clear()
            self.hang_up()
            return
        self._pump()

    def receive_end(self, now: float) -> None:
        """Take in that the client will send nothing more."""
        self.now = now
        if self._client_ended:
            return
        self._client_ended = True
        self._pump()
        self.observer.event(self.connection, now, "end of the connection", by_client=True)
        self._conversation.judge_end(unread=len(self._queue))
        self.session.phase = Phase.CLOSED
        self.finish()

    def data_to_send(self, now: float) -> list[Readable]:
        """Remove and return the pieces that may leave now; each call's pieces should leave in one send."""
        self.now = now
        if self._paused and self._paused[0][0] <= now:
            self._resume_paused()
        pieces = self._outbox.take(now)
        if pieces and len(self._queue):
            self._pump()  # there is room again for what was held back
        return pieces

    @property
    def end(self) -> End | None:
        """How the connection has to be ended now, None while it goes on."""
        return self._outbox.end

    @property
    def cut_short(self) -> bool:
        """Whether the end is a cut, which leaves out what belongs to an orderly end, such as that of TLS."""
        return self._outbox.cut_short

    @property
    def wake_at(self) -> float:
        """The time at which `data_to_send` has something new; 0 for at once, `inf` for not by itself."""
        paused = self._paused[0][0] if self._paused else math.inf
        return min(paused, self._outbox.next_time())

    @property
    def wants_bytes(self) -> bool:
        """Whether the client should be read from: not while it does not read what it is sent."""
        return len(self._queue) <= max(self._want[0], MOST_RECEIVED) and self._outbox.size < HIGH_WATER

    @property
    def unfinished(self) -> bool:
        """Whether the client is owed something: the rest of a handshake, or answers."""
        if self.settings.quirks.stays_at_shutdown:
            return True
        haggling = self.session.phase in (Phase.GREETED, Phase.HAGGLING)
        return haggling or bool(self._outbox.size) or bool(self._waiting())

    @property
    def has_said_all(self) -> bool:
        """Whether all that was to be sent has left, and no stall keeps back what comes next."""
        return not self._outbox.size and not self._outbox.stalled

    @property
    def at_rest(self) -> bool:
        """Whether all that was received has been answered for good, so that a session can go on elsewhere."""
        if not self._conversation.between_messages and self.session.phase is not Phase.CLOSED:
            return False
        answered = not len(self._queue) and not self._waiting() and (self.awaited is None or self.awaited.done)
        timed = self._outbox.stalled or self._outbox.next_time() not in (0.0, math.inf)
        return answered and not timed and not self.wants_tls and not self.scripts_turn

    @property
    def idle(self) -> bool:
        """Whether nothing waits: no unread byte, no unsent byte, no plan."""
        return not len(self._queue) and not self._outbox.size and not self._waiting() and not self._outbox.ended

    def release(self, name: str, now: float) -> None:
        """Let go what is held under `name`, now and later."""
        self.now = now
        self.released.add(name)
        for task in self._held.pop(name, []):
            self._carry_on(task)

    def take_unread(self) -> bytes:
        """Give up the bytes that were received but not understood yet: after STARTTLS they belong to TLS."""
        return self._queue.take_all()

    def go_on(self, now: float) -> bool:
        """Read on after the script had its turn; False if it had none."""
        had, self.scripts_turn = self.scripts_turn, False
        if had:
            self.now = now
            self._pump()
        return had

    def put_back(self, data: bytes) -> None:
        """Take back the rest of what `take_unread` gave."""
        rest = self._queue.take_all()
        self._queue.append(data)
        self._queue.append(rest)

    # What the conversation calls.

    def rule_plan(self, trigger: Trigger, received: object, correct: Callable[[], Plan]) -> Plan:
        """Decide what to do about `received`. The correct plan is made only if it is part of the answer."""
        rule = self.rules.find(trigger, received, self.connection)
        if self.shown is not None:
            self.shown.append((trigger, copy.copy(received)))
        if rule is None:
            return correct()
        self.lied = self.ruled = True
        return rule.answer(received, correct() if rule.needs_correct else ())

    def play(
        self,
        steps: Iterator[Outgoing | Action],
        *,
        asked: Asked | None = None,
        when_done: Callable[[], None] | None = None,
    ) -> Task:
        """Carry out a plan as far as possible now."""
        task = Task(steps, asked, when_done)
        self._carry_on(task)
        return task

    def finish(self) -> None:
        """End the connection when every plan is done and everything sent."""
        self._finishing = True
        if not self._waiting():
            self._outbox.finish()

    def hang_up(self) -> None:
        """End the connection without waiting for plans."""
        self._held.clear()
        self._paused.clear()
        self._outbox.finish()

    def forget_pending(self) -> None:
        """Drop the plans that wait."""
        self._held.clear()
        self._paused.clear()

    def pending(self) -> int:
        """Count the plans that wait."""
        return len(self._waiting())

    def pending_requests(self) -> list[Asked]:
        """The requests that wait for their answers."""
        return [task.asked for task in self._waiting() if task.asked is not None]

    def queued(self) -> int:
        """Count the bytes that have been received but not read."""
        return len(self._queue)

    def before_change(self) -> None:
        """Make sure that replies which are on their way do not show what is done to the disk next."""
        self._outbox.detach()

    def violation(self, violation: Violation) -> None:
        """Take down that the client broke a rule."""
        self.observer.violation(self.connection, self.now, violation)

    # Inside.

    def _pump(self) -> None:
        """Give the conversation bytes as long as it gets what it wants."""
        while not self._over:
            if self.awaited is not None:
                if not self.awaited.done:
                    return
                self.awaited = None
            if self.wants_tls or self.scripts_turn or self._outbox.size >= HIGH_WATER:
                return
            count, keep = self._want
            if keep:
                if len(self._queue) < count:
                    return
                data = self._queue.take(count)
            else:
                skipped = len(self._queue.take(min(len(self._queue), count)))
                if skipped < count:
                    self._want = (count - skipped, False)
                    return
                data = b""
            try:
                self._want = self._talk.send(data)
            except StopIteration:
                self._over = True
        if len(self._queue):
            self._queue.clear()

    def _carry_on(self, task: Task) -> None:
        for step in task.steps:
            if isinstance(step, Outgoing):
                self._send(step)
            elif not self._act(step, task):
                return
        task.done = True
        self._outbox.drip(None)
        if task.when_done is not None:
            task.when_done()
        if self._finishing and not self._waiting():
            self._outbox.finish()

    def _act(self, action: Action, task: Task) -> bool:
        """Carry out what is no message; False if the rest of the plan has to wait."""
        match action:
            case actions.Pause(seconds=seconds):
                self._paused.append((self.now + seconds, task))
                self._paused.sort(key=lambda entry: entry[0])
                return False
            case actions.Hold(name=name) if name not in self.released:
                self._held.setdefault(name, []).append(task)
                return False
            case actions.Release(name=name):
                self.to_release.append(name)
                self.release(name, self.now)
            case actions.Stall():
                self._outbox.stalled = True
            case actions.Drip(every_s=every_s, first=first):
                self._outbox.drip(every_s, first)
            case actions.Cut(after=after, rst=rst):
                self._outbox.cut(after, rst=rst)
            case actions.Close():
                self._outbox.finish()
        self.observer.event(self.connection, self.now, repr(action))
        return True

    def _send(self, outgoing: Outgoing) -> None:
        if self.rules.send_rules and outgoing.message is not None:
            whole = outgoing.whole()
            assert whole.message is not None
            rule = self.rules.find_send(whole.message, self.connection)
            if rule is not None:
                self.lied = True
                for changed in _rewritten(rule, whole, whole.message):
                    self._emit(changed)
                return
        self._emit(outgoing)

    def _emit(self, outgoing: Outgoing) -> None:
        pieces = self._outbox.add(outgoing.pieces(), self.now)
        self.observer.sent(self.connection, self.now, pieces, outgoing)

    def _resume_paused(self) -> None:
        while self._paused and self._paused[0][0] <= self.now:
            self._carry_on(self._paused.pop(0)[1])
        self._pump()

    def _waiting(self) -> list[Task]:
        if not self._paused and not self._held:
            return []
        return [task for _, task in self._paused] + [task for tasks in self._held.values() for task in tasks]


def _rewritten(rule: SendRule, outgoing: Outgoing, message: Message) -> Iterator[Outgoing]:
    if rule.compute is None:
        yield Outgoing(message=message, tail=outgoing.tail, damage=(rule.damage,) if rule.damage is not None else ())
        return
    result = rule.compute(message)
    if result is None:
        return
    for each in (result,) if isinstance(result, Message | bytes) else result:
        yield Outgoing(tail=(each,)) if isinstance(each, bytes) else Outgoing(message=each)
    if outgoing.tail:
        yield Outgoing(tail=outgoing.tail)
