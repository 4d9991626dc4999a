"""Mutants of what is stored and read back."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.mutants.edits import change_actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Frames
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, CmdFlag, Errno

__all__: list[str] = []


@mutant(
    "data.writes-forgotten",
    breaks=["CMD-060", "CMD-056"],
    checks=[
        "write.stores",
        "data.shadow-copy",
        "read.returns-what-was-written",
        "read.odd-offsets",
        "read.tail",
        "df.mixed-range-is-data",
        "write.odd-offsets",
        "write.of-every-length",
        "write.of-odd-length",
        "write.seen-by-next-connection",
        "write.zero-length-keeps-session",
        "write.fua",
        "zeroes.zero-the-range",
        "zeroes.odd-ranges",
        "zeroes.no-hole",
        "zeroes.zero-length-keeps-session",
        "trim.spares-the-rest",
        "flush.keeps-data",
        "cache.keeps-data-current",
        "status.follows-writes",
        "disconnect.finishes-writes",
        "delivery.payload-in-pieces",
        "delivery.many-writes-at-once",
        "data.shadow-copy-by-turns",
        "data.flush-is-seen-by-others",
        "data.fua-is-seen-by-others",
        "data.zeroes-and-data-side-by-side",
        "data.survives-a-cut",
        "data.overlapping-connections",
        "delivery.writes-by-bytes",
    ],
)
def writes_forgotten(server: FakeServer) -> None:
    """WRITE is acknowledged, and nothing is stored."""
    server.configure(quirks={"forgets_writes"})


@mutant(
    "data.fua-forgotten",
    breaks=["FLAG-042", "CMD-060"],
    checks=["write.fua", "data.fua-is-seen-by-others", "data.shadow-copy", "data.shadow-copy-by-turns"],
)
def fua_forgotten(server: FakeServer) -> None:
    """WRITE with FUA is acknowledged, and nothing is stored."""
    server.on(Cmd.WRITE, where=lambda asked: CmdFlag.FUA in asked.flags).reply(actions.no_data())


@mutant("data.odd-writes-forgotten", breaks=["CMD-060"], checks=["write.odd-offsets"])
def odd_writes_forgotten(server: FakeServer) -> None:
    """WRITE of one byte is acknowledged, and nothing is stored."""
    server.on(Cmd.WRITE, where=lambda asked: asked.length == 1).reply(actions.no_data())


@mutant(
    "data.zeroes-forgotten",
    breaks=["CMD-103", "CMD-108"],
    checks=[
        "zeroes.zero-the-range",
        "zeroes.odd-ranges",
        "zeroes.no-hole",
        "zeroes.no-hole-is-provisioned",
        "data.shadow-copy",
        "data.shadow-copy-by-turns",
    ],
)
def zeroes_forgotten(server: FakeServer) -> None:
    """WRITE_ZEROES is acknowledged, and nothing is zeroed."""
    server.configure(quirks={"forgets_zeroes"})


@mutant(
    "data.zeroes-too-much",
    breaks=["CMD-083"],
    checks=[
        "trim.spares-the-rest",
        "zeroes.zero-the-range",
        "zeroes.odd-ranges",
        "zeroes.no-hole",
        "data.shadow-copy",
        "data.shadow-copy-by-turns",
    ],
)
def zeroes_too_much(server: FakeServer) -> None:
    """WRITE_ZEROES and TRIM reach to the end of the 4096-byte block."""
    server.configure(quirks={"zeroes_too_much"})


@mutant("data.no-hole-punched", breaks=["CMD-110"], checks=["zeroes.no-hole-is-provisioned"])
def no_hole_punched(server: FakeServer) -> None:
    """WRITE_ZEROES with NO_HOLE leaves a hole."""
    server.configure(quirks={"punches_despite_no_hole"})


@mutant(
    "data.private-caches",
    breaks=["FLAG-022", "FLAG-023"],
    checks=[
        "data.shadow-copy-by-turns",
        "data.flush-is-seen-by-others",
        "data.fua-is-seen-by-others",
        "status.finds-holes",
    ],
)
def private_caches(server: FakeServer) -> None:
    """CAN_MULTI_CONN is offered, but each connection has a cache of its own."""
    server.configure(quirks={"hides_writes_from_others"})


@mutant("data.shifted", breaks=["CMD-005", "RPL-061", "CMD-001"], checks=["read.returns-what-was-written"])
def shifted(server: FakeServer) -> None:
    """A READ of 17 units is answered from one unit further on."""
    change_actions(
        server,
        [Cmd.READ],
        actions.Data,
        lambda asked, each: (
            [replace(each, content=bytes(server.disk.read(asked.offset + 512, asked.length)))]
            if asked.length == 17 * 512
            else [each]
        ),
    )


@mutant("data.odd-reads-rounded", breaks=["CMD-005"], checks=["read.odd-offsets"])
def odd_reads_rounded(server: FakeServer) -> None:
    """READ at an odd offset is answered from the offset before it."""
    change_actions(
        server,
        [Cmd.READ],
        actions.Data,
        lambda asked, each: (
            [replace(each, content=bytes(server.disk.read(asked.offset - 1, asked.length)))]
            if asked.offset % 512 == 1 and asked.length < 4096
            else [each]
        ),
    )


@mutant("data.tail-lost", breaks=["CMD-005"], checks=["read.tail"])
def tail_lost(server: FakeServer) -> None:
    """The last unit of the export reads as zero."""
    last = server.disk.size - 512
    server.on(Cmd.READ, where=lambda asked: asked.offset == last and asked.length == 512).reply(
        actions.data(content=bytes(512))
    )


@mutant("data.offsets-of-32-bits", breaks=["CMD-005"], checks=["read.across-4-gib"])
def offsets_of_32_bits(server: FakeServer) -> None:
    """Offsets are cut to 32 bits."""
    server.change_exports(disk=None, size=(4 << 30) + (1 << 20))
    change_actions(
        server,
        [Cmd.READ],
        actions.Data,
        lambda asked, each: (
            [replace(each, content=bytes(server.disk.read(asked.offset, 512)) + bytes(server.disk.read(0, 512)))]
            if asked.offset < 1 << 32 < asked.offset + asked.length and asked.length == 1024
            else [each]
        ),
    )


@mutant("data.long-reads-short", breaks=["RPL-016"], checks=["read.of-every-length"])
def long_reads_short(server: FakeServer) -> None:
    """A structured READ of 1025 bytes brings 1024."""
    server.on(Cmd.READ, where=lambda asked: asked.length == 1025 and asked.frames is Frames.STRUCTURED).reply(
        actions.data(length=1024)
    )


@mutant(
    "data.lost-after-disc",
    breaks=["CMD-060", "CMD-071"],
    checks=[
        "disconnect.finishes-writes",
        "write.seen-by-next-connection",
        "data.survives-a-cut",
        "read.returns-what-was-written",
        "read.odd-offsets",
        "read.tail",
        "write.stores",
        "write.odd-offsets",
        "write.zero-length-keeps-session",
        "write.fua",
        "zeroes.zero-the-range",
        "zeroes.odd-ranges",
        "zeroes.no-hole",
        "zeroes.zero-length-keeps-session",
        "trim.spares-the-rest",
        "flush.keeps-data",
        "cache.keeps-data-current",
        "delivery.payload-in-pieces",
        "delivery.many-writes-at-once",
        "data.shadow-copy-by-turns",
        "data.zeroes-and-data-side-by-side",
        "data.overlapping-connections",
        "delivery.writes-by-bytes",
    ],
)
def lost_after_disc(server: FakeServer) -> None:
    """The first READ of a unit that was written reads as zero on the next connection."""
    server.on(
        Cmd.READ, nth=1, per_connection=True, where=lambda asked: asked.offset >= 512 and asked.frames is Frames.SIMPLE
    ).rewrite(
        lambda asked, plan: plan if isinstance(plan[0], actions.Error) else [actions.data(content=bytes(asked.length))]
    )


@mutant("data.stale-after-cache", breaks=["CMD-093"], checks=["cache.keeps-data-current"])
def stale_after_cache(server: FakeServer) -> None:
    """READ after CACHE gives what was there at the first CACHE of the connection."""
    kept: dict[int, bytes] = {}

    def remember(asked: object, plan: actions.Plan) -> actions.Plan:
        offset = getattr(asked, "offset", 0)
        if offset and offset < server.disk.size:
            kept.setdefault(offset, bytes(server.disk.read(offset, 512)))
        return plan

    server.on(Cmd.CACHE, where=lambda asked: asked.offset > 0).rewrite(remember)
    server.on(Cmd.READ, where=lambda asked: asked.offset in kept and asked.length == 512).rewrite(
        lambda asked, plan: [actions.data(content=kept[asked.offset])]
    )


@mutant(
    "data.flush-loses",
    breaks=["FLAG-013"],
    checks=[
        "flush.keeps-data",
        "write.seen-by-next-connection",
        "data.shadow-copy-by-turns",
        "data.flush-is-seen-by-others",
        "data.overlapping-connections",
        "data.shadow-copy",
    ],
)
def flush_loses(server: FakeServer) -> None:
    """FLUSH throws away the unit that was written last."""
    last: list[int] = []

    def remember(asked: object, plan: actions.Plan) -> actions.Plan:
        last[:] = [getattr(asked, "offset", 0)]
        return plan

    def lose(asked: object, plan: actions.Plan) -> actions.Plan:
        if last and last[0] < server.disk.size:
            server.disk.write(last[0], bytes(512))
        return plan

    server.on(Cmd.WRITE).rewrite(remember)
    server.on(Cmd.FLUSH).rewrite(lose)


@mutant(
    "data.side-by-side-lost",
    breaks=["CMD-108", "RPL-066"],
    checks=["data.zeroes-and-data-side-by-side", "data.overlapping-connections", "read.returns-what-was-written"],
)
def side_by_side_lost(server: FakeServer) -> None:
    """A READ of eight times 4096 bytes is one hole."""
    server.on(Cmd.READ, where=lambda asked: asked.length == 8 * 4096).reply(actions.hole())


@mutant(
    "data.neighbours-overwritten",
    breaks=["CMD-060"],
    checks=["data.overlapping-connections", "read.returns-what-was-written"],
)
def neighbours_overwritten(server: FakeServer) -> None:
    """READ of 64 units gives the first one again as the second."""
    change_actions(
        server,
        [Cmd.READ],
        actions.Data,
        lambda asked, each: (
            [replace(each, content=bytes(1024) + bytes(server.disk.read(asked.offset + 1024, asked.length - 1024)))]
            if asked.length == 64 * 512 and asked.frames is Frames.SIMPLE
            else [each]
        ),
    )


@mutant(
    "fault.read-succeeds",
    breaks=["CMD-011", "CMD-014", "RPL-032"],
    checks=["fault.is-an-error", "fault.late-error-ends-session", "fault.no-done-before-error"],
)
def fault_read_succeeds(server: FakeServer) -> None:
    """A READ of what cannot be read succeeds."""
    server.on(Cmd.READ, where=lambda asked: asked.offset + asked.length > 1 << 20 and asked.length == 4608).reply(
        actions.data(content=bytes(4608))
    )


@mutant("fault.error-before-content", breaks=["CMD-044"], checks=["fault.content-comes-before-its-error"])
def fault_error_before_content(server: FakeServer) -> None:
    """The error comes before the chunk that it concerns."""
    server.on(Cmd.READ, where=lambda asked: asked.length == 4608 and asked.frames is Frames.STRUCTURED).rewrite(
        lambda asked, plan: [
            actions.error(Errno.EIO, at=asked.offset + 2048),
            actions.data(content=bytes(asked.length)),
        ]
    )


@mutant("fault.padding-leaks", breaks=["CMD-036"], checks=["fault.padding-is-zero"])
def fault_padding_leaks(server: FakeServer) -> None:
    """What could not be read is filled with whatever is in memory."""
    server.on(Cmd.READ, where=lambda asked: asked.length == 4608 and asked.frames is Frames.STRUCTURED).rewrite(
        lambda asked, plan: [
            actions.data(content=b"x" * asked.length),
            actions.error(Errno.EIO, at=asked.offset + 2048),
        ]
    )


@mutant(
    "fault.df-in-pieces",
    breaks=["CMD-050"],
    checks=[
        "fault.df-has-one-chunk",
        "write.of-every-length",
        "write.of-odd-length",
        "status.finds-holes",
        "size.maximum-is-served",
    ],
)
def fault_df_in_pieces(server: FakeServer) -> None:
    """A READ with DF that fails brings two pieces before the error."""
    server.on(Cmd.READ, where=lambda asked: CmdFlag.DF in asked.flags and asked.offset == 1 << 20).rewrite(
        lambda asked, plan: [
            actions.data(at=asked.offset, content=bytes(256)),
            actions.data(at=asked.offset + 256, content=bytes(256)),
            actions.error(Errno.EIO),
        ]
    )


@mutant(
    "data.lost-on-kill",
    breaks=["ORD-003", "ORD-005"],
    checks=[
        "data.flush-survives-a-kill",
        "data.fua-survives-a-kill",
        "status.finds-holes",
        "data.shadow-copy-by-turns",
        "data.flush-is-seen-by-others",
        "data.fua-is-seen-by-others",
    ],
)
def lost_on_kill(server: FakeServer) -> None:
    """What was written stays in memory until the client leaves, whatever FLUSH and FUA say."""
    server.configure(quirks={"hides_writes_from_others"})
