"""What a request meets: the facts that were agreed on, and which errors it may or must get for them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nbdtest.model.disk import Disk
from nbdtest.wire import Cmd, CmdFlag, Errno, ExtendedRequest, Request, StatusFilter, TransmissionFlag
from nbdtest.wire.limits import DEFAULT_MAXIMUM_PAYLOAD

__all__ = ["AnyRequest", "Objection", "Situation", "objection"]

AnyRequest = Request | ExtendedRequest

_RANGED = {Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS}
_WRITING = {Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES}
_NEEDS = {
    Cmd.FLUSH: TransmissionFlag.SEND_FLUSH,
    Cmd.TRIM: TransmissionFlag.SEND_TRIM,
    Cmd.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
    Cmd.RESIZE: TransmissionFlag.SEND_RESIZE,
}
_TAKES = {
    Cmd.READ: CmdFlag.DF,
    Cmd.WRITE: CmdFlag.PAYLOAD_LEN,
    Cmd.WRITE_ZEROES: CmdFlag.NO_HOLE | CmdFlag.FAST_ZERO,
    Cmd.BLOCK_STATUS: CmdFlag.REQ_ONE | CmdFlag.PAYLOAD_LEN,
}
_OFFERED_BY = {
    CmdFlag.FUA: TransmissionFlag.SEND_FUA,
    CmdFlag.DF: TransmissionFlag.SEND_DF,
    CmdFlag.FAST_ZERO: TransmissionFlag.SEND_FAST_ZERO,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """An export as a client knows it, and what was negotiated.

    `disk` is what it has to hold, None if that is unknown.
    """

    size: int
    flags: TransmissionFlag
    structured: bool = False
    extended: bool = False
    contexts: Mapping[str, int] = field(default_factory=dict)
    """The selected metadata contexts and their ids."""
    minimum: int = 1
    maximum: int = DEFAULT_MAXIMUM_PAYLOAD
    disk: Disk | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why a request may not, or need not, succeed.

    `preferred` are the errors that the specification names, `acceptable` those that honest servers give instead.
    """

    text: str
    requirement: str
    preferred: frozenset[Errno]
    acceptable: frozenset[Errno] = frozenset()
    must_fail: bool = False
    """Whether success breaks a MUST; else it is merely not what the specification recommends, or open."""


def objection(request: AnyRequest, situation: Situation, *, wanted: StatusFilter | None = None) -> Objection | None:
    """Find the weightiest reason why `request` may be refused; None for a request that is in order."""
    flags = situation.flags
    if request.type in _WRITING and TransmissionFlag.READ_ONLY in flags:
        return _because("the export is read-only", "FLAG-012", {Errno.EPERM}, {Errno.EINVAL}, must_fail=True)
    if not request.type.is_known:
        return _because("the command is unknown", "ERR-029", {Errno.EINVAL}, {Errno.ENOTSUP})
    if _NEEDS.get(request.type, TransmissionFlag(0)) not in flags:
        return _because("the command was not offered", "ERR-029", {Errno.EINVAL}, {Errno.EPERM, Errno.ENOTSUP})
    if request.type == Cmd.BLOCK_STATUS and not situation.contexts:
        return _because("no metadata context is selected", "META-008", {Errno.EINVAL})
    if strange := _strange_flags(request, situation):
        return _because(f"the flags {strange} are not in order", "ERR-030", {Errno.EINVAL})
    if wanted is not None and (
        len(set(wanted.context_ids)) < len(wanted.context_ids)
        or not set(wanted.context_ids) <= set(situation.contexts.values())
    ):
        return _because("context ids are repeated or unknown", "EXT-065", {Errno.EINVAL}, must_fail=True)
    if request.type in _RANGED:
        return _range_objection(request, situation, wanted.length if wanted is not None else request.length)
    if request.type == Cmd.FLUSH and (request.offset or request.length):
        return _because("FLUSH has a place", "CMD-079", {Errno.EINVAL})
    return None


def _range_objection(request: AnyRequest, situation: Situation, length: int) -> Objection | None:
    end = request.offset + length
    if end > situation.size:
        # ERR-020 against SIZE-040: both errors are taken for writes.
        preferred = Errno.ENOSPC if request.type in (Cmd.WRITE, Cmd.WRITE_ZEROES) else Errno.EINVAL
        text = f"[{request.offset}, {end}) reaches past the end at {situation.size}"
        return _because(text, "SIZE-040", {preferred}, {Errno.EINVAL, Errno.ENOSPC, Errno.EOVERFLOW})
    if length == 0:
        return _because("it is empty", "", {Errno.EINVAL}, {Errno.ENOSPC})
    if request.offset % situation.minimum or length % situation.minimum:
        return _because(f"it is not aligned to {situation.minimum}", "SIZE-039", {Errno.EINVAL})
    if length > situation.maximum:
        # ERR-027 against CMD-030.
        return _because(
            f"{length} bytes are more than the maximum payload of {situation.maximum}",
            "SIZE-032",
            {Errno.EINVAL, Errno.EOVERFLOW},
            {Errno.ENOMEM},
        )
    if CmdFlag.DF in request.flags and length > 65536:
        return _because("a DF read of more than 64 KiB may be too large", "CMD-055", {Errno.EOVERFLOW})
    if CmdFlag.FAST_ZERO in request.flags:
        return _because("zeroing may not be fast", "FLAG-053", {Errno.ENOTSUP})
    return None


def _strange_flags(request: AnyRequest, situation: Situation) -> CmdFlag:
    allowed = CmdFlag.FUA | _TAKES.get(request.type, CmdFlag(0))
    if not situation.extended:
        allowed &= ~CmdFlag.PAYLOAD_LEN
    for flag, needed in _OFFERED_BY.items():
        if needed not in situation.flags:
            allowed &= ~flag
    return request.flags.beyond(allowed)


def _because(
    text: str,
    requirement: str,
    preferred: set[Errno],
    acceptable: set[Errno] | None = None,
    *,
    must_fail: bool = False,
) -> Objection:
    return Objection(
        text=text,
        requirement=requirement,
        preferred=frozenset(preferred),
        acceptable=frozenset(acceptable or ()),
        must_fail=must_fail,
    )
