"""Mutants that have the bugs of published servers, as far as a client sees them, where no other mutant comes close."""

from __future__ import annotations

from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.damage import mangle
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rules import Moment, Trigger
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Cmd, Errno, Opt, OptionReply, Rep, SimpleReply

__all__: list[str] = []


def _is_the_end(server: FakeServer, trigger: Trigger, *, length: int | None = None, data: bytes | None = None) -> None:
    """Greet nobody any more once this was received."""
    over: list[object] = []

    def fits(received: object) -> bool:
        if length is not None:
            return getattr(received, "length", None) == length
        return data is None or data in getattr(received, "data", b"")

    def remember(received: object, plan: actions.Plan) -> actions.Plan:
        over.append(received)
        return (actions.close(),)

    server.on(trigger, where=fits).rewrite(remember)
    server.on(Moment.GREETING, where=lambda session: bool(over)).reply(actions.close())


@mutant("published.buffer-overrun", breaks=["CMD-060", "RPL-005"], checks=["write.of-odd-length"])
def buffer_overrun(server: FakeServer) -> None:
    """A WRITE of 1 MiB and 16 bytes runs over the end of a buffer, and into the error of the reply."""
    server.on(Cmd.WRITE, where={"length": (1 << 20) + 16}).reply(actions.simple(Errno(0x4141_4141)))


@mutant("published.buffer-in-a-loop", breaks=["CMD-060"], checks=["write.of-every-length"])
def buffer_in_a_loop(server: FakeServer) -> None:
    """A WRITE of 2 MiB, twice a buffer, is answered twice."""
    server.on(Cmd.WRITE, where={"length": 2 << 20}).pass_through().then(actions.raw(SimpleReply(cookie=0).encode()))


@mutant("published.unknown-export-crashes", breaks=["OPT-033"], checks=["export-name.unknown-ends-session"])
def unknown_export_crashes(server: FakeServer) -> None:
    """EXPORT_NAME for an export that does not exist is the end of the server."""
    _is_the_end(server, Opt.EXPORT_NAME, data=b"no-such")


@mutant(
    "published.error-of-4-gib",
    breaks=["OPT-015"],
    checks=[
        "option.error-length",
        "option.errors-keep-the-session",
        "info.unknown-export",
        "info.nothing-about-unknown-export",
        "go.after-unknown-export",
        "starttls.mode-stays",
        "meta.unknown-export",
        "info.can-be-asked-again",
        "go.takes-name-of-4096-bytes",
        "meta.failure-undoes-selection",
    ],
)
def error_of_4_gib(server: FakeServer) -> None:
    """The length of an error with a text is 2^32-1."""
    server.on_send(OptionReply, where={"type": Rep.ERR_UNKNOWN}).rewrite(lambda reply: reply.encode(length=0xFFFF_FFFF))


@mutant(
    "published.talks-instead-of-greeting", breaks=["HS-007"], checks=["greeting.nbd-magic", "greeting.option-magic"]
)
def talks_instead_of_greeting(server: FakeServer) -> None:
    """An assertion's text comes in place of the greeting."""
    server.on(Moment.GREETING).reply(actions.raw(b"Bail out! ERROR: assertion failed: (socket >= 0)\n"))


@mutant(
    "published.unknown-command-unanswered",
    breaks=["ERR-029"],
    checks=[
        "command.unknown-is-einval",
        "reply.simple-has-no-payload",
        "command.errors-keep-the-session",
        "reply.known-magic",
        "command.unknown-with-length-is-einval",
    ],
)
def unknown_command_unanswered(server: FakeServer) -> None:
    """An unknown command is not answered."""
    server.on(Cmd(0x7FFF)).reply()


@mutant(
    "published.refusal-leaves-infos",
    breaks=["TERM-009"],
    checks=["option.errors-keep-the-session", "go.takes-name-of-4096-bytes"],
)
def refusal_leaves_infos(server: FakeServer) -> None:
    """What INFO asked for is taken for an option of its own after the export was refused."""
    server.on(Opt.INFO, where=lambda option: option.data.endswith(b"\0\3")).rewrite(
        lambda option, plan: (
            (*plan, actions.opt_error(Rep.ERR_INVALID)) if isinstance(plan[0], actions.OptError) else plan
        )
    )


@mutant(
    "published.second-info-crashes",
    breaks=["OPT-071"],
    checks=[
        "info.can-be-asked-again",
        "option.errors-keep-the-session",
        "list.names-can-be-opened",
        "list.agrees-with-info-description",
        "starttls.mode-stays",
    ],
)
def second_info_crashes(server: FakeServer) -> None:
    """A second INFO on a connection is the end of the session."""
    server.on(Opt.INFO, nth=2, per_connection=True).reply(actions.close())


@mutant("published.status-of-4-gib-crashes", breaks=["RPL-086"], checks=["status.of-4-gib"])
def status_of_4_gib_crashes(server: FakeServer) -> None:
    """BLOCK_STATUS of nearly 4 GiB is the end of the server."""
    server.change_exports(disk=None, size=(4 << 30) + (1 << 20))
    _is_the_end(server, Cmd.BLOCK_STATUS, length=0xFFFF_FE00)


@mutant("published.long-name-crashes", breaks=["CONV-006"], checks=["go.takes-name-of-4096-bytes"])
def long_name_crashes(server: FakeServer) -> None:
    """A name of 3000 bytes is the end of the server."""
    _is_the_end(server, Opt.INFO, data=(3000).to_bytes(4, "big") + b"n")


@mutant("published.two-bytes-more", breaks=["HS-016"], checks=["export-name.padded"])
def two_bytes_more(server: FakeServer) -> None:
    """The padding after EXPORT_NAME is two bytes too long."""
    server.on(Opt.EXPORT_NAME).rewrite(
        lambda option, plan: [
            mangle(each, append=b"\0\0") if isinstance(each, actions.ExportReply) and each.padded else each
            for each in plan
        ]
    )


@mutant(
    "published.nothing-after-write",
    breaks=["REQ-012", "CMD-060"],
    checks=["write.stores"],
    spoils="no second request is answered after a WRITE",
)
def nothing_after_write(server: FakeServer) -> None:
    """Nothing is answered after the first WRITE of a connection."""
    server.on(Cmd.WRITE, nth=1, per_connection=True).pass_through().then(actions.stall())


@mutant(
    "published.list-without-ack",
    breaks=["OPT-050"],
    checks=[
        "list.one-reply-per-export",
        "option.nothing-after-final",
        "option.errors-keep-the-session",
        "list.is-served-or-forbidden",
        "starttls.mode-is-one-of-three",
        "delivery.options-by-bytes",
    ],
)
def list_without_ack(server: FakeServer) -> None:
    """The list of exports has no end."""
    server.on_send(OptionReply, where=lambda reply: reply.option == Opt.LIST and reply.type == Rep.ACK).drop()


@mutant("published.short-name-length", breaks=["OPT-090"], checks=["info.unknown-export"])
def short_name_length(server: FakeServer) -> None:
    """The length of a name is read as one byte: what follows is nonsense, and refused as that."""
    server.on_send(OptionReply, where={"type": Rep.ERR_UNKNOWN}).rewrite(
        lambda reply: replace(reply, type=Rep.ERR_INVALID)
    )


@mutant("published.structured-twice-ends-session", breaks=["OPT-020"], checks=["option.structured-twice"])
def structured_twice_ends_session(server: FakeServer) -> None:
    """A second STRUCTURED_REPLY ends the session."""
    server.on(Opt.STRUCTURED_REPLY, nth=2, per_connection=True).reply(actions.close())
