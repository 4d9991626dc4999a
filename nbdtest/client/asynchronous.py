"""`AsyncNBD`: a handle for asyncio. Commands are awaited, extents iterated, any number of tasks share the connection.

It drives the same engine as the other ways to wait. What tasks submit in one turn of the event loop is sent at once,
replies wake the tasks that wait for them, and the socket is watched for writing only while it is full.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from ctypes import c_int
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from nbdtest.client.constants import CMD_FLAG_REQ_ONE, CONTEXT_BASE_ALLOCATION
from nbdtest.client.errors import Error, Failure
from nbdtest.client.handle import NBD, StatusExtent
from nbdtest.client.settings import MAX_REQUEST_SIZE
from nbdtest.client.states import BOTH, READING, WRITING, Group

__all__ = ["AsyncNBD"]

T = TypeVar("T")
_Begin: TypeAlias = Callable[[Callable[[c_int], object]], object]

MOST_IN_FLIGHT = 256
LEAVING_S = 3.0
"""For a server that does not end the connection when it is told that nothing follows."""
LARGEST_RANGE = (1 << 32) - (64 << 20)


class AsyncNBD:
    """A connection for asyncio. `handle` has the settings, and knows what the server told.

        async with AsyncNBD() as nbd:
            await nbd.connect_uri("nbd://localhost")
            first, second = await asyncio.gather(nbd.pread(512, 0), nbd.pread(512, 512))

    Leaving the block ends the connection in order, also when an exception leaves it; a server that does not end its
    side is given up after `timeout_s`, at most three seconds.

    A task that is cancelled while it waits leaves its command to itself: the reply is awaited and forgotten. No more
    than `most_in_flight` commands are sent ahead; further ones wait for their turn. `timeout_s` limits each call.
    """

    def __init__(
        self, handle: NBD | None = None, *, most_in_flight: int = MOST_IN_FLIGHT, timeout_s: float | None = None
    ) -> None:
        self.handle = handle or NBD()
        self.timeout_s = timeout_s
        self._most_in_flight = most_in_flight
        self._waiting_for_room: deque[asyncio.Future[None]] = deque()
        self._waiting_for_change: list[asyncio.Future[None]] = []
        self._flush_is_due = False
        self._failure: Failure | None = None
        self._beginning: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = -1
        self._watched_for_writing = False
        self.handle._driver.before_release = self._unwatch

    # ---- connecting

    async def connect_uri(self, uri: str) -> None:
        """Connect to an NBD URI. A host name in it is looked up without waiting for the answer."""
        await self._connect("connect_uri", lambda: self.handle.aio_connect_uri(uri))

    async def connect_unix(self, unixsocket: str | bytes | os.PathLike[Any]) -> None:
        """Connect to a Unix domain socket."""
        await self._connect("connect_unix", lambda: self.handle.aio_connect_unix(unixsocket))

    async def connect_tcp(self, hostname: str, port: str | int, *, family: int = socket.AF_UNSPEC) -> None:
        """Connect to a TCP port; the name is looked up in the background."""
        await self._connect("connect_tcp", lambda: self.handle.aio_connect_tcp(hostname, port, family=family))

    async def connect_vsock(self, cid: int, port: int) -> None:
        """Connect to a virtual machine's vsock."""
        await self._connect("connect_vsock", lambda: self.handle.aio_connect_vsock(cid, port))

    async def connect_socket(self, sock: int | socket.socket) -> None:
        """Use a connected socket, and take it over."""
        await self._connect("connect_socket", lambda: self.handle.aio_connect_socket(sock))

    async def connect_command(self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start a server and speak with it on its stdin and stdout."""
        await self._connect("connect_command", lambda: self.handle.aio_connect_command(argv, environment=environment))

    async def connect_systemd_socket_activation(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a server that gets a listening socket by systemd's protocol, and connect to it."""
        begin = partial(self.handle.aio_connect_systemd_socket_activation, argv, environment=environment)
        await self._connect("connect_systemd_socket_activation", begin)

    # ---- option mode

    async def opt_go(self) -> None:
        """Enter transmission on the export that `handle.set_export_name` chose."""
        await self._option("opt_go", self.handle.aio_opt_go)
        self.handle._open_lane()

    async def opt_info(self) -> None:
        """Ask about the export, so that its flags and sizes are known."""
        await self._option("opt_info", self.handle.aio_opt_info)

    async def opt_starttls(self) -> bool:
        """Ask for TLS; True if it is running now, False if the server refused."""
        return await self._agreement("opt_starttls", self.handle.aio_opt_starttls)

    async def opt_extended_headers(self) -> bool:
        """Ask for extended headers; True if the server agreed."""
        return await self._agreement("opt_extended_headers", self.handle.aio_opt_extended_headers)

    async def opt_structured_reply(self) -> bool:
        """Ask for structured replies; True if the server agreed."""
        return await self._agreement("opt_structured_reply", self.handle.aio_opt_structured_reply)

    async def opt_list(self) -> list[tuple[str, str]]:
        """Name and description of each export."""
        found: list[tuple[str, str]] = []
        await self._option("opt_list", partial(self.handle.aio_opt_list, lambda *export: found.append(export)))
        return found

    async def opt_list_meta_context(self, queries: Sequence[str] | None = None) -> list[str]:
        """The metadata contexts that match `queries`; by default those asked for by `handle.add_meta_context`."""
        default, chosen = self.handle.aio_opt_list_meta_context, self.handle.aio_opt_list_meta_context_queries
        return await self._meta_contexts("opt_list_meta_context", default, chosen, queries)

    async def opt_set_meta_context(self, queries: Sequence[str] | None = None) -> list[str]:
        """Select the metadata contexts that match `queries`, by default those asked for by `handle.add_meta_context`,
        and return their names. They take the place of all selected before."""
        default, chosen = self.handle.aio_opt_set_meta_context, self.handle.aio_opt_set_meta_context_queries
        return await self._meta_contexts("opt_set_meta_context", default, chosen, queries)

    # ---- commands

    async def pread(self, count: int, offset: int, flags: int = 0) -> bytearray:
        """Read `count` bytes at `offset`."""
        buffer = bytearray(min(count, MAX_REQUEST_SIZE + 1))  # more is refused anyway, and memory may not hold it
        await self._command("pread", "read", self.handle.aio_pread, buffer, offset, flags=flags)
        return buffer

    async def pread_into(self, buf: Any, offset: int, flags: int = 0) -> None:
        """Read into a buffer; it belongs to the command until the reply is there, also if the task is cancelled."""
        await self._command("pread_into", "read", self.handle.aio_pread, buf, offset, flags=flags)

    async def pwrite(self, buf: Any, offset: int, flags: int = 0) -> None:
        """Write a buffer at `offset`."""
        await self._command("pwrite", "write", self.handle.aio_pwrite, buf, offset, flags=flags)

    async def flush(self, flags: int = 0) -> None:
        """Wait until everything whose write has been answered is in permanent storage."""
        await self._command("flush", "flush", self.handle.aio_flush, flags=flags)

    async def trim(self, count: int, offset: int, flags: int = 0) -> None:
        """Tell the server that the contents of a range do not matter any more."""
        await self._command("trim", "trim", self.handle.aio_trim, count, offset, flags=flags)

    async def cache(self, count: int, offset: int, flags: int = 0) -> None:
        """Tell the server that a range will be read soon."""
        await self._command("cache", "cache", self.handle.aio_cache, count, offset, flags=flags)

    async def zero(self, count: int, offset: int, flags: int = 0) -> None:
        """Write zeroes to a range."""
        await self._command("zero", "write-zeroes", self.handle.aio_zero, count, offset, flags=flags)

    async def block_status(self, count: int, offset: int, flags: int = 0) -> dict[str, list[tuple[int, int]]]:
        """Context name -> [(length, flags), ...] in disk order from `offset`, as far as the server chose to tell."""
        found: dict[str, list[tuple[int, int]]] = {}

        def extent(context: str, offset: int, entries: list[tuple[int, int]], error: c_int) -> None:
            found.setdefault(context, entries)

        submit = self.handle.aio_block_status_64
        await self._command("block_status_64", "block-status", submit, count, offset, extent, flags=flags)
        return found

    async def extents(
        self, count: int, offset: int, context: str = CONTEXT_BASE_ALLOCATION, flags: int = 0
    ) -> AsyncIterator[StatusExtent]:
        """The status of a range in one metadata context, extent by extent, asking for more when they are used up."""
        end = offset + count
        while offset < end:
            wide = self.handle.get_extended_headers_negotiated()
            wanted = end - offset if wide else min(end - offset, LARGEST_RANGE)
            entries = (await self.block_status(wanted, offset, flags & int(CMD_FLAG_REQ_ONE))).get(context)
            if not entries:
                raise Failure(f"the server said nothing about {context}", errno.EPROTO).in_call("extents")
            for length, status in entries:
                length = min(length, end - offset)
                if length:
                    yield StatusExtent(offset, length, status)
                offset += length

    # ---- ending

    async def shutdown(self) -> None:
        """End the connection in order: what has been asked for is answered first."""
        if self.handle.aio_is_negotiating():
            self.handle.aio_opt_abort()
        elif not self.handle._engine.disconnecting:
            self.handle.aio_disconnect()
        self._watch()
        await self._limited("shutdown", self._until(lambda: self.handle._engine.over))

    async def aclose(self) -> None:
        """Close the handle without a word to the server; one that it started is waited for in the background."""
        handle = self.handle
        if self._beginning is not None:
            await asyncio.wait([self._beginning])  # it holds the lock
        self._unwatch()
        handle._driver.before_release = None
        if handle._closed:
            return
        # Here, because tasks are woken by it; only the server is waited for elsewhere.
        subprocess, handle._subprocess = handle._subprocess, None
        try:
            handle.close()
        finally:
            self._wake()
            if subprocess is not None:
                await asyncio.get_running_loop().run_in_executor(None, subprocess.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._leave()
        finally:
            await self.aclose()

    # ---- how

    async def _leave(self) -> None:
        """Shut down if the connection is in a state for it; whoever leaves is not told that the server did not care."""
        if self.handle._closed or not self.handle._driver.state.bit & (Group.NEGOTIATING | Group.CONNECTED):
            return
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(LEAVING_S):
                await self.shutdown()

    async def _connect(self, call: str, begin: Callable[[], None]) -> None:
        self._failure = None
        # In the background because of the one step that waits: looking up a name. It cannot be called off.
        job = self._beginning = asyncio.get_running_loop().run_in_executor(None, begin)
        job.add_done_callback(self._has_begun)
        await self._limited(call, asyncio.shield(job))
        await self._finish_connecting(call)

    async def _finish_connecting(self, call: str) -> None:
        await self._limited(call, self._until(self._is_settled))
        if not self.handle._driver.state.bit & (Group.NEGOTIATING | Group.CONNECTED):
            raise (self._failure or Failure("connection is closed")).in_call(call)
        self.handle._open_lane()

    def _has_begun(self, job: asyncio.Future[None]) -> None:
        self._beginning = None

    def _is_settled(self) -> bool:
        return not self.handle._driver.state.bit & Group.CONNECTING.value

    async def _option(self, call: str, begin: _Begin) -> None:
        """Hold a dialogue about an option to its end.

        Raises:
            Error: the server refused, or the connection died.
        """
        if number := await self._answer(call, begin):
            engine = self.handle._engine
            failure = engine.failure or engine.refusal or Failure("the server refused the option", number)
            raise failure.in_call(call)

    async def _agreement(self, call: str, begin: _Begin) -> bool:
        """The same where a refusal is an answer like any other: whether the server agreed."""
        number = await self._answer(call, begin)
        if (failure := self.handle._engine.failure) is not None:
            raise failure.in_call(call)
        return not number

    async def _meta_contexts(
        self, call: str, default: Callable[..., int], chosen: Callable[..., int], queries: Sequence[str] | None
    ) -> list[str]:
        """Hold the dialogue of `default`, or where there are queries of `chosen`; the names that the server tells."""
        found: list[str] = []
        begin = partial(default, found.append) if queries is None else partial(chosen, list(queries), found.append)
        await self._option(call, begin)
        return found

    async def _answer(self, call: str, begin: _Begin) -> int:
        """Begin an option and wait for its final reply: 0, or an errno value."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(error: c_int) -> None:
            if not future.done():
                future.set_result(error.value)

        begin(done)
        self._watch()
        return await self._limited(call, future)

    def _command(
        self, call: str, command: str, submit: Callable[..., int], *arguments: Any, flags: int
    ) -> Awaitable[None]:
        performed = self._perform(call, command, submit, arguments, flags)
        return performed if self.timeout_s is None else self._limited(call, performed)

    async def _perform(
        self, call: str, command: str, submit: Callable[..., int], arguments: Sequence[Any], flags: int
    ) -> None:
        loop = asyncio.get_running_loop()
        in_flight = self.handle._engine.in_flight
        while len(in_flight) >= self._most_in_flight:
            await self._turn()
        future: asyncio.Future[None] = loop.create_future()

        def done(error: c_int) -> int:
            if not future.done():
                if error.value:
                    failure = Failure(f"{command}: command failed", error.value)
                    future.set_exception(failure.in_call(call))
                else:
                    future.set_result(None)
            self._give_turn()
            return 1

        try:
            submit(*arguments, done, flags)
        except BaseException:
            self._give_turn()
            raise
        if not self._flush_is_due:
            self._flush_is_due = True
            loop.call_soon(self._flush)
        await future

    async def _turn(self) -> None:
        """Wait until a command that is in flight, or one that could not be sent, makes room."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting_for_room.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_turn()  # it came in the same moment, and somebody else can use it
            raise

    def _give_turn(self) -> None:
        while self._waiting_for_room:
            turn = self._waiting_for_room.popleft()
            if not turn.done():  # else its task was cancelled
                turn.set_result(None)
                return

    async def _limited(self, call: str, awaitable: Awaitable[T]) -> T:
        limit_s = self.timeout_s
        if limit_s is None:
            return await awaitable
        try:
            async with asyncio.timeout(limit_s):
                return await awaitable
        except TimeoutError:
            raise Failure(f"timed out after {limit_s:g} s", errno.ETIMEDOUT).in_call(call) from None

    async def _until(self, reached: Callable[[], bool]) -> None:
        self._watch()
        while not reached():
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting_for_change.append(change)
            await change

    # ---- the event loop

    def _flush(self) -> None:
        self._flush_is_due = False
        handle = self.handle
        if not handle._closed:
            with handle._lock:
                handle._driver.flush()
            self._watch()

    def _readable(self) -> None:
        self._step(READING)

    def _writable(self) -> None:
        self._step(WRITING)

    def _step(self, happened: int) -> None:
        handle = self.handle
        if not handle._closed:
            driver = handle._driver
            if driver.connecting:
                self._unwatch()  # a connection attempt that fails closes its socket
                happened = WRITING  # also when it is readable: that is how it fails
            with handle._lock:
                try:
                    if driver.direction() & happened:
                        (driver.notify_read if happened == READING else driver.notify_write)()
                except Failure as failure:
                    self._failure = failure  # whoever waits for a command has been told by the engine
        self._watch()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting_for_change = self._waiting_for_change, []
        for change in waiting:
            if not change.done():
                change.set_result(None)

    def _watch(self) -> None:
        """Watch the socket for what the handle waits for."""
        handle = self.handle
        descriptor = -1 if handle._closed else handle._driver.descriptor()
        if descriptor != self._watched:
            self._unwatch()
        if descriptor < 0:
            return
        loop = self._loop = asyncio.get_running_loop()
        if self._watched < 0:
            loop.add_reader(descriptor, self._readable)
            self._watched = descriptor
        writing = handle._driver.direction() in (WRITING, BOTH)
        if writing != self._watched_for_writing:
            if writing:
                loop.add_writer(descriptor, self._writable)
            else:
                loop.remove_writer(descriptor)
            self._watched_for_writing = writing

    def _unwatch(self) -> None:
        loop = self._loop
        if self._watched >= 0 and loop is not None and not loop.is_closed():
            loop.remove_reader(self._watched)
            loop.remove_writer(self._watched)
        self._watched = -1
        self._watched_for_writing = False
