"""The server's greeting, and what the client flags that answer it may be."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import UNKNOWN_OPTION, expect, expect_end, expect_equal, expect_in_step, expect_silence
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NoAnswer, NotApplicable
from nbdtest.wire import CLISERV_MAGIC, NBD_MAGIC, OPTION_MAGIC, ClientFlag, HandshakeFlag, NewstyleGreeting, shorten

NEWSTYLE = Capability.NEWSTYLE
FIXED = Capability.FIXED_NEWSTYLE


@check("greeting.nbd-magic", proves=["HS-007", "CONV-001"], legal=True)
def nbd_magic(t: ServerTarget) -> None:
    """The server speaks first, and its first 8 bytes are NBDMAGIC."""
    with t.peer.connected() as peer:
        seen = peer.receive_bytes(8, wanted="the magic NBDMAGIC")
        peer.note(seen, "first word of the greeting")
        expect_equal(seen, NBD_MAGIC.to_bytes(8, "big"), "the first word")


@check("greeting.option-magic", proves=["HS-008", "OLD-002"], legal=True)
def option_magic(t: ServerTarget) -> None:
    """The second 8 bytes of the greeting are IHAVEOPT, or those that begin an oldstyle one."""
    with t.peer.connected() as peer:
        seen = peer.receive_bytes(16, wanted="two magics")
        peer.note(seen, "first words of the greeting")
        if seen[8:] == CLISERV_MAGIC.to_bytes(8, "big"):
            raise NotApplicable(NEWSTYLE.value)
        expect_equal(seen[8:], OPTION_MAGIC.to_bytes(8, "big"), "the second word")


@check("greeting.ends-after-flags", proves=["HS-009", "TRN-003"], needs=[NEWSTYLE], legal=True)
def ends_after_flags(t: ServerTarget) -> None:
    """The newstyle greeting ends with 16 bits of flags: the server then waits for the client."""
    with t.peer.greeted() as (peer, _):
        expect_silence(peer, "the 18 bytes of the greeting")


@check("greeting.only-known-flags", proves=["HS-032", "HS-018", "FLAG-100"], needs=[NEWSTYLE], legal=True)
def only_known_flags(t: ServerTarget) -> None:
    """No handshake flags but FIXED_NEWSTYLE and NO_ZEROES are set."""
    with t.peer.greeted() as (_, greeting):
        assert isinstance(greeting, NewstyleGreeting)
        expect(not greeting.flags & ~3, f"handshake flags {greeting.flags}", "FIXED_NEWSTYLE and NO_ZEROES at most")


@check("greeting.offers-fixed-newstyle", proves=["HS-030"], needs=[NEWSTYLE], legal=False)
def offers_fixed_newstyle(t: ServerTarget) -> None:
    """A server that answers options has offered FIXED_NEWSTYLE."""
    with t.peer.negotiating(flags=0) as nego:
        if HandshakeFlag.FIXED_NEWSTYLE in nego.greeting.flags:
            return
        nego.send_option(0x7FFF_0000)
        try:
            seen = nego.peer.receive_unless_ended()
        except NoAnswer:
            return  # it takes no options, and does not hang up on them either
        expect(not seen, f"an option is answered with {shorten(seen)}", "FIXED_NEWSTYLE in the greeting")


@check("client-flags.unknown-bit-is-refused", proves=["HS-012"], needs=[NEWSTYLE], legal=False)
def unknown_bit_is_refused(t: ServerTarget) -> None:
    """The server closes the connection when the client flags have a bit that nobody assigned."""
    for flags in (0x8000_0003, 0x0000_0004, 0x0001_0001):
        with t.peer.negotiating(flags=flags, clear=True) as nego:
            nego.send_option(UNKNOWN_OPTION)
            expect_end(nego.peer, f"client flags 0x{flags:08x} and an option")


@check(
    "client-flags.unoffered-bit-is-refused",
    proves=["HS-037"],
    needs=[NEWSTYLE, Capability.WITHOUT_NO_ZEROES],
    legal=False,
)
def unoffered_bit_is_refused(t: ServerTarget) -> None:
    """The server closes the connection when the client takes NO_ZEROES without its having been offered."""
    with t.peer.negotiating(flags=3, clear=True) as nego:
        nego.send_option(UNKNOWN_OPTION)
        expect_end(nego.peer, "client flags with NO_ZEROES and an option")


@check("client-flags.answered-in-step", proves=["OPT-010"], needs=[FIXED], legal=True)
def answered_in_step(t: ServerTarget) -> None:
    """Options work with NO_ZEROES taken and not taken."""
    for flags in (ClientFlag.FIXED_NEWSTYLE, ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES):
        with t.peer.negotiating(flags=flags) as nego:
            if int(flags) & ~int(nego.greeting.flags):
                continue
            expect_in_step(nego)
