"""Mutants of size constraints, bounds and read-only exports."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.export import BlockSizes
from nbdtest.fakeserver.mutants.edits import change_actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Frames
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, Errno, Opt, OptionReply, Rep, TransmissionFlag

__all__: list[str] = []


@mutant(
    "limits.past-end-succeeds",
    breaks=["SIZE-040", "ERR-020", "ERR-022"],
    checks=[
        "read.past-end-fails",
        "chunk.failure-has-error",
        "read.error-has-no-payload",
        "write.past-end-fails",
        "write.refused-payload-is-skipped",
        "zeroes.past-end-fails",
        "trim.past-end-fails",
        "cache.past-end-fails",
        "status.stays-in-export",
        "status.past-end-fails",
        "extended.lengths-have-64-bits",
        "extended.zeroes-of-64-bits",
        "boundary.read",
        "boundary.write",
        "boundary.trim",
        "boundary.cache",
        "boundary.write-zeroes",
        "boundary.block-status",
        "boundary.clamped-is-not-served",
    ],
)
def past_end_succeeds(server: FakeServer) -> None:
    """Requests past the end of the export succeed."""
    server.configure(quirks={"skips_bounds_check"})


@mutant(
    "limits.read-only-writes",
    breaks=["FLAG-012"],
    checks=["read-only.write-fails", "read-only.zeroes-give-eperm", "write.baseline"],
)
def read_only_writes(server: FakeServer) -> None:
    """An export with READ_ONLY set can be written to."""
    server.change_exports(read_only=True)
    server.configure(quirks={"skips_read_only_check"})


@mutant(
    "limits.read-only-is-einval",
    breaks=["ERR-026", "CMD-135", "ERR-002"],
    checks=["read-only.write-fails", "read-only.zeroes-give-eperm"],
)
def read_only_is_einval(server: FakeServer) -> None:
    """Writing to a read-only export fails with EINVAL."""
    server.change_exports(read_only=True)
    change_actions(
        server,
        [Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES],
        actions.Error,
        lambda asked, each: [actions.error(Errno.EINVAL)],
    )


@mutant(
    "limits.read-only-payload-left",
    breaks=["CMD-064", "COMPAT-011"],
    checks=["read-only.write-payload-is-skipped", "write.baseline"],
)
def read_only_payload_left(server: FakeServer) -> None:
    """The data of a WRITE to a read-only export are taken for requests."""
    server.change_exports(read_only=True)
    server.configure(quirks={"leaves_refused_payload"})


@mutant(
    "limits.refused-write-left",
    breaks=["CMD-064"],
    checks=[
        "write.refused-payload-is-skipped",
        "write.flag-refused-payload-is-skipped",
        "in-step.write-past-the-end",
        "command.write-errors-keep-the-session",
        "boundary.write",
        "in-step.write-at-2-to-the-63",
        "in-step.write-at-the-last-offset",
        "in-step.write-with-unknown-flag",
        "in-step.write-with-flags-of-others",
    ],
)
def refused_write_left(server: FakeServer) -> None:
    """The data of a WRITE that is refused are not read, and taken for the next request."""
    server.configure(quirks={"leaves_refused_payload"})


@mutant(
    "limits.small-payloads",
    breaks=["SIZE-009"],
    checks=["size.default-serves-32-mib", "write.of-every-length", "write.of-odd-length", "boundary.read-inside"],
)
def small_payloads(server: FakeServer) -> None:
    """No sizes are advertised, and READ of more than 1 MiB fails."""
    server.change_exports(block_sizes=None)
    for option in (Opt.INFO, Opt.GO):
        server.on(option).rewrite(
            lambda asked, plan: [each for each in plan if not isinstance(each, actions.InfoBlockSize)]
        )
    server.on(Cmd.READ, where=lambda asked: asked.length > 1 << 20).reply(actions.error(Errno.EINVAL))


@mutant(
    "limits.no-single-bytes",
    breaks=["SIZE-007"],
    checks=[
        "size.default-takes-single-bytes",
        "size.told-if-enforced",
        "read.odd-offsets",
        "read.of-every-length",
        "boundary.read-inside",
    ],
)
def no_single_bytes(server: FakeServer) -> None:
    """No sizes are advertised, and READ of one byte fails."""
    server.change_exports(block_sizes=None)
    for option in (Opt.INFO, Opt.GO):
        server.on(option).rewrite(
            lambda asked, plan: [each for each in plan if not isinstance(each, actions.InfoBlockSize)]
        )
    server.on(Cmd.READ, where=lambda asked: asked.length == 1).reply(actions.error(Errno.EINVAL))


@mutant("limits.maximum-not-served", breaks=["SIZE-025"], checks=["size.maximum-is-served", "boundary.read-inside"])
def maximum_not_served(server: FakeServer) -> None:
    """READ of the advertised maximum fails."""
    server.change_exports(block_sizes=BlockSizes(maximum=32 << 20))
    server.on(Cmd.READ, where=lambda asked: asked.length > 16 << 20).reply(actions.error(Errno.EINVAL))


@mutant(
    "limits.long-write-is-attack",
    breaks=["SIZE-029"],
    checks=["size.32-mib-write-is-no-attack", "boundary.write-inside"],
)
def long_write_is_attack(server: FakeServer) -> None:
    """A WRITE of 32 MiB ends the session."""
    server.on(Cmd.WRITE, where=lambda asked: asked.length == 32 << 20).reply(actions.close())


@mutant("limits.chunk-above-maximum", breaks=["RPL-051"], checks=["size.chunks-within-maximum", "abuse.huge-read"])
def chunk_above_maximum(server: FakeServer) -> None:
    """The advertised maximum is 1 MiB, and chunks are larger."""
    server.change_exports(block_sizes=BlockSizes(maximum=1 << 20))
    server.configure(quirks={"skips_size_check"})
    server.on(Cmd.READ, where=lambda asked: asked.frames is Frames.STRUCTURED and asked.length > 1 << 20).reply(
        actions.data()
    )


@mutant("limits.misaligned-is-eio", breaks=["SIZE-039"], checks=["size.misaligned-is-einval"])
def misaligned_is_eio(server: FakeServer) -> None:
    """A misaligned READ fails with EIO."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096))
    change_actions(
        server,
        [Cmd.READ],
        actions.Error,
        lambda asked, each: [actions.error(Errno.EIO)] if asked.offset < 8192 and not asked.flags else [each],
    )


@mutant("limits.misaligned-rounded", breaks=["SIZE-014", "OPT-086"], checks=["size.misaligned-write-is-exact"])
def misaligned_rounded(server: FakeServer) -> None:
    """A misaligned WRITE is widened to whole blocks and destroys what lies around it."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096))
    server.configure(quirks={"skips_alignment_check", "rounds_misaligned_writes"})


@mutant("limits.misaligned-hangs-up", breaks=["SIZE-014", "OPT-086"], checks=["size.misaligned-write-is-exact"])
def misaligned_hangs_up(server: FakeServer) -> None:
    """A misaligned WRITE ends the session, also of a client that was not told of the minimum block size."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096))
    server.on(Cmd.WRITE, where=lambda asked: asked.length % 4096).reply(actions.close())


@mutant(
    "limits.long-zeroes-end-session",
    breaks=["SIZE-034"],
    checks=[
        "zeroes.whole-export-keeps-session",
        "fast-zero.no-eoverflow",
        "extended.zeroes-of-64-bits",
        "boundary.write-zeroes-inside",
    ],
)
def long_zeroes_end_session(server: FakeServer) -> None:
    """A WRITE_ZEROES that is longer than the maximum payload ends the session."""
    server.on(Cmd.WRITE_ZEROES, where=lambda asked: asked.length > 32 << 20).reply(actions.close())


@mutant(
    "limits.long-trim-ends-session", breaks=["SIZE-034"], checks=["size.too-long-keeps-session", "boundary.trim-inside"]
)
def long_trim_ends_session(server: FakeServer) -> None:
    """A TRIM that is longer than the maximum payload ends the session."""
    server.on(Cmd.TRIM, where=lambda asked: asked.length > 32 << 20).reply(actions.close())


@mutant("fast-zero.eoverflow", breaks=["CMD-112"], checks=["fast-zero.no-eoverflow"])
def fast_zero_eoverflow(server: FakeServer) -> None:
    """A long FAST_ZERO fails with EOVERFLOW."""
    server.on(Cmd.WRITE_ZEROES, where=lambda asked: asked.length > 32 << 20 and asked.flags).reply(
        actions.error(Errno.EOVERFLOW)
    )


@mutant("fast-zero.without-zeroes", breaks=["FLAG-029"], checks=["fast-zero.needs-zeroes"])
def fast_zero_without_zeroes(server: FakeServer) -> None:
    """SEND_FAST_ZERO is set without SEND_WRITE_ZEROES."""
    flags = TransmissionFlag
    server.change_exports(flags=flags.HAS_FLAGS | flags.SEND_FLUSH | flags.SEND_FUA | flags.SEND_FAST_ZERO)


@mutant("fast-zero.einval", breaks=["FLAG-003", "ERR-008"], checks=["fast-zero.done-or-refused"])
def fast_zero_einval(server: FakeServer) -> None:
    """FAST_ZERO is offered and refused with EINVAL."""
    server.on(Cmd.WRITE_ZEROES, where=lambda asked: asked.flags == 16).reply(actions.error(Errno.EINVAL))


@mutant(
    "fast-zero.enotsup-unasked",
    breaks=["CMD-111", "CMD-116", "FLAG-048"],
    checks=[
        "fast-zero.enotsup-only-if-asked",
        "zeroes.no-hole",
        "zeroes.no-hole-is-provisioned",
        "data.shadow-copy",
        "data.shadow-copy-by-turns",
    ],
)
def enotsup_unasked(server: FakeServer) -> None:
    """WRITE_ZEROES with NO_HOLE fails with ENOTSUP."""
    server.on(Cmd.WRITE_ZEROES, where=lambda asked: asked.flags == 2).reply(actions.error(Errno.ENOTSUP))


@mutant("fast-zero.unoffered", breaks=["CMD-117", "FLAG-028"], checks=["fast-zero.unoffered-is-refused"])
def fast_zero_unoffered(server: FakeServer) -> None:
    """FAST_ZERO is taken though it is not offered."""
    server.change_exports(can_fast_zero=False)
    server.on(Cmd.WRITE_ZEROES, where=lambda asked: asked.flags == 16).reply(actions.no_data())


@mutant("fast-zero.refused-and-done", breaks=["CMD-114"], checks=["fast-zero.refusal-changes-nothing"])
def refused_and_done(server: FakeServer) -> None:
    """FAST_ZERO zeroes, and then fails with ENOTSUP."""
    server.on(Cmd.WRITE_ZEROES, where=lambda asked: asked.flags == 16).rewrite(
        lambda asked, plan: [actions.error(Errno.ENOTSUP)]
    )


@mutant("abuse.hangs-on-many-queries", breaks=["REP-042"], checks=["abuse.ten-thousand-queries"])
def hangs_on_many_queries(server: FakeServer) -> None:
    """After a very long option the next ones are answered twice."""
    server.on(Opt.LIST_META_CONTEXT, where=lambda option: len(option.data) > 100_000).reply(
        actions.ack(), actions.ack()
    )


@mutant(
    "abuse.large-option-acknowledged",
    breaks=["REP-042"],
    checks=["abuse.large-unknown-option"],
    spoils="checks ask with that option whether a session is in step",
)
def large_option_acknowledged(server: FakeServer) -> None:
    """An unknown option is acknowledged."""
    server.on_send(OptionReply, where=lambda reply: reply.option == 0x6E62_6474).rewrite(
        lambda reply: replace(reply, type=Rep.ACK, data=b"")
    )


@mutant("abuse.query-count-ignored", breaks=["META-055"], checks=["abuse.query-count-of-4-gib"])
def query_count_ignored(server: FakeServer) -> None:
    """A count of queries that is too large is overlooked."""
    server.on(Opt.SET_META_CONTEXT, where=lambda option: option.data[4:8] == b"\xff\xff\xff\xff").reply(actions.ack())


@mutant("abuse.huge-read-served", breaks=["SIZE-034"], checks=["abuse.huge-read"])
def huge_read_served(server: FakeServer) -> None:
    """A READ of nearly 4 GiB succeeds without data."""
    server.on(Cmd.READ, where=lambda asked: asked.length > 1 << 30 and asked.frames is not Frames.SIMPLE).reply(
        actions.no_data()
    )
