"""Mutants of how a session ends, and of what is left behind."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.server import FakeServer
from nbdtest.fakeserver.tls import TLSQuirks
from nbdtest.wire import Cmd, Errno, Opt, OptionReply, Rep, SimpleReply

__all__: list[str] = []


@mutant(
    "disc.answered", breaks=["CMD-076"], checks=["disconnect.closes", "disconnect.at-once", "disconnect.finishes-reads"]
)
def disc_answered(server: FakeServer) -> None:
    """DISC gets a reply."""
    server.configure(quirks={"answers_disc"})


@mutant(
    "disc.stays",
    breaks=["TERM-031", "CMD-073", "CMD-070"],
    checks=["disconnect.closes", "disconnect.at-once", "disconnect.finishes-reads"],
)
def disc_stays(server: FakeServer) -> None:
    """The connection stays open after DISC."""
    server.configure(quirks={"stays_after_disc"})


@mutant("disc.drops-pending", breaks=["CMD-071"], checks=["disconnect.finishes-reads", "disconnect.reads-succeed"])
def disc_drops_pending(server: FakeServer) -> None:
    """Requests that are being carried out are forgotten at DISC."""
    server.configure(quirks={"drops_pending_at_disc"})
    server.on(Cmd.READ, where=lambda asked: asked.length == 65536).reply(actions.pause(0.02), actions.pass_through())


def _crowded(server: FakeServer, came: Moment, went: Moment | Cmd, *, most: int = 5) -> None:
    """Say nothing more to who comes while so many are between two moments."""
    inside: list[object] = []

    def comes(session: object, plan: actions.Plan) -> actions.Plan:
        inside.append(session)
        return (*plan, actions.stall()) if len(inside) > most else plan

    def goes(session: object, plan: actions.Plan) -> actions.Plan:
        del inside[:1]
        return plan

    server.on(came).rewrite(comes)
    server.on(went).rewrite(goes)


@mutant(
    "leaving.idle-crowd-blocks",
    breaks=["TERM-041"],
    checks=["abuse.idle-crowd"],
    sometimes=["abuse.many-connections"],
)
def idle_crowd_blocks(server: FakeServer) -> None:
    """While five clients say nothing nobody else is greeted."""
    _crowded(server, Moment.CONNECT, Moment.CLIENT_FLAGS)


@mutant(
    "leaving.half-handshakes-block",
    breaks=["TERM-041"],
    checks=["abuse.half-handshakes"],
    spoils="clients that have left but not been noticed yet hold up the next one",
)
def half_handshakes_block(server: FakeServer) -> None:
    """While five clients are in the handshake nobody else is served."""
    _crowded(server, Moment.CLIENT_FLAGS, Moment.TRANSMISSION)


_Step = tuple[Moment | Opt | Cmd, ...]


def _gives_up(server: FakeServer, came: Moment, further: _Step, *, after: int = 3) -> None:
    """Serve nobody any more when so many connections in a row have come to one moment and no further."""
    stopped: list[object] = []

    def comes(received: object, plan: actions.Plan) -> actions.Plan:
        stopped.append(received)
        return plan

    def goes_on(received: object, plan: actions.Plan) -> actions.Plan:
        if len(stopped) <= after:
            stopped.clear()
        return plan

    server.on(Moment.GREETING, where=lambda session: len(stopped) > after).reply(actions.close())
    server.on(came).rewrite(comes)
    for step in further:
        server.on(step).rewrite(goes_on)


_OPTIONS = (Opt.LIST, Opt.INFO, Opt.GO, Opt.EXPORT_NAME, Opt.STARTTLS, Opt.STRUCTURED_REPLY, Opt.EXTENDED_HEADERS)
_COMMANDS = (Cmd.READ, Cmd.WRITE, Cmd.FLUSH, Cmd.DISC)


@mutant(
    "leaving.early-clients-count",
    breaks=["TERM-041"],
    checks=["leaving.after-connect", "leaving.after-greeting"],
    sometimes=["abuse.idle-crowd", "abuse.many-connections"],
)
def early_clients_count(server: FakeServer) -> None:
    """Three clients in a row that leave before the client flags are the end of the server."""
    _gives_up(server, Moment.CONNECT, (Moment.CLIENT_FLAGS,))


@mutant(
    "leaving.flags-without-option",
    breaks=["TERM-041"],
    checks=[
        "leaving.after-client-flags",
        "leaving.within-option-header",
        "leaving.within-option-data",
        "abuse.huge-unknown-option",
        "abuse.huge-export-name",
        "abuse.huge-info",
        "abuse.huge-go",
        "abuse.huge-set-meta-context",
    ],
    spoils="checks that leave early add up, by which of them the server notices first",
)
def flags_without_option(server: FakeServer) -> None:
    """Two clients in a row that leave after the client flags without an option are the end of the server."""
    _gives_up(server, Moment.CLIENT_FLAGS, _OPTIONS, after=1)


@mutant(
    "leaving.transmission-without-request",
    breaks=["TERM-041"],
    checks=["leaving.after-go", "leaving.within-request-header", "leaving.within-write-payload"],
    spoils="opening the export three times to look at it is the end of the server",
)
def transmission_without_request(server: FakeServer) -> None:
    """Three clients in a row that leave without a request are the end of the server."""
    _gives_up(server, Moment.TRANSMISSION, _COMMANDS)


def _worn_out(
    server: FakeServer, step: Moment | Opt | Cmd, *, after: int, length: int | None = None, data_ends: bytes = b""
) -> None:
    """Greet nobody any more after so many requests or options of one kind."""
    seen: list[object] = []

    def counts(received: object, plan: actions.Plan) -> actions.Plan:
        seen.append(received)
        return plan

    def fits(received: object) -> bool:
        data: bytes = getattr(received, "data", b"")
        return length in (None, getattr(received, "length", None)) and data.endswith(data_ends)

    server.on(Moment.GREETING, where=lambda session: len(seen) > after).reply(actions.close())
    server.on(step, where=fits).rewrite(counts)


@mutant("leaving.long-reads-wear-out", breaks=["TERM-041"], checks=["leaving.with-reads-in-flight"])
def long_reads_wear_out(server: FakeServer) -> None:
    """Ten READs of 1 MiB are the end of the server."""
    _worn_out(server, Cmd.READ, after=10, length=1 << 20)


@mutant(
    "leaving.reads-wear-out",
    breaks=["TERM-041"],
    checks=["leaving.after-first-reply", "disconnect.finishes-reads"],
)
def reads_wear_out(server: FakeServer) -> None:
    """Ten READs of 64 KiB are the end of the server."""
    _worn_out(server, Cmd.READ, after=10, length=1 << 16)


@mutant(
    "leaving.unread-replies-wear-out",
    breaks=["TERM-041"],
    checks=["leaving.before-option-reply", "leaving.after-option-replies"],
    sometimes=["delivery.options-by-bytes"],
)
def unread_replies_wear_out(server: FakeServer) -> None:
    """Three LISTs are the end of the server."""
    _worn_out(server, Opt.LIST, after=2)


_WORN_OUT: tuple[tuple[str, str, Moment | Opt | Cmd, int, str], ...] = (
    ("set-meta-contexts", "after-option-replies", Opt.SET_META_CONTEXT, 4, "Five SET_META_CONTEXTs"),
    ("export-names", "before-option-reply", Opt.EXPORT_NAME, 3, "Four EXPORT_NAMEs"),
    ("caches", "with-other-commands-in-flight", Cmd.CACHE, 2, "Three CACHEs"),
    ("writes", "with-writes-in-flight", Cmd.WRITE, 20, "Twenty WRITEs"),
    ("discs", "after-second-disc", Cmd.DISC, 2, "Three DISCs"),
)
for _name, _seen_by, _step, _after, _many in _WORN_OUT:

    def _apply(server: FakeServer, step: Moment | Opt | Cmd = _step, after: int = _after) -> None:
        _worn_out(server, step, after=after)

    _apply.__doc__ = f"{_many} are the end of the server."
    mutant(
        f"leaving.{_name}-wear-out",
        breaks=["TERM-041"],
        checks=[f"leaving.{_seen_by}"],
        spoils="every check that sends as many is the end of the server",
    )(_apply)


@mutant("leaving.goes-for-names-wear-out", breaks=["TERM-041"], checks=["leaving.before-option-reply"])
def goes_for_names_wear_out(server: FakeServer) -> None:
    """Three GOs that ask for the name alone are the end of the server."""
    _worn_out(server, Opt.GO, after=2, data_ends=b"\0\1\0\1")


@mutant("leaving.reads-of-256-kib-wear-out", breaks=["TERM-041"], checks=["leaving.within-a-reply"])
def reads_of_256_kib_wear_out(server: FakeServer) -> None:
    """Three READs of 256 KiB are the end of the server."""
    _worn_out(server, Cmd.READ, after=2, length=256 << 10)


@mutant("leaving.memory-leaks", breaks=["TERM-041"], checks=["leaving.leaks-nothing"])
def memory_leaks(server: FakeServer) -> None:
    """Every connection leaves 1 MiB of memory behind."""
    kept: list[bytes] = []

    def keep(session: object, plan: actions.Plan) -> actions.Plan:
        kept.append(b"x" * (1 << 20))
        return plan

    server.on(Moment.CONNECT).rewrite(keep)


@mutant(
    "tls.starttls-wears-out",
    breaks=["TERM-041"],
    checks=["leaving.during-starttls"],
    spoils="every check that starts TLS as often is the end of the server",
)
def starttls_wears_out(server: FakeServer) -> None:
    """Eight STARTTLSs are the end of the server."""
    _worn_out(server, Opt.STARTTLS, after=7)


@mutant(
    "tls.exports-wear-out",
    breaks=["TERM-041"],
    checks=["leaving.under-tls"],
    spoils="every check that opens the export under TLS as often is the end of the server",
)
def tls_exports_wear_out(server: FakeServer) -> None:
    """Eight clients that open an export under TLS are the end of the server."""
    seen: list[object] = []

    def counts(session: object, plan: actions.Plan) -> actions.Plan:
        seen.append(session)
        return plan

    server.on(Moment.GREETING, where=lambda session: len(seen) > 7).reply(actions.close())
    server.on(Moment.TRANSMISSION, where=lambda session: session.in_tls).rewrite(counts)


@mutant(
    "leaving.any-read-wears-out",
    breaks=["TERM-041"],
    checks=["leaving.after-disc"],
    spoils="three READs are the end of the server",
)
def any_read_wears_out(server: FakeServer) -> None:
    """Three READs are the end of the server."""
    _worn_out(server, Cmd.READ, after=2)


@mutant(
    "leaving.one-at-a-time",
    breaks=["TERM-041"],
    checks=["abuse.huge-write-is-not-waited-for"],
    spoils="clients that have left but not been noticed yet hold up the next one",
)
def one_at_a_time(server: FakeServer) -> None:
    """While one client in transmission has not sent a whole request, nobody else is answered."""
    _crowded(server, Moment.TRANSMISSION, Cmd.READ, most=1)


@mutant("leaving.connections-wear-out", breaks=["TERM-041"], checks=["abuse.many-connections"])
def connections_wear_out(server: FakeServer) -> None:
    """Eighty connections are the end of the server."""
    _worn_out(server, Moment.CONNECT, after=80)


@mutant("leaving.descriptors-leak", breaks=["TERM-041"], checks=["leaving.leaks-nothing"])
def descriptors_leak(server: FakeServer) -> None:
    """Every connection leaves a descriptor behind."""

    def leak(session: object, plan: actions.Plan) -> actions.Plan:
        os.open(os.devnull, os.O_RDONLY)
        return plan

    server.on(Moment.CONNECT).rewrite(leak)


@mutant("leaving.spins", breaks=["TERM-041"], checks=["leaving.burns-no-cpu"])
def spins(server: FakeServer) -> None:
    """The twentieth connection leaves a thread behind that waits by asking again and again."""
    server.on(Moment.CONNECT, nth=20).rewrite(_spin)


@mutant("tls.leaving-spins", breaks=["TERM-041"], checks=["leaving.burns-no-cpu-after-tls"])
def tls_leaving_spins(server: FakeServer) -> None:
    """The second client that opens an export under TLS leaves a thread behind that waits by asking again and again."""
    server.on(Moment.TRANSMISSION, nth=2, where=lambda session: session.in_tls).rewrite(_spin)


@mutant(
    "shutdown.at-once",
    breaks=["TERM-016", "TERM-035"],
    checks=["shutdown.option-is-refused", "shutdown.requests-are-finished"],
)
def shutdown_at_once(server: FakeServer) -> None:
    """A server that is told to stop leaves its clients without another word."""
    server.configure(quirks={"hangs_up_at_shutdown"})


@mutant(
    "tls.shutdown-truncates",
    breaks=["TERM-033"],
    checks=["shutdown.closes-tls", "tls.disc-closes-tls", "tls.disconnect-closes-tls"],
)
def tls_shutdown_truncates(server: FakeServer) -> None:
    """The server ends connections without closing TLS, also when it is told to stop."""
    server.configure(tls_quirks=TLSQuirks(omits_close_notify=True))


@mutant("shutdown.option-is-unsupported", breaks=["TERM-016", "REP-040"], checks=["shutdown.option-is-refused"])
def shutdown_option_is_unsupported(server: FakeServer) -> None:
    """A server that is told to stop answers options with ERR_UNSUP instead of ERR_SHUTDOWN."""
    told = server.on_send(OptionReply, where={"type": Rep.ERR_SHUTDOWN})
    told.rewrite(lambda reply: replace(reply, type=Rep.ERR_UNSUP))


@mutant("shutdown.request-gives-eio", breaks=["TERM-037", "ERR-009"], checks=["shutdown.request-is-told"])
def shutdown_request_gives_eio(server: FakeServer) -> None:
    """A server that is told to stop keeps its connections for a while, and answers requests with EIO."""
    server.configure(quirks={"stays_at_shutdown"})
    told = server.on_send(SimpleReply, where={"error": Errno.ESHUTDOWN})
    told.rewrite(lambda reply: replace(reply, error=Errno.EIO))


def _spin(session: object, plan: actions.Plan) -> actions.Plan:
    threading.Thread(target=_ask_again_and_again, daemon=True).start()
    return plan


def _ask_again_and_again() -> None:
    while True:
        pass
