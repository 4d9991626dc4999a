"""Option replies that are framed wrongly: the client must not take them for what they are not."""

from __future__ import annotations

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client.options import answers
from nbdtest.conformance.client_probe import Deed, Ending, probe_of
from nbdtest.conformance.declare import Check
from nbdtest.fakeserver import FakeServer, ack, close, info_export, mangle, opt_reply, pass_through
from nbdtest.report.results import Level
from nbdtest.wire import OPTION_MAGIC, InfoExport, Opt, Rep, TransmissionFlag

GO = (Ability.GO,)


def wrong(id: str, doc: str, proves: str, *deeds: Deed, ending: Ending = Ending.FAILURE) -> Check:
    """A reply to GO that breaks a rule of the server's: what follows cannot be understood any more."""
    return probe_of(
        f"client-option-reply.{id}",
        doc,
        *deeds,
        proves=proves,
        legal=False,
        ending=ending,
        needs=GO,
        level=Level.SHOULD,
    )


def _huge(length: int) -> Deed:
    # The connection ends after it: a client may well wait for what it was promised.
    return answers(Opt.GO, mangle(ack(), length=length), close())


FRAMES = (
    wrong(
        "wrong-magic",
        "What does not begin with the magic of option replies is no reply.",
        "OPT-011",
        answers(Opt.GO, mangle(pass_through(), magic=0)),
        answers(Opt.GO, mangle(pass_through(), magic=OPTION_MAGIC)),
    ),
    wrong(
        "other-option",
        "A reply to another option than the one that was sent is no reply to it.",
        "OPT-012",
        answers(Opt.GO, mangle(pass_through(), option=int(Opt.LIST))),
        answers(Opt.GO, mangle(pass_through(), option=0x0001_0007)),
    ),
    wrong(
        "huge-length",
        "A reply that announces gigabytes does no harm, and its end is noticed.",
        "OPT-015",
        *map(_huge, (0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)),
    ),
    wrong(
        "unknown-success",
        "A reply of an unknown type that is no error does no harm.",
        "OPT-013",
        answers(Opt.GO, opt_reply(Rep(99), b"what is this?"), pass_through()),
        ending=Ending.ANY,
    ),
    wrong(
        "ack-with-data",
        "Data in an ACK do not bring the session out of step.",
        "REP-001",
        answers(Opt.GO, info_export(), opt_reply(Rep.ACK, b"data")),
        ending=Ending.ANY,
    ),
    wrong(
        "server-in-answer-to-go",
        "A reply of a type that does not belong to the option does no harm.",
        "OPT-016",
        answers(Opt.GO, opt_reply(Rep.SERVER, b"\0\0\0\1x"), pass_through()),
        answers(Opt.GO, opt_reply(Rep.META_CONTEXT, b"\0\0\0\1base:allocation"), pass_through()),
        ending=Ending.ANY,
    ),
    wrong(
        "info-without-type",
        "REP_INFO that is too short to hold a type is not taken for one.",
        "REP-007",
        answers(Opt.GO, opt_reply(Rep.INFO, b""), pass_through()),
        answers(Opt.GO, opt_reply(Rep.INFO, b"\0"), pass_through()),
        ending=Ending.ANY,
    ),
)


def _instead(data: bytes) -> Deed:
    def change(server: FakeServer) -> None:
        server.on(Opt.GO).reply(opt_reply(Rep.INFO, data), ack())

    return change


def _without_export(server: FakeServer) -> None:
    for option in (Opt.GO, Opt.INFO):  # who has asked before with INFO knows the size all the same
        server.on(option).reply(ack())


_WHOLE = InfoExport(size=2 << 20, flags=TransmissionFlag.HAS_FLAGS).encode()
MALFORMED = (
    wrong(
        "ack-without-export",
        "Without INFO_EXPORT the size of the export is not known, and it is not open.",
        "OPT-089",
        _without_export,
    ),
    wrong(
        "short-export",
        "INFO_EXPORT that is cut short does not describe an export.",
        "REP-013",
        *(_instead(_WHOLE[:length]) for length in (2, 6, 10, 11)),
    ),
    wrong(
        "long-export",
        "INFO_EXPORT that is too long does no harm.",
        "REP-013",
        _instead(_WHOLE + b"surplus"),
        ending=Ending.ANY,
    ),
    wrong(
        "short-block-size",
        "INFO_BLOCK_SIZE of a wrong length does no harm.",
        "REP-024",
        answers(Opt.GO, opt_reply(Rep.INFO, b"\0\3\0\0\2\0"), pass_through()),
        answers(Opt.GO, opt_reply(Rep.INFO, b"\0\3" + bytes(16)), pass_through()),
        ending=Ending.ANY,
    ),
)
