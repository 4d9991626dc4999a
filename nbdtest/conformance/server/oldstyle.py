"""The oldstyle handshake: 152 bytes from the server, nothing from the client."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_bytes, expect_equal, expect_in_step, expect_silence
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.wire import CLISERV_MAGIC, NBD_MAGIC, Cmd, Errno, OldstyleGreeting, TransmissionFlag

OLDSTYLE = [Capability.OLDSTYLE]


@check("oldstyle.magics", proves=["OLD-001"], legal=True)
def magics(t: ServerTarget) -> None:
    """An oldstyle greeting, whose second word is 0x0000420281861253, begins with NBDMAGIC."""
    with t.peer.connected() as peer:
        seen = peer.receive_bytes(16, wanted="two magics")
        peer.note(seen, "first words of the greeting")
        if seen[8:] != CLISERV_MAGIC.to_bytes(8, "big"):
            raise NotApplicable(Capability.OLDSTYLE.value)
        expect_equal(seen[:8], NBD_MAGIC.to_bytes(8, "big"), "the first word")


@check("oldstyle.size", proves=["OLD-003"], needs=OLDSTYLE, legal=True)
def size(t: ServerTarget) -> None:
    """The third word is the export's size in bytes: the last byte can be read and the one after it cannot."""
    with t.peer.transmitting() as session:
        last = session.read(session.size - t.unit, t.unit)
        expect(last.succeeded, f"the last {t.unit} of {session.size} bytes cannot be read")
        expect(not session.read(session.size, t.unit).succeeded, f"bytes after {session.size} can be read")


@check("oldstyle.flags", proves=["OLD-004", "OLD-009", "FLAG-001", "FLAG-010"], needs=OLDSTYLE, legal=True)
def flags(t: ServerTarget) -> None:
    """The flags word has no handshake flags in its upper half, and HAS_FLAGS in its lower half."""
    with t.peer.greeted() as (_, greeting):
        assert isinstance(greeting, OldstyleGreeting)
        expect_equal(int(greeting.handshake_flags), 0, "the upper half of the flags", requirement="OLD-009")
        expect(TransmissionFlag.HAS_FLAGS in greeting.flags, f"flags {greeting.flags}", "HAS_FLAGS among them")


@check("oldstyle.padding", proves=["OLD-005"], needs=OLDSTYLE, legal=True)
def padding(t: ServerTarget) -> None:
    """The greeting ends with 124 zero bytes, and nothing follows them."""
    with t.peer.greeted() as (peer, greeting):
        assert isinstance(greeting, OldstyleGreeting)
        expect_bytes(greeting.reserved, bytes(124), "the reserved bytes")
        expect_silence(peer, "the 152 bytes of the greeting")


@check("oldstyle.no-client-turn", proves=["OLD-006"], needs=OLDSTYLE, legal=True)
def no_client_turn(t: ServerTarget) -> None:
    """The first thing that the client sends is a request."""
    with t.peer.transmitting() as session:
        expect_in_step(session)
        expect(session.command(Cmd.READ, 0, t.unit).error is Errno.OK, "the second READ fails", "success")
