"""Whole sessions on correct servers: does the command succeed, does it copy what is there, does it tell of failures?"""

from __future__ import annotations

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_gallery import HONEST, MODES
from nbdtest.conformance.client_probe import expect_intact
from nbdtest.conformance.client_target import ClientTarget, Crash
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.verdict import Complaint, NoAnswer, NotApplicable
from nbdtest.report.results import Level
from nbdtest.wire import Cmd, Opt


@check("client-session.succeeds", proves=["COMPAT-003", "COMPAT-009"], legal=True, role="client")
def succeeds(t: ClientTarget) -> None:
    """A correct server that can do everything is good enough: the command ends with status 0."""
    seen = t.gallery.seen("full")
    t.transcript = seen.transcript
    if not seen.talks:
        raise NotApplicable(f"the command never connected: {seen.ending}")
    if not seen.succeeded:
        raise Complaint(f"the client fails on a correct server: {seen.ending}", "exit status 0")


@check("client-session.ends", proves=["TLS-050", "TERM-008"], legal=True, role="client")
def ends(t: ClientTarget) -> None:
    """Whatever a correct server offers, refuses or fails to do, the client ends: it neither hangs nor crashes."""
    for name, seen in t.gallery:
        t.transcript = seen.transcript
        if seen.exit is None:
            raise NoAnswer(f"on the server {name!r} the client has not ended after {seen.seconds:.1f} s")
        if seen.exit.signal is not None:
            raise Crash(f"on the server {name!r} the client {seen.exit}")


@check("client-session.without-structured-replies", proves=["OPT-113"], legal=True, role="client")
def without_structured_replies(t: ClientTarget) -> None:
    """A client copes with a server that has no structured replies: it goes on, or it takes its leave."""
    _copes(t, "simple", Ability.STRUCTURED)


@check("client-session.without-extended-headers", proves=["EXT-047"], legal=True, role="client")
def without_extended_headers(t: ClientTarget) -> None:
    """A client copes with a server that has no extended headers: it goes on, or it takes its leave."""
    _copes(t, "structured", Ability.EXTENDED)


@check("client-session.without-go", proves=["OPT-037", "OPT-100", "COMPAT-019"], legal=True, role="client")
def without_go(t: ClientTarget) -> None:
    """A client falls back to EXPORT_NAME where INFO and GO are not supported."""
    seen = t.gallery.seen("bare")
    t.transcript = seen.transcript
    asked = [talk for talk in seen.talks if talk.sent(Opt.GO) or talk.sent(Opt.INFO)]
    if not asked:
        raise NotApplicable(Ability.GO.value)
    if not any(talk.sent(Opt.EXPORT_NAME) for talk in asked):
        raise Complaint(f"after OPT_GO was not supported, the client sent {asked[0].last_option}", "OPT_EXPORT_NAME")


@check(
    "client-session.copies",
    proves=["CMD-057", "REQ-007", "CMD-026"],
    needs=[Ability.SUCCEEDS],
    legal=True,
    role="client",
)
def copies(t: ClientTarget) -> None:
    """A command that copies an export says so only if every byte has arrived."""
    if not (t.has(Ability.DOWNLOADS) or t.has(Ability.UPLOADS)):
        raise NotApplicable("the command copies nothing from or to {file}")
    for name in HONEST:
        seen = t.gallery.seen(name)
        if seen.succeeded:
            t.transcript = seen.transcript
            expect_intact(t, seen, after=f"on the server {name!r}")


def _copes(t: ClientTarget, name: str, ability: Ability) -> None:
    seen = t.gallery.seen(name)
    t.transcript = seen.transcript
    if not t.has(ability):
        raise NotApplicable(ability.value)
    for talk in seen.talks:
        if not (seen.succeeded or talk.disconnected):
            raise Complaint(
                f"the client fails without taking its leave: {seen.ending}", "simple replies, OPT_ABORT or CMD_DISC"
            )


def failures_are_told(id: str, proves: str, name: str, tells: Ability, commands: tuple[Cmd, ...], doc: str) -> Check:
    """The command's exit status tells of one kind of failure."""

    @check(
        f"client-session.{id}",
        proves=[proves],
        needs=[Ability.SUCCEEDS],
        legal=True,
        level=Level.SHOULD,
        role="client",
        doc=doc,
    )
    def run(t: ClientTarget) -> None:
        seen = t.gallery.seen(name)
        t.transcript = seen.transcript
        happened = [talk for talk in seen.talks if (any(map(talk.sent, commands)) if commands else talk.options)]
        if not happened:
            raise NotApplicable(f"the command sends no {' or '.join(map(str, commands)) or 'option'}")
        if not t.has(tells):
            raise Complaint("the client reports success", "an exit status that tells of the failure")

    return run


TOLD = tuple(
    failures_are_told(*row)
    for row in (
        (
            "tells-refusal",
            "OPT-090",
            "refusal",
            Ability.TELLS_REFUSAL,
            (),
            "A command that cannot open its export does not report success.",
        ),
        (
            "tells-read-errors",
            "RPL-033",
            "read errors",
            Ability.TELLS_READ_ERROR,
            (Cmd.READ,),
            "A command whose READs fail does not report success.",
        ),
        (
            "tells-write-errors",
            "RPL-033",
            "write errors",
            Ability.TELLS_WRITE_ERROR,
            (Cmd.WRITE, Cmd.WRITE_ZEROES, Cmd.TRIM),
            "A command whose WRITEs fail does not report success.",
        ),
    )
)


@check("client-session.same-in-every-form", proves=["RPL-001"], needs=[Ability.SUCCEEDS], legal=True, role="client")
def same_in_every_form(t: ClientTarget) -> None:
    """A client that agrees on structured or extended replies works with them."""
    for mode in MODES:
        name = "full" if mode == "extended" else mode
        agreed = {"structured": Ability.STRUCTURED, "extended": Ability.EXTENDED}.get(mode)
        seen = t.gallery.seen(name)
        if agreed is not None and t.has(agreed) and not seen.succeeded:
            t.transcript = seen.transcript
            raise Complaint(f"with {mode} replies the client fails: {seen.ending}", "success")
