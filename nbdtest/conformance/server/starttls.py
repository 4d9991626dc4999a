"""STARTTLS and the three modes of TLS, as they show in clear. Nothing here needs credentials; `tls` does the rest."""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import (
    UNKNOWN_OPTION,
    expect,
    expect_end,
    expect_equal,
    expect_in_step,
    expect_refused,
    expect_reply,
)
from nbdtest.conformance.gallery import ALL_INFOS
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.tls_probe import client_hello
from nbdtest.wire import NBD_MAGIC, OPTION_REPLY_MAGIC, ExportName, Message, MetaContextRequest, Opt, Rep

FIXED = Capability.FIXED_NEWSTYLE
NOTLS = [Capability.NOTLS, FIXED]
TLS = [Capability.TLS]
FORCED = [Capability.FORCED_TLS]
SELECTIVE = [Capability.SELECTIVE_TLS]


def _general_options(name: str) -> tuple[tuple[int, Message | bytes], ...]:
    """Options that do not open an export, all of them legal to send."""
    contexts = MetaContextRequest(name=name, queries=("base:allocation",))
    return (
        (Opt.LIST, b""),
        (UNKNOWN_OPTION, b"data"),
        (0x1234, b""),
        (Opt.STRUCTURED_REPLY, b""),
        (Opt.LIST_META_CONTEXT, contexts),
        (Opt.SET_META_CONTEXT, contexts),
    )


@check("starttls.refused-without-tls", proves=["TLS-022", "REP-036"], needs=NOTLS, legal=True)
def refused_without_tls(t: ServerTarget) -> None:
    """A server without TLS refuses STARTTLS with a fitting error, and the handshake goes on in clear."""
    with t.peer.negotiating(clear=True) as nego:
        fitting = (Rep.ERR_POLICY, Rep.ERR_UNSUP, Rep.ERR_PLATFORM, Rep.ERR_INVALID)
        expect_reply(nego.option(Opt.STARTTLS), *fitting)
        expect_in_step(nego)


@check("starttls.needs-fixed-newstyle", proves=["TLS-021", "TLS-002"], needs=[Capability.NEWSTYLE], legal=False)
def needs_fixed_newstyle(t: ServerTarget) -> None:
    """A client that did not take FIXED_NEWSTYLE does not get TLS."""
    with t.peer.negotiating(flags=0, clear=True) as nego:
        expect_refused(nego.option(Opt.STARTTLS))


@check("starttls.forced-needs-fixed-newstyle", proves=["TLS-021"], needs=FORCED, legal=False)
def forced_needs_fixed_newstyle(t: ServerTarget) -> None:
    """A client that did not take FIXED_NEWSTYLE is not told to use TLS."""
    with t.peer.negotiating(flags=0, clear=True) as nego:
        expect(nego.option(Opt.LIST).final.type != Rep.ERR_TLS_REQD, "ERR_TLS_REQD without fixed newstyle")


@check("starttls.is-acknowledged", proves=["TLS-024", "TLS-036", "COMPAT-014"], needs=TLS, legal=True)
def is_acknowledged(t: ServerTarget) -> None:
    """STARTTLS is acknowledged, as the first option and after others, whatever became of them."""
    with t.peer.negotiating(clear=True) as nego:
        expect_reply(nego.option(Opt.STARTTLS), Rep.ACK)
    with t.peer.negotiating(clear=True) as nego:
        nego.info(t.unknown_export)
        nego.option(Opt.STRUCTURED_REPLY)
        expect_reply(nego.option(Opt.STARTTLS), Rep.ACK)


@check("starttls.begins-in-session", proves=["TLS-001"], needs=[Capability.NEWSTYLE], legal=False)
def begins_in_session(t: ServerTarget) -> None:
    """The greeting comes in clear, and a TLS ClientHello in place of the client flags is not answered as one."""
    with t.peer.connected() as peer:
        peer.send(client_hello(0x0303, t.random.randbytes(32)), summary="TLS ClientHello")
        greeting = peer.receive_bytes(18, wanted="a greeting in clear")
        peer.note(greeting, "greeting")
        expect_equal(greeting[:8], NBD_MAGIC.to_bytes(8, "big"), "the first word")
        expect_end(peer, "a TLS ClientHello instead of client flags")


@check("starttls.nothing-in-clear-afterwards", proves=["TLS-027", "TLS-030"], needs=TLS, legal=False)
def nothing_in_clear_afterwards(t: ServerTarget) -> None:
    """After the ACK to STARTTLS an option in clear is not answered in clear; the session ends."""
    with t.peer.negotiating(clear=True) as nego:
        expect_reply(nego.option(Opt.STARTTLS), Rep.ACK)
        nego.send_option(UNKNOWN_OPTION)
        nego.peer.half_close()  # or a server may wait for the rest of a TLS record
        rest = nego.peer.receive_to_end()
        expect(OPTION_REPLY_MAGIC.to_bytes(8, "big") not in rest, "an option reply in clear after STARTTLS")


@check("starttls.mode-is-one-of-three", proves=["TLS-010"], needs=[FIXED], legal=True)
def mode_is_one_of_three(t: ServerTarget) -> None:
    """In clear, either everything but STARTTLS and ABORT asks for TLS, or nothing but INFO and GO does."""
    with t.peer.negotiating(clear=True) as nego:
        asks = {
            str(Opt(option)): nego.option(option, data).final.type == Rep.ERR_TLS_REQD
            for option, data in _general_options(t.export)
        }
        expect(len(set(asks.values())) == 1, f"ERR_TLS_REQD only for {[name for name, asked in asks.items() if asked]}")
        if any(asks.values()):
            expect_reply(nego.info(t.export), Rep.ERR_TLS_REQD)


@check("starttls.mode-stays", proves=["TLS-019"], needs=[FIXED], legal=True)
def mode_stays(t: ServerTarget) -> None:
    """The mode does not change during a connection."""
    with t.peer.negotiating(clear=True) as nego:

        def asks() -> list[bool]:
            answers = nego.info(t.export), nego.option(UNKNOWN_OPTION), nego.option(0x1234)
            return [answer.final.type == Rep.ERR_TLS_REQD for answer in answers]

        first = asks()
        nego.info(t.unknown_export)
        expect_equal(asks(), first, "whether INFO and unknown options ask for TLS")


@check("starttls.notls-never-requires-tls", proves=["TLS-023"], needs=NOTLS, legal=True)
def notls_never_requires_tls(t: ServerTarget) -> None:
    """A server without TLS never asks for it."""
    for reply in t.gallery.option_replies():
        expect(reply.type != Rep.ERR_TLS_REQD, f"{reply.type} to {reply.option}")


@check("starttls.notls-serves-in-clear", proves=["COMPAT-002"], needs=[Capability.NOTLS], legal=True)
def notls_serves_in_clear(t: ServerTarget) -> None:
    """A server without TLS serves in clear."""
    with t.peer.transmitting() as session:
        expect_in_step(session)


@check("starttls.forced-for-every-option", proves=["TLS-011", "TLS-031", "REP-037"], needs=FORCED, legal=True)
def forced_for_every_option(t: ServerTarget) -> None:
    """A server that insists on TLS answers every option but STARTTLS and ABORT, known or not, with ERR_TLS_REQD."""
    with t.peer.negotiating(clear=True) as nego:
        for option, data in (*_general_options(t.export), (Opt.EXTENDED_HEADERS, b"")):
            expect_reply(nego.option(option, data), Rep.ERR_TLS_REQD)
        for name in (t.export, t.unknown_export):
            expect_reply(nego.info(name), Rep.ERR_TLS_REQD)


@check("starttls.forced-for-go", proves=["TLS-033"], needs=FORCED, legal=True)
def forced_for_go(t: ServerTarget) -> None:
    """A server that insists on TLS answers GO in clear with ERR_TLS_REQD, and acknowledges STARTTLS afterwards."""
    with t.peer.negotiating(clear=True) as nego:
        expect_reply(nego.go(t.export), Rep.ERR_TLS_REQD)
        expect_reply(nego.option(Opt.STARTTLS), Rep.ACK)


@check("starttls.forced-abort-works", proves=["TLS-012"], needs=FORCED, legal=True)
def forced_abort_works(t: ServerTarget) -> None:
    """ABORT works in clear even if the server insists on TLS."""
    with t.peer.negotiating(clear=True) as nego:
        expect_reply(nego.option(Opt.ABORT), Rep.ACK)


@check("starttls.forced-export-name-ends", proves=["TLS-032", "HS-017"], needs=FORCED, legal=True)
def forced_export_name_ends(t: ServerTarget) -> None:
    """EXPORT_NAME in clear ends the session if the server insists on TLS."""
    with t.peer.negotiating(clear=True) as nego:
        nego.send_option(Opt.EXPORT_NAME, ExportName(name=t.export))
        expect_end(nego.peer, "OPT_EXPORT_NAME in clear")


@check("starttls.forced-says-nothing-before", proves=["OPT-092"], needs=FORCED, legal=True)
def forced_says_nothing_before(t: ServerTarget) -> None:
    """No information about an export precedes ERR_TLS_REQD."""
    with t.peer.negotiating(clear=True) as nego:
        for option in (Opt.INFO, Opt.GO):
            answer = nego.info(t.export, ALL_INFOS, option=option)
            expect(not answer.parts, f"{option} in clear is answered with {answer}", "the error alone")


@check("starttls.selective-does-not-force", proves=["TLS-013", "TLS-042"], needs=SELECTIVE, legal=True)
def selective_does_not_force(t: ServerTarget) -> None:
    """A server that offers TLS beside clear service asks for it about exports only."""
    with t.peer.negotiating(clear=True) as nego:
        for option, data in _general_options(t.export):
            answer = nego.option(option, data)
            expect(answer.final.type != Rep.ERR_TLS_REQD, f"{Opt(option)} is answered with {answer}")


@check("starttls.selective-serves-plain-export", proves=["TLS-043"], needs=[*SELECTIVE, Capability.EXPORT], legal=True)
def selective_serves_plain_export(t: ServerTarget) -> None:
    """An export that is served in clear is never said to need TLS."""
    with t.peer.transmitting() as session:
        expect_in_step(session)
    with t.peer.negotiating(clear=True) as nego:
        answer = nego.info(t.export)
        expect(
            answer.final.type != Rep.ERR_TLS_REQD, f"{Opt.INFO} is answered with {answer}", "what GO was answered with"
        )
