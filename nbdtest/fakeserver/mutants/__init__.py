"""Deliberate bugs, one each: servers that a conformance suite has to see through.

A mutant is a function that gets a `FakeServer` before it serves anybody, and makes it wrong in one way: with rules
(`server.on`, `server.on_send`; say `per_connection=True` with `nth`), with `server.configure(quirks={...})` where no
rule reaches, or with `server.configure(...)` and `server.change_exports(...)`. To add one, write such a function with a
docstring of one sentence into the module of its theme:

    @mutant("reply.wrong-cookie", breaks=["RPL-005"], checks=["reply.cookie"])
    def wrong_cookie(server: FakeServer) -> None:
        \"\"\"Every simple reply carries the cookie plus one.\"\"\"
        server.on_send(SimpleReply).rewrite(lambda reply: replace(reply, cookie=reply.cookie + 1))

`checks` are all checks that complain about it, and no others may: `sometimes=` takes those that do or do not by who is
faster, and `spoils=` says what a bug takes away that other checks cannot do without.
"""

from nbdtest.fakeserver.mutants import (
    blockstatus,
    commands,
    data,
    delivery,
    extensions,
    formats,
    handshake,
    info,
    leaving,
    limits,
    metacontext,
    options,
    published,
    replies,
    tls,
)
from nbdtest.fakeserver.mutants.registry import MUTANTS, Mutant, mutant

__all__ = [
    "MUTANTS",
    "Mutant",
    "blockstatus",
    "commands",
    "data",
    "delivery",
    "extensions",
    "formats",
    "handshake",
    "info",
    "leaving",
    "limits",
    "metacontext",
    "mutant",
    "options",
    "published",
    "replies",
    "tls",
]
