"""Mutants of how replies are framed: magics, cookies, flags, chunk layouts."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, ReplyFlag, SimpleReply, StructuredReply

__all__: list[str] = []


@mutant("reply.simple-wrong-cookie", breaks=["RPL-005"])
def wrong_cookie(server: FakeServer) -> None:
    """Simple replies carry the cookie with its lowest bit inverted."""
    server.on_send(SimpleReply).rewrite(lambda reply: replace(reply, cookie=reply.cookie ^ 1))


@mutant("reply.read-stays-simple", breaks=["RPL-022", "RPL-021", "OPT-112"])
def read_stays_simple(server: FakeServer) -> None:
    """READ gets a simple reply although structured replies were negotiated."""
    server.on(Cmd.READ).rewrite(
        lambda asked, plan: [
            actions.simple(content=bytes(server.disk.read(asked.offset, asked.length)))
            if not isinstance(plan[0], actions.Error)
            else actions.simple(plan[0].errno)
        ]
    )


@mutant("chunk.done-forgotten", breaks=["RPL-041"])
def done_forgotten(server: FakeServer) -> None:
    """The last chunk of a reply has no DONE."""
    server.on_send(StructuredReply).mangle(flags=0)


@mutant("chunk.unknown-flag", breaks=["RPL-043"])
def unknown_flag(server: FakeServer) -> None:
    """Chunks carry a reply flag that nobody has defined."""
    server.on_send(StructuredReply).rewrite(lambda chunk: replace(chunk, flags=chunk.flags | ReplyFlag(1 << 4)))


@mutant("chunk.out-of-range", breaks=["RPL-062", "CMD-024"])
def out_of_range(server: FakeServer) -> None:
    """READ is answered from 512 bytes further on."""
    server.on(Cmd.READ).rewrite(
        lambda asked, plan: (actions.data(at=asked.offset + 512, length=asked.length),) if asked.length else plan
    )
