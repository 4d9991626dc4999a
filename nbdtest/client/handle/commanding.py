"""Calls that send a command and wait for its reply."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

from nbdtest.client import arguments
from nbdtest.client.buffer import BytesLike, readable_view
from nbdtest.client.commands import ChunkCallback, Command, Extent64Callback, ExtentCallback
from nbdtest.client.constants import (
    CMD_FLAG_DF,
    CMD_FLAG_FAST_ZERO,
    CMD_FLAG_FUA,
    CMD_FLAG_NO_HOLE,
    CMD_FLAG_PAYLOAD_LEN,
    CMD_FLAG_REQ_ONE,
    SHUTDOWN_ABANDON_PENDING,
    SHUTDOWN_MASK,
)
from nbdtest.client.driver import timed_out
from nbdtest.client.errors import Failure
from nbdtest.client.fastlane import Begun
from nbdtest.client.handle.call import CONNECTED, HAGGLING, Entered, permitted
from nbdtest.client.handle.submitting import Submitting
from nbdtest.client.settings import MAX_REQUEST_SIZE
from nbdtest.client.states import NEGOTIATING, NOT_OVER
from nbdtest.net.clock import Deadline
from nbdtest.wire import Cmd

__all__ = ["CommandCalls"]

_WRITE = Cmd.WRITE.value
_FLUSH = Cmd.FLUSH.value
_TRIM = Cmd.TRIM.value
_CACHE = Cmd.CACHE.value
_WRITE_ZEROES = Cmd.WRITE_ZEROES.value

FUA = int(CMD_FLAG_FUA)
ZERO_FLAGS = int(CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO)
WRITE_FLAGS = int(CMD_FLAG_FUA | CMD_FLAG_PAYLOAD_LEN)
ABANDON_PENDING = int(SHUTDOWN_ABANDON_PENDING)
SHUTDOWN_FLAGS = int(SHUTDOWN_MASK)
FILTER_FLAGS = int(CMD_FLAG_REQ_ONE | CMD_FLAG_PAYLOAD_LEN)


class CommandCalls(Submitting):
    """Reading, writing and asking about the export. The time limit of `set_timeout` holds for each."""

    @permitted(CONNECTED)
    def pread(self, count: int, offset: int, flags: int = 0) -> bytearray:
        """Read `count` bytes at `offset`."""
        if (lane := self._lane) is not None and not flags and 0 < count <= MAX_REQUEST_SIZE:
            buffer = bytearray(count)
            try:
                if lane.read(buffer, count, offset):
                    return buffer
            except Begun as begun:
                return self._finish_read("pread", begun.command)
        count, offset, flags = _range(count, offset, flags)
        with self._enter("pread", count=count, offset=offset, flags=flags) as call:
            flags = self._check(Cmd.READ, offset, count, flags, 0)
            buffer = bytearray(count)
            self._complete(Command.read(memoryview(buffer), offset, flags))
            return call.returns(buffer)

    @permitted(CONNECTED)
    def pread_structured(self, count: int, offset: int, chunk: ChunkCallback, flags: int = 0) -> bytearray:
        """Read `count` bytes at `offset`; call `chunk(data, offset, status, error)` for each chunk of the reply."""
        count, offset, flags = _range(count, offset, flags)
        arguments.callback("chunk", chunk)
        with self._enter("pread_structured", count=count, offset=offset, chunk=chunk, flags=flags) as call:
            flags = self._check(Cmd.READ, offset, count, flags, int(CMD_FLAG_DF))
            buffer = bytearray(count)
            self._complete(Command.read(memoryview(buffer), offset, flags, chunk=chunk))
            return call.returns(buffer)

    @permitted(CONNECTED)
    def pwrite(self, buf: BytesLike, offset: int, flags: int = 0) -> None:
        """Write `buf` at `offset`."""
        view = buf if type(buf) in (bytes, bytearray) else readable_view(buf)
        if (lane := self._lane) is not None and not flags:
            try:
                if lane.order(_WRITE, len(view), offset, view):
                    return
            except Begun as begun:
                self._finish_begun("pwrite", begun.command)
                return
        offset, flags = arguments.u64("offset", offset), arguments.u32("flags", flags)
        with self._enter("pwrite", buf=view, offset=offset, flags=flags):
            flags = self._check(Cmd.WRITE, offset, len(view), flags, WRITE_FLAGS)
            self._complete(Command(Cmd.WRITE, offset, len(view), flags, memoryview(view)))

    @permitted(CONNECTED)
    def flush(self, flags: int = 0) -> None:
        """Wait until everything whose write has been answered is in permanent storage."""
        if (lane := self._lane) is not None and not flags:
            try:
                if lane.order(_FLUSH, 0, 0):
                    return
            except Begun as begun:
                self._finish_begun("flush", begun.command)
                return
        flags = arguments.u32("flags", flags)
        with self._enter("flush", flags=flags):
            flags = self._check(Cmd.FLUSH, 0, 0, flags, 0)
            self._complete(Command(Cmd.FLUSH, 0, 0, flags))

    @permitted(CONNECTED)
    def trim(self, count: int, offset: int, flags: int = 0) -> None:
        """Tell the server that the contents of a range do not matter any more."""
        if self._is_ordered("trim", _TRIM, count, offset, flags):
            return
        count, offset, flags = _effect(count, offset, flags)
        with self._enter("trim", count=count, offset=offset, flags=flags):
            flags = self._check(Cmd.TRIM, offset, count, flags, FUA)
            self._complete(Command(Cmd.TRIM, offset, count, flags))

    @permitted(CONNECTED)
    def cache(self, count: int, offset: int, flags: int = 0) -> None:
        """Tell the server that a range will be read soon."""
        if self._is_ordered("cache", _CACHE, count, offset, flags):
            return
        count, offset, flags = _effect(count, offset, flags)
        with self._enter("cache", count=count, offset=offset, flags=flags):
            flags = self._check(Cmd.CACHE, offset, count, flags, 0)
            self._complete(Command(Cmd.CACHE, offset, count, flags))

    @permitted(CONNECTED)
    def zero(self, count: int, offset: int, flags: int = 0) -> None:
        """Write zeroes to a range."""
        if self._is_ordered("zero", _WRITE_ZEROES, count, offset, flags):
            return
        count, offset, flags = _effect(count, offset, flags)
        with self._enter("zero", count=count, offset=offset, flags=flags):
            flags = self._check(Cmd.WRITE_ZEROES, offset, count, flags, ZERO_FLAGS)
            self._complete(Command(Cmd.WRITE_ZEROES, offset, count, flags))

    @permitted(CONNECTED)
    def block_status(self, count: int, offset: int, extent: ExtentCallback, flags: int = 0) -> None:
        """Call `extent(context, offset, [length, flags, ...], error)` for each metadata context.

        The lengths may add up to less than `count`, or without CMD_FLAG_REQ_ONE to more: the server chooses.
        """
        arguments.callback("extent", extent)
        if self._is_told("block_status", extent, False, count, offset, flags):
            return
        count, offset, flags = _effect(count, offset, flags)
        with self._enter("block_status", count=count, offset=offset, extent=extent, flags=flags):
            flags = self._check(Cmd.BLOCK_STATUS, offset, count, flags, int(CMD_FLAG_REQ_ONE))
            self._complete(Command.block_status(offset, count, flags, extent))

    @permitted(CONNECTED, since="1.18")
    def block_status_64(self, count: int, offset: int, extent64: Extent64Callback, flags: int = 0) -> None:
        """Call `extent64(context, offset, [(length, flags), ...], error)` for each metadata context."""
        arguments.callback("extent64", extent64)
        if self._is_told("block_status_64", extent64, True, count, offset, flags):
            return
        count, offset, flags = _effect(count, offset, flags)
        with self._enter("block_status_64", count=count, offset=offset, extent64=extent64, flags=flags):
            flags = self._check(Cmd.BLOCK_STATUS, offset, count, flags, int(CMD_FLAG_REQ_ONE))
            self._complete(Command.block_status(offset, count, flags, extent64, wide=True))

    @permitted(CONNECTED, since="1.18")
    def block_status_filter(
        self, count: int, offset: int, contexts: Sequence[str], extent64: Extent64Callback, flags: int = 0
    ) -> None:
        """Call `extent64(context, offset, [(length, flags), ...], error)` for some of the metadata contexts."""
        count, offset, flags = _effect(count, offset, flags)
        names = arguments.string_list("contexts", contexts)
        arguments.callback("extent64", extent64)
        with self._enter(
            "block_status_filter", count=count, offset=offset, contexts=names, extent64=extent64, flags=flags
        ):
            self._complete(self._filter_command(count, offset, names, extent64, flags))

    @permitted(HAGGLING | CONNECTED)
    def shutdown(self, flags: int = 0) -> None:
        """End the connection in order: what has been asked for is answered first.

        With SHUTDOWN_ABANDON_PENDING commands of which nothing has been sent are dropped.
        """
        flags = arguments.u32("flags", flags)
        with self._enter("shutdown", flags=flags):
            if flags & ~SHUTDOWN_FLAGS:
                raise Failure(f"flags: invalid value for flag: 0x{flags:x}", errno.EINVAL)
            self._shut_down(bool(flags & ABANDON_PENDING), self._deadline())

    # ---- how

    def _shut_down(self, abandon: bool, deadline: Deadline) -> None:
        engine, driver = self._engine, self._driver
        if engine.state is NEGOTIATING:
            self._abort_negotiation()
        else:
            if abandon:
                engine.abandon_unsent()
            if not engine.disconnecting:
                engine.disconnect()
                driver.flush()
        driver.run_while(NOT_OVER, deadline)

    def _is_ordered(self, name: str, type_: int, count: int, offset: int, flags: int) -> bool:
        """Whether the fast lane has taken and completed a command without data."""
        if (lane := self._lane) is None or flags:
            return False
        try:
            return lane.order(type_, count, offset)
        except Begun as begun:
            self._finish_begun(name, begun.command)
            return True

    def _is_told(self, name: str, extent: Callable[..., Any], wide: bool, count: int, offset: int, flags: int) -> bool:
        """Whether the fast lane has told `extent` the status of a range."""
        if (lane := self._lane) is None or flags:
            return False
        try:
            return lane.status(extent, wide, count, offset)
        except Begun as begun:
            self._finish_begun(name, begun.command)
            return True

    def _finish_read(self, name: str, command: Command) -> bytearray:
        """Wait for the reply to a read that the fast lane began."""
        self._finish_begun(name, command)
        assert command.view is not None, "a read has a buffer"
        assert isinstance(command.view.obj, bytearray), "made by the fast lane"
        return command.view.obj

    def _finish_begun(self, name: str, command: Command) -> None:
        """Wait for the reply to a command that the fast lane began."""
        with Entered(self, self._calls[name]).resume():
            if (failure := self._engine.failure) is not None and not self._is_answered(command):
                self._engine.done.pop(command.cookie, None)
                raise failure
            self._complete(command)

    def _is_answered(self, command: Command) -> bool:
        return command.cookie in self._engine.done and not command.cut_off

    def _complete(self, command: Command) -> None:
        """Send a command, unless that has been done, and wait for its reply.

        Raises:
            Failure: it failed, the connection died, or the time limit passed; then nobody waits for the reply any more.
        """
        self._complete_all([command])

    def _complete_all(self, commands: Sequence[Command]) -> None:
        """Send commands at once and wait for all replies.

        Raises:
            Failure: the first of them that failed, or as above.
        """
        engine, driver = self._engine, self._driver
        deadline = self._deadline()
        done = engine.done
        for command in commands:
            if not command.cookie:
                engine.submit(command)
        try:
            driver.flush()
            for command in commands:
                while command.cookie not in done:
                    if not driver.wait(deadline) or (deadline.expired and command.cookie not in done):
                        raise timed_out(deadline)
        except BaseException as error:
            # What makes no sense after a complete reply is the next call's concern: it may as well come later.
            if not isinstance(error, Failure) or not all(map(self._is_answered, commands)):
                for command in commands:
                    engine.disown(command)
                raise
        for command in commands:
            del done[command.cookie]
        for command in commands:
            self._raise_error_of(command)
        if self._lane is None:
            self._open_lane()


def _range(count: Any, offset: Any, flags: Any) -> tuple[int, int, int]:
    return arguments.length("count", count), arguments.u64("offset", offset), arguments.u32("flags", flags)


def _effect(count: Any, offset: Any, flags: Any) -> tuple[int, int, int]:
    return arguments.u64("count", count), arguments.u64("offset", offset), arguments.u32("flags", flags)
