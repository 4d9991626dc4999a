"""Mutants of the greeting, the client flags and EXPORT_NAME."""

from __future__ import annotations

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.export import Style
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, HandshakeFlag, Opt, Rep

__all__: list[str] = []


@mutant("greeting.wrong-nbd-magic", breaks=["HS-007"], checks=["greeting.nbd-magic"])
def wrong_nbd_magic(server: FakeServer) -> None:
    """The first magic is one bit off."""
    server.on(Moment.GREETING).reply(mangle(actions.greeting(), flip=63))


@mutant("greeting.wrong-option-magic", breaks=["HS-008", "OLD-002"], checks=["greeting.option-magic"])
def wrong_option_magic(server: FakeServer) -> None:
    """The second magic is neither that of newstyle nor that of oldstyle."""
    server.on(Moment.GREETING).reply(mangle(actions.greeting(), option_magic=0x1234_5678_9ABC_DEF0))


@mutant("greeting.unknown-flag", breaks=["HS-032", "FLAG-100"], checks=["greeting.only-known-flags"])
def unknown_flag(server: FakeServer) -> None:
    """A handshake flag is set that nobody has defined."""
    flags = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES | HandshakeFlag(1 << 5)
    server.on(Moment.GREETING).reply(actions.greeting(flags=flags))


@mutant(
    "greeting.surplus-byte",
    breaks=["HS-009"],
    checks=["greeting.ends-after-flags"],
    spoils="nothing after the greeting is in step",
)
def surplus_byte(server: FakeServer) -> None:
    """A byte too many follows the greeting."""
    server.on(Moment.GREETING).reply(mangle(actions.greeting(), append=b"\0"))


@mutant("greeting.fixed-newstyle-unsaid", breaks=["HS-030"], checks=["greeting.offers-fixed-newstyle"])
def fixed_newstyle_unsaid(server: FakeServer) -> None:
    """Options are answered although FIXED_NEWSTYLE was not offered."""
    server.on(Moment.GREETING).reply(mangle(actions.greeting(), flags=int(HandshakeFlag.NO_ZEROES)))


@mutant("client-flags.unknown-accepted", breaks=["HS-012"], checks=["client-flags.unknown-bit-is-refused"])
def unknown_client_flags_accepted(server: FakeServer) -> None:
    """Client flags that were not offered are ignored."""
    server.configure(quirks={"ignores_client_flags"})


@mutant(
    "client-flags.unoffered-accepted",
    breaks=["HS-037"],
    checks=["client-flags.unoffered-bit-is-refused", "client-flags.unknown-bit-is-refused"],
)
def unoffered_client_flags_accepted(server: FakeServer) -> None:
    """NO_ZEROES is accepted though it was not offered."""
    server.configure(no_zeroes=False, quirks={"ignores_client_flags"})


@mutant(
    "client-flags.no-zeroes-refused",
    breaks=["OPT-010"],
    checks=["client-flags.answered-in-step", "export-name.padded", "go.no-padding"],
)
def no_zeroes_refused(server: FakeServer) -> None:
    """A client that does not take NO_ZEROES is hung up on."""
    server.on(Moment.CLIENT_FLAGS, where=lambda message: int(message.flags) == 1).reply(actions.close())


@mutant(
    "export-name.always-padded", breaks=["HS-031"], checks=["export-name.not-padded", "export-name.enters-transmission"]
)
def always_padded(server: FakeServer) -> None:
    """The 124 zero bytes follow the answer to EXPORT_NAME although NO_ZEROES was agreed."""
    server.configure(quirks={"always_pads_export_name"})


@mutant("export-name.never-padded", breaks=["HS-016", "HS-033"], checks=["export-name.padded"])
def never_padded(server: FakeServer) -> None:
    """The 124 zero bytes are missing after the answer to EXPORT_NAME although NO_ZEROES was not agreed."""
    server.configure(quirks={"never_pads_export_name"})


@mutant(
    "export-name.answered-as-option",
    breaks=["HS-014"],
    checks=[
        "export-name.size",
        "export-name.flags",
        "export-name.padded",
        "export-name.not-padded",
        "export-name.enters-transmission",
        "export-name.unknown-ends-session",
    ],
)
def answered_as_option(server: FakeServer) -> None:
    """EXPORT_NAME is answered with an option reply, as if it were any other option."""
    server.on(Opt.EXPORT_NAME).reply(actions.ack(), actions.pass_through())


@mutant(
    "export-name.size-little-endian", breaks=["CONV-001"], checks=["export-name.size", "export-name.agrees-with-go"]
)
def size_little_endian(server: FakeServer) -> None:
    """The size in the answer to EXPORT_NAME is little-endian."""
    little = int.from_bytes(server.disk.size.to_bytes(8, "little"), "big")
    server.on(Opt.EXPORT_NAME).reply(mangle(actions.pass_through(), size=little))


@mutant(
    "export-name.no-flags",
    breaks=["FLAG-010", "HS-015", "HS-018"],
    checks=["export-name.flags", "export-name.agrees-with-go"],
)
def no_flags(server: FakeServer) -> None:
    """The answer to EXPORT_NAME has bit 15 set and HAS_FLAGS clear."""
    server.on(Opt.EXPORT_NAME).reply(mangle(actions.pass_through(), flags=0x816C))


@mutant("export-name.other-flags", breaks=["FLAG-001"], checks=["export-name.agrees-with-go"])
def other_flags(server: FakeServer) -> None:
    """EXPORT_NAME gives other flags than GO."""
    server.on(Opt.EXPORT_NAME).reply(mangle(actions.pass_through(), flags=1))


@mutant(
    "export-name.stays-in-haggling",
    breaks=["OPT-031"],
    checks=[
        "export-name.enters-transmission",
        "export-name.padded",
        "export-name.not-padded",
        "export-name.unknown-ends-session",
        "leaving.before-option-reply",
    ],
)
def stays_in_haggling(server: FakeServer) -> None:
    """After the answer to EXPORT_NAME the server waits for more, and says nothing."""
    server.on(Opt.EXPORT_NAME).pass_through().then(actions.stall())


@mutant("export-name.unknown-answered", breaks=["OPT-033"], checks=["export-name.unknown-ends-session"])
def unknown_answered(server: FakeServer) -> None:
    """EXPORT_NAME for an unknown export is answered with the default export."""
    known = {each.name for each in server.settings.exports} | {""}
    server.on(Opt.EXPORT_NAME, where=lambda option: option.data.decode() not in known).reply(
        actions.export_reply(size=512, padded=False)
    )


@mutant("export-name.empty-is-invalid", breaks=["OPT-034"], checks=["export-name.empty-is-default"])
def empty_is_invalid(server: FakeServer) -> None:
    """INFO for the empty name is malformed, says the server."""
    server.on(Opt.INFO, where=lambda option: option.data[:4] == bytes(4)).reply(
        actions.opt_error(Rep.ERR_INVALID, "no name")
    )


@mutant("export-name.ends-at-nul", breaks=["CONV-004"], checks=["export-name.nul-is-no-end"])
def ends_at_nul(server: FakeServer) -> None:
    """Export names are compared up to the first NUL."""
    server.configure(quirks={"ends_names_at_nul"})


@mutant("oldstyle.wrong-magic", breaks=["OLD-002", "OLD-001"], checks=["oldstyle.magics", "greeting.nbd-magic"])
def oldstyle_wrong_magic(server: FakeServer) -> None:
    """The first magic of an oldstyle greeting has its bytes in another order."""
    server.configure(style=Style.OLDSTYLE)
    server.on(Moment.GREETING).reply(mangle(actions.oldstyle_greeting(), overwrite=(0, b"NBDMAGCI")))


@mutant(
    "oldstyle.size-in-kib",
    breaks=["OLD-003"],
    checks=[
        "oldstyle.size",
        "read.past-end-fails",
        "read.error-has-no-payload",
        "write.past-end-fails",
        "write.refused-payload-is-skipped",
        "zeroes.past-end-fails",
        "trim.past-end-fails",
        "cache.past-end-fails",
        "boundary.read",
        "boundary.write",
        "boundary.trim",
        "boundary.cache",
        "boundary.write-zeroes",
        "boundary.clamped-is-not-served",
    ],
)
def oldstyle_size_in_kib(server: FakeServer) -> None:
    """An oldstyle greeting gives the size in units of 1024 bytes."""
    server.configure(style=Style.OLDSTYLE)
    server.on(Moment.GREETING).reply(actions.oldstyle_greeting(size=server.disk.size // 1024))


@mutant("oldstyle.fixed-newstyle", breaks=["OLD-009", "OLD-004"], checks=["oldstyle.flags"])
def oldstyle_fixed_newstyle(server: FakeServer) -> None:
    """An oldstyle greeting has FIXED_NEWSTYLE in the upper half of its flags."""
    server.configure(style=Style.OLDSTYLE)
    server.on(Moment.GREETING).reply(mangle(actions.oldstyle_greeting(), handshake_flags=1))


@mutant("oldstyle.padding-not-zero", breaks=["OLD-005"], checks=["oldstyle.padding"])
def oldstyle_padding_not_zero(server: FakeServer) -> None:
    """The reserved bytes of an oldstyle greeting are not zero."""
    server.configure(style=Style.OLDSTYLE)
    server.on(Moment.GREETING).reply(mangle(actions.oldstyle_greeting(), overwrite=(100, b"junk")))


@mutant(
    "oldstyle.waits-for-client",
    breaks=["OLD-006"],
    checks=["oldstyle.no-client-turn"],
    spoils="no session can be opened",
)
def oldstyle_waits_for_client(server: FakeServer) -> None:
    """After an oldstyle greeting the first request is not answered."""
    server.configure(style=Style.OLDSTYLE)
    server.on(Cmd.READ, nth=1, per_connection=True).reply()
