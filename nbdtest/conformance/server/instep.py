"""In step: whatever is refused, the next message is read where it begins.

Each probe carries data that look like messages: a server that stops reading too early answers what nobody asked.
"""

from __future__ import annotations

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.declare import Check, check
from nbdtest.conformance.expect import expect_in_step, expect_silence
from nbdtest.conformance.target import ServerTarget
from nbdtest.wire import Cmd, InfoRequest, MetaContextRequest, Opt, Option, Request

FIXED = [Capability.FIXED_NEWSTYLE]
_FAKE_OPTIONS = Option(option=Opt.LIST).encode() * 8
_FAKE_REQUESTS = Request(type=Cmd.READ, cookie=0xBAD0_BAD0, length=512).encode() * 18


def option_stays_in_step(name: str, option: int, data: bytes, needs: tuple[Capability, ...] = ()) -> Check:
    """One option with data that it should not have."""

    @check(
        f"in-step.{name}",
        proves=["COMPAT-006", "OPT-015"],
        needs=[*FIXED, *needs],
        legal=False,
        doc=f"After {Opt(option)} with surplus data that look like options, the next option is answered, and once.",
    )
    def run(t: ServerTarget) -> None:
        with t.peer.negotiating() as nego:
            answer = nego.option(option, data)
            expect_in_step(nego)
            expect_silence(nego.peer, f"{answer} to {Opt(option)}, and the next option")

    return run


_INFO = InfoRequest(name="").encode()
_META = MetaContextRequest(name="", queries=("base:",)).encode()
OPTIONS = tuple(
    option_stays_in_step(*row)
    for row in (
        ("list", Opt.LIST, _FAKE_OPTIONS),
        ("peek-export", Opt.PEEK_EXPORT, _FAKE_OPTIONS),
        ("starttls", Opt.STARTTLS, _FAKE_OPTIONS, (Capability.NOTLS,)),
        ("structured-reply", Opt.STRUCTURED_REPLY, _FAKE_OPTIONS),
        ("extended-headers", Opt.EXTENDED_HEADERS, _FAKE_OPTIONS),
        ("info", Opt.INFO, _INFO + _FAKE_OPTIONS),
        ("list-meta-context", Opt.LIST_META_CONTEXT, _META + _FAKE_OPTIONS),
        ("set-meta-context", Opt.SET_META_CONTEXT, _META + _FAKE_OPTIONS),
        ("info-short-of-its-name", Opt.INFO, b"\0\0\xff\xff" + _FAKE_OPTIONS),
        ("set-meta-context-short-of-its-query", Opt.SET_META_CONTEXT, b"\0\0\0\0\0\0\0\1\0\0\xff\xff" + _FAKE_OPTIONS),
    )
)


def write_stays_in_step(name: str, offset: int | None, flags: int) -> Check:
    """One WRITE that is refused."""

    @check(
        f"in-step.write-{name}",
        proves=["CMD-064"],
        legal=offset is None or not flags,
        writes=True,
        doc=f"The payload of a WRITE that is refused ({name.replace('-', ' ')}) is not read as requests.",
    )
    def run(t: ServerTarget) -> None:
        length = max(t.unit, len(_FAKE_REQUESTS) // t.unit * t.unit)
        payload = (_FAKE_REQUESTS * (length // len(_FAKE_REQUESTS) + 1))[:length]
        for mode in t.modes:
            with t.peer.transmitting(mode=mode) as session:
                session.write(t.past_end if offset is None else offset, payload, flags=flags)
                expect_in_step(session)
                expect_silence(session.peer, "the reply to the READ after it")

    return run


WRITES = tuple(
    write_stays_in_step(*row)
    for row in (
        ("past-the-end", None, 0),
        ("at-2-to-the-63", 1 << 63, 0),
        ("at-the-last-offset", (1 << 64) - 512, 0),
        ("with-unknown-flag", 0, 0x8000),
        ("with-flags-of-others", 0, 0x000E),
    )
)
