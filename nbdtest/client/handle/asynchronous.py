"""Calls that send a command and do not wait: each returns a cookie by which the command can be asked about."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from nbdtest.client import arguments
from nbdtest.client.buffer import readable_view, writable_view
from nbdtest.client.commands import (
    ChunkCallback,
    Command,
    CompletionCallback,
    Extent64Callback,
    ExtentCallback,
    clear,
)
from nbdtest.client.constants import CMD_FLAG_DF, CMD_FLAG_REQ_ONE
from nbdtest.client.errors import Error, Failure
from nbdtest.client.handle.call import ANY, CONNECTED, permitted
from nbdtest.client.handle.commanding import FUA, WRITE_FLAGS, ZERO_FLAGS
from nbdtest.client.handle.submitting import Submitting
from nbdtest.client.states import Group
from nbdtest.client.strict import check_flags, check_request
from nbdtest.wire import Cmd

__all__ = ["AsynchronousCalls"]

CONNECTED_OR_LATER = Group.CONNECTED | Group.CLOSED | Group.DEAD


class AsynchronousCalls(Submitting):
    """The aio_... commands.

    A buffer belongs to its command until the command is retired: by `aio_command_completed`, or by a completion
    callback that returns 1. A command that is refused returns no cookie, and calls no callback.
    """

    @permitted(CONNECTED)
    def aio_pread(self, buf: Any, offset: int, completion: CompletionCallback | None = None, flags: int = 0) -> int:
        """Read into a Buffer, or any writable buffer, from `offset`."""
        if (lane := self._lane) is not None and not flags and (cookie := lane.submit_read(buf, offset, completion)):
            return cookie
        view = writable_view(buf)
        offset, flags = _arguments(offset, completion, flags)
        try:
            with self._enter("aio_pread", buf=view, offset=offset, completion=completion, flags=flags) as call:
                flags = self._check(Cmd.READ, offset, len(view), flags, 0)
                command = Command.read(view, offset, flags, completion=completion)
                return call.returns(self._submit(command))
        except Error:
            clear(view)
            raise

    @permitted(CONNECTED)
    def aio_pread_structured(
        self,
        buf: Any,
        offset: int,
        chunk: ChunkCallback,
        completion: CompletionCallback | None = None,
        flags: int = 0,
    ) -> int:
        """Read into a buffer; call `chunk(data, offset, status, error)` for each chunk of the reply."""
        view = writable_view(buf)
        arguments.callback("chunk", chunk)
        offset, flags = _arguments(offset, completion, flags)
        try:
            with self._enter(
                "aio_pread_structured", buf=view, offset=offset, chunk=chunk, completion=completion, flags=flags
            ) as call:
                flags = self._check(Cmd.READ, offset, len(view), flags, int(CMD_FLAG_DF))
                command = Command.read(view, offset, flags, chunk=chunk, completion=completion)
                return call.returns(self._submit(command))
        except Error:
            clear(view)
            raise

    @permitted(CONNECTED)
    def aio_pwrite(self, buf: Any, offset: int, completion: CompletionCallback | None = None, flags: int = 0) -> int:
        """Write a Buffer, or any buffer, at `offset`."""
        if (lane := self._lane) is not None and not flags and (cookie := lane.submit_write(buf, offset, completion)):
            return cookie
        view = readable_view(buf)
        offset, flags = _arguments(offset, completion, flags)
        with self._enter("aio_pwrite", buf=view, offset=offset, completion=completion, flags=flags) as call:
            flags = self._check(Cmd.WRITE, offset, len(view), flags, WRITE_FLAGS)
            command = Command(Cmd.WRITE, offset, len(view), flags, view, completion=completion)
            return call.returns(self._submit(command))

    @permitted(CONNECTED)
    def aio_flush(self, completion: CompletionCallback | None = None, flags: int = 0) -> int:
        """Ask that everything whose write has been answered gets into permanent storage."""
        _, flags = _arguments(0, completion, flags)
        with self._enter("aio_flush", completion=completion, flags=flags) as call:
            flags = self._check(Cmd.FLUSH, 0, 0, flags, 0)
            return call.returns(self._submit(Command(Cmd.FLUSH, 0, 0, flags, completion=completion)))

    @permitted(CONNECTED)
    def aio_trim(self, count: int, offset: int, completion: CompletionCallback | None = None, flags: int = 0) -> int:
        """Tell the server that the contents of a range do not matter any more."""
        count = arguments.u64("count", count)
        offset, flags = _arguments(offset, completion, flags)
        with self._enter("aio_trim", count=count, offset=offset, completion=completion, flags=flags) as call:
            flags = self._check(Cmd.TRIM, offset, count, flags, FUA)
            return call.returns(self._submit(Command(Cmd.TRIM, offset, count, flags, completion=completion)))

    @permitted(CONNECTED)
    def aio_cache(self, count: int, offset: int, completion: CompletionCallback | None = None, flags: int = 0) -> int:
        """Tell the server that a range will be read soon."""
        count = arguments.u64("count", count)
        offset, flags = _arguments(offset, completion, flags)
        with self._enter("aio_cache", count=count, offset=offset, completion=completion, flags=flags) as call:
            flags = self._check(Cmd.CACHE, offset, count, flags, 0)
            return call.returns(self._submit(Command(Cmd.CACHE, offset, count, flags, completion=completion)))

    @permitted(CONNECTED)
    def aio_zero(self, count: int, offset: int, completion: CompletionCallback | None = None, flags: int = 0) -> int:
        """Write zeroes to a range."""
        count = arguments.u64("count", count)
        offset, flags = _arguments(offset, completion, flags)
        with self._enter("aio_zero", count=count, offset=offset, completion=completion, flags=flags) as call:
            flags = self._check(Cmd.WRITE_ZEROES, offset, count, flags, ZERO_FLAGS)
            command = Command(Cmd.WRITE_ZEROES, offset, count, flags, completion=completion)
            return call.returns(self._submit(command))

    @permitted(CONNECTED)
    def aio_block_status(
        self,
        count: int,
        offset: int,
        extent: ExtentCallback,
        completion: CompletionCallback | None = None,
        flags: int = 0,
    ) -> int:
        """Call `extent(context, offset, [length, flags, ...], error)` for each metadata context, when they come."""
        count = arguments.u64("count", count)
        arguments.callback("extent", extent)
        offset, flags = _arguments(offset, completion, flags)
        with self._enter(
            "aio_block_status", count=count, offset=offset, extent=extent, completion=completion, flags=flags
        ) as call:
            flags = self._check(Cmd.BLOCK_STATUS, offset, count, flags, int(CMD_FLAG_REQ_ONE))
            command = Command.block_status(offset, count, flags, extent, completion=completion)
            return call.returns(self._submit(command))

    @permitted(CONNECTED, since="1.18")
    def aio_block_status_64(
        self,
        count: int,
        offset: int,
        extent64: Extent64Callback,
        completion: CompletionCallback | None = None,
        flags: int = 0,
    ) -> int:
        """Call `extent64(context, offset, [(length, flags), ...], error)` for each metadata context, when they come."""
        count = arguments.u64("count", count)
        arguments.callback("extent64", extent64)
        offset, flags = _arguments(offset, completion, flags)
        with self._enter(
            "aio_block_status_64", count=count, offset=offset, extent64=extent64, completion=completion, flags=flags
        ) as call:
            flags = self._check(Cmd.BLOCK_STATUS, offset, count, flags, int(CMD_FLAG_REQ_ONE))
            command = Command.block_status(offset, count, flags, extent64, wide=True, completion=completion)
            return call.returns(self._submit(command))

    @permitted(CONNECTED, since="1.18")
    def aio_block_status_filter(
        self,
        count: int,
        offset: int,
        contexts: Sequence[str],
        extent64: Extent64Callback,
        completion: CompletionCallback | None = None,
        flags: int = 0,
    ) -> int:
        """Call `extent64(context, offset, [(length, flags), ...], error)` for some of the metadata contexts."""
        count = arguments.u64("count", count)
        names = arguments.string_list("contexts", contexts)
        arguments.callback("extent64", extent64)
        offset, flags = _arguments(offset, completion, flags)
        with self._enter(
            "aio_block_status_filter",
            count=count,
            offset=offset,
            contexts=names,
            extent64=extent64,
            completion=completion,
            flags=flags,
        ) as call:
            command = self._filter_command(count, offset, names, extent64, flags)
            command.completion = completion
            return call.returns(self._submit(command))

    @permitted(CONNECTED)
    def aio_disconnect(self, flags: int = 0) -> None:
        """Tell the server that nothing follows; the state becomes CLOSED when it has ended the connection."""
        flags = arguments.u32("flags", flags)
        with self._enter("aio_disconnect", flags=flags):
            check_flags(self._settings.strict, flags, 0)
            check_request(self._engine, Cmd.DISC, 0, 0)
            self._engine.disconnect(flags)
            self._driver.flush()

    # ---- asking about commands

    @permitted(ANY)
    def aio_command_completed(self, cookie: int) -> bool:
        """Whether a command has succeeded, which retires it. False: it is not finished, or was retired before.

        Raises:
            Error: it failed, and is retired; a callback's exception is the cause.
        """
        cookie = arguments.u64("cookie", cookie)
        with self._enter("aio_command_completed", cookie=cookie) as call:
            if cookie < 1:
                raise Failure(f"invalid aio cookie {cookie}", errno.EINVAL)
            command = self._engine.done.pop(cookie, None)
            if command is None:
                return call.returns(False)
            self._raise_error_of(command)
            return call.returns(True)

    @permitted(ANY)
    def aio_peek_command_completed(self) -> int:
        """The cookie of the finished command that waits longest to be retired; 0 if none is finished yet."""
        with self._enter("aio_peek_command_completed") as call:
            engine = self._engine
            if engine.done:
                return call.returns(next(iter(engine.done)))
            if not engine.pending:
                raise Failure("no commands are in flight", errno.EINVAL)
            return call.returns(0)

    @permitted(CONNECTED_OR_LATER, locked=False)
    def aio_in_flight(self) -> int:
        """How many commands have been sent or queued and are not finished."""
        self._check_open()
        call = self._calls["aio_in_flight"]
        if (refusal := call.refusal(self._engine.resting)) is not None:
            raise refusal.in_call(call.name)
        return self._engine.pending


def _arguments(offset: Any, completion: CompletionCallback | None, flags: Any) -> tuple[int, int]:
    if completion is not None:
        arguments.callback("completion", completion)
    return arguments.u64("offset", offset), arguments.u32("flags", flags)
