"""Mutants of option replies in general, and of LIST, ABORT and EXPORT_NAME."""

from __future__ import annotations

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.server import FakeServer
from nbdtest.wire import Opt, OptionReply

__all__: list[str] = []


@mutant("option.reply-magic", breaks=["OPT-011"])
def wrong_reply_magic(server: FakeServer) -> None:
    """Option replies begin with a wrong magic."""
    server.on_send(OptionReply).mangle(magic=0x0003_E889_0455_65A8)


@mutant("option.reply-other-option", breaks=["OPT-012"])
def names_other_option(server: FakeServer) -> None:
    """Option replies name option 0 instead of the one they answer."""
    server.on_send(OptionReply).mangle(option=0)


@mutant("option.unknown-data-left", breaks=["COMPAT-006", "OPT-005"])
def unknown_data_left(server: FakeServer) -> None:
    """The data of an unknown option are not skipped, and taken for the next option."""
    server.configure(quirks={"leaves_unknown_option_data"})


@mutant("option.unknown-ends-session", breaks=["TERM-009", "COMPAT-005"])
def unknown_ends_session(server: FakeServer) -> None:
    """An unknown option ends the connection."""
    server.on_send(OptionReply, where=lambda reply: not reply.option.is_known).rewrite(lambda reply: None)
    server.on(Opt.PEEK_EXPORT).reply(actions.close())


@mutant("option.list-two-finals", breaks=["OPT-018"])
def list_two_finals(server: FakeServer) -> None:
    """LIST ends with two acknowledgements."""
    server.on(Opt.LIST).pass_through().then(actions.ack())


@mutant("option.abort-unanswered", breaks=["OPT-040"])
def abort_unanswered(server: FakeServer) -> None:
    """ABORT closes the connection without a reply."""
    server.on(Opt.ABORT).reply(actions.close())


@mutant("export-name.always-padded", breaks=["HS-031"])
def always_padded(server: FakeServer) -> None:
    """The 124 zero bytes follow the answer to EXPORT_NAME although NO_ZEROES was agreed."""
    server.configure(quirks={"always_pads_export_name"})
