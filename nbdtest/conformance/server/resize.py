"""RESIZE, an experimental branch of the specification."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import expect, expect_error, expect_in_step, expect_success
from nbdtest.conformance.target import ServerTarget
from nbdtest.wire import Cmd, Errno

RESIZE = [Capability.RESIZE]


@check("resize.works", proves=["RSZ-001", "RSZ-002"], needs=RESIZE, legal=True, writes=True)
def works(t: ServerTarget) -> None:
    """RESIZE takes the new size from the offset, and the new bytes can be read when it is answered."""
    with t.peer.transmitting() as session:
        expect_success(session.command(Cmd.RESIZE, t.size + t.unit, 0))
        reply = session.read(t.size, t.unit)
        expect_success(session.command(Cmd.RESIZE, t.size, 0))
        expect_success(reply)


@check("resize.errors", proves=["RSZ-003"], needs=RESIZE, legal=True, writes=True)
def errors(t: ServerTarget) -> None:
    """RESIZE that fails does so with EPERM, EIO, ENOSPC or ESHUTDOWN."""
    with t.peer.transmitting() as session:
        reply = session.command(Cmd.RESIZE, (1 << 63) // t.unit * t.unit, 0)
        if reply.succeeded:
            expect_success(session.command(Cmd.RESIZE, t.size, 0))
        else:
            expect_error(reply, Errno.EPERM, Errno.EIO, Errno.ENOSPC, Errno.ESHUTDOWN)
        expect_in_step(session)


@check("resize.past-new-end-is-enospc", proves=["RSZ-007"], needs=RESIZE, legal=True, writes=True)
def past_new_end_is_enospc(t: ServerTarget) -> None:
    """After the export was shrunk requests past the new end fail with ENOSPC."""
    smaller = t.size // t.unit * t.unit - t.unit
    with t.peer.transmitting() as session:
        expect_success(session.command(Cmd.RESIZE, smaller, 0))
        replies = [session.read(smaller, t.unit), session.write(smaller, bytes(t.unit))]
        expect_success(session.command(Cmd.RESIZE, t.size, 0))
        for reply in replies:
            expect(reply.error == Errno.ENOSPC, f"{reply.request.type} past the new end: {reply}", "ENOSPC")
