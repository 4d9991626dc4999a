"""Mutants of INFO and GO, and of what they say of block sizes."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.errors import PeerViolation
from nbdtest.fakeserver import actions
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.export import BlockSizes
from nbdtest.fakeserver.mutants.edits import change_infos, change_option_plans, change_replies
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Info, InfoRequest, Opt, Option, Rep, TransmissionFlag

__all__: list[str] = []

_BOTH = (Opt.INFO, Opt.GO)


def _asks_for(option: Option, info: Info) -> bool:
    try:
        return info in InfoRequest.decode(option.data).infos
    except PeerViolation:
        return False


@mutant("info.unsupported", breaks=["COMPAT-004"], checks=["info.is-baseline", "info.unknown-export"])
def unsupported(server: FakeServer) -> None:
    """INFO and GO are unknown to the server."""
    server.configure(info_and_go=False)


@mutant(
    "info.export-withheld",
    breaks=["OPT-083", "OPT-089", "REP-008"],
    checks=["info.export-is-never-withheld", "info.name-opens-the-export", "list.agrees-with-info-name"],
)
def export_withheld(server: FakeServer) -> None:
    """INFO and GO that ask for the name alone are acknowledged without INFO_EXPORT."""
    for option in _BOTH:
        server.on(option, where=lambda asked: _asks_for(asked, Info.NAME) and not _asks_for(asked, Info.EXPORT)).reply(
            actions.info_name("x"), actions.ack()
        )


@mutant("info.export-padded", breaks=["REP-013"], checks=["info.export-length"])
def export_padded(server: FakeServer) -> None:
    """INFO_EXPORT has 124 zero bytes behind it."""
    change_infos(server, Info.EXPORT, lambda data: data + bytes(124))


@mutant("info.export-flags-first", breaks=["REP-014"], checks=["info.export-format", "go.repeats-info"])
def export_flags_first(server: FakeServer) -> None:
    """INFO_EXPORT to INFO has the flags before the size."""
    change_option_plans(
        server,
        [Opt.INFO],
        lambda option, plan: [
            actions.info_other(Info.EXPORT, b"\1\x6d" + server.disk.size.to_bytes(8, "big"))
            if isinstance(each, actions.InfoExport)
            else each
            for each in plan
        ],
    )


@mutant("info.export-little-endian", breaks=["CONV-001"], checks=["info.export-format", "go.repeats-info"])
def export_little_endian(server: FakeServer) -> None:
    """The size that INFO gives is little-endian."""
    little = int.from_bytes(server.disk.size.to_bytes(8, "little"), "big")
    server.on(Opt.INFO).rewrite(
        lambda option, plan: [
            mangle(each, inner_size=little) if isinstance(each, actions.InfoExport) else each for each in plan
        ]
    )


@mutant("info.unknown-types-refused", breaks=["OPT-080"], checks=["info.unknown-types-are-ignored"])
def unknown_types_refused(server: FakeServer) -> None:
    """A request for information of an unknown type is refused."""
    for option in _BOTH:
        server.on(option, where=lambda asked: _asks_for(asked, Info(0xFFFE))).reply(actions.opt_error(Rep.ERR_INVALID))


@mutant(
    "info.list-within",
    breaks=["OPT-088"],
    checks=[
        "info.only-infos-before-the-final",
        "info.same-as-go",
        "info.nothing-about-unknown-export",
        "go.repeats-info",
    ],
)
def list_within(server: FakeServer) -> None:
    """A SERVER reply stands among the answers to INFO."""
    change_option_plans(server, [Opt.INFO], lambda option, plan: (*plan[:-1], actions.server_export("x"), plan[-1]))


@mutant("info.export-twice", breaks=["REP-009"], checks=["info.each-type-once"])
def export_twice(server: FakeServer) -> None:
    """INFO_EXPORT is sent twice."""
    change_option_plans(
        server, _BOTH, lambda option, plan: (plan[0], *plan) if isinstance(plan[0], actions.InfoExport) else plan
    )


@mutant(
    "info.without-type",
    breaks=["REP-007", "REP-019", "REP-021"],
    checks=["info.has-a-type", "info.type-assigned", "info.nothing-about-unknown-export"],
)
def without_type(server: FakeServer) -> None:
    """A REP_INFO of one byte stands among the answers to INFO."""
    change_option_plans(server, _BOTH, lambda option, plan: (actions.opt_reply(Rep.INFO, b"x"), *plan))


@mutant("info.unassigned-type", breaks=["REP-012"], checks=["info.type-assigned", "info.nothing-about-unknown-export"])
def unassigned_type(server: FakeServer) -> None:
    """Information of a type that nobody assigned is given."""
    change_option_plans(server, _BOTH, lambda option, plan: (actions.info_other(Info(77), b"x"), *plan))


@mutant("info.host-name", breaks=["REP-015"], checks=["info.name-opens-the-export", "list.agrees-with-info-name"])
def host_name(server: FakeServer) -> None:
    """INFO_NAME gives the name of the host."""
    server.change_exports(canonical_name="localhost")


@mutant("info.lacks-block-size", breaks=["OPT-070"], checks=["info.same-as-go", "go.repeats-info"])
def lacks_block_size(server: FakeServer) -> None:
    """GO gives the block sizes, INFO does not."""
    change_option_plans(
        server, [Opt.INFO], lambda option, plan: [each for each in plan if not isinstance(each, actions.InfoBlockSize)]
    )


@mutant("go.other-flags", breaks=["OPT-102"], checks=["go.repeats-info", "export-name.agrees-with-go"])
def go_other_flags(server: FakeServer) -> None:
    """GO after INFO gives other flags."""
    number, rotational = Info.EXPORT.to_bytes(2, "big"), int(TransmissionFlag.ROTATIONAL)

    def rotating(data: bytes) -> bytes:
        flags = int.from_bytes(data[10:12], "big") | rotational
        return data[:10] + flags.to_bytes(2, "big") if data[:2] == number else data

    change_replies(server, Rep.INFO, rotating, option=Opt.GO)


@mutant("info.cached", breaks=["OPT-071"], checks=["info.can-be-asked-again"])
def cached(server: FakeServer) -> None:
    """A second INFO on a connection gives another size."""
    server.on(Opt.INFO, nth=3, per_connection=True).reply(actions.info_export(size=512), actions.ack())


@mutant("info.unknown-is-invalid", breaks=["OPT-090", "REP-039"], checks=["info.unknown-export"])
def unknown_is_invalid(server: FakeServer) -> None:
    """An unknown export is an invalid request."""
    change_option_plans(
        server,
        _BOTH,
        lambda option, plan: [
            replace(each, type=Rep.ERR_INVALID)
            if isinstance(each, actions.OptError) and each.type == Rep.ERR_UNKNOWN
            else each
            for each in plan
        ],
    )


@mutant("info.name-before-unknown", breaks=["OPT-091"], checks=["info.nothing-about-unknown-export"])
def name_before_unknown(server: FakeServer) -> None:
    """INFO_NAME precedes ERR_UNKNOWN."""
    change_option_plans(
        server,
        _BOTH,
        lambda option, plan: (
            (actions.info_name("x"), *plan)
            if isinstance(plan[0], actions.OptError) and plan[0].type == Rep.ERR_UNKNOWN
            else plan
        ),
    )


@mutant("go.unknown-is-final", breaks=["OPT-090"], checks=["go.after-unknown-export"])
def unknown_is_final(server: FakeServer) -> None:
    """After a GO for an unknown export every other GO is unknown."""
    server.on(Opt.GO, nth=2, per_connection=True).reply(actions.opt_error(Rep.ERR_UNKNOWN))


@mutant(
    "info.malformed-accepted",
    breaks=["REP-035"],
    checks=[
        "info.malformed-is-invalid",
        "meta.list-malformed-is-invalid",
        "meta.set-malformed-is-invalid",
        "meta.surplus-is-invalid",
        "abuse.query-count-of-4-gib",
    ],
)
def malformed_accepted(server: FakeServer) -> None:
    """INFO, GO and queries that contradict themselves are served as well as can be."""
    server.configure(quirks={"ignores_option_errors"})


@mutant(
    "info.malformed-answered-twice",
    breaks=["OPT-015"],
    checks=["info.malformed-stays-in-step", "in-step.info", "in-step.info-short-of-its-name"],
)
def malformed_answered_twice(server: FakeServer) -> None:
    """INFO that contradicts itself is answered with two errors."""
    change_option_plans(
        server,
        [Opt.INFO],
        lambda option, plan: (
            (*plan, *plan) if isinstance(plan[0], actions.OptError) and plan[0].type == Rep.ERR_INVALID else plan
        ),
    )


@mutant(
    "go.stray-reply",
    breaks=["TRN-003"],
    checks=["go.enters-transmission", "go.after-unknown-export", "go.no-padding", "go.default-request-works"],
    spoils="whoever is slow after GO meets the stray bytes",
)
def stray_reply(server: FakeServer) -> None:
    """If the client waits after GO, the server sends it something."""
    server.on(Opt.GO).pass_through().then(actions.pause(0.005), actions.raw(b"hello"))


@mutant("go.padded", breaks=["OPT-106"], checks=["go.no-padding"], spoils="nothing after GO is in step")
def padded(server: FakeServer) -> None:
    """GO is followed by 124 zero bytes if NO_ZEROES was not agreed."""
    server.configure(no_zeroes=False)
    server.on(Opt.GO).pass_through().then(actions.raw(bytes(124)))


@mutant("info.long-name-ends-session", breaks=["CONV-006"], checks=["go.takes-name-of-4096-bytes"])
def long_name_ends_session(server: FakeServer) -> None:
    """A name of 4096 bytes ends the session."""
    server.on(Opt.INFO, where=lambda option: len(option.data) > 4000).reply(actions.close())


@mutant("info.too-long-name-served", breaks=["CONV-006"], checks=["go.refuses-name-of-4097-bytes"])
def too_long_name_served(server: FakeServer) -> None:
    """A name of more than 4096 bytes is served."""
    server.on(Opt.INFO, where=lambda option: len(option.data) == 4103).reply(
        actions.info_export(size=512), actions.ack()
    )


@mutant(
    "go.insists-on-infos",
    breaks=["OPT-096", "SIZE-013", "COMPAT-015"],
    checks=[
        "size.required-only-if-needed",
        "info.unknown-export",
        "go.default-request-works",
        "size.required-says-which",
        "size.not-insisted-on",
        "info.malformed-is-invalid",
    ],
)
def insists_on_infos(server: FakeServer) -> None:
    """GO without a request for block sizes is refused although the default sizes apply, and they are not told."""
    for option in _BOTH:
        server.on(option, where=lambda asked: not _asks_for(asked, Info.BLOCK_SIZE)).reply(
            actions.opt_error(Rep.ERR_BLOCK_SIZE_REQD)
        )


@mutant("go.always-insists", breaks=["OPT-095", "OPT-094"], checks=["size.never-required-twice"])
def always_insists(server: FakeServer) -> None:
    """INFO that asks for block sizes alone is told to ask for them."""
    server.on(Opt.INFO, where=lambda asked: asked.data.endswith(b"\0\1\0\3")).reply(
        actions.info_block_size(), actions.opt_error(Rep.ERR_BLOCK_SIZE_REQD)
    )


def _sizes(server: FakeServer, **changes: int) -> None:
    for option in _BOTH:
        server.on(option).rewrite(
            lambda asked, plan: [
                replace(each, **changes) if isinstance(each, actions.InfoBlockSize) else each for each in plan
            ]
        )


@mutant("size.block-size-64-bit", breaks=["REP-024"], checks=["size.block-size-length"])
def block_size_64_bit(server: FakeServer) -> None:
    """INFO_BLOCK_SIZE has something behind its three numbers."""
    change_infos(server, Info.BLOCK_SIZE, lambda data: data + bytes(4))


@mutant(
    "size.in-other-order",
    breaks=["REP-025"],
    checks=["size.in-order"],
    spoils="no request obeys sizes that contradict each other",
)
def in_other_order(server: FakeServer) -> None:
    """INFO_BLOCK_SIZE gives the maximum first."""
    change_infos(server, Info.BLOCK_SIZE, lambda data: data[:2] + data[10:14] + data[6:10] + data[2:6])


@mutant(
    "size.minimum-1000",
    breaks=["SIZE-016"],
    checks=[
        "size.minimum-is-power-of-two",
        "status.multiple-of-minimum",
        "size.export-is-multiple-of-minimum",
        "extended.multiple-of-minimum",
    ],
)
def minimum_1000(server: FakeServer) -> None:
    """The minimum block size is 1000."""
    _sizes(server, minimum=1000)


@mutant("size.minimum-128-kib", breaks=["SIZE-017"], checks=["size.minimum-is-at-most-64-kib"])
def minimum_128_kib(server: FakeServer) -> None:
    """The minimum block size is 131072."""
    _sizes(server, minimum=131072, preferred=131072)


@mutant("size.no-multiple", breaks=["SIZE-019"], checks=["size.export-is-multiple-of-minimum", "read.tail"])
def no_multiple(server: FakeServer) -> None:
    """The size of the export is no multiple of the minimum block size."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096), disk=None, size=(1 << 20) + 512)


@mutant("size.preferred-5000", breaks=["SIZE-020"], checks=["size.preferred-is-power-of-two"])
def preferred_5000(server: FakeServer) -> None:
    """The preferred block size is 5000."""
    _sizes(server, preferred=5000)


@mutant("size.preferred-256", breaks=["SIZE-021"], checks=["size.preferred-is-large-enough"])
def preferred_256(server: FakeServer) -> None:
    """The preferred block size is 256."""
    _sizes(server, preferred=256)


@mutant(
    "size.maximum-below-preferred",
    breaks=["SIZE-025"],
    checks=["size.maximum-is-at-least-preferred", "size.in-order", "size.maximum-is-at-least-1-mib"],
)
def maximum_below_preferred(server: FakeServer) -> None:
    """The maximum payload is smaller than the preferred block size."""
    _sizes(server, maximum=2048)


@mutant("size.maximum-64-kib", breaks=["SIZE-026"], checks=["size.maximum-is-at-least-1-mib"])
def maximum_64_kib(server: FakeServer) -> None:
    """The maximum payload is 65536 on a large export."""
    _sizes(server, maximum=65536)


@mutant(
    "size.minimum-untold",
    breaks=["SIZE-004", "SIZE-003", "SIZE-007"],
    checks=[
        "size.told-if-enforced",
        "read.odd-offsets",
        "read.of-every-length",
        "write.odd-offsets",
        "write.of-odd-length",
        "zeroes.odd-ranges",
        "trim.spares-the-rest",
        "size.default-takes-single-bytes",
        "data.shadow-copy",
        "data.shadow-copy-by-turns",
        "boundary.read-inside",
        "boundary.write-inside",
        "boundary.trim-inside",
        "boundary.write-zeroes-inside",
        "boundary.block-status-inside",
    ],
)
def minimum_untold(server: FakeServer) -> None:
    """Requests have to be aligned to 512 bytes, and nobody is told."""
    server.change_exports(block_sizes=BlockSizes(minimum=512))
    change_option_plans(
        server, _BOTH, lambda option, plan: [each for each in plan if not isinstance(each, actions.InfoBlockSize)]
    )


@mutant("size.minimum-untold-by-go", breaks=["SIZE-004", "REP-022"], checks=["size.told-when-asked"])
def minimum_untold_by_go(server: FakeServer) -> None:
    """A server with a minimum block size does not tell it to INFO that asks for it alone."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096))
    server.on(Opt.INFO, where=lambda asked: asked.data.endswith(b"\0\1\0\3")).reply(
        actions.info_export(), actions.ack()
    )


@mutant(
    "size.required-without-sizes",
    breaks=["OPT-097", "REP-041"],
    checks=[
        "size.required-says-which",
        "export-name.enters-transmission",
        "go.default-request-works",
        "size.not-insisted-on",
    ],
)
def required_without_sizes(server: FakeServer) -> None:
    """ERR_BLOCK_SIZE_REQD comes without the sizes."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096), insist_on_block_sizes=True)
    change_option_plans(
        server,
        _BOTH,
        lambda option, plan: plan[1:] if isinstance(plan[-1], actions.OptError) and len(plan) > 1 else plan,
    )


@mutant(
    "size.insisted-on",
    breaks=["COMPAT-015"],
    checks=[
        "size.not-insisted-on",
        "export-name.enters-transmission",
        "go.default-request-works",
    ],
)
def insisted_on(server: FakeServer) -> None:
    """Clients that do not ask for the block sizes are refused."""
    server.change_exports(block_sizes=BlockSizes(minimum=4096), insist_on_block_sizes=True)
