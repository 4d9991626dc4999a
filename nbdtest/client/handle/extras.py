"""What libnbd does not have: time limits, reading into and writing from several buffers, extents as a list, raw
messages.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nbdtest.client import arguments, negotiation
from nbdtest.client.buffer import readable_view, writable_view
from nbdtest.client.commands import Command
from nbdtest.client.constants import CMD_FLAG_REQ_ONE, CONTEXT_BASE_ALLOCATION
from nbdtest.client.errors import Failure
from nbdtest.client.fastlane import Begun
from nbdtest.client.handle.call import ANY, CONNECTED, HAGGLING, SETUP, permitted
from nbdtest.client.handle.commanding import WRITE_FLAGS, CommandCalls
from nbdtest.client.handle.exporting import ExportCalls
from nbdtest.wire import Cmd

__all__ = ["ExtraCalls", "StatusExtent"]


@dataclass(frozen=True, slots=True)
class StatusExtent:
    """A stretch of the export with one status in a metadata context."""

    offset: int
    length: int
    flags: int


class ExtraCalls(CommandCalls, ExportCalls):
    """Calls beyond libnbd's."""

    @permitted(ANY, since="", can_fail=False)
    def set_timeout(self, seconds: float | None) -> None:
        """Limit how long each waiting call may take; None, the default, is no limit.

        A call that takes longer raises an Error with errno ETIMEDOUT. The connection stays as it is: a command whose
        reply comes later is forgotten then. While connecting or negotiating there is no going on, only `close`.
        """
        limit_s = None if seconds is None else arguments.seconds("seconds", seconds)
        with self._enter("set_timeout"):
            self._timeout_s = limit_s
            self._open_lane()

    @permitted(ANY, since="", can_fail=False)
    def get_timeout(self) -> float | None:
        """The limit that `set_timeout` set."""
        with self._enter("get_timeout"):
            return self._timeout_s

    @permitted(SETUP, since="")
    def set_force_export_name(self, force: bool) -> None:
        """Whether `opt_go` and connecting use OPT_EXPORT_NAME instead of OPT_GO, for tests of servers (default: no)."""
        with self._enter("set_force_export_name", force=bool(force)):
            self._settings.force_export_name = bool(force)

    @permitted(CONNECTED, since="")
    def pread_into(self, buf: Any, offset: int, flags: int = 0) -> None:
        """Read into a Buffer, or any writable buffer, as many bytes as it has: memory that is used again is faster."""
        view = writable_view(buf)
        if (lane := self._lane) is not None and not flags:
            try:
                if lane.read(view, len(view), offset):
                    return
            except Begun as begun:
                self._finish_begun("pread_into", begun.command)
                return
        offset, flags = arguments.u64("offset", offset), arguments.u32("flags", flags)
        with self._enter("pread_into", buf=view, offset=offset, flags=flags):
            flags = self._check(Cmd.READ, offset, len(view), flags, 0)
            self._complete(Command.read(view, offset, flags))

    @permitted(CONNECTED, since="")
    def preadv(self, bufs: Iterable[Any], offset: int, flags: int = 0) -> None:
        """Read a stretch of the export into several buffers, one after the other, by requests that are sent at once."""
        self._scatter("preadv", [writable_view(buf) for buf in bufs], offset, flags, Cmd.READ)

    @permitted(CONNECTED, since="")
    def pwritev(self, bufs: Iterable[Any], offset: int, flags: int = 0) -> None:
        """Write several buffers one after the other, by requests that are sent at once, without joining them."""
        self._scatter("pwritev", [readable_view(buf) for buf in bufs], offset, flags, Cmd.WRITE)

    @permitted(CONNECTED, since="")
    def extents(
        self, count: int, offset: int, context: str = CONTEXT_BASE_ALLOCATION, flags: int = 0
    ) -> list[StatusExtent]:
        """The status of the whole range in one metadata context, in order, asking as often as the server wants.

        With CMD_FLAG_REQ_ONE the server is asked for one extent at a time. The last extent ends where the range does.
        """
        return list(self.iterate_extents(count, offset, context, flags))

    @permitted(CONNECTED, since="")
    def iterate_extents(
        self, count: int, offset: int, context: str = CONTEXT_BASE_ALLOCATION, flags: int = 0
    ) -> Iterator[StatusExtent]:
        """The same one after the other, asking for more when they are used up."""
        end = offset + count
        while offset < end:
            entries = _Entries(context)
            # The protocol's 32-bit lengths: a longer range is asked for in pieces.
            limit = end - offset if self.get_extended_headers_negotiated() else min(end - offset, _LARGEST_RANGE)
            self.block_status_64(limit, offset, entries, flags & int(CMD_FLAG_REQ_ONE))
            if not entries.found:
                raise Failure(f"the server said nothing about {context}", errno.EPROTO).in_call("extents")
            for length, status in entries.found:
                length = min(length, end - offset)
                if length:
                    yield StatusExtent(offset, length, status)
                offset += length

    @permitted(HAGGLING, since="")
    def opt_raw(self, option: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send any option, known or not, and return type and data of each reply, up to the final one."""
        option = arguments.u32("option", option)
        with self._enter("opt_raw", option=option, data=data) as call:
            replies: list[tuple[int, bytes]] = []
            told = negotiation.raw_option(self._engine, option, bytes(data), lambda *reply: replies.append(reply))
            self._begin_option(told)
            self._wait_for_option()
            if self._engine.failure is not None:
                raise self._engine.failure
            return call.returns(replies)

    @permitted(CONNECTED, since="")
    def raw_command(
        self, type: int, offset: int = 0, count: int = 0, flags: int = 0, payload: bytes | None = None
    ) -> None:
        """Send any command, known or not, unchecked, and wait for its reply; `payload` follows the header."""
        with self._enter("raw_command", type=type, offset=offset, count=count, flags=flags):
            command = Command(type, offset, count, flags)
            if type == Cmd.READ:
                command.view = memoryview(bytearray(count))
            elif payload is not None:
                command.view = memoryview(payload)
                command.has_payload = True
            self._complete(command)

    # ---- how

    def _scatter(self, name: str, views: Sequence[memoryview], offset: int, flags: int, type_: Cmd) -> None:
        offset, flags = arguments.u64("offset", offset), arguments.u32("flags", flags)
        total = sum(map(len, views))
        with self._enter(name, count=total, offset=offset, flags=flags):
            allowed = WRITE_FLAGS if type_ == Cmd.WRITE else 0
            commands = []
            for view in views:
                checked = self._check(type_, offset, len(view), flags, allowed)
                commands.append(Command(type_, offset, len(view), checked, view))
                offset += len(view)
            self._complete_all(commands)


_LARGEST_RANGE = (1 << 32) - (64 << 20)


class _Entries:
    """Keeps what an extent callback is told about one context."""

    def __init__(self, context: str) -> None:
        self._context = context
        self.found: list[tuple[int, int]] = []

    def __call__(self, context: str, offset: int, entries: list[tuple[int, int]], error: object) -> int:
        if context == self._context and not self.found:
            self.found = entries
        return 0
