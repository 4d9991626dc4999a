"""TLS itself: what may lie around the upgrade on the wire, what it forgets, which versions it takes, how it ends.

What can be seen without credentials, above all the three modes in clear, is in `starttls`.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import check
from nbdtest.conformance.expect import (
    UNKNOWN_OPTION,
    expect,
    expect_end,
    expect_equal,
    expect_error,
    expect_in_step,
    expect_refused,
    expect_reply,
)
from nbdtest.conformance.gallery import ALL_INFOS
from nbdtest.conformance.negotiation import Answer
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.tls_probe import (
    ALERT_RECORD,
    HANDSHAKE_RECORD,
    begin_handshake,
    client_hello,
    expect_goodbye,
    expect_no_option_reply,
    known_key,
    protect,
    revoked_client,
    shake_hands,
    starting_tls,
    takes_key,
    under_tls,
    unwanted_clients,
    wrong_credentials,
)
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.net.tls import ClientCredentials, TLSFailure, TLSPipe, TLSStream, VersionRange
from nbdtest.report.results import Level
from nbdtest.wire import (
    Errno,
    ExportName,
    Opt,
    Option,
    Rep,
    ServerExport,
    TransmissionFlag,
)

TLS = Capability.TLS
LAYER = Capability.TLS_LAYER
SELECTIVE = [Capability.SELECTIVE_TLS, Capability.TLS_LAYER]
TLS12 = VersionRange(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
TLS13 = VersionRange(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)


# The upgrade


@check("tls.handshake-follows", proves=["TLS-026", "TLS-024", "TLS-036"], needs=[LAYER], legal=True)
def handshake_follows(t: ServerTarget) -> None:
    """After its ACK the server is ready for the TLS handshake, and serves options and an export under it."""
    with under_tls(t) as nego:
        expect_in_step(nego)
        expect_in_step(t.peer.begin_transmission(nego, t.export))


@check("tls.follows-other-options", proves=["TLS-036", "TLS-024"], needs=[LAYER], legal=True)
def follows_other_options(t: ServerTarget) -> None:
    """TLS can be started after other options."""
    with starting_tls(t, UNKNOWN_OPTION, Opt.LIST, Opt.STRUCTURED_REPLY) as nego:
        protect(t, nego)
        expect_in_step(nego)


@check("tls.second-starttls-is-invalid", proves=["TLS-025", "TLS-037"], needs=[LAYER], legal=False)
def second_starttls_is_invalid(t: ServerTarget) -> None:
    """STARTTLS under TLS is answered with ERR_INVALID, and the TLS session goes on."""
    with under_tls(t) as nego:
        expect_reply(nego.option(Opt.STARTTLS), Rep.ERR_INVALID)
        expect_in_step(nego)


@check("tls.starttls-with-data", proves=["OPT-061"], needs=[LAYER], legal=False)
def starttls_with_data(t: ServerTarget) -> None:
    """STARTTLS with data gets an error; where it is accepted all the same, the data is no part of the TLS handshake."""
    with t.peer.negotiating(clear=True) as nego:
        answer = nego.option(Opt.STARTTLS, b"data")
        if answer.is_ack:
            t.remark("it is accepted, and the data ignored")
            protect(t, nego, requirement="OPT-061")
        expect_in_step(nego)
    with under_tls(t) as nego:
        expect_refused(nego.option(Opt.STARTTLS, b"data"))
        expect_in_step(nego)


@check("tls.never-required-under-tls", proves=["TLS-034", "TLS-041"], needs=[LAYER], legal=True)
def never_required_under_tls(t: ServerTarget) -> None:
    """Once TLS runs, no option is answered with ERR_TLS_REQD."""
    options = (Opt.LIST, Opt.STRUCTURED_REPLY, Opt.EXTENDED_HEADERS, UNKNOWN_OPTION)
    with under_tls(t) as nego:
        for answer in (
            *(nego.option(option) for option in options),
            *(nego.info(name) for name in (t.unknown_export, t.export)),
            nego.list_meta(t.export),
            nego.set_meta(t.unknown_export, "base:allocation"),
            nego.go(t.unknown_export),
        ):
            expect(not _requires_tls(answer), f"under TLS, {answer.option.option} is answered with {answer}")


# What lies around the upgrade


def _injection(t: ServerTarget, what: str, injected: bytes) -> None:
    """Send `injected` in one segment with STARTTLS. The handshake may fail of it, but it must not count under TLS."""
    starttls = Option(option=Opt.STARTTLS)
    with t.peer.negotiating(clear=True) as nego:
        nego.peer.send(starttls.encode() + injected, summary=f"OPT_STARTTLS and {what}")
        expect_reply(nego.receive_answer(starttls), Rep.ACK)
        if shake_hands(t, nego) is None:
            expect_in_step(nego, requirement="TLS-027")


@check("tls.injected-option-is-not-served", proves=["TLS-027"], needs=[LAYER], legal=False)
def injected_option_is_not_served(t: ServerTarget) -> None:
    """An option in clear behind STARTTLS, in the same segment, is never served as if it had come in TLS."""
    _injection(t, "an option in clear", Option(option=Opt(UNKNOWN_OPTION + 1)).encode())


@check("tls.injected-bytes-are-not-kept", proves=["TLS-027"], needs=[LAYER], legal=False)
def injected_bytes_are_not_kept(t: ServerTarget) -> None:
    """The beginning of an option in clear behind STARTTLS is never completed by what comes in TLS."""
    # Were it kept, the first option under TLS would be taken for the 16 bytes of data that it announces.
    _injection(t, "the header of an option in clear", Option(option=Opt(UNKNOWN_OPTION + 1)).encode(length=16))


@check("tls.clear-inside-handshake-is-not-served", proves=["TLS-027"], needs=[LAYER], legal=False)
def clear_inside_handshake_is_not_served(t: ServerTarget) -> None:
    """An option in clear in the middle of the TLS handshake is not served."""
    with starting_tls(t) as nego:
        begin_handshake(t, nego)
        nego.send_option(UNKNOWN_OPTION)
        nego.peer.half_close()  # or a server may wait for the rest of a TLS record
        expect_no_option_reply(nego.peer.receive_to_end(), "an option in clear inside the handshake")


@check("tls.clear-inside-tls-is-not-served", proves=["TLS-027"], needs=[LAYER], legal=False)
def clear_inside_tls_is_not_served(t: ServerTarget) -> None:
    """An option in clear between the records of TLS is not served."""
    with under_tls(t) as nego:
        assert isinstance(nego.peer.stream, TLSStream)
        nego.peer.stream = nego.peer.stream.lower
        nego.send_option(UNKNOWN_OPTION)
        expect_no_option_reply(nego.peer.receive_to_end(), "an option in clear inside TLS")


@check("tls.no-way-back", proves=["TLS-028"], needs=[LAYER], legal=False)
def no_way_back(t: ServerTarget) -> None:
    """After TLS has been closed, nothing is served in clear."""
    with under_tls(t) as nego:
        assert isinstance(nego.peer.stream, TLSStream)
        nego.peer.stream = nego.peer.stream.close_session()
        nego.send_option(UNKNOWN_OPTION)
        expect_no_option_reply(nego.peer.receive_to_end(), "an option in clear after close_notify")


# Refusals


@check("tls.failed-handshake-ends-the-session", proves=["TLS-030", "TERM-008"], needs=[TLS], legal=False)
def failed_handshake_ends_the_session(t: ServerTarget) -> None:
    """When the TLS handshake fails, the server ends the session."""
    with starting_tls(t) as nego:
        # A handshake record with a message of type 99, which has never been assigned
        nego.peer.send(b"\x16\x03\x01\x00\x04\x63\x00\x00\x00", summary="a TLS handshake message that does not exist")
        expect_no_option_reply(nego.peer.receive_to_end(), "a handshake message that does not exist")


@check("tls.wrong-credentials-end-the-session", proves=["TLS-030"], needs=[LAYER], legal=True, hostile=True)
def wrong_credentials_end_the_session(t: ServerTarget) -> None:
    """When one side refuses the other's credentials the session ends, and nothing is served in clear instead."""
    for what, credentials in wrong_credentials(t):
        expect(_is_turned_away(t, what, credentials), f"with {what} the TLS handshake succeeds", "a failure")


@check("tls.client-certificates-are-checked", proves=["TLS-030"], needs=[LAYER], legal=True, hostile=True)
def client_certificates_are_checked(t: ServerTarget) -> None:
    """A server that lets no client in without a certificate takes none that is a stranger's, or out of its time."""
    for what, credentials in unwanted_clients(t):
        turned_away = _is_turned_away(t, what, credentials)
        if not turned_away and what == "no certificate":
            raise NotApplicable("the server demands no certificate of its clients")
        expect(turned_away, f"with {what} the TLS handshake succeeds", "a failure")


@check(
    "tls.revoked-clients-are-refused", proves=["TLS-030"], needs=[LAYER], legal=True, hostile=True, level=Level.SHOULD
)
def revoked_clients_are_refused(t: ServerTarget) -> None:
    """A server that lets no client in without a certificate takes none that is on the list beside its own."""
    (what, none), *_ = unwanted_clients(t)
    if not _is_turned_away(t, what, none):
        raise NotApplicable("the server demands no certificate of its clients")
    turned_away = _is_turned_away(t, "a revoked certificate", revoked_client(t))
    expect(turned_away, "with a certificate that ca-crl.pem revokes the TLS handshake succeeds", "a failure")


@check("tls.empty-key-is-refused", proves=["TLS-030"], needs=[LAYER], legal=False, hostile=True)
def empty_key_is_refused(t: ServerTarget) -> None:
    """A client that proves the empty key is not let in, whether its identity is known or not."""
    identity, _ = known_key(t)
    for what, claimed in (("a known identity", identity), ("an unknown identity", b"nbdtest-nobody")):
        taken = takes_key(t, f"the empty key of {what}", claimed, b"")
        expect(not taken, f"the empty key of {what} is accepted", "the end of the connection")


@check("tls.long-identity-is-refused", proves=["TLS-030"], needs=[LAYER], legal=False, hostile=True)
def long_identity_is_refused(t: ServerTarget) -> None:
    """An identity that goes on after a known one, to 300 or 60000 bytes, is not let in with the known one's key."""
    identity, key = known_key(t)
    for length in (300, 60_000):
        taken = takes_key(t, f"an identity of {length} bytes", identity.ljust(length, b"x"), key)
        expect(not taken, f"an identity of {length} bytes is accepted", "the end of the connection")


def _is_turned_away(t: ServerTarget, what: str, credentials: ClientCredentials) -> bool:
    """Whether the handshake fails and the connection ends; complain if it goes on in clear."""
    with starting_tls(t) as nego:
        if shake_hands(t, nego, credentials=credentials) is None:
            try:  # in TLS 1.3 the client is done before the server has looked
                return nego.peer.is_ended()
            except TLSFailure:
                return True
        expect_no_option_reply(nego.peer.receive_to_end(), f"a handshake with {what}")
        return True


# What is forgotten


@contextmanager
def _transmitting_after(t: ServerTarget, *before: int) -> Iterator[Session]:
    """A session under TLS before which, in clear, these options were sent; with contexts, structured replies again."""
    with t.peer.negotiating(clear=True) as nego:
        for option in before:
            nego.set_meta(t.export, "base:allocation") if option == Opt.SET_META_CONTEXT else nego.option(option)
        expect_reply(nego.option(Opt.STARTTLS), Rep.ACK)
        protect(t, nego)
        if Opt.SET_META_CONTEXT in before:
            nego.option(Opt.STRUCTURED_REPLY)
        yield t.peer.begin_transmission(nego, t.export)


@check("tls.forgets-structured-replies", proves=["OPT-062", "RPL-020"], needs=[LAYER], legal=True)
def forgets_structured_replies(t: ServerTarget) -> None:
    """Structured replies agreed on in clear are gone under TLS: the reply to READ is simple, SEND_DF is not offered."""
    with _transmitting_after(t, Opt.STRUCTURED_REPLY) as session:
        expect_equal(session.read(0, t.unit).kind, "simple", "the kind of reply under TLS")
        expect(TransmissionFlag.SEND_DF not in session.flags, "SEND_DF is offered without structured replies")


@check("tls.forgets-extended-headers", proves=["EXT-022", "OPT-062"], needs=[LAYER], legal=True)
def forgets_extended_headers(t: ServerTarget) -> None:
    """Extended headers agreed on in clear are gone under TLS: a compact READ gets a simple reply."""
    with _transmitting_after(t, Opt.EXTENDED_HEADERS) as session:
        expect_equal(session.read(0, t.unit).kind, "simple", "the kind of reply under TLS")


@check("tls.forgets-contexts", proves=["OPT-062", "META-008"], needs=[LAYER], legal=False)
def forgets_contexts(t: ServerTarget) -> None:
    """Metadata contexts selected in clear are gone under TLS: BLOCK_STATUS is refused with EINVAL."""
    with _transmitting_after(t, Opt.STRUCTURED_REPLY, Opt.SET_META_CONTEXT) as session:
        reply = session.block_status(0, t.unit)
        expect_error(reply, Errno.EINVAL, requirement="OPT-062", value="META-008")
        expect_in_step(session)


@check("tls.returning-client-is-served", proves=["TLS-026", "OPT-062"], needs=[LAYER], legal=True)
def returning_client_is_served(t: ServerTarget) -> None:
    """A client that offers to resume an earlier TLS session is served, resumed or not, and has to negotiate anew."""
    for versions in (TLS12, TLS13):
        with starting_tls(t) as nego:
            if shake_hands(t, nego, versions=versions):
                continue  # whether it has to be supported is another check's business
            nego.option(Opt.STRUCTURED_REPLY)
            earlier = _pipe_of(t.peer.begin_transmission(nego, t.export))
        with starting_tls(t) as nego:
            protect(t, nego, earlier=earlier)
            expect_in_step(nego)
            session = t.peer.begin_transmission(nego, t.export)
            expect_equal(session.read(0, t.unit).kind, "simple", "the kind of reply to a client that has returned")
            if _pipe_of(session).resumed:
                t.remark(f"{_pipe_of(session).version} sessions are resumed")


# Versions


@check("tls.version-1-2", proves=["TLS-070"], needs=[LAYER], legal=True)
def version_1_2(t: ServerTarget) -> None:
    """TLS 1.2 is supported."""
    with under_tls(t, TLS12, requirement="TLS-070") as nego:
        expect_in_step(nego)


@check("tls.version-1-3", proves=["TLS-071"], needs=[LAYER], legal=True)
def version_1_3(t: ServerTarget) -> None:
    """TLS 1.3 is supported."""
    with under_tls(t, TLS13, requirement="TLS-071") as nego:
        expect_in_step(nego)


@check("tls.no-older-version", proves=["TLS-073", "TLS-074"], needs=[TLS], legal=True)
def no_older_version(t: ServerTarget) -> None:
    """TLS 1.1 and 1.0 are refused."""
    for version, name in ((0x0302, "TLS 1.1"), (0x0301, "TLS 1.0")):
        with starting_tls(t) as nego:
            nego.peer.send(client_hello(version, t.random.randbytes(32)), summary=f"ClientHello of {name}")
            answer = nego.peer.receive_unless_ended()
            expect(answer[:1] != bytes([HANDSHAKE_RECORD]), f"{name} is accepted", "an alert or the end")
            expect(answer[:1] in (b"", bytes([ALERT_RECORD])), f"{name} is answered with no TLS", "an alert or the end")


# The end


@check("tls.disc-closes-tls", proves=["TERM-030", "CMD-072"], needs=[LAYER], legal=True)
def disc_closes_tls(t: ServerTarget) -> None:
    """After DISC the server closes TLS before it closes the connection."""
    with under_tls(t) as nego:
        session = t.peer.begin_transmission(nego, t.export)
        session.disconnect()
        session.peer.half_close()  # as clients do: some servers wait for it, to see that DISC has been the last word
        expect_goodbye(session.peer, "DISC")


@check("tls.disconnect-closes-tls", proves=["TERM-005"], needs=[LAYER, Capability.NAMES_MATTER], legal=True)
def disconnect_closes_tls(t: ServerTarget) -> None:
    """A server that has to hang up, as after EXPORT_NAME for an unknown export, closes TLS first."""
    with under_tls(t) as nego:
        nego.send_option(Opt.EXPORT_NAME, ExportName(name=t.unknown_export))
        expect_goodbye(nego.peer, "OPT_EXPORT_NAME of an unknown export")


# Exports that need TLS, where others do not


@check("tls.protected-exports-need-tls", proves=["TLS-014", "TLS-039"], needs=SELECTIVE, legal=True)
def protected_exports_need_tls(t: ServerTarget) -> None:
    """INFO and GO in clear, for an export that needs TLS, are answered with ERR_TLS_REQD."""
    for name in _protected_exports(t):
        with t.peer.negotiating(clear=True) as nego:
            expect_reply(nego.info(name), Rep.ERR_TLS_REQD)
            expect_reply(nego.go(name), Rep.ERR_TLS_REQD)
            expect_in_step(nego)


@check("tls.protected-export-name-ends", proves=["TLS-040", "HS-017"], needs=SELECTIVE, legal=True)
def protected_export_name_ends(t: ServerTarget) -> None:
    """EXPORT_NAME in clear, for an export that needs TLS, ends the session."""
    for name in _protected_exports(t):
        with t.peer.negotiating(clear=True) as nego:
            nego.send_option(Opt.EXPORT_NAME, ExportName(name=name))
            expect_end(nego.peer, "OPT_EXPORT_NAME of an export that needs TLS")


@check("tls.required-only-to-open-an-export", proves=["TLS-042"], needs=SELECTIVE, legal=True)
def required_only_to_open_an_export(t: ServerTarget) -> None:
    """Options about an export that needs TLS, other than INFO and GO, are not answered with ERR_TLS_REQD."""
    for name in _protected_exports(t):
        with t.peer.negotiating(clear=True) as nego:
            nego.option(Opt.STRUCTURED_REPLY)
            for answer in (nego.list_meta(name), nego.set_meta(name, "base:allocation")):
                seen = f"{answer.option.option} is answered with {answer}"
                expect(not _requires_tls(answer), seen, "another error, or an ACK")


@check("tls.hidden-exports-stay-hidden", proves=["OPT-099"], needs=SELECTIVE, legal=True)
def hidden_exports_stay_hidden(t: ServerTarget) -> None:
    """Where an unknown export is said in clear to need TLS, one that does is answered alike, word for word."""
    for name in _protected_exports(t):
        with t.peer.negotiating(clear=True) as nego:
            protected, unknown = nego.info(name, ALL_INFOS), nego.info(t.unknown_export, ALL_INFOS)
        if not _requires_tls(unknown):
            raise NotApplicable("the server tells in clear that an export does not exist")
        types = [[reply.type for reply in answer.replies] for answer in (protected, unknown)]
        expect_equal(types[0], types[1], "the answer about an export that needs TLS")
        if name:  # what quotes an empty name cannot be compared
            words = [_words(protected, name), _words(unknown, t.unknown_export)]
            expect_equal(words[0], words[1], "what is said about an export that needs TLS")


def _protected_exports(t: ServerTarget) -> list[str]:
    """The exports that the server describes under TLS and not in clear."""
    with under_tls(t) as nego:
        listed = [ServerExport.decode(part.data).name for part in nego.option(Opt.LIST).parts][:10]
        served = [name for name in listed if nego.info(name).is_ack]
    with t.peer.negotiating(clear=True) as nego:
        found = [name for name in served if not nego.info(name).is_ack]
    if not found:
        raise NotApplicable("no export of this server needs TLS")
    return found


def _words(answer: Answer, name: str) -> str:
    """The message of a refusal, as it would be for an export of any other name."""
    return answer.final.data.replace(name.encode(), b"NAME").decode("utf-8", "replace")


def _pipe_of(session: Session) -> TLSPipe:
    assert isinstance(session.peer.stream, TLSStream)
    return session.peer.stream.pipe


def _requires_tls(answer: Answer) -> bool:
    return answer.final.type == Rep.ERR_TLS_REQD
