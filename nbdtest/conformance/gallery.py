"""A collection of answers, gathered once per target, that rules about the form of messages look through.

Such a rule holds in every message, so it is judged on a fixed spread of ordinary and refused requests instead of one
exchange of its own. What a target does not answer is left out here: the check for that request says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.expect import UNKNOWN_OPTION
from nbdtest.conformance.negotiation import Answer, Negotiation
from nbdtest.conformance.replies import Chunk, Reply
from nbdtest.conformance.session import Session
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.errors import PeerViolation
from nbdtest.wire import Cmd, CmdFlag, Info, Opt, OptionReply, Rep, ReplyType, Transcript

if TYPE_CHECKING:
    from nbdtest.conformance.target import ServerTarget

__all__ = ["ALL_INFOS", "LONG_NAME", "Gallery"]

ALL_INFOS = (Info.EXPORT, Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)
LONG_NAME = "n" * 4096
"""The longest name there may be."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Exhibit(Generic[_T]):
    """One answer, and the exchange in which it was gathered."""

    answer: _T
    transcript: Transcript


class Gallery:
    """What one target answered. Every iterator shows, in the target's transcript, the exchange that it stands at.

    An iterator that finds nothing of its kind raises NotApplicable at its end: no rule passes without having been seen.
    """

    def __init__(self, target: ServerTarget) -> None:
        self._target = target
        self._options: list[_Exhibit[Answer]] | None = None
        self._replies: dict[str, list[_Exhibit[Reply]]] = {}

    def answers(self, *options: Opt) -> Iterator[Answer]:
        """Every answer to an option, or to these options."""
        if self._options is None:
            self._options = _haggle(self._target)
        wanted = " or ".join(map(str, options)) or "any option"
        yield from self._show(
            (exhibit for exhibit in self._options if not options or exhibit.answer.option.option in options),
            f"the server answered {wanted} with nothing that can be judged",
        )

    def option_replies(self, *types: Rep) -> Iterator[OptionReply]:
        """Every single option reply, or those of these types."""
        found = False
        for answer in self.answers():
            for reply in answer.replies:
                if not types or reply.type in types:
                    found = True
                    yield reply
        if not found:
            raise NotApplicable(f"the server sent no {' or '.join(map(str, types))}")

    def infos(self, info: Info) -> Iterator[bytes]:
        """The data of every REP_INFO of this information type."""
        found = False
        for answer in self.answers(Opt.INFO, Opt.GO):
            for data in answer.infos(info):
                found = True
                yield data
        if not found:
            raise NotApplicable(f"the server sent no {info}")

    def replies(self, *commands: Cmd, mode: str = "", succeeded: bool | None = None) -> Iterator[Reply]:
        """Every reply to these commands, or to all; in one mode or in all; successes or failures or both."""
        exhibits = [
            exhibit
            for name in ([mode] if mode else self._target.modes)
            for exhibit in self._of_mode(name)
            if not commands or exhibit.answer.request.type in commands
            if succeeded is None or exhibit.answer.succeeded is succeeded
        ]
        kind = {None: "reply", True: "success", False: "error"}[succeeded]
        yield from self._show(
            iter(exhibits), f"the server sent no {kind} to {' or '.join(map(str, commands)) or 'any'}"
        )

    def chunks(self, *types: ReplyType, mode: str = "structured") -> Iterator[Chunk]:
        """Every chunk of these types, or of all."""
        for _, chunk in self.chunks_with_reply(*types, mode=mode):
            yield chunk

    def chunks_with_reply(self, *types: ReplyType, mode: str = "structured") -> Iterator[tuple[Reply, Chunk]]:
        """Every chunk of these types, or of all, with the reply that it belongs to."""
        found = False
        for reply in self.replies(mode=mode):
            for chunk in reply.chunks:
                if not types or chunk.type in types:
                    found = True
                    yield reply, chunk
        if not found:
            raise NotApplicable(f"the server sent no chunk of {' or '.join(map(str, types)) or 'any type'}")

    def _of_mode(self, mode: str) -> list[_Exhibit[Reply]]:
        if mode not in self._replies:
            self._replies[mode] = _transmit(self._target, mode)
        return self._replies[mode]

    def _show(self, exhibits: Iterator[_Exhibit[_T]], otherwise: str) -> Iterator[_T]:
        found = False
        for exhibit in exhibits:
            found = True
            self._target.transcript = exhibit.transcript
            yield exhibit.answer
        if not found:
            raise NotApplicable(otherwise)


def _haggle(target: ServerTarget) -> list[_Exhibit[Answer]]:
    structured = target.has(Capability.STRUCTURED)
    found: list[_Exhibit[Answer]] = []
    for ask, after_structured in _questions(target):
        if after_structured and not structured:
            continue
        kept, target.transcript = target.transcript, Transcript()
        try:
            with target.peer.negotiating() as nego:
                if after_structured:
                    nego.option(Opt.STRUCTURED_REPLY)
                found.append(_Exhibit(ask(nego), target.transcript))
        except (Complaint, PeerViolation, NotApplicable):
            pass
        finally:
            target.transcript = kept
    return found


def _questions(target: ServerTarget) -> Sequence[tuple[Callable[[Negotiation], Answer], bool]]:
    """What is asked, each on a connection of its own, and whether after structured replies have been agreed on."""
    export, unknown = target.export, target.unknown_export
    return (
        (lambda nego: nego.option(Opt.LIST), False),
        (lambda nego: nego.option(Opt.ABORT), False),
        (lambda nego: nego.option(UNKNOWN_OPTION), False),
        (lambda nego: nego.option(UNKNOWN_OPTION, bytes(range(64))), False),
        (lambda nego: nego.option(Opt.PEEK_EXPORT), False),
        (lambda nego: nego.option(Opt.STRUCTURED_REPLY), False),
        (lambda nego: nego.option(Opt.EXTENDED_HEADERS), False),
        (lambda nego: nego.option(Opt.LIST, b"data"), False),
        (lambda nego: nego.info(export, ALL_INFOS), False),
        (lambda nego: nego.go(export, ALL_INFOS), False),
        (lambda nego: nego.go(export, ()), False),
        (lambda nego: nego.info(unknown, ALL_INFOS), False),
        (lambda nego: nego.go(unknown, ALL_INFOS), False),
        (lambda nego: nego.info(LONG_NAME, ALL_INFOS), False),
        (lambda nego: nego.option(Opt.INFO, b"\xff\xff\xff\xff"), False),
        (lambda nego: nego.info(export, ALL_INFOS), True),
        (lambda nego: nego.list_meta(export), True),
        (lambda nego: nego.list_meta(export, "base:"), True),
        (lambda nego: nego.set_meta(export, "base:allocation", *target.facts.contexts), True),
        (lambda nego: nego.set_meta(export, "base:nonsense"), True),
        (lambda nego: nego.set_meta(unknown, "base:allocation"), True),
        (lambda nego: nego.option(Opt.SET_META_CONTEXT, b"\xff\xff\xff\xff"), True),
    )


def _transmit(target: ServerTarget, mode: str) -> list[_Exhibit[Reply]]:
    """Send the spread of requests; a new session is opened where one broke, so that the rest is still seen."""
    found: list[_Exhibit[Reply]] = []
    kept = target.transcript
    requests = _requests(target)
    contexts = target.facts.contexts if mode != "simple" else ()
    waiting = len(requests) + 1
    while 0 < len(requests) < waiting:  # a session that cannot be opened will not be the next time either
        waiting = len(requests)
        target.transcript = Transcript()
        try:
            with ExitStack() as stack:
                session = stack.enter_context(target.peer.transmitting(mode=mode, contexts=contexts))
                opening = list(target.transcript)
                while requests:
                    send = requests.pop(0)
                    session.peer.transcript = target.transcript = Transcript(opening)
                    found.append(_Exhibit(send(session), target.transcript))
        except (Complaint, PeerViolation, NotApplicable):
            pass  # the check of what was asked for says so
        finally:
            target.transcript = kept
    target.trouble()  # notices an export that has grown by the WRITE past its end
    return found


def _requests(target: ServerTarget) -> list[Callable[[Session], Reply]]:
    """Reads, writes and the rest, served and refused, all of them legal to send."""
    size, unit = target.facts.size, target.unit
    spread = min(128 << 10, size // unit * unit)
    tail = size - unit if size >= unit else 0
    past = size // unit * unit
    has = target.has
    requests: list[Callable[[Session], Reply]] = []
    if has(Capability.WRITABLE):
        half = spread // 2 // unit * unit
        contents = random.Random(f"{target.seed} gallery").randbytes(half)
        requests += [
            lambda s: s.write(0, contents),
            lambda s: s.write(past, bytes(unit)),
        ]
        if has(Capability.WRITE_ZEROES):
            requests += [
                lambda s: s.command(Cmd.WRITE_ZEROES, half, unit),
                lambda s: s.command(Cmd.WRITE_ZEROES, past, unit),
            ]
        if has(Capability.TRIM):
            requests += [
                lambda s: s.command(Cmd.TRIM, half, unit),
                lambda s: s.command(Cmd.TRIM, past, unit),
            ]
    requests += [
        lambda s: s.read(0, spread),
        lambda s: s.read(unit, unit),
        lambda s: s.read(tail, size - tail),
        lambda s: s.read(past, unit),
        lambda s: s.read(0, unit, flags=0x8000),
        lambda s: s.command(0x7FFF, 0, 0),
    ]
    if target.bad_range is not None:
        first = max(0, target.bad_range[0] - 4 * unit) // unit * unit
        requests.append(lambda s: s.read(first, 8 * unit))
    if has(Capability.DF):
        requests.append(lambda s: s.read(0, min(spread, 65536), flags=CmdFlag.DF if s.mode != "simple" else 0))
    if has(Capability.FLUSH):
        requests.append(lambda s: s.flush())
    if has(Capability.CACHE):
        requests += [lambda s: s.command(Cmd.CACHE, 0, unit), lambda s: s.command(Cmd.CACHE, past, unit)]
    if has(Capability.META):
        requests += [
            lambda s: s.block_status(0, spread),
            lambda s: s.block_status(unit, unit, flags=CmdFlag.REQ_ONE),
            lambda s: s.block_status(past, unit),
        ]
    return requests
