"""AsyncNBD: tasks share a connection, wait for each other's room, are cancelled, and see what went wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from nbdtest.client import NBD, AsyncNBD, ClosedHandle, Error, StatusExtent
from nbdtest.fakeserver import FakeServer
from nbdtest.wire import (
    REQUEST_MAGIC,
    BlockStatus,
    Cmd,
    Errno,
    Extent,
    MetaContext,
    Opt,
    OptionReply,
    Rep,
    ReplyType,
    Request,
    SimpleReply,
)
from tests.client.prepared import Prepared, ack, chunk, data_chunk, done, error_chunk, handshake, refuse

T = TypeVar("T")
PATIENCE_S = 30.0
"""Until a test that would hang is given up."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


async def connected(prepared: Prepared, **server: object) -> AsyncNBD:
    nbd = AsyncNBD(prepared.handle)
    for _, name in server.get("contexts", ()):  # type: ignore[attr-defined]  # as handshake() takes them
        prepared.handle.add_meta_context(name)
    prepared.answer(handshake(**server))  # type: ignore[arg-type]  # the tests name the arguments
    await nbd.connect_socket(prepared._near.detach())
    prepared.sent()
    return nbd


def test_what_tasks_submit_in_one_turn_is_sent_at_once(prepared: Prepared) -> None:
    async def main() -> list[bytearray]:
        nbd = await connected(prepared)
        reads = [asyncio.ensure_future(nbd.pread(4, 4 * at)) for at in range(3)]
        for _ in range(3):
            await asyncio.sleep(0)
        requests = [Request(type=Cmd.READ, cookie=at + 1, offset=4 * at, length=4).encode() for at in range(3)]
        assert prepared.sent() == b"".join(requests)
        prepared.answer(data_chunk(3, 8, b"cccc"), data_chunk(1, 0, b"aaaa"), data_chunk(2, 4, b"bbbb"))
        found = await asyncio.gather(*reads)
        await nbd.aclose()
        return found

    assert run(main()) == [b"aaaa", b"bbbb", b"cccc"]


def test_a_failure_reaches_the_task_that_asked(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        good, bad = asyncio.ensure_future(nbd.pread(4, 0)), asyncio.ensure_future(nbd.pread(4, 4))
        await asyncio.sleep(0)
        prepared.answer(error_chunk(2, Errno.EIO), data_chunk(1, 0, b"good"))
        assert await good == b"good"
        with pytest.raises(Error, match="nbd_pread: read: command failed: Input/output error"):
            await bad
        with pytest.raises(Error, match="request out of bounds"):
            await nbd.pread(1, 1 << 40)
        await nbd.aclose()

    run(main())


def test_a_cancelled_read_is_answered_all_the_same(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        read = asyncio.ensure_future(nbd.pread(4, 0))
        await asyncio.sleep(0)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        prepared.answer(data_chunk(1, 0, b"late"), data_chunk(2, 0, b"next"))
        assert await nbd.pread(4, 0) == b"next"
        assert nbd.handle.aio_in_flight() == 0
        await nbd.aclose()

    run(main())


def test_no_more_is_in_flight_than_allowed(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        nbd._most_in_flight = 2
        reads = [asyncio.ensure_future(nbd.pread(4, 0)) for _ in range(5)]
        for answered in range(5):
            for _ in range(4):
                await asyncio.sleep(0)
            assert nbd.handle.aio_in_flight() == min(2, 5 - answered)
            prepared.answer(data_chunk(answered + 1, 0, b"data"))
            await reads[answered]
        await nbd.aclose()

    run(main())


def test_a_time_limit(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        nbd.timeout_s = 0.01
        with pytest.raises(Error) as caught:
            await nbd.flush()
        assert caught.value.errnum == errno.ETIMEDOUT
        await nbd.aclose()

    run(main())


def test_extents_are_iterated(prepared: Prepared) -> None:
    def status(cookie: int, *extents: tuple[int, int]) -> bytes:
        payload = BlockStatus(context_id=7, extents=tuple(Extent(*extent) for extent in extents)).encode()
        return chunk(cookie, ReplyType.BLOCK_STATUS, payload)

    async def main() -> list[StatusExtent]:
        nbd = await connected(prepared, contexts=[(7, "base:allocation")])
        prepared.answer(status(1, (512, 3)))
        found = []
        async for extent in nbd.extents(4096, 0):
            found.append(extent)
            if len(found) == 1:
                prepared.answer(status(2, (1 << 19, 0)))
        await nbd.aclose()
        return found

    assert run(main()) == [StatusExtent(0, 512, 3), StatusExtent(512, 3584, 0)]


def test_the_end_of_the_connection_ends_every_task(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        reads = [asyncio.ensure_future(nbd.pread(4, 0)) for _ in range(3)]
        await asyncio.sleep(0)
        prepared.end()
        for read in reads:
            with pytest.raises(Error, match="Transport endpoint is not connected"):
                await read
        assert nbd.handle.aio_is_closed()
        await nbd.aclose()

    run(main())


def test_a_large_write_waits_for_room_in_the_socket(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        payload = bytes(range(256)) * 4096
        write = asyncio.ensure_future(nbd.pwrite(payload, 0))
        received = b""
        while len(received) < 28 + len(payload):
            await asyncio.sleep(0)
            received += prepared.sent()
        assert received[28:] == payload
        prepared.answer(SimpleReply(cookie=1).encode())
        await write
        await nbd.aclose()

    run(main())


def test_option_mode(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = AsyncNBD(prepared.handle)
        prepared.handle.set_opt_mode(True)
        greeting = handshake()[:18]
        prepared.answer(greeting, refuse(Opt.EXTENDED_HEADERS), refuse(Opt.STRUCTURED_REPLY))
        await nbd.connect_socket(prepared._near.detach())
        prepared.answer(refuse(Opt.LIST), ack(Opt.LIST_META_CONTEXT))
        with pytest.raises(Error, match="the operation is not supported by the server"):
            await nbd.opt_list()
        assert await nbd.opt_list_meta_context(["base:"]) == []
        prepared.answer(refuse(Opt.STRUCTURED_REPLY), ack(Opt.STRUCTURED_REPLY), refuse(Opt.EXTENDED_HEADERS))
        assert not await nbd.opt_structured_reply()
        assert await nbd.opt_structured_reply()
        assert nbd.handle.get_structured_replies_negotiated()
        assert not await nbd.opt_extended_headers()
        name = MetaContext(id=1, name="base:allocation").encode()
        selected = OptionReply(option=Opt.SET_META_CONTEXT, type=Rep.META_CONTEXT, data=name).encode()
        for queries in (["base:allocation"], None):
            prepared.answer(selected, ack(Opt.SET_META_CONTEXT))
            assert await nbd.opt_set_meta_context(queries) == ["base:allocation"]
        assert nbd.handle.can_meta_context("base:allocation")
        await nbd.shutdown()
        assert nbd.handle.aio_is_closed()
        await nbd.aclose()

    run(main())


@pytest.mark.parametrize("opt_mode", [False, True])
def test_leaving_the_block_ends_the_connection_in_order(opt_mode: bool) -> None:
    async def main() -> None:
        async with AsyncNBD() as nbd:
            nbd.handle.set_opt_mode(opt_mode)
            await nbd.connect_unix(server.path)
            if not opt_mode:
                await nbd.pread(512, 0)
        with pytest.raises(ClosedHandle):
            nbd.handle.get_size()

    with FakeServer(size=4096) as server:  # which fails if a client just goes away
        run(main())


def test_so_does_an_exception_that_leaves_it() -> None:
    async def main() -> None:
        async with AsyncNBD() as nbd:
            await nbd.connect_unix(server.path)
            raise LookupError("of the caller")

    with FakeServer(size=4096) as server, pytest.raises(LookupError, match="of the caller"):
        run(main())


def test_a_server_that_does_not_end_its_side_is_left_all_the_same(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        nbd.timeout_s = 0.01
        async with nbd:
            pass
        assert prepared.sent() == Request(type=Cmd.DISC, cookie=1).encode()

    run(main())
    assert prepared.handle._closed


def test_after_a_shutdown_nothing_is_left_to_say(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        async with nbd:
            prepared.handle.aio_disconnect()
            prepared.end()
            await nbd.shutdown()
        assert prepared.sent() == Request(type=Cmd.DISC, cookie=1).encode()

    run(main())


async def turns(count: int) -> None:
    """Let the other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("moment", ["while it waits", "when its turn comes"])
def test_a_cancelled_task_passes_its_turn_on(prepared: Prepared, moment: str) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        nbd._most_in_flight = 1

        async def first() -> None:
            assert await nbd.pread(4, 0) == b"aaaa"
            second.cancel()

        reads = [asyncio.ensure_future(coroutine) for coroutine in (first(), nbd.pread(4, 0), nbd.pread(4, 0))]
        second = reads[1]
        await turns(3)
        if moment == "while it waits":
            second.cancel()
        prepared.sent()
        prepared.answer(data_chunk(1, 0, b"aaaa"))
        async with asyncio.timeout(PATIENCE_S):
            while not prepared.sent():
                await turns(1)
            prepared.answer(data_chunk(2, 0, b"cccc"))
            assert await reads[2] == b"cccc"
        assert second.cancelled()
        await nbd.aclose()

    run(main())


@pytest.mark.parametrize("end", ["server", "aclose"])
def test_tasks_that_wait_for_room_see_the_end_too(prepared: Prepared, end: str) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        nbd._most_in_flight = 1
        reads = [asyncio.ensure_future(nbd.pread(4, 0)) for _ in range(4)]
        await turns(3)
        if end == "server":
            prepared.end()
        else:
            await nbd.aclose()
        async with asyncio.timeout(PATIENCE_S):
            found = await asyncio.gather(*reads, return_exceptions=True)
        assert all(isinstance(error, Error | ClosedHandle) for error in found)
        await nbd.aclose()

    asyncio.run(main(), debug=True)  # where asyncio notices what is done in the wrong thread


def test_the_time_limit_includes_waiting_for_room(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        nbd._most_in_flight = 1
        unanswered = asyncio.ensure_future(nbd.flush())
        await turns(1)
        nbd.timeout_s = 0.01
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(Error, match=r"nbd_pread: timed out after 0\.01 s"):
                await nbd.pread(4, 0)
        prepared.answer(SimpleReply(cookie=1).encode())
        await unanswered
        await nbd.aclose()

    run(main())


def test_no_memory_is_taken_for_what_will_be_refused(prepared: Prepared) -> None:
    async def main() -> None:
        nbd = await connected(prepared)
        with pytest.raises(Error, match="request out of bounds"):
            await nbd.pread(1 << 62, 0)
        await nbd.aclose()

    run(main())


def test_a_handle_that_outlives_its_loop_can_be_closed(prepared: Prepared) -> None:
    nbd = run(connected(prepared))
    nbd.handle.close()
    assert prepared.far.recv(1) == b""


@pytest.mark.parametrize("turn", range(1, 24))
def test_a_session_can_be_cancelled_anywhere(turn: int) -> None:
    descriptors = os.listdir("/proc/self/fd")
    made = Prepared()
    made.answer(handshake())

    async def server() -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(made.far, 1 << 16):
            for at in range(len(data) % 28, len(data), 28):  # options come first, if at all
                if data[at : at + 4] == REQUEST_MAGIC.to_bytes(4, "big"):
                    request = Request.decode(data[at : at + 28])
                    if request.type == Cmd.DISC:
                        continue
                    reply = data_chunk(request.cookie, 0, b"data") if request.type == Cmd.READ else done(request.cookie)
                    await loop.sock_sendall(made.far, reply)
        made.far.shutdown(socket.SHUT_WR)

    async def session() -> None:
        async with AsyncNBD(made.handle, most_in_flight=2) as nbd:
            await nbd.connect_socket(made._near.detach())
            assert await asyncio.gather(*(nbd.pread(4, 0) for _ in range(3))) == [b"data"] * 3
            await nbd.flush()
            await asyncio.sleep(PATIENCE_S)

    async def main() -> None:
        serving, task = asyncio.ensure_future(server()), asyncio.ensure_future(session())
        await turns(turn)
        task.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([task])
        assert task.cancelled()
        assert made.handle._closed
        serving.cancel()

    run(main())
    made.close()
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_a_connection_that_cannot_be_made(where: str) -> None:
    async def main() -> None:
        async with AsyncNBD() as nbd:
            with pytest.raises(Error, match=r"ECONNREFUSED|ENOENT"):
                await (nbd.connect_tcp("127.0.0.1", 1) if where == "tcp" else nbd.connect_unix("/nonexistent/sock"))

    run(main())


@pytest.mark.interop
def test_many_tasks_on_nbdkit() -> None:
    async def main() -> None:
        async with AsyncNBD(NBD()) as nbd:
            await nbd.connect_command(["nbdkit", "-s", "--exit-with-parent", "memory", "4M"])
            await asyncio.gather(*(nbd.pwrite(bytes([at]) * 4096, at * 4096) for at in range(256)))
            found = await asyncio.gather(*(nbd.pread(4096, at * 4096) for at in range(256)))
            assert found == [bytes([at]) * 4096 for at in range(256)]
            await nbd.shutdown()

    run(main())
