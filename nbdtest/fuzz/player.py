"""Plays scripts on a server: opens connections, sends what the script says, has the answers judged.

One player lives as long as a campaign: it remembers what the disk holds, and looks after the server between sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.negotiation import Negotiation
from nbdtest.conformance.openings import receive_greeting
from nbdtest.conformance.peer import Peer
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import Complaint, Hangup, NotApplicable
from nbdtest.errors import NBDTestError, PeerViolation, TimedOut, TransportError
from nbdtest.fuzz.commands import PERIOD, Command
from nbdtest.fuzz.coverage import Coverage
from nbdtest.fuzz.etiquette import Etiquette, export_of, may_be_left
from nbdtest.fuzz.exchange import Exchange, Log
from nbdtest.fuzz.ground import CHANGING, Ground, Law, survey
from nbdtest.fuzz.judge import Judge
from nbdtest.fuzz.last_words import crash_site, sanitizer_report, sanitizer_site
from nbdtest.fuzz.problem import Kind, Problem, Trouble
from nbdtest.fuzz.rote import Resumed, Rote
from nbdtest.fuzz.script import Hostile, Leave, Mode, Opening, Script, Send, Way
from nbdtest.fuzz.shadow import Shadow
from nbdtest.fuzz.waves import waves
from nbdtest.net.clock import Deadline
from nbdtest.net.stream import SocketStream, Stream
from nbdtest.net.tls import TLSStream
from nbdtest.wire import (
    ClientFlag,
    Cmd,
    ExtendedReplyHeader,
    ExtendedRequest,
    OldstyleGreeting,
    Opt,
    Record,
    Request,
    Sender,
    SimpleReply,
    StructuredReplyHeader,
    Transcript,
    TransmissionFlag,
    dump,
)

__all__ = ["STAYS_OPEN", "Player"]

_VISIT_S = 0.5
"""How long to wait for a server to be done with a visitor that made no sense."""
_DYING_S = 0.3
"""How long a server may take to be dead that has stopped to answer: its memory may have to be dumped."""
_REPORTING_S = 3.0
"""How long a sanitizer may take from the first line of its report to the last: it looks up symbols for it."""
_STILL_OPEN_S = 0.02
"""How long to wait for the end after DISC, once it is known that it does not come."""
_FLUSH, _DISC = Command(type=Cmd.FLUSH), Command(type=Cmd.DISC)


class _Tolerated(Exception):
    """Something was sent that no client may send, and what comes of it cannot be judged."""


@dataclass(slots=True)
class _Line:
    """One open connection."""

    exchange: Exchange
    judge: Judge
    lost: bool = False
    """Whether nonsense was sent: nothing more can be said on it, and nothing that comes can be judged."""


STAYS_OPEN = Problem(
    kind=Kind.HANG, rule="the connection stays open after DISC", about=_DISC.name, requirement="TERM-031"
)


class Player:
    """Plays sessions on `target`.

    `coverage` is what they have seen so far; `known` are the identities of problems that need no waiting any more.
    """

    def __init__(self, target: ServerTarget) -> None:
        self.target = target
        self.ground: Ground = survey(target)
        self.shadow = Shadow(self.ground)
        names_matter = target.has(Capability.NAMES_MATTER)
        self._etiquette = Etiquette(target.export, self.ground.size, names_matter=names_matter)
        self.coverage = Coverage()
        self.known: set[tuple[str, str, str]] = set()
        self._rotes: dict[Opening, Rote] = {}
        self._shift = 0
        self.transcript = Transcript()
        """The last session that was played with `record`."""

    def play(self, script: Script, *, record: bool = False, afresh: bool = False) -> Problem | None:
        """Play one session and say what the server did wrong, if anything.

        With `afresh` nothing is taken for known that the session itself has not written or read, and it writes other
        bytes than the last time: where a write that got lost leaves the same bytes behind, nobody would see it.
        """
        if afresh:
            self.shadow.forget_all()
            self._shift = (self._shift + 1) % PERIOD
            script = _shifted(script, self._shift)
        self.target.begin("fuzz")
        logs: list[Log] = []
        suspicious = any(isinstance(step, Hostile) for step in script.steps)
        try:
            with ExitStack() as stack:
                problem = self._play(script, stack, logs if record else None)
        except Trouble as trouble:
            problem = trouble.problem
        except _Tolerated:
            suspicious, problem = True, None
        except NotApplicable:
            problem = None
        except Complaint as complaint:
            problem = Problem(kind=Kind.WRONG_REPLY, rule="the handshake fails", detail=str(complaint))
        except PeerViolation as violation:
            rule = "a message of the handshake is malformed"
            problem = Problem(
                kind=Kind.WRONG_REPLY, rule=rule, requirement=violation.requirement, detail=str(violation)
            )
        except TransportError as error:
            problem = Problem(kind=Kind.DEATH, rule="the server takes no connection", detail=str(error))
        if record:
            self._keep_transcript(logs)
        self.target.end()
        if problem is None and not suspicious:
            return None
        self.shadow.forget_all()
        return self._post_mortem(problem)

    def trouble(self) -> Problem | None:
        """Say whether the server has died or no longer answers; it is started again then."""
        return self._post_mortem(None)

    # One session.

    def _play(self, script: Script, stack: ExitStack, logs: list[Log] | None) -> Problem | None:
        lines: dict[int, _Line | None] = {}
        # What one connection has written need not be seen by another before a FLUSH. CMD-078, FLAG-022
        several = len(script.openings) > 1 and TransmissionFlag.SEND_FLUSH in self.ground.flags
        for step in script.steps:
            if isinstance(step, Hostile) and step.early:
                self._knock(step.data)
                continue
            if step.on not in lines:
                lines[step.on] = self._open(script.openings[step.on], stack, by_rote=logs is None)
                if logs is not None and (line := lines[step.on]) is not None:
                    line.exchange.log = []
                    logs.append(line.exchange.log)
            line = lines[step.on]
            if line is None or (line.lost and not isinstance(step, Leave)):
                continue
            match step:
                case Send(commands=commands):
                    if several:
                        commands = (*commands, _FLUSH)
                    if (problem := self._send(line, commands)) is not None:
                        return problem
                case Hostile(data=data):
                    with suppress(Trouble):
                        line.exchange.send(data)
                    line.lost = True
                case Leave(way=way):
                    lines[step.on] = None
                    if way is Way.DISC and not line.lost and (problem := self._disconnect(line)) is not None:
                        return problem
                    self._leave(line, way)
        for line in lines.values():
            if line is not None and not line.lost:
                if surplus := line.exchange.surplus:
                    rule = "more comes than was asked for"
                    return Problem(kind=Kind.OUT_OF_STEP, rule=rule, detail=surplus[:64].hex(" "))
                self._leave(line, Way.DISC)
        return None

    def _open(self, opening: Opening, stack: ExitStack, *, by_rote: bool) -> _Line:
        by_rote = by_rote and not opening.options and not opening.slowly
        try:
            if by_rote and (rote := self._rotes.get(opening)) is not None:
                return self._repeat(rote, opening, stack)
            session = self._shake_hands(opening, stack)
            if by_rote and type(session.peer.stream) is SocketStream:  # TLS is another every time
                mine = (record for record in self.target.transcript if record.connection == session.peer.number)
                self._rotes[opening] = Rote(session, mine)
            return self._line(session.peer.stream, Mode(session.mode), session.flags, session.contexts)
        except Hangup:
            if any(map(may_be_left, opening.options)):
                raise _Tolerated from None  # TERM-034
            raise

    def _repeat(self, rote: Rote, opening: Opening, stack: ExitStack) -> _Line:
        """Shake hands by rote, and as usual from the first answer that is another than before."""
        target = self.target
        peer = target.peer.open()
        stream = peer.stream
        assert isinstance(stream, SocketStream), "it was one when the handshake was learned"
        resumed = rote.repeat(stream)
        if resumed is None:
            return self._line(stream, Mode(rote.mode), rote.flags, rote.contexts)
        del self._rotes[opening]
        peer.stream = resumed
        session = self._shake_hands(opening, stack, peer)
        return self._line(resumed, Mode(session.mode), session.flags, session.contexts)

    def _line(self, stream: Stream, mode: Mode, flags: TransmissionFlag, contexts: dict[str, int]) -> _Line:
        leftover = stream.unread if isinstance(stream, Resumed) else b""
        exchange = Exchange(stream, mode, timeout_s=self.target.timeout_s, leftover=leftover)
        law = Law(self.ground, flags, contexts=bool(contexts))
        return _Line(exchange, Judge(law, self.ground, self.shadow, mode, contexts, notice=self.coverage.noticed))

    def _shake_hands(self, opening: Opening, stack: ExitStack, peer: Peer | None = None) -> Session:
        """Get to transmission, on the connection `peer` if there is one already."""
        target = self.target
        session: Session
        if not target.has(Capability.NEWSTYLE):
            session = stack.enter_context(target.peer.transmitting())
        else:
            flags = ClientFlag.FIXED_NEWSTYLE if opening.padded else None
            if peer is None:
                nego = stack.enter_context(target.peer.negotiating(flags=flags, slowly=opening.slowly))
            else:
                nego = self._greeted(peer, flags)
            selected_for = target.export
            for option in opening.options:
                if option.option == Opt.STARTTLS and not isinstance(nego.peer.stream, TLSStream):
                    if not self.ground.tls:
                        raise NotApplicable(Capability.SELECTIVE_TLS.value)
                    target.peer.protect(nego)
                    selected_for = target.export
                    continue
                answer = nego.option(option.option, option.data)
                self.coverage.replied(answer)
                if (problem := self._etiquette.judge(answer)) is not None:
                    raise Trouble(problem)
                about = export_of(option)
                if option.option == Opt.SET_META_CONTEXT:
                    if about is None or may_be_left(option):
                        raise _Tolerated  # nobody can say what is selected now
                    selected_for = about
                elif nego.contexts and about not in (None, selected_for):
                    raise _Tolerated  # honest servers differ: it may undo the selection
            if selected_for != target.export or not (nego.structured or nego.extended):
                nego.contexts = {}  # META-008: what was selected for another export does not count
            if opening.mode is not Mode.SIMPLE and not nego.extended and opening.mode is not _mode_of(nego):
                wanted = Opt.EXTENDED_HEADERS if opening.mode is Mode.EXTENDED else Opt.STRUCTURED_REPLY
                if not nego.option(wanted).is_ack:
                    raise NotApplicable(f"{wanted} is refused")
            if opening.contexts:
                nego.set_meta(target.export, "base:allocation")
            if opening.by_export_name or not target.has(Capability.GO):
                session = target.peer.begin_by_export_name(nego, target.export)
            else:
                session = target.peer.begin_transmission(nego, target.export)
        if session.size != self.ground.size:
            detail = f"{session.size}, {self.ground.size} before"
            raise Trouble(Problem(kind=Kind.WRONG_REPLY, rule="the export has another size", detail=detail))
        return session

    @staticmethod
    def _greeted(peer: Peer, flags: ClientFlag | None) -> Negotiation:
        """Begin a handshake on a connection that is open already."""
        greeting = receive_greeting(peer)
        if isinstance(greeting, OldstyleGreeting):
            raise NotApplicable(Capability.NEWSTYLE.value)
        nego = Negotiation(peer, greeting)
        nego.send_flags(ClientFlag(greeting.flags & 3 if flags is None else flags))
        peer.preparing = False
        return nego

    def _send(self, line: _Line, commands: Sequence[Command]) -> Problem | None:
        judge, exchange = line.judge, line.exchange
        upcoming = waves(commands)
        wave = next(upcoming, None)
        while wave is not None:
            try:
                exchange.post(wave)
                following = next(upcoming, None)  # found while the server is at work
                unusual = exchange.collect(judge.accepts)
            except Trouble as trouble:
                for command in wave:
                    if command.type in CHANGING:
                        self.shadow.forget(command.offset, command.length)
                if trouble.problem.kind is Kind.HUNG_UP and any(map(judge.objection, wave)):
                    raise _Tolerated from None  # TERM-034
                raise
            self.coverage.answered(exchange.mode, wave)
            for command, answer in unusual:
                if (problem := judge.judge(command, answer, wave)) is not None:
                    return problem
            wave = following
        return None

    def _knock(self, data: bytes) -> None:
        """Send `data` in answer to the greeting, look at what comes, and leave."""
        with suppress(Complaint, NotApplicable, PeerViolation), self.target.peer.greeted() as (peer, _):
            peer.timeout_s = min(peer.timeout_s, _VISIT_S)
            peer.send(data)
            peer.stream.half_close()
            peer.receive_to_end()

    def _disconnect(self, line: _Line) -> Problem | None:
        """Send DISC and see the connection end without another word."""
        line.exchange.send(_DISC.encode(0, extended=line.exchange.mode is Mode.EXTENDED))
        known = STAYS_OPEN.identity in self.known
        limit = Deadline(min(self.target.timeout_s, _STILL_OPEN_S) if known else self.target.timeout_s)
        try:
            rest = line.exchange.surplus + line.exchange.stream.receive_to_end(deadline=limit)
        except TimedOut:
            return None if known else STAYS_OPEN
        self.coverage.ended(Way.DISC)
        if rest:
            detail = rest[:64].hex(" ")
            rule = "DISC is answered"
            return Problem(kind=Kind.WRONG_REPLY, rule=rule, about=_DISC.name, requirement="CMD-076", detail=detail)
        return None

    @staticmethod
    def _leave(line: _Line, way: Way) -> None:
        with suppress(Trouble, NBDTestError):
            if way is Way.DISC:
                line.exchange.send(_DISC.encode(0, extended=line.exchange.mode is Mode.EXTENDED))
            line.exchange.stream.cut(rst=way is Way.RST and line.exchange.stream.can_reset)

    # After a session.

    def _post_mortem(self, problem: Problem | None) -> Problem | None:
        """Look after the server: what killed it matters more than what it said last."""
        source = self.target.source
        report = sanitizer_report(source.output())
        site = self._site_of_complaint() if report else ""  # for the obituary a process without a client is ended
        about = problem.about if problem is not None else ""
        obituary, trouble = source.obituary(), ""
        if not (report or obituary) and (trouble := self.target.trouble()):
            self.target.wait(_DYING_S)
            obituary = source.obituary()
        seen = str(problem) if problem is not None else ""
        if report:
            problem = Problem(kind=Kind.SANITIZER, rule="a sanitizer complains", about=about, detail=report, site=site)
        elif obituary:
            detail = "; ".join(filter(None, (_shortened(obituary), seen)))
            site = crash_site(obituary)
            problem = Problem(kind=Kind.DEATH, rule="the server dies", about=about, detail=detail, site=site)
        elif trouble:
            rule = "the server no longer serves a new client"
            problem = Problem(kind=Kind.HANG, rule=rule, about=about, detail="; ".join(filter(None, (trouble, seen))))
        else:
            return problem
        source.revive()
        return problem

    def _site_of_complaint(self) -> str:
        """Where a sanitizer complains. It says so last, and may be at it still."""
        deadline = Deadline(_REPORTING_S)
        while not (site := sanitizer_site(self.target.source.output())) and not deadline.expired:
            self.target.wait(_STILL_OPEN_S)
        return site

    def _keep_transcript(self, logs: Sequence[Log]) -> None:
        """Join what the handshakes left in the target's transcript with what the exchanges logged."""
        self.transcript = Transcript(self.target.transcript)
        for number, log in enumerate(logs):
            for when, sent, data in log:
                self.transcript.add(
                    Record(
                        connection=number,
                        sender=Sender.CLIENT if sent else Sender.SERVER,
                        time_s=when - self.target.peer.started_s,
                        data=data,
                        summary=_summary(sent, data),
                    )
                )


def _shifted(script: Script, shift: int) -> Script:
    """The script with other bytes in its writes."""
    steps = tuple(
        replace(
            step, commands=tuple(replace(c, seed=c.seed + shift) if c.type is Cmd.WRITE else c for c in step.commands)
        )
        if isinstance(step, Send)
        else step
        for step in script.steps
    )
    return replace(script, steps=steps)


def _shortened(obituary: str) -> str:
    """The first line and the last two: a server that complains about requests has printed thousands."""
    lines = obituary.splitlines()
    return "\n".join([lines[0], "...", *lines[-2:]] if len(lines) > 4 else lines)


def _mode_of(nego: Negotiation) -> Mode:
    return Mode.EXTENDED if nego.extended else Mode.STRUCTURED if nego.structured else Mode.SIMPLE


def _summary(sent: bool, data: bytes) -> str:
    """Name a request or reply by its header, if it begins with one."""
    for kind in (Request, ExtendedRequest) if sent else (SimpleReply, StructuredReplyHeader, ExtendedReplyHeader):
        with suppress(PeerViolation):
            return dump(kind.decode(data[: kind.wire_size()]))
    return f"{len(data)} bytes"
