"""The correct answers to requests: what is done to the disk, and the plan that tells of it. Framing is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nbdtest.fakeserver import actions
from nbdtest.fakeserver.actions import Action, Plan
from nbdtest.fakeserver.export import Export
from nbdtest.fakeserver.quirks import Quirks
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.model import Disk, DiskError
from nbdtest.wire import Cmd, CmdFlag, Errno, Extent, State, TransmissionFlag
from nbdtest.wire.limits import DEFAULT_MAXIMUM_PAYLOAD, MAXIMUM_STATUS_DESCRIPTORS

__all__ = ["Commands"]

_MOST_CHUNKS = 64
_MOST_EXTENTS = 1 << 16
_WRITING = {Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES}
_FLAGS: Mapping[Cmd, CmdFlag] = {
    Cmd.READ: CmdFlag.DF,
    Cmd.WRITE: CmdFlag.PAYLOAD_LEN,
    Cmd.WRITE_ZEROES: CmdFlag.NO_HOLE | CmdFlag.FAST_ZERO,
    Cmd.BLOCK_STATUS: CmdFlag.REQ_ONE | CmdFlag.PAYLOAD_LEN,
}
_NEEDS = {
    Cmd.FLUSH: TransmissionFlag.SEND_FLUSH,
    Cmd.TRIM: TransmissionFlag.SEND_TRIM,
    Cmd.CACHE: TransmissionFlag.SEND_CACHE,
    Cmd.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
    Cmd.RESIZE: TransmissionFlag.SEND_RESIZE,
}
_FLAG_NEEDS = {
    CmdFlag.FUA: TransmissionFlag.SEND_FUA,
    CmdFlag.DF: TransmissionFlag.SEND_DF,
    CmdFlag.FAST_ZERO: TransmissionFlag.SEND_FAST_ZERO,
}


class Commands:
    """Carries out the requests of one session on one export."""

    __slots__ = ("_disk", "_export", "_flags", "_handlers", "_largest", "_quirks")

    def __init__(self, export: Export, disk: Disk, flags: TransmissionFlag, quirks: Quirks) -> None:
        self._export = export
        self._disk = disk
        self._flags = flags
        self._quirks = quirks
        self._largest = 0
        self._handlers: Mapping[Cmd, Callable[[Asked], Plan]] = {
            Cmd.READ: self._read,
            Cmd.WRITE: self._write,
            Cmd.FLUSH: self._flush,
            Cmd.TRIM: self._trim,
            Cmd.CACHE: self._cache,
            Cmd.WRITE_ZEROES: self._write_zeroes,
            Cmd.BLOCK_STATUS: self._block_status,
            Cmd.RESIZE: self._resize,
        }

    def carry_out(self, asked: Asked) -> Plan:
        """Do what `asked` says, if it may be done, and give the plan of the correct reply."""
        refusal = self.refusal(asked)
        if refusal is not None:
            return (refusal,)
        handler = self._handlers.get(asked.type)
        if handler is None or not self._offers(asked.type):
            return (actions.NoData(),)  # only a quirk lets it come this far
        try:
            return handler(asked)
        except DiskError as error:
            at = error.offset if asked.type != Cmd.FLUSH else None
            return (actions.Error(error.errno, at=at, message=error.text),)

    def refusal(self, asked: Asked) -> Action | None:
        """Give the error that `asked` gets without anything being done, or None."""
        quirks = self._quirks
        if asked.type in _WRITING and self._export.read_only and not quirks.skips_read_only_check:
            return actions.Error(Errno.EPERM, message="the export is read-only")  # ERR-026
        if not (asked.type in self._handlers and self._offers(asked.type)) and not quirks.skips_command_check:
            return actions.Error(Errno.EINVAL, message=f"{asked.type} is not supported here")  # ERR-029
        if not quirks.skips_flag_check and (problem := self._flag_problem(asked)):
            return actions.Error(Errno.EINVAL, message=problem)  # ERR-030, ERR-031
        if asked.type in (Cmd.FLUSH, Cmd.RESIZE) or asked.type not in self._handlers:
            return None
        return self._range_problem(asked)

    def _offers(self, command: Cmd) -> bool:
        return _NEEDS.get(command, TransmissionFlag(0)) in self._flags

    def _flag_problem(self, asked: Asked) -> str:
        # FLAG-042: FUA is accepted on every command.
        allowed = CmdFlag.FUA | _FLAGS.get(asked.type, CmdFlag(0))
        filters = TransmissionFlag.BLOCK_STATUS_PAYLOAD in self._flags
        if asked.frames is not Frames.EXTENDED or (asked.type == Cmd.BLOCK_STATUS and not filters):
            allowed &= ~CmdFlag.PAYLOAD_LEN
        for flag, needed in _FLAG_NEEDS.items():
            if needed not in self._flags:
                allowed &= ~flag
        wrong = asked.flags.beyond(allowed)
        return f"{asked.type} does not take the flags {wrong} here" if wrong else ""

    def _range_problem(self, asked: Asked) -> Action | None:
        size = self._disk.size
        where = f"[{asked.offset}, {asked.offset + asked.length})"
        taken_away = asked.offset + asked.length <= self._largest
        served = self._quirks.skips_bounds_check or (taken_away and self._quirks.serves_what_resize_took)
        if asked.offset + asked.length > size and not served:
            # ERR-020, ERR-022, CMD-134
            # RSZ-007: what a RESIZE took away is ENOSPC for every command.
            errno = Errno.ENOSPC if taken_away or asked.type in (Cmd.WRITE, Cmd.WRITE_ZEROES) else Errno.EINVAL
            return actions.Error(errno, message=f"{where} reaches past the end at {size}")
        minimum = self._export.limits.minimum
        if (asked.offset % minimum or asked.length % minimum) and not self._quirks.skips_alignment_check:
            return actions.Error(Errno.EINVAL, message=f"{where} is not aligned to {minimum}")  # SIZE-039
        maximum = self._export.limits.maximum
        if asked.type in (Cmd.READ, Cmd.WRITE) and asked.length > maximum and not self._quirks.skips_size_check:
            # ERR-027: EOVERFLOW is for structured READs.
            structured = asked.type == Cmd.READ and asked.frames is not Frames.SIMPLE
            errno = Errno.EOVERFLOW if structured else Errno.EINVAL
            return actions.Error(errno, message=f"{asked.length} bytes are more than the maximum of {maximum}")
        return None

    def _read(self, asked: Asked) -> Plan:
        if asked.length == 0:
            return (actions.NoData(),)
        beyond = asked.offset + asked.length > self._disk.size
        if beyond or asked.frames is Frames.SIMPLE or self._export.whole_reads:
            return (actions.Data(at=asked.offset, length=asked.length),)
        runs = _content_runs(self._disk.extents(asked.offset, asked.length), asked.offset)
        # CMD-050: with DF there is one chunk. RPL-031: and without, there are few.
        if len(runs) > 1 and (CmdFlag.DF in asked.flags or len(runs) > _MOST_CHUNKS):
            return (actions.Data(at=asked.offset, length=asked.length),)
        return tuple(
            actions.Hole(at=at, length=length) if is_zero else actions.Data(at=at, length=length)
            for at, length, is_zero in runs
        )

    def _write(self, asked: Asked) -> Plan:
        data = memoryview(asked.payload)
        if len(data) and not self._quirks.forgets_writes:
            offset = asked.offset
            minimum = self._export.limits.minimum
            if self._quirks.rounds_misaligned_writes and (offset % minimum or len(data) % minimum):
                around = offset % minimum
                data = memoryview(bytes(around) + bytes(data) + bytes(-(around + len(data)) % minimum))
                offset -= around
            data = data[: max(self._disk.size - offset, 0)]
            if len(data):
                self._disk.write(offset, data)
                self._note(offset, len(data))
        return self._written(asked)

    def _write_zeroes(self, asked: Asked) -> Plan:
        offset, length = self._zeroed_range(asked)
        fast = CmdFlag.FAST_ZERO in asked.flags and not self._quirks.ignores_fast_zero
        if length and not self._quirks.forgets_zeroes:
            allocate = CmdFlag.NO_HOLE in asked.flags and not self._quirks.punches_despite_no_hole
            self._disk.zero(offset, length, allocate=allocate, fast=fast)
            self._note(offset, length)
        return self._written(asked)

    def _trim(self, asked: Asked) -> Plan:
        offset, length = self._zeroed_range(asked)
        if length:
            self._disk.trim(offset, length)
            self._note(offset, length)
        return self._written(asked)

    def _zeroed_range(self, asked: Asked) -> tuple[int, int]:
        length = max(min(asked.length, self._disk.size - asked.offset), 0)
        if length and self._quirks.zeroes_too_much:
            length = min(length + -(asked.offset + length) % 4096, self._disk.size - asked.offset)
        return asked.offset, length

    def _flush(self, asked: Asked) -> Plan:
        self._disk.flush()
        return (actions.NoData(),)

    def _cache(self, asked: Asked) -> Plan:
        return (actions.NoData(),)

    def _resize(self, asked: Asked) -> Plan:
        if asked.length:
            return (actions.Error(Errno.EINVAL, message="CMD_RESIZE takes its size from the offset"),)
        self._largest = max(self._largest, self._disk.size)
        self._disk.resize(asked.offset)
        return (actions.NoData(),)

    def _block_status(self, asked: Asked) -> Plan:
        if not asked.contexts:  # META-008
            return (actions.Error(Errno.EINVAL, message="no metadata context is selected"),)
        if asked.length == 0:
            return (actions.Error(Errno.EINVAL, message="no bytes to describe"),)
        wanted = set(asked.contexts.values()) if asked.wanted is None else set(asked.wanted)
        if asked.wanted is not None and (len(wanted) < len(asked.wanted) or not wanted <= set(asked.contexts.values())):
            return (actions.Error(Errno.EINVAL, message="context ids that are repeated or not selected"),)  # EXT-065
        inside = max(min(asked.length, self._disk.size - asked.offset), 0)
        found: list[Action] = []
        for context in self._export.contexts:
            if context.name in asked.contexts and asked.contexts[context.name] in wanted:
                extents = list(context.extents(self._disk, asked.offset, inside)) if inside else []
                if inside < asked.length:  # only a quirk lets it come this far
                    extents.append(Extent(asked.length - inside, 0))
                found.append(actions.Status(context.name, self._cut(extents, asked)))
        return tuple(found) or (actions.NoData(),)

    def _cut(self, extents: Sequence[Extent], asked: Asked) -> tuple[Extent, ...]:
        if CmdFlag.REQ_ONE in asked.flags:  # RPL-084, RPL-085
            first = extents[0]
            return (Extent(min(first.length, asked.length), first.status),)
        # RPL-051, RPL-088: neither the payload nor the number of descriptors grows without bound.
        most = min(_MOST_EXTENTS, MAXIMUM_STATUS_DESCRIPTORS, max((self._export.limits.maximum - 8) // 16, 1))
        return tuple(extents[:most])

    def _written(self, asked: Asked) -> Plan:
        if CmdFlag.FUA in asked.flags:
            self._disk.flush()  # ORD-005
        return (actions.NoData(),)

    def _note(self, offset: int, length: int) -> None:
        for tracker in self._export.trackers:
            tracker.written(offset, length)


def refused_payload(length: int, maximum: int) -> bool:
    """Whether a payload is so long that the connection ends.

    SIZE-028, SIZE-029: up to 32 MiB it is read and refused, whatever the advertised maximum is.
    """
    return length > max(maximum, DEFAULT_MAXIMUM_PAYLOAD)


def _content_runs(extents: Sequence[Extent], offset: int) -> list[tuple[int, int, bool]]:
    """Join extents that read alike: position, length, whether they read as zeroes."""
    runs: list[tuple[int, int, bool]] = []
    for extent in extents:
        is_zero = bool(extent.status & State.ZERO)
        if runs and runs[-1][2] == is_zero:
            at, length, _ = runs[-1]
            runs[-1] = (at, length + extent.length, is_zero)
        else:
            runs.append((offset, extent.length, is_zero))
        offset += extent.length
    return runs
