"""TLS from the client's side, with the credentials that the command is given."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client.options import answers
from nbdtest.conformance.client_probe import Deed, Ending, Judge, expect_ending, probe_of
from nbdtest.conformance.client_source import NO_KEY, WRONG_KEY
from nbdtest.conformance.client_target import ClientTarget, Crash, Seen
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.talk import Talk
from nbdtest.conformance.verdict import Complaint, NotApplicable
from nbdtest.fakeserver import FakeServer, Quirks, TLSMode, TLSQuirks, ack, opt_error, raw
from nbdtest.fakeserver.connection import LEFT_OPEN
from nbdtest.net.tls import VersionRange
from nbdtest.wire import OPTION_REPLY_MAGIC, Opt, Rep, Sender

TLS = (Ability.TLS, Ability.STARTTLS)
_STATEFUL = (Opt.STRUCTURED_REPLY, Opt.EXTENDED_HEADERS, Opt.SET_META_CONTEXT)


def _nothing(server: FakeServer) -> None:
    """A server without rules."""


def row(
    id: str,
    doc: str,
    proves: Sequence[str],
    *deeds: Deed,
    ending: Ending,
    legal: bool = True,
    judge: Judge | None = None,
    export: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Check:
    """One server with TLS."""
    return probe_of(
        f"client-tls.{id}",
        doc,
        *(deeds or (_nothing,)),
        proves=proves,
        legal=legal,
        ending=ending,
        needs=TLS,
        judge=judge,
        export=export,
        settings=settings,
    )


def _first(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks:
        if talk.options and talk.options[0].option != Opt.STARTTLS:
            raise Complaint(f"the first option is {talk.options[0].option}", "OPT_STARTTLS")


def _stateful_later(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks:
        numbers = [option.option for option in talk.options]
        before = numbers[: numbers.index(Opt.STARTTLS)] if Opt.STARTTLS in numbers else []
        if early := [option for option in before if option in _STATEFUL]:
            raise Complaint(f"{early[0]} is sent before OPT_STARTTLS", "OPT_STARTTLS first")


def _go(t: ClientTarget, seen: Seen) -> None:
    if any(talk.sent(Opt.EXPORT_NAME) for talk in seen.talks):
        raise Complaint("the client sends OPT_EXPORT_NAME under TLS", "OPT_GO")


def _in_clear_or_gone(t: ClientTarget, seen: Seen) -> None:
    for noted in seen.violations:
        if noted.violation.requirement == "OPT-001":
            raise Complaint(f"after the refusal of OPT_STARTTLS {noted.violation.text}", "an option, or the end")


def _silent(t: ClientTarget, seen: Seen) -> None:
    for talk in seen.talks:
        if talk.options and talk.last_option not in (Opt.STARTTLS, Opt.ABORT):
            raise Complaint(f"after TLS has failed the client sends {talk.last_option}", "the end of the session")


def _closes_tls_after_abort(t: ClientTarget, seen: Seen) -> None:
    if not any(talk.last_option == Opt.ABORT for talk in seen.talks):
        raise NotApplicable(Ability.ABORT.value)
    _closes_tls(t, seen)


def _closes_tls(t: ClientTarget, seen: Seen) -> None:
    if any(record.summary == LEFT_OPEN for record in seen.transcript):
        raise Complaint("the client ends the connection without closing TLS", "close_notify")


_LAST = (Rep.ACK, Rep.ERR_UNSUP, Rep.ERR_POLICY, Rep.ERR_INVALID)
_ERRORS = (Rep.ERR_UNSUP, Rep.ERR_POLICY, Rep.ERR_PLATFORM, Rep.ERR_INVALID, Rep(0x8000_00FF))
SERVED = (
    row(
        "forced",
        "A client with TLS is served where the server insists on TLS.",
        ["TLS-050", "TLS-027", "TLS-055"],
        ending=Ending.SUCCESS,
        tls_mode=TLSMode.REQUIRED,
    ),
    row(
        "selective",
        "A client with TLS is served where the server offers TLS, and the export needs it.",
        ["TLS-050"],
        ending=Ending.SUCCESS,
        export={"tls_only": True},
        tls_mode=TLSMode.SELECTIVE,
    ),
    row("first-option", "STARTTLS is the first option.", ["TLS-057"], ending=Ending.ANY, judge=_first),
    row(
        "stateful-options-later",
        "What STARTTLS makes void is not negotiated before it.",
        ["OPT-063"],
        ending=Ending.ANY,
        judge=_stateful_later,
    ),
    row("go", "Under TLS the export is opened with GO.", ["TLS-066"], ending=Ending.ANY, judge=_go),
)
SINGLE_BYTES = probe_of(
    "client-tls.single-byte-records",
    "TLS records may hold a byte each.",
    _nothing,
    proves="TLS-027",
    legal=True,
    ending=Ending.SUCCESS,
    needs=TLS,
    export={"size": 64 << 10},  # every byte costs a record
    settings={"tls_quirks": TLSQuirks(single_byte_records=True)},
)
REFUSED = (
    row(
        "refused",
        "After a refusal of STARTTLS the client goes on in the clear, or leaves; it starts no TLS.",
        ["TLS-056"],
        *(answers(Opt.STARTTLS, opt_error(error, "no TLS today")) for error in _ERRORS),
        ending=Ending.ANY,
        judge=_in_clear_or_gone,
    ),
    row(
        "goes-on-in-clear",
        "A server that accepts STARTTLS and goes on in the clear is not talked to.",
        ["TLS-027", "TLS-059"],
        ending=Ending.FAILURE,
        legal=False,
        judge=_silent,
        tls_quirks=TLSQuirks(ignores_starttls=True),
    ),
    row(
        "cut-handshake",
        "A TLS handshake that is cut short is a failure, and nothing follows in the clear.",
        ["TLS-059"],
        ending=Ending.FAILURE,
        legal=False,
        judge=_silent,
        tls_quirks=TLSQuirks(handshake_records=1),
    ),
    row(
        "damaged-record",
        "A record of the session that was tampered with is a failure.",
        ["TLS-027"],
        ending=Ending.FAILURE,
        legal=False,
        tls_quirks=TLSQuirks(flipped_record=1),
    ),
    row(
        "plaintext-in-handshake",
        "Plaintext in the middle of the TLS handshake is a failure.",
        ["TLS-027"],
        ending=Ending.FAILURE,
        legal=False,
        tls_quirks=TLSQuirks(plain_in_handshake=b"\0\3\xe8\x89\4\x55\x65\xa9" + bytes(12)),
    ),
    row(
        "plaintext-in-session",
        "Plaintext in the middle of TLS is not taken for an answer.",
        ["TLS-027"],
        ending=Ending.FAILURE,
        legal=False,
        tls_quirks=TLSQuirks(plain_in_session=b"\0\3\xe8\x89\4\x55\x65\xa9" + bytes(12)),
    ),
)
# A server that hangs up first never learns how the client would have ended: here it leaves that to the client.
CLOSED = (
    row(
        "closed-after-abort",
        "After ABORT the client closes TLS.",
        ["TERM-002"],
        answers(Opt.GO, opt_error(Rep.ERR_POLICY, "not today")),
        ending=Ending.ANY,
        legal=False,
        judge=_closes_tls_after_abort,
        quirks=Quirks(stays_after_abort=True),
    ),
    row(
        "closed-at-the-end",
        "The client closes TLS before it closes the connection.",
        ["TERM-033", "TERM-005"],
        ending=Ending.ANY,
        judge=_closes_tls,
        quirks=Quirks(stays_after_disc=True),
    ),
)


def _versions(version: ssl.TLSVersion) -> Mapping[str, Any]:
    return {"tls_mode": TLSMode.REQUIRED, "tls_quirks": TLSQuirks(versions=VersionRange(version, version))}


VERSIONS = (
    row(
        "session-tickets",
        "Session tickets, which a server may send behind a TLS 1.3 handshake, are nothing of NBD's.",
        ["TLS-071"],
        ending=Ending.SUCCESS,
        tls_mode=TLSMode.REQUIRED,
        tls_quirks=TLSQuirks(tickets=2),
    ),
    row(
        "version-1-2",
        "TLS 1.2 is supported.",
        ["TLS-070"],
        ending=Ending.SUCCESS,
        **_versions(ssl.TLSVersion.TLSv1_2),
    ),
    row(
        "version-1-3",
        "TLS 1.3 is supported.",
        ["TLS-071"],
        ending=Ending.SUCCESS,
        **_versions(ssl.TLSVersion.TLSv1_3),
    ),
)


@check(
    "client-tls.plaintext-behind-ack", proves=["TLS-027"], legal=False, needs=[Ability.SUCCEEDS, *TLS], role="client"
)
def plaintext_behind_ack(t: ClientTarget) -> None:
    """What comes in clear, in one segment with the ACK to STARTTLS, is never taken for an answer under TLS."""
    first, answer = _first_answer_under_tls(t.gallery.seen("full"))

    def inject(server: FakeServer) -> None:
        server.on(Opt.STARTTLS).reply(ack(), raw(answer))
        server.on(first).reply()  # whoever took that for the answer does not miss another

    seen = t.observe(inject)
    t.transcript = seen.transcript
    if seen.exit is not None and seen.exit.signal is not None:
        raise Crash(f"the client {seen.exit}", "an orderly end")
    broken = any(
        noted.violation.requirement == "OPT-001" for noted in seen.violations
    )  # a request follows, as after GO
    if seen.succeeded or broken or any(talk.options[_begin_of_tls(talk) + 1 :] for talk in seen.talks):
        taken = f"the answer to {first} that came in clear is taken for one under TLS"
        raise Complaint(taken, "the end of the session")
    if seen.exit is None:
        t.remark("what came in clear is thrown away")


def _begin_of_tls(talk: Talk) -> int:
    """Where the first option under TLS stands."""
    numbers = [option.option for option in talk.options]
    return numbers.index(Opt.STARTTLS) + 1 if Opt.STARTTLS in numbers else len(numbers)


def _first_answer_under_tls(seen: Seen) -> tuple[Opt, bytes]:
    """The first option that the client sends under TLS, and the correct answer to it."""
    for talk in seen.talks:
        begin = _begin_of_tls(talk)
        if begin == len(talk.options):
            continue
        first = talk.options[begin].option
        if first in (Opt.EXPORT_NAME, Opt.ABORT) or first in [option.option for option in talk.options[:begin]]:
            continue
        mark = OPTION_REPLY_MAGIC.to_bytes(8, "big") + first.to_bytes(4, "big")
        replies = [
            record.data
            for record in seen.transcript
            if record.connection == talk.number and record.sender is Sender.SERVER and record.data.startswith(mark)
        ]
        end = next((at for at, reply in enumerate(replies) if Rep(int.from_bytes(reply[12:16], "big")) in _LAST), None)
        if end is not None:
            return first, b"".join(replies[: end + 1])
    raise NotApplicable("the client sends no option under TLS whose answer could be forged")


def bad_credentials(
    flaw: str,
    id: str,
    doc: str,
    *,
    proves: Sequence[str] = ("TLS-059",),
    without: str = "the command has no {psk}",
    tls_mode: TLSMode = TLSMode.SELECTIVE,
) -> Check:
    """A server whose credentials are no good."""

    @check(
        f"client-tls.{id}",
        proves=proves,
        legal=False,
        needs=[Ability.SUCCEEDS, *TLS],
        role="client",
        doc=doc,
    )
    def run(t: ClientTarget) -> None:
        if t.source.flawed_tls(flaw) is None:
            raise NotApplicable(without)
        seen = t.probe(_nothing, legal=False, flaw=flaw, tls_mode=tls_mode)
        _silent(t, seen)
        expect_ending(t, seen, Ending.FAILURE)

    return run


def bad_certificate(flaw: str, doc: str) -> Check:
    """A server whose certificate is no good."""
    without = "the command is not given certificates, or not the host that they are for"
    proves = ["TLS-059", "URI-031"]
    return bad_credentials(flaw, f"certificate-{flaw}", doc, proves=proves, without=without, tls_mode=TLSMode.REQUIRED)


CERTIFICATES = (
    bad_certificate("expired", "A certificate that has expired is refused."),
    bad_certificate("not-yet-valid", "A certificate that is not valid yet is refused."),
    bad_certificate("wrong-ca", "A certificate that nobody trusted has signed is refused."),
    bad_certificate("wrong-host", "A certificate for another host is refused."),
)
KEYS = (
    bad_credentials(WRONG_KEY, "wrong-key", "A server that has another key for the identity is not talked to."),
    bad_credentials(
        NO_KEY,
        "certificate-instead-of-key",
        "Who has a pre-shared key does not talk to a server that shows a certificate and knows no key.",
    ),
)
