"""Short words for what many mutants do: change one kind of message, or one kind of action in a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.rendering import Asked
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, Info, Opt, Option, OptionReply, Rep, ReplyType, StructuredReply

__all__ = ["change_actions", "change_chunks", "change_infos", "change_option_plans", "change_replies"]

_A = TypeVar("_A", bound=Action)


def change_replies(
    server: FakeServer, type: Rep, change: Callable[[bytes], bytes], *, option: int | None = None
) -> None:
    """Put other data into every option reply of this type, or of this type to one option."""

    def fits(reply: OptionReply) -> bool:
        return reply.type == type and option in (None, reply.option)

    server.on_send(OptionReply, where=fits).rewrite(lambda reply: replace(reply, data=change(reply.data)))


def change_infos(server: FakeServer, info: Info, change: Callable[[bytes], bytes]) -> None:
    """Put other data, type included, into every REP_INFO of this information type."""
    prefix = info.to_bytes(2, "big")

    def fits(reply: OptionReply) -> bool:
        return reply.type == Rep.INFO and reply.data[:2] == prefix

    server.on_send(OptionReply, where=fits).rewrite(lambda reply: replace(reply, data=change(reply.data)))


def change_option_plans(
    server: FakeServer, options: Iterable[Opt], change: Callable[[Option, Plan], Iterable[Action]]
) -> None:
    """Answer these options with a changed plan."""
    for option in options:
        server.on(option).rewrite(change)


def change_chunks(
    server: FakeServer, type: ReplyType, change: Callable[[StructuredReply], StructuredReply | bytes]
) -> None:
    """Send other chunks of this type, where structured replies were negotiated. OFFSET_DATA is not seen here."""
    server.on_send(StructuredReply, where=lambda chunk: chunk.type == type).rewrite(change)


def change_actions(
    server: FakeServer, commands: Iterable[Cmd], kind: type[_A], change: Callable[[Asked, _A], Iterable[Action]]
) -> None:
    """Replace each action of one kind in the replies to these commands."""

    def rewritten(asked: Asked, plan: Plan) -> list[Action]:
        return [new for each in plan for new in (change(asked, each) if isinstance(each, kind) else (each,))]

    for command in commands:
        server.on(command).rewrite(rewritten)
