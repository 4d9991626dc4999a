"""What a client says from its first byte to its last, as one coroutine that asks for the bytes it needs next.

It reads messages, recognises violations, finds the answer and leaves the carrying out to the engine.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from nbdtest.errors import PeerViolation
from nbdtest.fakeserver import actions, violations
from nbdtest.fakeserver.actions import Plan
from nbdtest.fakeserver.commands import Commands, refused_payload
from nbdtest.fakeserver.damage import Mangle
from nbdtest.fakeserver.export import Export, Style
from nbdtest.fakeserver.haggling import Answer, Effect, answer, knows, shutting_down
from nbdtest.fakeserver.private_cache import PrivateCache
from nbdtest.fakeserver.rendering import Asked, Reply, handshake_flags, render_greeting, render_option_reply
from nbdtest.fakeserver.resizing import Resizes
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.session import Phase
from nbdtest.fakeserver.violations import Violation
from nbdtest.model import Disk
from nbdtest.wire import (
    OPTION_MAGIC,
    REQUEST_MAGIC,
    ClientFlag,
    ClientFlags,
    Cmd,
    CmdFlag,
    Errno,
    ExtendedRequest,
    HandshakeFlag,
    Opt,
    Option,
    OptionHeader,
    Rep,
    Request,
    StatusFilter,
    TransmissionFlag,
)
from nbdtest.wire.limits import MAXIMUM_OPTION_DATA
from nbdtest.wire.numbers import EXTENDED_REQUEST_MAGIC

if TYPE_CHECKING:
    from nbdtest.fakeserver.engine import Engine

__all__ = ["Conversation"]

Want: TypeAlias = tuple[int, bool]
"""How many bytes are needed next, and whether they are kept (else they are thrown away as they come)."""
Talk: TypeAlias = Generator[Want, bytes, None]

MOST_OPTION_DATA = 128 << 10
"""Longer data are skipped and refused: every legal option fits, and a hostile one costs nobody else time."""
MOST_FILTER = 64 << 10
_CHANGING = {Cmd.WRITE, Cmd.WRITE_ZEROES, Cmd.TRIM, Cmd.RESIZE}


class Conversation:
    """The client's half of one connection, as the server understands it."""

    __slots__ = ("_commands", "_disk", "_engine", "_farewell", "_resizes", "between_messages")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commands: Commands | None = None
        self._disk: Disk | None = None
        self._resizes = Resizes()
        self.between_messages = False
        """Whether what comes next begins a message."""
        self._farewell: Violation | None = None
        """What it means if something comes after the client has said that it leaves."""

    def talk(self) -> Talk:
        """Go through the phases. Yields what is wanted next, gets the bytes."""
        session = self._engine.session
        yield (0, True)
        if session.export is not None:  # an engine that goes on where another was at rest
            self._serve(session.export)
        if session.phase is Phase.GREETING:
            yield from self._greet()
        if session.phase is Phase.GREETED:
            yield from self._client_flags()
        while session.phase is Phase.HAGGLING:
            yield from self._option()
        while session.phase is Phase.TRANSMISSION:
            yield from self._request()
        self._engine.finish()
        yield from self._surplus()

    def judge_end(self, unread: int) -> None:
        """Judge that the client ended the connection now, with so many bytes of a message unread."""
        engine, session = self._engine, self._engine.session
        self._leave()
        negotiating = (Phase.GREETING, Phase.GREETED, Phase.HAGGLING)
        if engine.lied or (session.phase in negotiating[:2] and not unread):
            return  # TERM-006, TERM-034; and who only looks whether somebody listens has negotiated nothing
        oldstyle = engine.settings.style is Style.OLDSTYLE
        if session.phase in negotiating and HandshakeFlag.FIXED_NEWSTYLE not in session.offered:
            return  # TERM-008: there is no OPT_ABORT without fixed newstyle
        if oldstyle and not session.requests:
            return  # OLD-007: who does not like an oldstyle greeting just disconnects
        if session.phase in negotiating:
            engine.violation(Violation("TERM-010", "the client dropped the connection in haggling, without OPT_ABORT"))
        elif session.phase is Phase.TRANSMISSION:
            engine.violation(Violation("TERM-042", "the client dropped the connection without CMD_DISC"))

    def _first(self, count: int) -> Generator[Want, bytes, bytes]:
        """Read the front of a message."""
        self.between_messages = True
        data = yield (count, True)
        self.between_messages = False
        return data

    # The handshake.

    def _greet(self) -> Talk:
        engine, settings = self._engine, self._engine.settings
        plan = engine.rule_plan(Moment.CONNECT, engine.session, tuple)
        engine.play(render_greeting(action, settings) for action in plan)
        oldstyle = settings.style is Style.OLDSTYLE
        correct: Plan = (actions.OldstyleGreeting() if oldstyle else actions.Greeting(),)
        plan = engine.rule_plan(Moment.GREETING, engine.session, lambda: correct)
        engine.awaited = engine.play(render_greeting(action, settings) for action in plan)
        engine.session.offered = _greeted(plan, handshake_flags(settings))
        if oldstyle:
            export = settings.find("")
            if export is None:
                engine.hang_up()
                engine.session.phase = Phase.CLOSED
            else:
                self._transmit(export, self._flags(export))
        else:
            engine.session.phase = Phase.GREETED
        yield (0, True)

    def _client_flags(self) -> Talk:
        engine, session = self._engine, self._engine.session
        data = yield from self._first(ClientFlags.wire_size())
        message = ClientFlags.decode(data)
        engine.observer.received(engine.connection, engine.now, data, message)
        offered = ClientFlag(int(session.offered))
        for violation in violations.of_client_flags(message.flags, offered=offered):
            engine.violation(violation)
        session.phase = Phase.HAGGLING
        if engine.settings.quirks.forgets_what_follows_client_flags:
            engine.take_unread()
        session.fixed = HandshakeFlag.FIXED_NEWSTYLE in session.offered and ClientFlag.FIXED_NEWSTYLE in message.flags
        session.no_zeroes = HandshakeFlag.NO_ZEROES in session.offered and ClientFlag.NO_ZEROES in message.flags
        plan = engine.rule_plan(Moment.CLIENT_FLAGS, message, tuple)
        engine.awaited = engine.play(render_greeting(action, engine.settings) for action in plan)
        if message.flags.beyond(offered) and not engine.settings.quirks.ignores_client_flags:  # HS-012, HS-037
            session.phase = Phase.CLOSED

    def _option(self) -> Talk:
        engine, session, quirks = self._engine, self._engine.session, self._engine.settings.quirks
        head = yield from self._first(OptionHeader.wire_size())
        if int.from_bytes(head[:8], "big") != OPTION_MAGIC:
            engine.observer.received(engine.connection, engine.now, head, "no option")
            engine.violation(Violation("OPT-001", f"IHAVEOPT expected, not {head[:8].hex(' ')}"))
            session.phase = Phase.CLOSED
            return
        header = OptionHeader.decode(head)
        session.options += 1
        option, problem = yield from self._option_data(header, head)
        if option is None:
            if not problem:
                session.phase = Phase.CLOSED
                return
            option = Option(option=header.option)
            found = Answer(plan=(actions.OptError(Rep.ERR_TOO_BIG, problem),))
            if header.option == Opt.EXPORT_NAME:
                found = Answer(plan=(actions.Close(),))
        elif engine.shutting_down and header.option != Opt.ABORT:
            found = shutting_down(header.option)
        else:
            found = answer(option, session, engine.settings)
        skipped = quirks.leaves_unknown_option_data or quirks.leaves_surplus_option_data
        for violation in violations.of_option(
            option,
            fixed=HandshakeFlag.FIXED_NEWSTYLE in session.offered,
            structured=session.structured,
            extended=session.extended,
            in_tls=session.in_tls,
            pipelined=engine.queued() > 0 and not skipped and header.option not in (Opt.EXPORT_NAME, Opt.ABORT),
        ):
            engine.violation(violation)
        for violation in found.violations:
            engine.violation(violation)
        if engine.on_option is not None:
            engine.scripts_turn = True
            engine.on_option(option, partial(self._answer_option, option, found))
        else:
            self._answer_option(option, found)
        yield (0, True)
        if quirks.options_limit and session.options >= quirks.options_limit and session.phase is Phase.HAGGLING:
            session.phase = Phase.CLOSED

    def _option_data(self, header: OptionHeader, head: bytes) -> Generator[Want, bytes, tuple[Option | None, str]]:
        """Read the data of an option: the option, or None and what is wrong ("" if the connection has to end)."""
        engine, quirks = self._engine, self._engine.settings.quirks
        left = (quirks.leaves_unknown_option_data and not knows(header.option)) or (
            quirks.leaves_surplus_option_data and header.option in (Opt.LIST, Opt.STARTTLS, Opt.STRUCTURED_REPLY)
        )
        if header.length > MAXIMUM_OPTION_DATA:
            engine.observer.received(engine.connection, engine.now, head, header)
            return None, ""
        if header.length > MOST_OPTION_DATA and not left:
            engine.observer.received(engine.connection, engine.now, head, header)
            yield (header.length, False)
            if knows(header.option):
                return None, f"{header.length} bytes of data are more than the {MOST_OPTION_DATA} that are accepted"
            return Option(option=header.option), ""
        data = b"" if left else (yield (header.length, True))
        option = Option(option=header.option, data=data)
        engine.observer.received(engine.connection, engine.now, head + data, option)
        return option, ""

    def _answer_option(self, option: Option, found: Answer) -> None:
        engine, session = self._engine, self._engine.session
        export = found.export
        flags = self._flags(export) if export is not None else TransmissionFlag(0)
        plan = engine.rule_plan(option.option, option, lambda: found.plan)
        promised = _promised_flags(plan, flags)

        def settle() -> None:
            if not _says_yes(plan, option.option):
                return
            if found.change is not None:
                found.change(session)
            match found.effect:
                case Effect.ABORT if not engine.settings.quirks.stays_after_abort:
                    self._farewell = Violation("TERM-003", "the client sent something after OPT_ABORT")
                    session.phase = Phase.CLOSED
                case Effect.START_TLS:
                    if not engine.settings.quirks.keeps_state_across_starttls:
                        session.forget()
                    session.in_tls = True
                    engine.wants_tls = True
                case Effect.TRANSMIT if export is not None:
                    self._transmit(export, promised)

        steps = (render_option_reply(action, option.option, export, flags) for action in plan)
        engine.awaited = engine.play(steps, when_done=settle)

    def _flags(self, export: Export) -> TransmissionFlag:
        session = self._engine.session
        return export.transmission_flags(
            structured=session.structured,
            extended=session.extended,
            contexts_selected=bool(self._contexts(export)),
        )

    def _contexts(self, export: Export) -> Mapping[str, int]:
        """META-007, META-074: only contexts that were selected for this very export count."""
        session = self._engine.session
        same = session.contexts_of == export.name or self._engine.settings.quirks.keeps_contexts_of_other_export
        return session.contexts if same else {}

    def _transmit(self, export: Export, flags: TransmissionFlag) -> None:
        engine, session = self._engine, self._engine.session
        session.contexts = dict(self._contexts(export))
        session.export = export
        session.flags = flags
        session.phase = Phase.TRANSMISSION
        self._serve(export)
        plan = engine.rule_plan(Moment.TRANSMISSION, session, tuple)
        if plan:  # what nobody asked for has the cookie 0
            nothing = Asked(type=Cmd.READ, cookie=0, frames=session.frames, contexts=session.contexts)
            engine.play(Reply(plan, nothing, export.disk).steps())

    def _serve(self, export: Export) -> None:
        """Get ready for requests."""
        engine, session = self._engine, self._engine.session
        self._disk = export.disk
        if engine.settings.quirks.hides_writes_from_others:
            self._disk = PrivateCache(export.disk)
        self._commands = Commands(export, self._disk, session.flags, engine.settings.quirks)

    # Transmission.

    def _request(self) -> Talk:
        engine, session = self._engine, self._engine.session
        kind = ExtendedRequest if session.extended else Request
        head = yield from self._first(kind.wire_size())
        request = self._decoded(kind, head)
        if request is None:
            session.phase = Phase.CLOSED
            return
        session.requests += 1
        engine.observer.received(engine.connection, engine.now, head, request)
        self._judge(request)
        if request.type == Cmd.DISC and engine.on_request is None:
            self._disc(request)
            return
        asked, problem = yield from self._payload(request)
        if asked is None:
            session.phase = Phase.CLOSED
        elif engine.on_request is not None:
            engine.on_request(asked, partial(self._answer_later, request, asked, problem))
        else:
            self._answer_request(asked, problem)

    def _decoded(self, kind: type[Request | ExtendedRequest], head: bytes) -> Request | ExtendedRequest | None:
        engine = self._engine
        magic = REQUEST_MAGIC if kind is Request else EXTENDED_REQUEST_MAGIC
        if engine.settings.quirks.skips_magic_check:
            head = magic.to_bytes(4, "big") + head[4:]
        if int.from_bytes(head[:4], "big") == magic:
            return kind.decode(head)
        engine.observer.received(engine.connection, engine.now, head, "no request")
        requirement = {
            OPTION_MAGIC >> 32: "OPT-107",
            REQUEST_MAGIC: "EXT-001",
            EXTENDED_REQUEST_MAGIC: "MAGIC-004",
        }.get(int.from_bytes(head[:4], "big"), "REQ-001")
        engine.violation(Violation(requirement, f"request magic 0x{magic:x} expected, not {head[:4].hex(' ')}"))
        return None

    def _judge(self, request: Request | ExtendedRequest) -> None:
        engine, session = self._engine, self._engine.session
        assert session.export is not None
        assert self._disk is not None
        limits = session.export.limits
        filtered = request.type == Cmd.BLOCK_STATUS and CmdFlag.PAYLOAD_LEN in request.flags
        for violation in violations.of_request(
            request.type,
            request.flags,
            request.offset,
            0 if filtered else request.length,
            offered=session.flags,
            size=self._disk.size,
            minimum=limits.minimum if session.promised_sizes else 1,
            maximum=limits.maximum,
            structured=session.structured,
            extended=session.extended,
            contexts=bool(session.contexts),
        ):
            if not (filtered and violation.requirement == "CMD-141"):
                engine.violation(violation)
        waiting = engine.pending_requests()
        if any(asked.cookie == request.cookie for asked in waiting):
            text = f"cookie 0x{request.cookie:x} belongs to a request that is not answered yet"
            engine.violation(Violation("REQ-010", text, binding=False))
        for violation in self._resizes.judge(
            request,
            waiting,
            size=self._disk.size,
            begins=engine.received_bytes - engine.queued() - request.wire_size(),
            said=engine.received_bytes,
        ):
            engine.violation(violation)

    def _disc(self, request: Request | ExtendedRequest) -> None:
        engine, session, quirks = self._engine, self._engine.session, self._engine.settings.quirks
        if engine.pending():
            text = "CMD_DISC was sent while requests were not answered yet"
            engine.violation(Violation("TERM-040", text, binding=False))
        if quirks.drops_pending_at_disc:
            engine.forget_pending()
        correct: Plan = (actions.NoData(),) if quirks.answers_disc else ()
        export = session.export.name if session.export is not None else ""
        asked = Asked(type=Cmd.DISC, cookie=request.cookie, frames=session.frames, export=export)
        self._play(engine.rule_plan(Cmd.DISC, asked, lambda: correct), asked)
        self._farewell = Violation("CMD-074", "the client sent something after CMD_DISC")
        if not quirks.stays_after_disc:
            self._leave()
            session.phase = Phase.CLOSED

    def _payload(self, request: Request | ExtendedRequest) -> Generator[Want, bytes, tuple[Asked | None, str]]:
        """Read what comes after the header: the request as a whole and what is wrong with its payload, or None if
        the connection has to end."""
        engine, session, quirks = self._engine, self._engine.session, self._engine.settings.quirks
        assert session.export is not None
        extended = isinstance(request, ExtendedRequest)
        asked = Asked(
            type=request.type,
            cookie=request.cookie,
            offset=request.offset,
            length=request.length,
            flags=request.flags,
            frames=session.frames,
            contexts=session.contexts,
            export=session.export.name,
        )
        # EXT-005: PAYLOAD_LEN belongs to every extended WRITE. QEMU (seen: 10.0) leaves it out and sends the data all
        # the same, and its server reads them all the same; so do we, but the journal records a violation.
        has_payload = request.type == Cmd.WRITE or (extended and CmdFlag.PAYLOAD_LEN in request.flags)
        if not has_payload or request.length == 0:
            return asked, ""
        refused = refused_payload(request.length, session.export.limits.maximum)  # SIZE-028, EXT-006
        if refused and not quirks.waits_for_any_payload:
            return None, ""
        if extended and quirks.leaves_unexpected_payload and request.type not in (Cmd.WRITE, Cmd.BLOCK_STATUS):
            return asked, ""
        if quirks.leaves_refused_payload and self._commands is not None and self._commands.refusal(asked):
            return asked, ""
        if request.type == Cmd.WRITE and request.length <= session.export.limits.maximum:
            payload = yield (request.length, True)
            engine.observer.received(engine.connection, engine.now, payload, f"{len(payload)} bytes for CMD_WRITE")
            return replace(asked, payload=payload), ""
        if request.type == Cmd.BLOCK_STATUS and request.length <= MOST_FILTER:
            payload = yield (request.length, True)
            return self._filtered(asked, payload)
        yield (request.length, False)  # CMD-064, EXT-007: it is read even if it is good for nothing
        return asked, ""

    def _filtered(self, asked: Asked, payload: bytes) -> tuple[Asked, str]:
        engine = self._engine
        try:
            selected = StatusFilter.decode(payload)
        except PeerViolation as problem:
            engine.observer.received(engine.connection, engine.now, payload, "no filter of contexts")
            text = f"the payload of CMD_BLOCK_STATUS has {len(payload)} bytes: 8 + 4n are needed"
            engine.violation(Violation("EXT-066", text))
            return asked, str(problem)
        engine.observer.received(engine.connection, engine.now, payload, selected)
        whole = replace(asked, length=selected.length, wanted=selected.context_ids)
        return whole, ""

    def _answer_request(self, asked: Asked, problem: str) -> None:
        commands = self._commands
        assert commands is not None
        if asked.type in _CHANGING:
            self._engine.before_change()

        def correct() -> Plan:
            if self._engine.shutting_down:  # TERM-037
                return (actions.Error(Errno.ESHUTDOWN, message="the server is being shut down"),)
            return (actions.Error(Errno.EINVAL, message=problem),) if problem else commands.carry_out(asked)

        self._play(self._engine.rule_plan(asked.type, asked, correct), asked)

    def _answer_later(self, request: Request | ExtendedRequest, asked: Asked, problem: str) -> None:
        """Answer what a script has kept waiting, perhaps while the next message is waited for."""
        if request.type != Cmd.DISC:
            self._answer_request(asked, problem)
            return
        self._disc(request)
        if self._engine.session.phase is Phase.CLOSED:
            self._engine.finish()

    def _play(self, plan: Plan, asked: Asked) -> None:
        assert self._disk is not None
        self._engine.play(Reply(plan, asked, self._disk).steps(), asked=asked)

    # The end.

    def _leave(self) -> None:
        if isinstance(self._disk, PrivateCache):
            self._disk.give_up()

    def _surplus(self) -> Talk:
        """Throw away what comes after the end, and say so once."""
        yield (1, True)
        engine = self._engine
        if self._farewell is not None and not engine.lied:
            engine.violation(self._farewell)
        while True:
            yield (1 << 16, False)


def _greeted(plan: Plan, default: HandshakeFlag) -> HandshakeFlag:
    """What the client has been offered, also by a rule."""
    for action in plan:
        if isinstance(action, actions.Greeting) and action.flags is not None:
            return action.flags
    return default


def _promised_flags(plan: Plan, default: TransmissionFlag) -> TransmissionFlag:
    """The transmission flags that the client has been told last, also by a rule."""
    for action in reversed(plan):
        if isinstance(action, actions.InfoExport | actions.ExportReply) and action.flags is not None:
            return action.flags
    return default


def _says_yes(plan: Plan, option: Opt) -> bool:
    """Whether the client takes this answer for success."""
    for action in plan:
        while isinstance(action, Mangle):
            action = action.of
        match action:
            case actions.Ack() | actions.OptReply(type=Rep.ACK) if option != Opt.EXPORT_NAME:
                return True
            case actions.ExportReply() if option == Opt.EXPORT_NAME:
                return True
    return False
