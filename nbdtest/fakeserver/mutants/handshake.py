"""Mutants of the greeting and the client flags."""

from __future__ import annotations

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import HandshakeFlag

__all__: list[str] = []


@mutant("greeting.wrong-nbd-magic", breaks=["HS-007"])
def wrong_nbd_magic(server: FakeServer) -> None:
    """The first magic is one bit off."""
    server.on(Moment.GREETING).reply(mangle(actions.greeting(), flip=63))


@mutant("greeting.wrong-option-magic", breaks=["HS-008"])
def wrong_option_magic(server: FakeServer) -> None:
    """The second magic is neither that of newstyle nor that of oldstyle."""
    server.on(Moment.GREETING).reply(mangle(actions.greeting(), option_magic=0x1234_5678_9ABC_DEF0))


@mutant("greeting.unknown-flag", breaks=["HS-032"])
def unknown_flag(server: FakeServer) -> None:
    """A handshake flag is set that nobody has defined."""
    flags = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES | HandshakeFlag(1 << 5)
    server.on(Moment.GREETING).reply(actions.greeting(flags=flags))


@mutant("greeting.surplus-byte", breaks=["HS-009"])
def surplus_byte(server: FakeServer) -> None:
    """A byte too many follows the greeting."""
    server.on(Moment.GREETING).reply(mangle(actions.greeting(), append=b"\0"))


@mutant("client-flags.unknown-accepted", breaks=["HS-012", "HS-037"])
def unknown_client_flags_accepted(server: FakeServer) -> None:
    """Client flags that were not offered are ignored."""
    server.configure(quirks={"ignores_client_flags"})
