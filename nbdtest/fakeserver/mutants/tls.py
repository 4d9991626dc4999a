"""Mutants of STARTTLS, of the three modes of TLS, and of TLS itself. They need a server with credentials."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.export import TLSMode
from nbdtest.fakeserver.mutants.registry import mutant
from nbdtest.fakeserver.quirks import Quirks
from nbdtest.fakeserver.rules import Moment
from nbdtest.fakeserver.server import FakeServer
from nbdtest.fakeserver.tls import TLSQuirks
from nbdtest.net.tls import ServerCredentials, ServerPSK, ServerX509, VersionRange
from nbdtest.net.tls.credentials import IDENTITY_LIMIT
from nbdtest.net.tls.key_offer import KeyOffer
from nbdtest.wire import ClientFlags, Opt, Option, OptionReply, Rep

__all__: list[str] = []

UNKNOWN_OPTION = Opt(0x6E62_6474)
"""What the suite sends to see whether an unknown option is refused."""
UNKNOWN_IDENTITY = "nbdtest-nobody"
"""As whom the suite tries to come in with a key that is another's."""
TLS12 = VersionRange(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
TLS13 = VersionRange(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
ALERT = bytes.fromhex("15 0303 0002 02 28")  # fatal, handshake_failure


def _refused(plan: Plan, type: Rep) -> bool:
    return bool(plan) and isinstance(plan[0], actions.OptError) and plan[0].type == type


def _where_refused(type: Rep, *instead: Action) -> Callable[[Option, Plan], Any]:
    """Another plan where the correct one refuses with this type."""
    return lambda asked, plan: instead if _refused(plan, type) else plan


def _with_type(server: FakeServer, type: Rep, other: Rep) -> None:
    server.on_send(OptionReply, where={"type": type}).rewrite(lambda reply: replace(reply, type=other))


# STARTTLS in clear


@mutant("starttls.refused-as-unknown-export", breaks=["TLS-022", "REP-036"], checks=["starttls.refused-without-tls"])
def refused_as_unknown_export(server: FakeServer) -> None:
    """A server without TLS answers STARTTLS with an error that is about exports."""
    server.configure(tls_mode=TLSMode.NONE)
    server.on(Opt.STARTTLS).reply(actions.opt_error(Rep.ERR_UNKNOWN))


@mutant("starttls.without-fixed-newstyle", breaks=["TLS-021", "TLS-002"], checks=["starttls.needs-fixed-newstyle"])
def without_fixed_newstyle(server: FakeServer) -> None:
    """STARTTLS is accepted from clients that did not take fixed newstyle."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    server.on(Opt.STARTTLS).rewrite(_where_refused(Rep.ERR_POLICY, actions.ack()))


@mutant("starttls.demanded-without-fixed", breaks=["TLS-021"], checks=["starttls.forced-needs-fixed-newstyle"])
def demanded_without_fixed(server: FakeServer) -> None:
    """Clients that did not take fixed newstyle are told to use TLS."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    server.on(Opt.LIST).rewrite(_where_refused(Rep.ERR_POLICY, actions.opt_error(Rep.ERR_TLS_REQD)))


@mutant(
    "starttls.first-option-only",
    breaks=["TLS-036", "TLS-024", "COMPAT-014"],
    checks=[
        "starttls.is-acknowledged",
        "tls.follows-other-options",
        "tls.forgets-structured-replies",
        "tls.forgets-contexts",
    ],
)
def first_option_only(server: FakeServer) -> None:
    """STARTTLS is refused once another option was sent."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    others: list[Opt] = []

    def forget(flags: ClientFlags, plan: Plan) -> Plan:
        others.clear()
        return plan

    def note(option: Option, plan: Plan) -> Plan:
        others.append(option.option)
        return plan

    server.on(Moment.CLIENT_FLAGS).rewrite(forget)
    for option in (Opt.LIST, Opt.STRUCTURED_REPLY, Opt.INFO, UNKNOWN_OPTION):
        server.on(option).rewrite(note)
    server.on(Opt.STARTTLS).rewrite(
        lambda asked, plan: (actions.opt_error(Rep.ERR_POLICY, "too late"),) if others else plan
    )


@mutant("starttls.hello-for-flags", breaks=["TLS-001"], checks=["starttls.begins-in-session"])
def hello_for_flags(server: FakeServer) -> None:
    """A TLS ClientHello in place of the client flags is answered by TLS."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    server.on(Moment.CLIENT_FLAGS, where=lambda sent: int(sent.flags) >> 24 == ALERT[0] + 1).reply(actions.raw(ALERT))


@mutant(
    "starttls.goes-on-in-clear",
    breaks=["TLS-027"],
    checks=["starttls.nothing-in-clear-afterwards"],
    spoils="no TLS session comes about",
)
def goes_on_in_clear(server: FakeServer) -> None:
    """STARTTLS is accepted, and everything goes on in clear."""
    server.configure(tls_mode=TLSMode.SELECTIVE, tls_quirks=TLSQuirks(ignores_starttls=True))


# The three modes


@mutant(
    "starttls.list-needs-tls",
    breaks=["TLS-010", "TLS-042"],
    checks=["starttls.mode-is-one-of-three", "starttls.selective-does-not-force", "tls.never-required-under-tls"],
)
def list_needs_tls(server: FakeServer) -> None:
    """TLS is demanded for LIST and for no other option."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    server.on(Opt.LIST).reply(actions.opt_error(Rep.ERR_TLS_REQD))


@mutant("starttls.mode-changes", breaks=["TLS-019"], checks=["starttls.mode-stays"])
def mode_changes(server: FakeServer) -> None:
    """The second unknown option of a connection is told to use TLS."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    server.on(UNKNOWN_OPTION, nth=2, per_connection=True).reply(actions.opt_error(Rep.ERR_TLS_REQD))


@mutant("starttls.notls-requires-tls", breaks=["TLS-023"], checks=["starttls.notls-never-requires-tls"])
def notls_requires_tls(server: FakeServer) -> None:
    """A server without TLS says of unknown exports that they need TLS."""
    server.configure(tls_mode=TLSMode.NONE)
    _with_type(server, Rep.ERR_UNKNOWN, Rep.ERR_TLS_REQD)


@mutant(
    "starttls.notls-serves-nothing",
    breaks=["COMPAT-002"],
    checks=["starttls.notls-serves-in-clear", "info.malformed-is-invalid"],
)
def notls_serves_nothing(server: FakeServer) -> None:
    """A server without TLS serves its exports to nobody."""
    server.configure(tls_mode=TLSMode.NONE)
    server.on(Opt.GO).reply(actions.opt_error(Rep.ERR_POLICY))
    server.on(Opt.EXPORT_NAME).reply(actions.close())


@mutant(
    "starttls.forced-structured-in-clear",
    breaks=["TLS-011", "TLS-031", "TLS-010"],
    checks=["starttls.forced-for-every-option", "starttls.mode-is-one-of-three"],
)
def forced_structured_in_clear(server: FakeServer) -> None:
    """A server that insists on TLS agrees on structured replies in clear."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    server.on(Opt.STRUCTURED_REPLY).rewrite(_where_refused(Rep.ERR_TLS_REQD, actions.ack()))


@mutant(
    "starttls.forced-list-is-forbidden",
    breaks=["REP-037", "TLS-031"],
    checks=["starttls.forced-for-every-option", "starttls.mode-is-one-of-three"],
)
def forced_list_is_forbidden(server: FakeServer) -> None:
    """A server that insists on TLS answers LIST in clear with ERR_POLICY."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    server.on(Opt.LIST).rewrite(_where_refused(Rep.ERR_TLS_REQD, actions.opt_error(Rep.ERR_POLICY)))


@mutant(
    "starttls.forced-go-hangs-up",
    breaks=["TLS-033", "OPT-092"],
    checks=["starttls.forced-for-go", "starttls.forced-says-nothing-before"],
)
def forced_go_hangs_up(server: FakeServer) -> None:
    """A server that insists on TLS hangs up when it gets GO in clear."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    server.on(Opt.GO).rewrite(_where_refused(Rep.ERR_TLS_REQD, actions.close()))


@mutant(
    "starttls.forced-abort-refused",
    breaks=["TLS-012"],
    checks=["starttls.forced-abort-works", "option.abort-is-acknowledged", "option.abort-ignores-data"],
)
def forced_abort_refused(server: FakeServer) -> None:
    """A server that insists on TLS does so also for ABORT, as qemu-nbd does."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    server.on(Opt.ABORT).reply(actions.opt_error(Rep.ERR_TLS_REQD))


@mutant("starttls.forced-export-name-served", breaks=["TLS-032", "HS-017"], checks=["starttls.forced-export-name-ends"])
def forced_export_name_served(server: FakeServer) -> None:
    """A server that insists on TLS answers EXPORT_NAME in clear."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    _answer_export_name(server)


@mutant("starttls.forced-tells-first", breaks=["OPT-092"], checks=["starttls.forced-says-nothing-before"])
def forced_tells_first(server: FakeServer) -> None:
    """A server that insists on TLS tells the block sizes before it says so."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    for option in (Opt.INFO, Opt.GO):
        server.on(option).rewrite(
            lambda asked, plan: (actions.info_block_size(), *plan) if _refused(plan, Rep.ERR_TLS_REQD) else plan
        )


@mutant(
    "starttls.contexts-need-tls",
    breaks=["TLS-042", "TLS-013"],
    checks=[
        "starttls.selective-does-not-force",
        "starttls.mode-is-one-of-three",
        "tls.never-required-under-tls",
        "tls.required-only-to-open-an-export",
        "meta.base-wildcard-lists",
        "meta.listed-once",
        "meta.listed-once-for-two-queries",
        "meta.unknown-leaf-is-ignored",
        "meta.unknown-namespace-is-ignored",
        "meta.no-query-lists-all",
        "meta.query-filters-list",
        "meta.list-malformed-is-invalid",
        "meta.surplus-is-invalid",
        "abuse.ten-thousand-queries",
    ],
)
def contexts_need_tls(server: FakeServer) -> None:
    """A server that does not insist on TLS demands it for metadata contexts."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    server.on(Opt.LIST_META_CONTEXT).reply(actions.opt_error(Rep.ERR_TLS_REQD))


@mutant(
    "starttls.plain-export-needs-tls",
    breaks=["TLS-043"],
    checks=["starttls.selective-serves-plain-export", "tls.never-required-under-tls"],
)
def plain_export_needs_tls(server: FakeServer) -> None:
    """INFO says of an export that is served in clear that it needs TLS."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    server.on(Opt.INFO).reply(actions.opt_error(Rep.ERR_TLS_REQD))


# Exports that need TLS


@mutant("tls.protected-is-unknown", breaks=["TLS-014", "TLS-039"], checks=["tls.protected-exports-need-tls"])
def protected_is_unknown(server: FakeServer) -> None:
    """In clear, exports that need TLS are said not to exist."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    _with_type(server, Rep.ERR_TLS_REQD, Rep.ERR_UNKNOWN)


@mutant("tls.protected-export-name", breaks=["TLS-040"], checks=["tls.protected-export-name-ends"])
def protected_export_name(server: FakeServer) -> None:
    """EXPORT_NAME in clear is answered also for exports that need TLS."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    _answer_export_name(server)


@mutant("tls.protected-contexts", breaks=["TLS-042"], checks=["tls.required-only-to-open-an-export"])
def protected_contexts(server: FakeServer) -> None:
    """LIST_META_CONTEXT of an export that needs TLS is answered with ERR_TLS_REQD."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    server.on(Opt.LIST_META_CONTEXT).rewrite(_where_refused(Rep.ERR_POLICY, actions.opt_error(Rep.ERR_TLS_REQD)))


@mutant(
    "tls.protected-can-be-told",
    breaks=["OPT-099"],
    checks=["tls.hidden-exports-stay-hidden", "tls.never-required-under-tls"],
)
def protected_can_be_told(server: FakeServer) -> None:
    """Unknown exports are said to need TLS, but only the real ones are described before that."""
    server.configure(tls_mode=TLSMode.SELECTIVE)

    def describe(asked: Option, plan: Plan) -> Plan:
        if _refused(plan, Rep.ERR_UNKNOWN):
            return (actions.opt_error(Rep.ERR_TLS_REQD),)
        return (actions.info_block_size(), *plan) if _refused(plan, Rep.ERR_TLS_REQD) else plan

    server.on(Opt.INFO).rewrite(describe)


@mutant(
    "tls.protected-can-be-told-by-words",
    breaks=["OPT-099"],
    checks=["tls.hidden-exports-stay-hidden", "tls.never-required-under-tls"],
)
def protected_can_be_told_by_words(server: FakeServer) -> None:
    """Unknown exports are said to need TLS, in other words than real ones."""
    server.configure(tls_mode=TLSMode.SELECTIVE)
    otherwise = actions.opt_error(Rep.ERR_TLS_REQD, "if there is such an export, it needs TLS")
    server.on(Opt.INFO).rewrite(_where_refused(Rep.ERR_UNKNOWN, otherwise))


# Under TLS


@mutant("tls.handshake-cut", breaks=["TLS-026"], checks=["tls.handshake-follows"], spoils="no TLS session comes about")
def handshake_cut(server: FakeServer) -> None:
    """The connection is cut in the middle of every TLS handshake."""
    server.configure(tls_mode=TLSMode.SELECTIVE, tls_quirks=TLSQuirks(handshake_records=1))


@mutant("tls.second-unsupported", breaks=["TLS-025", "TLS-037"], checks=["tls.second-starttls-is-invalid"])
def second_unsupported(server: FakeServer) -> None:
    """STARTTLS under TLS is said not to be supported."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    server.on(Opt.STARTTLS).rewrite(_where_refused(Rep.ERR_INVALID, actions.opt_error(Rep.ERR_UNSUP)))


@mutant(
    "tls.starttls-data-left",
    breaks=["OPT-061"],
    checks=[
        "tls.starttls-with-data",
        "option.structured-with-data-is-invalid",
        "list.with-data-is-invalid",
        "list.with-data-stays-in-step",
        "in-step.list",
        "in-step.structured-reply",
    ],
)
def starttls_data_left(server: FakeServer) -> None:
    """The data of STARTTLS is taken for the next option."""
    server.configure(tls_mode=TLSMode.REQUIRED, quirks=Quirks(leaves_surplus_option_data=True))


@mutant("tls.still-required", breaks=["TLS-034", "TLS-041"], checks=["tls.never-required-under-tls"])
def still_required(server: FakeServer) -> None:
    """Unknown exports are said to need TLS, also under TLS."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    _with_type(server, Rep.ERR_UNKNOWN, Rep.ERR_TLS_REQD)


@mutant(
    "tls.plaintext-kept",
    breaks=["TLS-027"],
    checks=["tls.injected-option-is-not-served", "tls.injected-bytes-are-not-kept"],
)
def plaintext_kept(server: FakeServer) -> None:
    """Options in clear behind STARTTLS are served as if they had come in TLS."""
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(keeps_plaintext=True))


@mutant(
    "tls.returns-to-clear",
    breaks=["TLS-027", "TLS-028", "TLS-030", "TERM-008"],
    checks=[
        "tls.clear-inside-handshake-is-not-served",
        "tls.clear-inside-tls-is-not-served",
        "tls.no-way-back",
        "tls.failed-handshake-ends-the-session",
        "tls.wrong-credentials-end-the-session",
        "starttls.nothing-in-clear-afterwards",
    ],
    spoils="what comes after TLS is answered in clear",
)
def returns_to_clear(server: FakeServer) -> None:
    """When TLS fails, is closed, or is not spoken, the server goes on in clear."""
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(returns_to_clear=True))


@mutant(
    "tls.wrong-key",
    breaks=["TLS-030"],
    checks=["tls.wrong-credentials-end-the-session"],
    spoils="no TLS session comes about",
)
def wrong_key(server: FakeServer) -> None:
    """The server takes keys of which every byte differs from the right one, and no others."""

    def other_keys(known: ServerCredentials) -> ServerCredentials:
        if not isinstance(known, ServerPSK):
            return known
        return ServerPSK(keys={user: bytes(byte ^ 0x55 for byte in key) for user, key in known.keys.items()})

    server.configure(tls_mode=TLSMode.SELECTIVE)
    server.change_credentials(other_keys)


@mutant("tls.unknown-identity", breaks=["TLS-030"], checks=["tls.wrong-credentials-end-the-session"])
def unknown_identity(server: FakeServer) -> None:
    """Who knows one of the keys need not say whose it is."""

    def for_anybody(known: ServerCredentials) -> ServerCredentials:
        if not isinstance(known, ServerPSK):
            return known
        return ServerPSK(keys={**known.keys, UNKNOWN_IDENTITY: next(iter(known.keys.values()))})

    server.configure(tls_mode=TLSMode.REQUIRED)
    server.change_credentials(for_anybody)


@mutant("tls.identity-cut", breaks=["TLS-030"], checks=["tls.long-identity-is-refused"])
def identity_cut(server: FakeServer) -> None:
    """An identity of more than 255 bytes is taken for the known one that it begins with."""
    known: dict[bytes, bytes] = {}

    def note(credentials: ServerCredentials) -> ServerCredentials:
        if isinstance(credentials, ServerPSK):
            known.update({user.encode(): key for user, key in credentials.keys.items()})
        return credentials

    def is_known(offer: KeyOffer) -> bool:
        begun = [key for user, key in known.items() if offer.identity.startswith(user)]
        return len(offer.identity) > IDENTITY_LIMIT and any(map(offer.proves, begun))

    server.change_credentials(note)
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(greets=is_known))


@mutant("tls.empty-key", breaks=["TLS-030"], checks=["tls.empty-key-is-refused"])
def empty_key(server: FakeServer) -> None:
    """Whoever has no key is let in if he proves the empty one."""
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(greets=lambda offer: offer.proves(b"")))


@mutant("tls.hangs-up-on-return", breaks=["TLS-026"], checks=["tls.returning-client-is-served"], certificates=True)
def hangs_up_on_return(server: FakeServer) -> None:
    """Sessions can be resumed, but the connections of those who do it are cut."""
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(hangs_up_on_return=True))


@mutant("tls.stale-certificates", breaks=["TLS-030"], checks=["tls.client-certificates-are-checked"], certificates=True)
def stale_certificates(server: FakeServer) -> None:
    """Clients have to show a certificate, but it may have expired."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    server.change_credentials(
        lambda known: replace(known, verify_peer=True, any_time=True) if isinstance(known, ServerX509) else known
    )


@mutant("tls.revoked-clients", breaks=["TLS-030"], checks=["tls.revoked-clients-are-refused"], certificates=True)
def revoked_clients(server: FakeServer) -> None:
    """Clients have to show a certificate, but it may have been revoked."""
    server.configure(tls_mode=TLSMode.REQUIRED)
    server.change_credentials(
        lambda known: replace(known, verify_peer=True, use_list=False) if isinstance(known, ServerX509) else known
    )


@mutant(
    "tls.state-kept",
    breaks=["OPT-062", "RPL-020", "EXT-022", "META-008"],
    checks=["tls.forgets-structured-replies", "tls.forgets-extended-headers", "tls.forgets-contexts"],
)
def state_kept(server: FakeServer) -> None:
    """What was agreed on in clear still holds under TLS (CVE-2021-3716)."""
    server.configure(tls_mode=TLSMode.SELECTIVE, quirks=Quirks(keeps_state_across_starttls=True))


@mutant("tls.no-1-2", breaks=["TLS-070"], checks=["tls.version-1-2"])
def no_1_2(server: FakeServer) -> None:
    """TLS 1.3 alone is supported."""
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(versions=TLS13))


@mutant("tls.no-1-3", breaks=["TLS-071"], checks=["tls.version-1-3"])
def no_1_3(server: FakeServer) -> None:
    """TLS 1.2 alone is supported."""
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(versions=TLS12))


@mutant("tls.old-versions", breaks=["TLS-073", "TLS-074"], checks=["tls.no-older-version"])
def old_versions(server: FakeServer) -> None:
    """Clients that speak no more than TLS 1.0 or 1.1 are welcome."""
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(greets_old_versions=True))


@mutant(
    "tls.no-close-notify",
    breaks=["TERM-030", "TERM-005", "CMD-072"],
    checks=["tls.disc-closes-tls", "tls.disconnect-closes-tls"],
)
def no_close_notify(server: FakeServer) -> None:
    """The connection is closed without closing TLS."""
    server.configure(tls_mode=TLSMode.REQUIRED, tls_quirks=TLSQuirks(omits_close_notify=True))


def _answer_export_name(server: FakeServer) -> None:
    """Answer EXPORT_NAME where the export exists, whatever else there is against it."""
    names = {export.name.encode() for export in server.settings.exports}
    server.on(Opt.EXPORT_NAME, where=lambda option: option.data in names).rewrite(
        lambda asked, plan: (actions.export_reply(),) if plan == (actions.Close(),) else plan
    )
