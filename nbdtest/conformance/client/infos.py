"""What the server says of the export: unknown, unordered, unasked, extreme and impossible information."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_probe import Deed, Ending, probe_of
from nbdtest.conformance.declare import Check
from nbdtest.fakeserver import (
    Action,
    FakeServer,
    info_block_size,
    info_description,
    info_export,
    info_name,
    info_other,
)
from nbdtest.fakeserver.actions import InfoExport
from nbdtest.report.results import Level
from nbdtest.wire import Info, Opt, TransmissionFlag

_PLAIN = 0x0D65
"""Every transmission flag but READ_ONLY and those that depend on what was negotiated."""


def describes(change: Callable[[list[Action]], Sequence[Action]]) -> Deed:
    """Change what is said of the export before the ACK, in answer to GO and to INFO."""

    def changed(asked: object, plan: Sequence[Action]) -> Sequence[Action]:
        infos = [action for action in plan if type(action).__name__.startswith("Info")]
        return [*change(infos), *plan[len(infos) :]] if infos else plan

    def deed(server: FakeServer) -> None:
        server.on(Opt.GO).rewrite(changed)
        server.on(Opt.INFO).rewrite(changed)

    return deed


def adds(*infos: Action) -> Deed:
    """Say this before the rest."""
    return describes(lambda plan: [*infos, *plan])


def says(size: int | None = None, flags: int | None = None) -> Deed:
    """Give another size, or other flags."""
    offered = None if flags is None else TransmissionFlag(flags)
    return describes(
        lambda plan: [info_export(size=size, flags=offered) if isinstance(a, InfoExport) else a for a in plan]
    )


def row(
    id: str, doc: str, proves: Sequence[str], *deeds: Deed, legal: bool, ending: Ending, level: Level | None = None
) -> Check:
    """One kind of information."""
    return probe_of(
        f"client-info.{id}", doc, *deeds, proves=proves, legal=legal, ending=ending, needs=[Ability.GO], level=level
    )


_EXTRA = (info_name("a name"), info_description("a description"))
INFOS = (
    row(
        "unknown-ones-are-ignored",
        "Information of an unknown type is ignored, wherever it stands and however long it is.",
        ["OPT-087", "REP-011"],
        adds(info_other(Info(0x7777), b"12345")),
        adds(info_other(Info(4)), info_other(Info(0xFFFF), b"x" * 4000)),
        describes(lambda plan: [*plan, info_other(Info(0x7777), bytes(12))]),
        legal=True,
        ending=Ending.SUCCESS,
    ),
    row(
        "any-order",
        "Information may come in any order, INFO_EXPORT first, last or in the middle.",
        ["REP-010"],
        describes(lambda plan: [*_EXTRA, *plan]),
        describes(lambda plan: [*plan, *_EXTRA]),
        describes(lambda plan: [_EXTRA[0], *reversed(plan), _EXTRA[1]]),
        legal=True,
        ending=Ending.SUCCESS,
    ),
    row(
        "unasked-ones-do-no-harm",
        "Information that the client did not ask for does no harm.",
        ["REP-010", "OPT-087"],
        adds(info_name(""), info_description("")),
        adds(info_name("n" * 4096), info_description("d" * 4096)),
        adds(info_description("Grüße, 世界 \N{SNOWMAN}")),
        legal=True,
        ending=Ending.SUCCESS,
    ),
    row(
        "unreadable-strings",
        "Names and descriptions that are no proper strings do no harm.",
        ["CONV-002", "CONV-004", "CONV-006"],
        adds(info_other(Info.DESCRIPTION, b"\xff\xfe\0\x1b[31m%n")),
        adds(info_other(Info.NAME, b"a\0b\xff")),
        adds(info_other(Info.DESCRIPTION, b"d" * 65536)),
        legal=False,
        ending=Ending.ANY,
    ),
    row(
        "unknown-flags-are-ignored",
        "Transmission flags that the client does not know are ignored.",
        ["FLAG-033", "HS-018"],
        *(says(flags=_PLAIN | bits) for bits in (1 << 13, 1 << 14, 1 << 15, 7 << 13)),
        legal=False,
        ending=Ending.SUCCESS,
    ),
    row(
        "flags-without-has-flags",
        "Transmission flags without HAS_FLAGS do no harm.",
        ["FLAG-100"],
        says(flags=0),
        says(flags=_PLAIN & ~1),
        legal=False,
        ending=Ending.ANY,
    ),
    row(
        "no-size",
        "An export of no bytes does no harm.",
        ["SIZE-038"],
        says(size=0),
        says(size=1),
        legal=True,
        ending=Ending.ANY,
    ),
    row(
        "huge-size",
        "An export of any size that 64 bits hold does no harm: it may be too large for the client.",
        ["CONV-001"],
        *(says(size=size) for size in ((1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 512)),
        legal=False,
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
    row(
        "export-twice",
        "INFO_EXPORT that is said twice, differently, does no harm.",
        ["REP-009"],
        describes(lambda plan: [info_export(size=1 << 20), *plan]),
        legal=False,
        ending=Ending.ANY,
        level=Level.SHOULD,
    ),
)


def _sizes(minimum: int, preferred: int, maximum: int) -> Deed:
    return adds(info_block_size(minimum=minimum, preferred=preferred, maximum=maximum))


BLOCK_SIZES = tuple(
    row(id, doc, [proves], *deeds, legal=False, ending=Ending.ANY, level=Level.SHOULD)
    for id, doc, proves, deeds in (
        (
            "minimum-block-no-power-of-2",
            "A minimum block size that is no power of 2 does no harm.",
            "SIZE-016",
            (_sizes(0, 4096, 32 << 20), _sizes(3, 4096, 32 << 20), _sizes(0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF)),
        ),
        (
            "minimum-block-too-large",
            "A minimum block size above 65536 does no harm.",
            "SIZE-017",
            (_sizes(131072, 131072, 32 << 20), _sizes(1 << 31, 1 << 31, 0xFFFF_FFFF)),
        ),
        (
            "preferred-block-impossible",
            "A preferred block size that is no power of 2, or below the minimum, does no harm.",
            "SIZE-021",
            (_sizes(1, 0, 32 << 20), _sizes(1, 4097, 32 << 20), _sizes(4096, 512, 32 << 20)),
        ),
        (
            "maximum-payload-impossible",
            "A maximum payload below the preferred block size, or of nothing, does no harm.",
            "SIZE-025",
            (_sizes(1, 4096, 0), _sizes(1, 4096, 1), _sizes(4096, 65536, 4096)),
        ),
    )
)


def _without_export(server: FakeServer) -> None:
    server.on(Opt.INFO).rewrite(lambda asked, plan: [a for a in plan if not isinstance(a, InfoExport)])


INFO_WITHOUT_EXPORT = probe_of(
    "client-info.info-without-export",
    "An answer to INFO without INFO_EXPORT does no harm.",
    _without_export,
    proves="OPT-089",
    legal=False,
    ending=Ending.ANY,
    needs=[Ability.INFO],
    level=Level.SHOULD,
)
