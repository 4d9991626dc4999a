"""Mutants of which requests are accepted, which errors the others get, and how a session is kept in step."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.export import BlockSizes
from nbdtest.fakeserver.mutants.edits import change_actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, CmdFlag, Errno, Opt, TransmissionFlag

__all__: list[str] = []

_ALL = (Cmd.READ, Cmd.WRITE, Cmd.FLUSH, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS)
_FLAGGED = ("read", "write", "flush", "trim", "cache", "write-zeroes", "block-status")
_CHECKS_OF_FLAGS = tuple(f"flag.{kind}-on-{name}" for kind in ("unknown", "foreign") for name in _FLAGGED)


def _is_past_end(server: FakeServer, asked: Asked) -> bool:
    return asked.offset + asked.length > server.disk.size


def _change_errors_past_end(server: FakeServer, command: Cmd, errno: Errno) -> None:
    change_actions(
        server,
        [command],
        actions.Error,
        lambda asked, each: [actions.error(errno)] if _is_past_end(server, asked) else [each],
    )


@mutant(
    "command.unknown-succeeds",
    breaks=["ERR-029"],
    checks=["command.unknown-is-einval", "command.unknown-with-length-is-einval", "command.resize-is-einval"],
)
def unknown_succeeds(server: FakeServer) -> None:
    """Unknown commands are answered with success."""
    server.configure(quirks={"skips_command_check"})


@mutant(
    "command.unknown-with-payload",
    breaks=["ERR-029"],
    checks=["command.unknown-with-length-is-einval", "reply.simple-has-no-payload"],
)
def unknown_with_payload(server: FakeServer) -> None:
    """An unknown command with a length is answered with an error and that many bytes."""
    server.on(Cmd(0x7FFF), where=lambda asked: asked.length).reply(actions.pass_through(), actions.raw(bytes(512)))


@mutant("command.resize-succeeds", breaks=["CMD-160"], checks=["command.resize-is-einval"])
def resize_succeeds(server: FakeServer) -> None:
    """RESIZE succeeds though it was not offered."""
    server.on(Cmd.RESIZE).reply(actions.no_data())


@mutant(
    "command.bad-flag-ends-session",
    breaks=["TERM-041"],
    checks=["command.errors-keep-the-session", "boundary.read"],
)
def bad_flag_ends_session(server: FakeServer) -> None:
    """A READ at 2^63 ends the session."""
    server.on(Cmd.READ, where=lambda asked: asked.offset == 1 << 63).reply(actions.pass_through(), actions.close())


@mutant(
    "command.bad-write-ends-session",
    breaks=["TERM-041"],
    checks=["command.write-errors-keep-the-session", "boundary.write", "in-step.write-at-2-to-the-63"],
)
def bad_write_ends_session(server: FakeServer) -> None:
    """A WRITE at 2^63 ends the session."""
    server.on(Cmd.WRITE, where=lambda asked: asked.offset == 1 << 63).reply(actions.pass_through(), actions.close())


@mutant(
    "command.unknown-flags-ignored",
    breaks=["ERR-030", "ERR-031", "CMD-097", "EXT-052"],
    checks=[*_CHECKS_OF_FLAGS, "cache.flags-are-refused", "extended.unexpected-payload-is-skipped"],
)
def unknown_flags_ignored(server: FakeServer) -> None:
    """Command flags that are unknown or do not belong there are ignored."""
    server.configure(quirks={"skips_flag_check"})


_SHADOWS = ["data.shadow-copy", "data.shadow-copy-by-turns"]
_CHECKS_OF_WRITES_WITH_FUA = ["write.fua", *_SHADOWS, "data.fua-is-seen-by-others"]


def _fua_refused(name: str, command: Cmd) -> None:
    others = {Cmd.WRITE: _CHECKS_OF_WRITES_WITH_FUA, Cmd.WRITE_ZEROES: _SHADOWS}.get(command, [])

    @mutant(f"flag.fua-on-{name}-refused", breaks=["FLAG-042"], checks=[f"flag.fua-on-{name}", *others])
    def refused(server: FakeServer) -> None:
        """FUA is refused on one command."""
        server.on(command, where=lambda asked: CmdFlag.FUA in asked.flags).reply(actions.error(Errno.EINVAL))


for _name, _command in zip(_FLAGGED, _ALL, strict=True):
    _fua_refused(_name, _command)


def _clamped(name: str, command: Cmd) -> None:
    others = ["command.errors-keep-the-session"] if command == Cmd.READ else []

    breaks = {Cmd.WRITE: ["CMD-063"], Cmd.WRITE_ZEROES: ["CMD-120"]}.get(command, [])

    @mutant(f"boundary.{name}-clamped", breaks=["SIZE-040", *breaks], checks=[f"boundary.{name}", *others])
    def clamped(server: FakeServer) -> None:
        """One command succeeds past the end of the export."""
        change_actions(
            server,
            [command],
            actions.Error,
            lambda asked, each: [actions.no_data()] if asked.offset >= 1 << 62 else [each],
        )


for _name, _command in zip(_FLAGGED, _ALL, strict=True):
    if _command != Cmd.FLUSH:
        _clamped(_name, _command)


def _odd_byte_refused(name: str, command: Cmd) -> None:
    breaks = {
        Cmd.READ: "CMD-005",
        Cmd.WRITE: "CMD-060",
        Cmd.TRIM: "FLAG-017",
        Cmd.WRITE_ZEROES: "CMD-103",
        Cmd.BLOCK_STATUS: "CMD-140",
    }

    @mutant(f"boundary.{name}-of-odd-byte-fails", breaks=[breaks[command]], checks=[f"boundary.{name}-inside"])
    def refused(server: FakeServer) -> None:
        """One command fails for the 512th byte of the export alone."""
        server.on(command, where=lambda asked: (asked.offset, asked.length) == (511, 1)).reply(
            actions.error(Errno.EINVAL)
        )


for _name, _command in zip(_FLAGGED, _ALL, strict=True):
    if _command not in (Cmd.FLUSH, Cmd.CACHE):
        _odd_byte_refused(_name, _command)


@mutant("boundary.cache-of-nothing-unanswered", breaks=["FLAG-026"], checks=["boundary.cache-inside"])
def cache_of_nothing(server: FakeServer) -> None:
    """CACHE of 0 bytes is not answered."""
    server.on(Cmd.CACHE, where=lambda asked: not asked.length).reply()


_BEYOND = 32 << 20


@mutant("boundary.long-read-gets-simple-error", breaks=["RPL-022"], checks=["boundary.read-beyond-maximum"])
def long_read_simple(server: FakeServer) -> None:
    """A READ that is longer than the maximum payload gets a simple reply although structured ones were negotiated."""
    server.on(Cmd.READ, where=lambda asked: asked.length == _BEYOND + 512).rewrite(
        lambda asked, plan: [actions.simple(Errno.EINVAL)] if asked.frames is Frames.STRUCTURED else plan
    )


@mutant("boundary.long-write-answered-twice", breaks=["CMD-064"], checks=["boundary.write-beyond-maximum"])
def long_write_twice(server: FakeServer) -> None:
    """A WRITE that is longer than the maximum payload is answered, and then its payload."""
    server.change_exports(block_sizes=BlockSizes(maximum=1 << 20))
    server.on(Cmd.WRITE, where=lambda asked: asked.length == (1 << 20) + 512).reply(
        actions.simple(Errno.EINVAL), actions.simple(Errno.EINVAL)
    )


def _together_refused(name: str, command: Cmd) -> None:
    more = ["FLAG-048"] if command == Cmd.WRITE_ZEROES else []

    @mutant(f"flag.together-on-{name}-refused", breaks=["FLAG-042", *more], checks=[f"flag.together-on-{name}"])
    def refused(server: FakeServer) -> None:
        """One command is refused with two of its flags."""
        server.on(command, where=lambda asked: int(asked.flags).bit_count() > 1).reply(actions.error(Errno.EINVAL))


for _name, _command in zip(_FLAGGED, _ALL, strict=True):
    if _command in (Cmd.READ, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS):
        _together_refused(_name, _command)


@mutant("boundary.read-cut", breaks=["SIZE-040"], checks=["boundary.clamped-is-not-served", "boundary.read"])
def read_cut(server: FakeServer) -> None:
    """A READ across the end is served with zeroes behind it."""
    size = server.disk.size

    def crosses(asked: object) -> bool:
        return (
            getattr(asked, "offset", 0) < size < getattr(asked, "offset", 0) + getattr(asked, "length", 0) < size + 4096
        )

    server.on(Cmd.READ, where=crosses).reply(actions.data())


@mutant(
    "command.flush-fails",
    breaks=["FLAG-003", "FLAG-013", "CMD-077"],
    checks=[
        "flush.works",
        "promise.send-flush",
        "write.seen-by-next-connection",
        "flush.keeps-data",
        "data.shadow-copy",
        "data.shadow-copy-by-turns",
        "data.flush-is-seen-by-others",
        "data.overlapping-connections",
    ],
)
def flush_fails(server: FakeServer) -> None:
    """FLUSH is offered but always fails."""
    server.on(Cmd.FLUSH).reply(actions.error(Errno.EINVAL, message="what is that?"))


@mutant(
    "command.trim-fails",
    breaks=["FLAG-003", "FLAG-017", "CMD-080"],
    checks=[
        "trim.works",
        "promise.send-trim",
        "trim.spares-the-rest",
        "boundary.trim",
        "data.shadow-copy",
        "data.shadow-copy-by-turns",
        "boundary.trim-inside",
        "delivery.writes-by-bytes",
    ],
)
def trim_fails(server: FakeServer) -> None:
    """TRIM is offered but always fails."""
    server.on(Cmd.TRIM).reply(actions.error(Errno.EINVAL))


@mutant(
    "command.zeroes-fail",
    breaks=["FLAG-003", "CMD-100"],
    checks=[
        "promise.send-write-zeroes",
        "df.mixed-range-is-data",
        "zeroes.zero-the-range",
        "zeroes.odd-ranges",
        "zeroes.no-hole",
        "zeroes.no-hole-is-provisioned",
        "fast-zero.done-or-refused",
        "status.follows-writes",
        "status.finds-holes",
        "boundary.write-zeroes",
        "data.shadow-copy",
        "data.shadow-copy-by-turns",
        "data.zeroes-and-data-side-by-side",
        "boundary.write-zeroes-inside",
        "delivery.writes-by-bytes",
    ],
)
def zeroes_fail(server: FakeServer) -> None:
    """WRITE_ZEROES is offered but always fails."""
    server.on(Cmd.WRITE_ZEROES).reply(actions.error(Errno.EINVAL))


@mutant("command.df-fails", breaks=["FLAG-003"], checks=["promise.df", "df.mixed-range-is-data", "df.64-kib-is-served"])
def df_fails(server: FakeServer) -> None:
    """DF is offered but always refused."""
    server.on(Cmd.READ, where=lambda asked: CmdFlag.DF in asked.flags).reply(actions.error(Errno.EINVAL))


@mutant(
    "command.resize-offered",
    breaks=["FLAG-025", "RSZ-001"],
    checks=["promise.no-resize", "resize.works", "resize.errors", "resize.past-new-end-is-enospc"],
)
def resize_offered(server: FakeServer) -> None:
    """RESIZE is offered and unknown."""
    server.change_exports(can_resize=True)
    server.on(Cmd.RESIZE).reply(actions.error(Errno.EINVAL))


@mutant(
    "command.status-payload-offered",
    breaks=["FLAG-032", "EXT-018"],
    checks=["promise.no-status-payload", "extended.no-status-payload-without-contexts"],
)
def status_payload_offered(server: FakeServer) -> None:
    """BLOCK_STATUS_PAYLOAD is offered without extended headers."""
    export = server.settings.exports[0]
    flags = export.transmission_flags(structured=False, extended=False, contexts_selected=False)
    server.change_exports(flags=flags | TransmissionFlag.BLOCK_STATUS_PAYLOAD)


@mutant("command.no-flush-or-fua", breaks=["COMPAT-020"], checks=["promise.flush-and-fua"])
def no_flush_or_fua(server: FakeServer) -> None:
    """A writable export offers neither FLUSH nor FUA."""
    server.change_exports(can_flush=False, can_fua=False)


@mutant("command.raw-errno", breaks=["ERR-001", "RPL-013"], checks=["error.listed-values", "read.past-end-fails"])
def raw_errno(server: FakeServer) -> None:
    """READ past the end fails with a number of the server's own machine."""
    _change_errors_past_end(server, Cmd.READ, Errno(14))


@mutant("command.enotsup", breaks=["ERR-028"], checks=["error.enotsup-only-for-fast-zero", "cache.past-end-fails"])
def enotsup(server: FakeServer) -> None:
    """CACHE past the end fails with ENOTSUP."""
    _change_errors_past_end(server, Cmd.CACHE, Errno.ENOTSUP)


@mutant("command.eoverflow", breaks=["ERR-027"], checks=["error.eoverflow-only-for-long", "cache.past-end-fails"])
def eoverflow(server: FakeServer) -> None:
    """CACHE past the end fails with EOVERFLOW."""
    _change_errors_past_end(server, Cmd.CACHE, Errno.EOVERFLOW)


@mutant(
    "command.enomem", breaks=["ERR-033"], checks=["error.no-enomem", "size.maximum-is-served", "boundary.read-inside"]
)
def enomem(server: FakeServer) -> None:
    """READ of more than 16 MiB fails with ENOMEM."""
    server.on(Cmd.READ, where=lambda asked: asked.length > 16 << 20).reply(actions.error(Errno.ENOMEM))


@mutant(
    "cache.hangs-up",
    breaks=["FLAG-026", "CMD-090"],
    checks=[
        "cache.is-answered",
        "cache.keeps-data-current",
        "cache.past-end-fails",
        "cache.flags-are-refused",
        "flag.fua-on-cache",
        "command.errors-keep-the-session",
        "boundary.cache",
        "boundary.cache-inside",
        "delivery.requests-by-bytes",
    ],
)
def cache_hangs_up(server: FakeServer) -> None:
    """CACHE is offered and ends the session."""
    server.on(Cmd.CACHE).reply(actions.close())


@mutant("cache.past-end-succeeds", breaks=["CMD-092"], checks=["cache.past-end-fails", "boundary.cache"])
def cache_past_end_succeeds(server: FakeServer) -> None:
    """CACHE past the end succeeds."""
    server.on(Cmd.CACHE, where=lambda asked: _is_past_end(server, asked)).reply(actions.no_data())


@mutant("request.one-at-a-time", breaks=["REQ-012"], checks=["request.many-at-once"])
def one_at_a_time(server: FakeServer) -> None:
    """The fortieth request on a connection is lost."""
    server.on(Cmd.READ, nth=40, per_connection=True).reply()


@mutant(
    "request.any-magic",
    breaks=["MAGIC-001", "MAGIC-003", "MAGIC-004"],
    checks=["request.historic-magic", "request.log-magic", "request.extended-magic", "request.no-magic"],
)
def any_magic(server: FakeServer) -> None:
    """Whatever arrives is taken for a request."""
    server.configure(quirks={"skips_magic_check"})


@mutant(
    "read.zero-length-ends-session",
    breaks=["CMD-004"],
    checks=[
        "read.zero-length-keeps-session",
        "command.errors-keep-the-session",
        "reply.read-is-never-simple",
        "chunk.data-is-not-empty",
        "boundary.read-inside",
    ],
)
def read_zero_length_ends_session(server: FakeServer) -> None:
    """READ of 0 bytes ends the session."""
    server.on(Cmd.READ, where=lambda asked: not asked.length).reply(actions.close())


@mutant(
    "write.zero-length-ends-session",
    breaks=["CMD-059"],
    checks=["write.zero-length-keeps-session", "boundary.write-inside"],
)
def write_zero_length_ends_session(server: FakeServer) -> None:
    """WRITE of 0 bytes ends the session."""
    server.on(Cmd.WRITE, where=lambda asked: not asked.length).reply(actions.close())


@mutant(
    "zeroes.zero-length-ends-session",
    breaks=["CMD-102"],
    checks=["zeroes.zero-length-keeps-session", "boundary.write-zeroes-inside"],
)
def zeroes_zero_length_ends_session(server: FakeServer) -> None:
    """WRITE_ZEROES of 0 bytes ends the session."""
    server.on(Cmd.WRITE_ZEROES, where=lambda asked: not asked.length).reply(actions.close())


@mutant(
    "trim.zero-length-ends-session",
    breaks=["CMD-085"],
    checks=["trim.zero-length-keeps-session", "boundary.trim-inside"],
)
def trim_zero_length_ends_session(server: FakeServer) -> None:
    """TRIM of 0 bytes ends the session."""
    server.on(Cmd.TRIM, where=lambda asked: not asked.length).reply(actions.close())


@mutant("read.past-end-is-eio", breaks=["SIZE-040"], checks=["read.past-end-fails"])
def read_past_end_is_eio(server: FakeServer) -> None:
    """READ past the end fails with EIO."""
    change_actions(
        server,
        [Cmd.READ],
        actions.Error,
        lambda asked, each: [replace(each, errno=Errno.EIO)] if asked.offset else [each],
    )


@mutant("write.past-end-is-eio", breaks=["ERR-020", "ERR-006"], checks=["write.past-end-fails"])
def write_past_end_is_eio(server: FakeServer) -> None:
    """WRITE past the end fails with EIO."""
    change_actions(
        server,
        [Cmd.WRITE],
        actions.Error,
        lambda asked, each: [replace(each, errno=Errno.EIO)] if asked.offset >= server.disk.size else [each],
    )


@mutant("zeroes.past-end-is-eio", breaks=["CMD-134"], checks=["zeroes.past-end-fails"])
def zeroes_past_end_is_eio(server: FakeServer) -> None:
    """WRITE_ZEROES past the end fails with EIO."""
    change_actions(
        server,
        [Cmd.WRITE_ZEROES],
        actions.Error,
        lambda asked, each: [replace(each, errno=Errno.EIO)] if asked.offset else [each],
    )


@mutant("trim.past-end-is-eio", breaks=["SIZE-040"], checks=["trim.past-end-fails"])
def trim_past_end_is_eio(server: FakeServer) -> None:
    """TRIM past the end fails with EIO."""
    change_actions(
        server,
        [Cmd.TRIM],
        actions.Error,
        lambda asked, each: [replace(each, errno=Errno.EIO)] if asked.offset else [each],
    )


@mutant(
    "extended.lengths-cut",
    breaks=["EXT-008", "EXT-068"],
    checks=["extended.lengths-have-64-bits", "extended.zeroes-of-64-bits"],
)
def lengths_cut(server: FakeServer) -> None:
    """Under extended headers lengths are cut to 32 bits."""
    for command in (Cmd.BLOCK_STATUS, Cmd.WRITE_ZEROES):
        server.on(command, where=lambda asked: asked.length >= 1 << 32).reply(actions.no_data())


@mutant("extended.structured-afterwards", breaks=["EXT-025"], checks=["extended.structured-is-refused-afterwards"])
def structured_afterwards(server: FakeServer) -> None:
    """STRUCTURED_REPLY is acknowledged after EXTENDED_HEADERS."""
    server.on(Opt.STRUCTURED_REPLY, where=lambda option: not option.data).reply(actions.ack())
