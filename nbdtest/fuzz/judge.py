"""Whether an answer is one that the specification allows, given what the disk holds. Keeps the shadow up to date.

It is lenient where honest servers differ: which error, whether an odd flag is refused, where extents are cut.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.exchange import Answer
from nbdtest.fuzz.ground import CHANGING, WITHOUT_RANGE, Ground, Law
from nbdtest.fuzz.problem import Kind, Problem
from nbdtest.fuzz.script import Mode
from nbdtest.fuzz.shadow import Shadow
from nbdtest.wire import Cmd, CmdFlag, Errno, ReplyType, State
from nbdtest.wire.limits import MAXIMUM_STRING

__all__ = ["Judge"]

_DATA, _HOLE, _NONE = ReplyType.OFFSET_DATA.value, ReplyType.OFFSET_HOLE.value, ReplyType.NONE.value
_STATUS, _STATUS_EXT = ReplyType.BLOCK_STATUS.value, ReplyType.BLOCK_STATUS_EXT.value
_ERROR, _ERROR_OFFSET = ReplyType.ERROR.value, ReplyType.ERROR_OFFSET.value
_ERROR_BIT = 0x8000
_DONE = 1
_READ, _BLOCK_STATUS = Cmd.READ, Cmd.BLOCK_STATUS
_WRITE, _WRITE_ZEROES, _TRIM = Cmd.WRITE, Cmd.WRITE_ZEROES, Cmd.TRIM
_DF_SERVED = 1 << 16
"""CMD-055: a READ with DF may be too long only above this."""
_HOLE_PAYLOAD = struct.Struct(">QI")
_ERROR_PAYLOAD = struct.Struct(">IH")
_KNOWN_ERRORS = frozenset(int(error) for error in Errno)
_MUST_BE_REFUSED = {
    "the command is unknown": "ERR-029",
    "no metadata context was negotiated": "META-008",
    "the export is read-only": "ERR-026",
}
_MISTAKEN_SUCCESS = "it succeeds although "


class Judge:
    """Judges the answers on one connection to an export; `contexts` are those selected, name -> id.

    `notice` is told of every answer that is more than plain success.
    """

    def __init__(
        self,
        law: Law,
        ground: Ground,
        shadow: Shadow,
        mode: Mode,
        contexts: dict[str, int],
        *,
        notice: Callable[[Mode, Command, str, Answer], None],
    ) -> None:
        self.objection = law.objection
        self._notice = notice
        self._size = ground.size
        self._unit = ground.unit
        self._shadow = shadow
        self._mode = mode
        self._contexts = contexts
        self._allocation = contexts.get("base:allocation")

    def accepts(self, command: Command, data: memoryview | None) -> bool:
        """Whether a success that came in one piece, with the `data` of a READ, leaves nothing else to judge.

        The shadow learns from it. What is not accepted goes to `judge`, with all that came.
        """
        if self.objection(command):
            return False
        if data is None:
            self._carried_out(command)
            return True
        return self._shadow.compare(command.offset, data) is None

    def judge(self, command: Command, answer: Answer, beside: Sequence[Command] = ()) -> Problem | None:
        """Say what is wrong with an `answer` that was not accepted, if anything.

        `beside` are the commands that were in flight with this one; nobody knows which of them came first.
        """
        objection = self.objection(command)
        self._notice(self._mode, command, objection, answer)
        wrong = self._form(command, answer)
        if wrong is None:
            error = self._error_of(answer)
            wrong = self._refused(command, error) if error else self._served(command, answer, beside)
        if wrong is None:
            return None
        rule, requirement, detail = wrong
        kind = Kind.WRONG_DATA if rule.startswith("the data") else Kind.WRONG_REPLY
        shown = f"{command!r}{f': {detail}' if detail else ''}"
        return Problem(kind=kind, rule=rule, about=command.name, requirement=requirement, detail=shown)

    def _carried_out(self, command: Command) -> None:
        """Do to the shadow what the server says it has done."""
        kind = command.type
        if kind is _WRITE:
            self._shadow.write(command.offset, command.data)
        elif kind is _WRITE_ZEROES:
            self._shadow.zero(command.offset, command.length)
        elif kind is _TRIM:
            self._shadow.forget(command.offset, command.length)

    # Whether the reply is well-formed, whatever it says.

    def _form(self, command: Command, answer: Answer) -> tuple[str, str, str] | None:
        if answer.simple:
            if self._mode is Mode.STRUCTURED and command.type == Cmd.READ:
                return "a READ gets a simple reply after structured replies were agreed on", "RPL-022", ""
            if self._mode is Mode.STRUCTURED and command.type == Cmd.BLOCK_STATUS and not answer.error:
                return "the reply is not structured", "META-009", ""
            if answer.error not in _KNOWN_ERRORS:
                return "the error value is not one of the protocol's", "ERR-001", str(answer.error)
            return None
        if answer.offsets_differ:
            return "a chunk does not echo the request's offset", "", ""
        for number, (flags, kind, payload) in enumerate(answer.chunks):
            if flags & ~_DONE:
                return "a chunk has an unknown reply flag", "RPL-036", f"0x{flags:x}"
            if (reason := self._chunk_form(command, kind, payload)) is not None:
                return reason
            if kind == _NONE and number < len(answer.chunks) - 1:
                return "a NONE chunk is not the last", "RPL-053", ""
        return None

    def _chunk_form(self, command: Command, kind: int, payload: bytes) -> tuple[str, str, str] | None:
        size = len(payload)
        if kind == _NONE:
            return ("a NONE chunk has a payload", "RPL-052", "") if size else None
        if kind in (_DATA, _HOLE) and command.type != Cmd.READ:
            return "a content chunk answers what is no READ", "RPL-072", ""
        if kind == _DATA:
            return ("a data chunk has no data", "RPL-060", "") if size < 9 else None
        if kind == _HOLE:
            return ("a hole chunk has the wrong length", "RPL-065", str(size)) if size != 12 else None
        if kind in (_STATUS, _STATUS_EXT):
            return self._status_form(command, kind, size)
        if kind in (_ERROR, _ERROR_OFFSET):
            return self._error_form(command, kind, payload)
        if kind & _ERROR_BIT:
            return None
        return "a chunk has a type that nobody assigned", "RPL-071", f"0x{kind:x}"

    def _status_form(self, command: Command, kind: int, size: int) -> tuple[str, str, str] | None:
        if command.type != Cmd.BLOCK_STATUS:
            return "a status chunk answers what is no BLOCK_STATUS", "", ""
        if (kind == _STATUS_EXT) is not (self._mode is Mode.EXTENDED):
            return "a status chunk has the width of other headers", "RPL-091", ""
        front, each = (8, 16) if kind == _STATUS_EXT else (4, 8)
        if size < front + each or (size - front) % each:
            return "a status chunk has a length that no list of extents has", "RPL-080", str(size)
        return None

    @staticmethod
    def _error_form(command: Command, kind: int, payload: bytes) -> tuple[str, str, str] | None:
        tail = 8 if kind == _ERROR_OFFSET else 0
        if len(payload) < _ERROR_PAYLOAD.size + tail:
            return "an error chunk is too short", "RPL-102", str(len(payload))
        error, text = _ERROR_PAYLOAD.unpack_from(payload)
        if len(payload) != _ERROR_PAYLOAD.size + text + tail:
            return "an error chunk's text has another length than announced", "RPL-107", ""
        if text > MAXIMUM_STRING:
            return "an error's text is longer than any string may be", "RPL-105", f"{text} bytes"
        if tail and (command.type in WITHOUT_RANGE or not command.type.is_known):
            return "an error has an offset where there is no range", "RPL-113", ""
        if tail and command.length and not command.offset <= int.from_bytes(payload[-8:], "big") < command.end:
            return "an error's offset lies outside the request", "RPL-109", ""
        if error == 0:
            return "an error chunk says success", "RPL-106", ""
        if error not in _KNOWN_ERRORS:
            return "the error value is not one of the protocol's", "ERR-001", str(error)
        return None

    @staticmethod
    def _error_of(answer: Answer) -> int:
        if answer.simple:
            return answer.error or 0
        for _, kind, payload in answer.chunks:
            if kind & _ERROR_BIT:
                return int.from_bytes(payload[:4], "big") or Errno.EIO
        return 0

    # Whether it is what should be said.

    def _refused(self, command: Command, error: int) -> tuple[str, str, str] | None:
        if command.type in CHANGING:
            self._shadow.forget(command.offset, command.length)
        if self.objection(command):
            return None
        if error == Errno.ENOTSUP and command.flags & CmdFlag.FAST_ZERO:
            return None
        if error in (Errno.ENOMEM, Errno.ESHUTDOWN):
            return None
        if error == Errno.EOVERFLOW and command.flags & CmdFlag.DF and command.length > _DF_SERVED:
            return None
        return "a legal request is refused", "", str(Errno(error))

    def _served(self, command: Command, answer: Answer, beside: Sequence[Command]) -> tuple[str, str, str] | None:
        objection = self.objection(command)
        if objection == "it reaches past the end" and command.length:
            return _MISTAKEN_SUCCESS + objection, "SIZE-040", ""
        if objection in _MUST_BE_REFUSED:
            return _MISTAKEN_SUCCESS + objection, _MUST_BE_REFUSED[objection], ""
        if command.type in WITHOUT_RANGE or not command.length:
            return None
        if command.type is _READ:
            return self._read(command, answer)
        if command.type is _BLOCK_STATUS:
            return self._block_status(command, answer, _settled(command, beside))
        self._carried_out(command)
        return None

    def _read(self, command: Command, answer: Answer) -> tuple[str, str, str] | None:
        if answer.simple:
            data = answer.data
        else:
            covered: list[tuple[int, int]] = []
            whole = bytearray(command.length)
            for start, part in self._content(answer):
                end = start + len(part)
                if start < command.offset or end > command.end:
                    return "a content chunk lies outside the request", "RPL-062", f"[{start}, {end})"
                if start == end:
                    return "a hole chunk has no length", "RPL-070", ""
                covered.append((start, end))
                whole[start - command.offset : end - command.offset] = part
            covered.sort()
            at = command.offset
            for start, end in covered:
                if start < at:
                    return "content chunks overlap", "RPL-063", f"[{start}, {end})"
                if start > at:
                    break
                at = end
            if at < command.end:
                return "not every byte is described", "CMD-031", f"{at} is not"
            if command.flags & CmdFlag.DF and len(covered) > 1:
                return "a READ with DF is fragmented", "CMD-050", ""
            data = bytes(whole)
        wrong = self._shadow.compare(command.offset, data)
        if wrong is None:
            return None
        return "the data is not what was written", "", f"first at {wrong}"

    @staticmethod
    def _content(answer: Answer) -> Iterator[tuple[int, bytes]]:
        for _, kind, payload in answer.chunks:
            if kind == _DATA:
                yield int.from_bytes(payload[:8], "big"), payload[8:]
            elif kind == _HOLE:
                offset, length = _HOLE_PAYLOAD.unpack(payload)
                yield offset, bytes(min(length, 1 << 24))

    def _block_status(self, command: Command, answer: Answer, settled: int) -> tuple[str, str, str] | None:
        seen: set[int] = set()
        for _, kind, payload in answer.chunks:
            if kind not in (_STATUS, _STATUS_EXT):
                continue
            context = int.from_bytes(payload[:4], "big")
            if context in seen:
                return "a context is described twice", "RPL-081", ""
            seen.add(context)
            wide = kind == _STATUS_EXT
            if wide and int.from_bytes(payload[4:8], "big") != (len(payload) - 8) // 16:
                return "the number of extents is not the announced one", "", ""
            rows = struct.iter_unpack(">QQ" if wide else ">II", payload[8 if wide else 4 :])
            if (reason := self._extents(command, context, list(rows), settled)) is not None:
                return reason
        if seen != set(self._contexts.values()):
            return "not exactly the selected contexts are described", "RPL-081", f"ids {sorted(seen)}"
        return None

    def _extents(
        self, command: Command, context: int, extents: list[tuple[int, int]], settled: int
    ) -> tuple[str, str, str] | None:
        at = command.offset
        for number, (length, status) in enumerate(extents):
            if not length:
                return "an extent has no length", "RPL-083", ""
            if length % self._unit and at + length != self._size:
                return "an extent is no multiple of the minimum block size", "CMD-151", f"{length} bytes at {at}"
            if at >= command.end and number:
                return "an extent begins behind the request", "RPL-086", f"at {at}"
            if context == self._allocation and status & State.ZERO:
                wrong = self._shadow.first_nonzero(at, min(length, settled - at))
                if wrong is not None:
                    return "the data is not zero where an extent says so", "META-036", f"at {wrong}"
            at += length
        if command.flags & CmdFlag.REQ_ONE and (len(extents) > 1 or at > command.end):
            return "REQ_ONE does not get one extent within the request", "META-006", ""
        return None


def _settled(command: Command, beside: Sequence[Command]) -> int:
    """The position up to which extents can be judged: they may go on behind the range, where others make changes."""
    changes = [other.offset for other in beside if other.type in CHANGING and other.end > command.end]
    return min(changes, default=1 << 64)
