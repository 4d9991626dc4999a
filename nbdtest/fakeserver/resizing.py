"""Requests that a client has under way together with a RESIZE (RSZ-008 to RSZ-011). Judged by what has arrived, so a
request that crosses with the reply is nobody's fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nbdtest.fakeserver.rendering import Asked
from nbdtest.fakeserver.violations import RANGED, Violation
from nbdtest.wire import Cmd, ExtendedRequest, Request

__all__ = ["Resizes"]


@dataclass(frozen=True, slots=True)
class _Resize:
    """A RESIZE from `old` to `new` bytes; the client had said `said` bytes when it was read."""

    cookie: int
    old: int
    new: int
    said: int

    def concerns(self, request: Request | ExtendedRequest | Asked) -> bool:
        """Whether the request is for the area between both sizes."""
        low, high = sorted((self.old, self.new))
        return request.type in RANGED and request.offset < high and request.offset + request.length > low

    def reaches_past(self, request: Request | ExtendedRequest) -> bool:
        """Whether the request goes beyond the smaller size."""
        return request.type in RANGED and request.offset + request.length > min(self.old, self.new)


class Resizes:
    """The RESIZE requests of one session whose replies the client cannot have seen."""

    __slots__ = ("_under_way",)

    def __init__(self) -> None:
        self._under_way: list[_Resize] = []

    def judge(
        self, request: Request | ExtendedRequest, waiting: Sequence[Asked], *, size: int, begins: int, said: int
    ) -> Iterator[Violation]:
        """Judge that the client sent `request` now.

        Args:
            waiting: the requests that have not been answered yet.
            size: that of the disk, before the request is carried out.
            begins: where the request begins among the bytes of the client.
            said: how many bytes of the client have arrived.
        """
        if request.type == Cmd.RESIZE:
            resize = _Resize(request.cookie, size, request.offset, said)
            for asked in waiting:
                if resize.concerns(asked):
                    where = f"{asked.type} at {asked.offset}, length {asked.length}"
                    yield Violation("RSZ-011", f"CMD_RESIZE was sent before {where} was answered")
            self._under_way.append(resize)
            return
        unanswered = {asked.cookie for asked in waiting if asked.type == Cmd.RESIZE}
        self._under_way = [each for each in self._under_way if each.cookie in unanswered or begins < each.said]
        where = f"{request.type} at {request.offset}, length {request.length}"
        for resize in self._under_way:
            during = f"was sent before the RESIZE from {resize.old} to {resize.new} was answered"
            if resize.concerns(request):
                yield Violation("RSZ-008", f"{where} {during}")
            elif resize.reaches_past(request):
                shrinks = resize.new < resize.old
                yield Violation("RSZ-009" if shrinks else "RSZ-010", f"{where} {during}", binding=False)
