"""Block size constraints: what INFO_BLOCK_SIZE says, and what has to work whatever it says."""

from __future__ import annotations

from collections.abc import Iterator

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import (
    expect,
    expect_equal,
    expect_in_step,
    expect_success,
)
from nbdtest.conformance.pattern import read_back, write_pattern
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.wire import Cmd, Errno, Info, InfoBlockSize, Opt, Rep

SIZES = [Capability.BLOCK_SIZE]
MINIMUM = [Capability.MINIMUM_BLOCK]
EXPORT = [Capability.EXPORT]
_MIB = 1 << 20


def sizes(t: ServerTarget) -> Iterator[InfoBlockSize]:
    """Every INFO_BLOCK_SIZE that came; longer ones are read as far as they are known."""
    for data in t.gallery.infos(Info.BLOCK_SIZE):
        yield InfoBlockSize.decode(data[:14].ljust(14, b"\0"))


def is_power_of_two(number: int) -> bool:
    """Whether it is 1, 2, 4, ..."""
    return number > 0 and number & (number - 1) == 0


@check("size.block-size-length", proves=["REP-024", "REP-022"], needs=SIZES, legal=True)
def block_size_length(t: ServerTarget) -> None:
    """INFO_BLOCK_SIZE is 14 bytes long."""
    for data in t.gallery.infos(Info.BLOCK_SIZE):
        expect_equal(len(data), 14, "the length of INFO_BLOCK_SIZE")


@check("size.in-order", proves=["REP-025"], needs=SIZES, legal=True)
def in_order(t: ServerTarget) -> None:
    """INFO_BLOCK_SIZE gives minimum, preferred and maximum, each at least as large as the one before."""
    for size in sizes(t):
        expect(size.minimum <= size.preferred <= size.maximum, f"{size.minimum}, {size.preferred}, {size.maximum}")


@check("size.minimum-is-power-of-two", proves=["SIZE-016"], needs=SIZES, legal=True)
def minimum_is_power_of_two(t: ServerTarget) -> None:
    """The minimum block size is a power of two."""
    for size in sizes(t):
        expect(is_power_of_two(size.minimum), f"minimum {size.minimum}", "a power of two")


@check("size.minimum-is-at-most-64-kib", proves=["SIZE-017"], needs=SIZES, legal=True)
def minimum_is_at_most_64_kib(t: ServerTarget) -> None:
    """The minimum block size is at most 65536."""
    for size in sizes(t):
        expect(size.minimum <= 65536, f"minimum {size.minimum}", "65536 at most")


@check("size.export-is-multiple-of-minimum", proves=["SIZE-019"], needs=SIZES, legal=True)
def export_is_multiple_of_minimum(t: ServerTarget) -> None:
    """The export's size is a multiple of the minimum block size."""
    for size in sizes(t):
        rest = t.size % size.minimum if size.minimum else 0
        expect(not rest, f"size {t.size}", f"a multiple of {size.minimum}")


@check("size.preferred-is-power-of-two", proves=["SIZE-020"], needs=SIZES, legal=True)
def preferred_is_power_of_two(t: ServerTarget) -> None:
    """The preferred block size is a power of two."""
    for size in sizes(t):
        expect(is_power_of_two(size.preferred), f"preferred {size.preferred}", "a power of two")


@check("size.preferred-is-large-enough", proves=["SIZE-021"], needs=SIZES, legal=True)
def preferred_is_large_enough(t: ServerTarget) -> None:
    """The preferred block size is at least 512 and at least the minimum."""
    for size in sizes(t):
        least = max(512, size.minimum)
        expect(size.preferred >= least, f"preferred {size.preferred}", f"at least {least}")


@check("size.maximum-is-at-least-preferred", proves=["SIZE-025"], needs=SIZES, legal=True)
def maximum_is_at_least_preferred(t: ServerTarget) -> None:
    """The maximum payload is at least the preferred block size."""
    for size in sizes(t):
        expect(size.maximum >= size.preferred, f"maximum {size.maximum}", f"at least {size.preferred}")


@check("size.maximum-is-at-least-1-mib", proves=["SIZE-026"], needs=[*SIZES, Capability.SIZE_1M], legal=True)
def maximum_is_at_least_1_mib(t: ServerTarget) -> None:
    """The maximum payload is at least 1 MiB, if the export is that large."""
    for size in sizes(t):
        expect(size.maximum >= _MIB, f"maximum {size.maximum}", f"at least {_MIB}")


@check(
    "size.told-if-enforced",
    proves=["SIZE-004", "SIZE-003"],
    needs=[Capability.SIZE_64K, Capability.WITHOUT_BLOCK_SIZE],
    legal=True,
)
def told_if_enforced(t: ServerTarget) -> None:
    """A server that says nothing of block sizes, though asked, serves any offset and length."""
    with t.peer.transmitting() as session:
        for offset, length in ((1, 1), (511, 2), (513, 1023)):
            expect_success(session.read(offset, length))


@check(
    "size.default-takes-single-bytes", proves=["SIZE-007"], needs=[*EXPORT, Capability.WITHOUT_BLOCK_SIZE], legal=True
)
def default_takes_single_bytes(t: ServerTarget) -> None:
    """Without an advertised minimum, single bytes can be read."""
    with t.peer.transmitting() as session:
        expect_equal(len(expect_success(session.read(1, 1)).bytes_read()), 1, "the number of bytes read")


@check(
    "size.default-serves-32-mib",
    proves=["SIZE-009"],
    needs=[Capability.SIZE_33M, Capability.WITHOUT_BLOCK_SIZE],
    legal=True,
)
def default_serves_32_mib(t: ServerTarget) -> None:
    """Without an advertised maximum, 32 MiB can be read at once."""
    with t.peer.transmitting() as session:
        expect_equal(len(expect_success(session.read(0, 32 * _MIB)).bytes_read()), 32 * _MIB, "the number of bytes")


@check("size.maximum-is-served", proves=["SIZE-025"], needs=[*SIZES, Capability.SIZE_1M], legal=True)
def maximum_is_served(t: ServerTarget) -> None:
    """A READ of the advertised maximum succeeds."""
    length = min(t.size, t.facts.maximum_payload, 32 * _MIB) // t.unit * t.unit
    with t.peer.transmitting() as session:
        expect_equal(len(expect_success(session.read(0, length)).bytes_read()), length, "the number of bytes read")


@check("size.32-mib-write-is-no-attack", proves=["SIZE-029", "SIZE-009"], legal=True, writes=True)
def write_of_32_mib_is_no_attack(t: ServerTarget) -> None:
    """A WRITE of 32 MiB is done or refused, but not hung up on, whatever the maximum."""
    with t.peer.transmitting() as session:
        session.write(0, bytes(32 * _MIB))
        expect_in_step(session)


@check("size.chunks-within-maximum", proves=["RPL-051"], needs=[Capability.STRUCTURED, Capability.SIZE_1M], legal=True)
def chunks_within_maximum(t: ServerTarget) -> None:
    """No chunk carries more data than the maximum payload."""
    maximum = t.facts.maximum_payload
    with t.peer.transmitting(mode="structured") as session:
        length = min(t.size, 32 * _MIB, 2 * maximum) // t.unit * t.unit
        for chunk in session.read(0, length).chunks:
            expect(
                len(chunk.payload) <= maximum + 8, f"a chunk of {len(chunk.payload)} bytes", f"{maximum} + 8 at most"
            )


@check("size.misaligned-is-einval", proves=["SIZE-039", "ERR-023"], needs=MINIMUM, legal=False)
def misaligned_is_einval(t: ServerTarget) -> None:
    """A request that breaks the minimum block size fails with EINVAL, or is served."""
    minimum = t.facts.minimum_block
    for mode in t.modes:
        with t.peer.transmitting(mode=mode) as session:
            for offset, length in ((1, minimum), (0, minimum // 2), (minimum // 2, minimum)):
                reply = session.read(offset, length)
                expect(reply.error in (Errno.OK, Errno.EINVAL), f"a misaligned READ: {reply}", "EINVAL")
                expect_in_step(session)


@check("size.misaligned-write-is-exact", proves=["SIZE-014", "OPT-086"], needs=MINIMUM, legal=True, writes=True)
def misaligned_write_is_exact(t: ServerTarget) -> None:
    """From a client that was not told, a WRITE that breaks the minimum block size is exact or cleanly refused."""
    start = t.place(2 * t.unit)
    with t.peer.negotiating() as nego:
        if nego.info(t.export).final.type == Rep.ERR_BLOCK_SIZE_REQD:
            raise NotApplicable("the server insists on clients that ask for its block sizes")
    for by_name in (False, True) if t.has(Capability.EXPORT_NAME) else (False,):
        with t.peer.transmitting(infos=(), by_export_name=by_name) as session:
            before = write_pattern(t, session, start, 2 * t.unit)
            session.read(start + 1, 1)
            reply = session.write(start + 1, b"\0")
            wanted = before[:1] + b"\0" + before[2:] if reply.succeeded else before
            expect(read_back(session, start, 2 * t.unit) == wanted, "a misaligned WRITE changed other bytes")


@check("size.told-when-asked", proves=["SIZE-004", "REP-022"], needs=[*MINIMUM, Capability.INFO], legal=True)
def told_when_asked(t: ServerTarget) -> None:
    """A server with a minimum block size gives INFO_BLOCK_SIZE to INFO and GO when asked."""
    for option in (Opt.INFO, Opt.GO):
        with t.peer.negotiating() as nego:
            answer = nego.info(t.export, (Info.BLOCK_SIZE,), option=option)
            expect(answer.block_size(), f"{option} asked for INFO_BLOCK_SIZE is answered with {answer}")


@check("size.never-required-twice", proves=["OPT-095", "OPT-094"], needs=[Capability.GO], legal=True)
def never_required_twice(t: ServerTarget) -> None:
    """ERR_BLOCK_SIZE_REQD is no answer to a request that asked for INFO_BLOCK_SIZE."""
    for option in (Opt.INFO, Opt.GO):
        with t.peer.negotiating() as nego:
            answer = nego.info(t.export, (Info.BLOCK_SIZE,), option=option)
            expect(answer.final.type != Rep.ERR_BLOCK_SIZE_REQD, f"{option} is answered with {answer}")


@check("size.required-only-if-needed", proves=["OPT-096", "SIZE-013"], needs=[Capability.FIXED_NEWSTYLE], legal=True)
def required_only_if_needed(t: ServerTarget) -> None:
    """ERR_BLOCK_SIZE_REQD is not sent where the default sizes apply."""
    with t.peer.negotiating() as nego:
        answer = nego.go(t.export)
        with_defaults = t.facts.minimum_block == 1 and t.facts.maximum_payload >= 32 * _MIB
        refused = answer.final.type == Rep.ERR_BLOCK_SIZE_REQD
        expect(not (with_defaults and refused), f"OPT_GO is answered with {answer}")


@check("size.required-says-which", proves=["OPT-097", "REP-041"], needs=[Capability.FIXED_NEWSTYLE], legal=True)
def required_says_which(t: ServerTarget) -> None:
    """Before ERR_BLOCK_SIZE_REQD an INFO_BLOCK_SIZE tells the sizes."""
    with t.peer.negotiating() as nego:
        answer = nego.go(t.export)
        if answer.final.type == Rep.ERR_BLOCK_SIZE_REQD:
            expect(answer.block_size(), f"OPT_GO is answered with {answer}", "INFO_BLOCK_SIZE before the error")


@check("size.not-insisted-on", proves=["COMPAT-015"], needs=[Capability.FIXED_NEWSTYLE], legal=True)
def not_insisted_on(t: ServerTarget) -> None:
    """A server does not insist on being asked for its block sizes."""
    with t.peer.negotiating() as nego:
        answer = nego.go(t.export)
        expect(answer.final.type != Rep.ERR_BLOCK_SIZE_REQD, f"OPT_GO is answered with {answer}", "an ACK")


@check("size.too-long-keeps-session", proves=["SIZE-034"], needs=[Capability.TRIM], legal=True, writes=True)
def too_long_keeps_session(t: ServerTarget) -> None:
    """A TRIM that is longer than the maximum payload is done or refused, but not hung up on."""
    with t.peer.transmitting() as session:
        session.command(Cmd.TRIM, 0, min(t.size, 1 << 30) // t.unit * t.unit)
        expect_in_step(session)
