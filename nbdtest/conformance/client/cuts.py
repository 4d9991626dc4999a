"""The connection ends in the middle of something: the client has to notice, to end, and to say that it failed.

That a server falls silent without ending the connection is not tested: whether and when a client gives up waiting is
its own affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_gallery import MODES
from nbdtest.conformance.client_probe import Deed, Ending, probe_of
from nbdtest.conformance.declare import Check
from nbdtest.fakeserver import FakeServer, Moment, close, cut, pass_through
from nbdtest.wire import Cmd, Opt

_BARE: Mapping[str, Any] = {**MODES["simple"], "info_and_go": False, "no_zeroes": False}
_ALL = ("simple", "structured", "extended")


def cuts(moment: Moment | Opt | Cmd, *after: int, rst: bool = False) -> tuple[Deed, ...]:
    """End the connection so many bytes into the answer to this, for each of these numbers."""

    def one(count: int) -> Deed:
        def change(server: FakeServer) -> None:
            server.on(moment).reply(cut(after=count, rst=rst), pass_through())

        return change

    return tuple(map(one, after))


def _closes(moment: Moment | Opt | Cmd) -> Deed:
    def change(server: FakeServer) -> None:
        server.on(moment).reply(close())

    return change


def row(
    id: str,
    doc: str,
    proves: str,
    *deeds: Deed,
    needs: Ability,
    tells: Ability = Ability.TELLS_REFUSAL,
    modes: Sequence[str] = (),
    bare: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Check:
    """One place where the connection ends."""
    return probe_of(
        f"client-cut.{id}",
        doc,
        *deeds,
        proves=proves,
        legal=False,
        ending=Ending.FAILURE,
        needs=[needs],
        tells=tells,
        modes=modes,
        settings=_BARE if bare else settings or {},
    )


_NEGOTIATES = Ability.NEGOTIATES
HANDSHAKE = (
    row(
        "before-the-greeting",
        "The connection ends before a byte was sent.",
        "TERM-008",
        _closes(Moment.CONNECT),
        *cuts(Moment.CONNECT, 0, rst=True),
        needs=_NEGOTIATES,
    ),
    row(
        "in-the-greeting",
        "The connection ends in the middle of the greeting.",
        "TERM-008",
        *cuts(Moment.GREETING, 1, 8, 15, 16, 17),
        *cuts(Moment.GREETING, 17, rst=True),
        needs=_NEGOTIATES,
    ),
    row(
        "after-the-greeting",
        "The connection ends after the greeting.",
        "TERM-008",
        *cuts(Moment.GREETING, 18),
        *cuts(Moment.CLIENT_FLAGS, 0, rst=True),
        needs=_NEGOTIATES,
    ),
    *(
        row(
            f"in-answer-to-{name}",
            f"The connection ends in the middle of the answer to {option}.",
            "TERM-008",
            *cuts(option, 0, 1, 10, 19),
            *cuts(option, 0, rst=True),
            needs=ability,
            settings=settings,
        )
        for name, option, ability, settings in (
            ("structured-reply", Opt.STRUCTURED_REPLY, Ability.STRUCTURED, MODES["structured"]),
            ("extended-headers", Opt.EXTENDED_HEADERS, Ability.EXTENDED, MODES["extended"]),
        )
    ),
    row(
        "in-answer-to-set-meta-context",
        "The connection ends in the middle of the answer to OPT_SET_META_CONTEXT.",
        "TERM-008",
        *cuts(Opt.SET_META_CONTEXT, 0, 19, 22, 30, 45),
        needs=Ability.SET_META,
    ),
    row(
        "in-answer-to-list",
        "The connection ends in the middle of the answer to OPT_LIST.",
        "TERM-008",
        *cuts(Opt.LIST, 0, 19, 22, 30),
        needs=Ability.LIST,
    ),
    row(
        "in-answer-to-info",
        "The connection ends in the middle of the answer to OPT_INFO.",
        "TERM-008",
        *cuts(Opt.INFO, 0, 19, 21, 31, 40),
        needs=Ability.INFO,
    ),
    row(
        "in-answer-to-go",
        "The connection ends in the middle of the answer to OPT_GO, and the export is not open.",
        "TERM-008",
        *cuts(Opt.GO, 0, 10, 19, 21, 31, 32, 45),
        *cuts(Opt.GO, 0, 32, rst=True),
        needs=Ability.GO,
    ),
    row(
        "in-answer-to-export-name",
        "The connection ends in place of the answer to OPT_EXPORT_NAME, or in the middle of it.",
        "TERM-008",
        _closes(Opt.EXPORT_NAME),
        *cuts(Opt.EXPORT_NAME, 4, 8, 9, 10, 100, 133),
        needs=Ability.FALLS_BACK,
        bare=True,
    ),
)
_READ, _WRITE, _STATUS = Ability.TELLS_READ_ERROR, Ability.TELLS_WRITE_ERROR, Ability.TELLS_STATUS_ERROR
TRANSMISSION = (
    row(
        "in-place-of-a-reply",
        "The connection ends in place of the reply to a READ.",
        "CMD-031",
        _closes(Cmd.READ),
        *cuts(Cmd.READ, 0, rst=True),
        needs=Ability.READ,
        tells=_READ,
        modes=_ALL,
    ),
    row(
        "in-the-header-of-a-reply",
        "The connection ends in the middle of the header of a reply to a READ.",
        "CMD-031",
        *cuts(Cmd.READ, 1, 4, 15),
        *cuts(Cmd.READ, 15, rst=True),
        needs=Ability.READ,
        tells=_READ,
        modes=_ALL,
    ),
    row(
        "before-the-data",
        "The connection ends between the header of a reply and the data.",
        "CMD-031",
        *cuts(Cmd.READ, 16, 20, 28, 32, 40),
        needs=Ability.READ,
        tells=_READ,
        modes=_ALL,
    ),
    row(
        "in-the-data",
        "The connection ends in the middle of the data: what has come is not what was asked for.",
        "CMD-031",
        *cuts(Cmd.READ, 100, 400),
        *cuts(Cmd.READ, 400, rst=True),
        needs=Ability.READ,
        tells=_READ,
        modes=_ALL,
    ),
    row(
        "in-answer-to-a-write",
        "The connection ends in place of the reply to a WRITE, or in the middle of it.",
        "RPL-033",
        _closes(Cmd.WRITE),
        *cuts(Cmd.WRITE, 1, 15),
        *cuts(Cmd.WRITE, 0, rst=True),
        needs=Ability.WRITE,
        tells=_WRITE,
        modes=_ALL,
    ),
    row(
        "in-answer-to-block-status",
        "The connection ends in the middle of the reply to a BLOCK_STATUS.",
        "CMD-143",
        _closes(Cmd.BLOCK_STATUS),
        *cuts(Cmd.BLOCK_STATUS, 1, 19, 24, 30),
        needs=Ability.STATUS,
        tells=_STATUS,
        modes=["structured", "extended"],
    ),
)
