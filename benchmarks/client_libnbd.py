"""The client against libnbd's own Python binding: same interpreter, same server, one run.

    taskset -c 1 /usr/bin/python3 benchmarks/client_libnbd.py [--rounds 9] [--floor] [CASE ...]

Both libraries do each case in turn, round after round; what counts is the median of the rounds' ratios (above 1: this
client is faster). Absolute figures say little on a shared machine. One request at a time has to be measured with client
and server on one processor, hence `taskset`: the wake-up of another one costs more than everything that differs. With
many in flight client and server work side by side, which needs two: do those cases ("flight") without `taskset`, too.
libnbd's binding belongs to the system's Python, so that is the interpreter to use; the client needs no installation.
With --floor the bare system calls of the same exchanges, in Python, take their turn as well: no client can be faster.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bare_handle
import nbd as libnbd

from nbdtest import client
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.process import start_listening

Library: TypeAlias = ModuleType | SimpleNamespace
BARE = tuple(SimpleNamespace(NBD=handle, Buffer=client.Buffer) for handle in (bare_handle.NBD, bare_handle.PollingNBD))
SIZE = 64 << 20
KIB, MIB = 1 << 10, 1 << 20
SERVERS = {
    "nbdkit": ["nbdkit", "-f", "-U", "{socket}", "memory", str(SIZE)],
    "nbdkit -t 1": ["nbdkit", "-f", "-t", "1", "-U", "{socket}", "memory", str(SIZE)],
    "qemu-nbd": ["qemu-nbd", "-t", "-e", "8", "-k", "{socket}", "-f", "raw", "--cache=writeback", "{disk}"],
}


@dataclass(frozen=True)
class Case:
    """Something to be done `count` times a round, by `work(module, handle, count)`."""

    name: str
    server: str
    count: int
    work: Callable[[Library, Any, int], None]
    target: float
    """The ratio to be reached."""
    cpu: float = 0.0
    """The share of libnbd's client CPU that may be used; 0: any."""
    has_floor: bool = True
    """Whether a bare handle can do it, too."""


@dataclass(frozen=True)
class Figures:
    """Medians of a case's rounds; ratios to libnbd."""

    speed: float
    cpu: float
    rate: float
    """Operations a second of this client."""
    floor: float | None
    """The speed of bare system calls, made in the better of two ways."""
    floor_cpu: float | None
    """The share of libnbd's client CPU that these use."""


def read(size: int) -> Callable[[Library, Any, int], None]:
    def work(module: Library, h: Any, count: int) -> None:
        for _ in range(count):
            h.pread(size, 0)

    return work


def write(size: int) -> Callable[[Library, Any, int], None]:
    data = bytearray(os.urandom(size))

    def work(module: Library, h: Any, count: int) -> None:
        for _ in range(count):
            h.pwrite(data, 0)

    return work


def read_into(size: int) -> Callable[[Library, Any, int], None]:
    ours = bytearray(size)

    def work(module: Library, h: Any, count: int) -> None:
        for _ in range(count):
            if module is client:
                h.pread_into(ours, 0)
            else:
                h.pread(size, 0)

    return work


def in_flight(depth: int, size: int, *, writes: bool) -> Callable[[Library, Any, int], None]:
    def work(module: Library, h: Any, count: int) -> None:
        buffers = [module.Buffer.from_bytearray(bytearray(size)) for _ in range(depth)]
        submit = h.aio_pwrite if writes else h.aio_pread
        poll = h.poll
        started = 0

        def completed(buffer: Any, error: Any) -> int:
            assert error.value == 0
            buffers.append(buffer)
            return 1

        while started < count or len(buffers) < depth:
            while buffers and started < count:
                buffer = buffers.pop()
                submit(buffer, started % 1024 * size, lambda error, buffer=buffer: completed(buffer, error))
                started += 1
            poll(-1)

    return work


def tasks_in_flight(depth: int, size: int) -> Callable[[Library, Any, int], None]:
    """Asyncio tasks that read one after the other, against libnbd's loop of callbacks."""
    callbacks = in_flight(depth, size, writes=False)

    async def tasks(path: str, count: int) -> None:
        async with client.AsyncNBD() as connection:
            await connection.connect_unix(path)

            async def reader(number: int) -> None:
                for at in range(number, count, depth):
                    await connection.pread(size, at % 1024 * size)

            await asyncio.gather(*map(reader, range(depth)))

    def work(module: Library, h: Any, count: int) -> None:
        if module is client:
            asyncio.run(tasks(h.get_uri().partition("socket=")[2], count))
        else:
            callbacks(module, h, count)

    return work


def flush(module: Library, h: Any, count: int) -> None:
    for _ in range(count):
        h.flush()


def block_status(module: Library, h: Any, count: int) -> None:
    def extent(context: str, offset: int, entries: list[int], error: Any) -> None:
        pass

    for _ in range(count):
        h.block_status(MIB, 0, extent)


def connect(module: Library, h: Any, count: int) -> None:
    uri = h.get_uri()
    path = uri.partition("socket=")[2]
    for _ in range(count):
        another = module.NBD()
        if module is client and not hasattr(libnbd.NBD, "set_request_extended_headers"):
            another.set_request_extended_headers(False)  # one option less, as the older libnbd does it
        another.connect_unix(path)
        another.shutdown()
        del another


CASES = [
    Case("pread 4 KiB", "nbdkit", 2000, read(4 * KIB), 1.1),
    Case("pwrite 4 KiB", "nbdkit", 2000, write(4 * KIB), 1.1),
    Case("pread 4 KiB, one thread", "nbdkit -t 1", 2000, read(4 * KIB), 1.3),
    Case("pwrite 4 KiB, one thread", "nbdkit -t 1", 2000, write(4 * KIB), 1.3),
    Case("pread 64 KiB", "nbdkit", 1000, read(64 * KIB), 0.0),
    Case("pread 1 MiB", "nbdkit", 100, read(MIB), 1.0),
    Case("pwrite 1 MiB", "nbdkit", 100, write(MIB), 1.0),
    Case("pread_into 32 MiB", "nbdkit", 3, read_into(32 * MIB), 1.7, has_floor=False),
    Case("64 in flight, aio_pread 4 KiB", "nbdkit", 6000, in_flight(64, 4 * KIB, writes=False), 1.8, 0.4),
    Case("64 in flight, aio_pwrite 4 KiB", "nbdkit", 6000, in_flight(64, 4 * KIB, writes=True), 2.2, 0.4),
    Case("64 tasks, AsyncNBD.pread 4 KiB", "nbdkit", 6000, tasks_in_flight(64, 4 * KIB), 1.0, has_floor=False),
    Case("connect", "nbdkit", 60, connect, 1.0),
    Case("connect, qemu-nbd", "qemu-nbd", 60, connect, 1.0),
    Case("flush", "nbdkit", 2000, flush, 0.95),
    Case("flush, qemu-nbd", "qemu-nbd", 1000, flush, 0.95),
    Case("block_status", "nbdkit", 2000, block_status, 0.95),
    Case("block_status, qemu-nbd", "qemu-nbd", 1000, block_status, 0.95),
    Case("pread 4 KiB, qemu-nbd", "qemu-nbd", 1000, read(4 * KIB), 0.0),
]


@contextmanager
def running(name: str) -> Iterator[str]:
    """Start a server and give the path of its socket."""
    with tempfile.TemporaryDirectory() as directory:
        socket, disk = f"{directory}/sock", f"{directory}/disk"
        with open(disk, "wb") as file:
            file.write(os.urandom(MIB) * (SIZE // MIB))
        argv = [word.format(socket=socket, disk=disk) for word in SERVERS[name]]
        with start_listening(argv, UnixAddress(socket)):
            yield socket


def connected(module: Library, socket: str) -> Any:
    """A handle on the server."""
    h = module.NBD()
    h.add_meta_context("base:allocation")
    h.connect_unix(socket)
    return h


def measure(case: Case, rounds: int, *, floor: bool) -> Figures:
    """Let the libraries do the case in turn."""
    modules = [libnbd, client, *(BARE if floor and case.has_floor else ())]
    with running(case.server) as socket:
        handles = [connected(module, socket) for module in modules]
        for module, h in zip(modules, handles, strict=True):
            case.work(module, h, max(1, case.count // 10))
        times: list[list[float]] = [[] for _ in modules]
        cpus: list[list[float]] = [[] for _ in modules]
        for number in range(rounds):
            for turn in range(len(modules)):
                which = (number + turn) % len(modules)
                cpu, start = time.process_time(), time.perf_counter()
                case.work(modules[which], handles[which], case.count)
                times[which].append(time.perf_counter() - start)
                cpus[which].append(time.process_time() - cpu)
        for h in handles:
            h.shutdown()
    speeds = [ratio(times[0], spent) for spent in times]
    rate = case.count / statistics.median(times[1])
    shares = [ratio(spent, cpus[0]) for spent in cpus]
    return Figures(speeds[1], shares[1], rate, max(speeds[2:], default=None), min(shares[2:], default=None))


def ratio(of: list[float], to: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(of, to, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="The client against libnbd's Python binding.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--floor", action="store_true", help="measure bare system calls, too")
    parser.add_argument("cases", nargs="*", help="parts of the names of cases; default: all")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, libnbd {libnbd.__version__}, {options.rounds} rounds")
    titles = f"{'speed':>6} {'wanted':>6} {'floor':>6} {'CPU':>5} {'wanted':>6} {'floor':>6} {'per second':>10}"
    print(f"{'case':34} {titles}")
    for case in CASES:
        if options.cases and not any(part in case.name for part in options.cases):
            continue
        figures = measure(case, options.rounds, floor=options.floor)
        wanted = f"{case.target:.2f}" if case.target else ""
        share = f"{case.cpu:.2f}" if case.cpu else ""
        floor = f"{figures.floor:.2f}" if figures.floor else ""
        floor_cpu = f"{figures.floor_cpu:.2f}" if figures.floor_cpu else ""
        speed = f"{figures.speed:6.2f} {wanted:>6} {floor:>6}"
        print(f"{case.name:34} {speed} {figures.cpu:5.2f} {share:>6} {floor_cpu:>6} {figures.rate:10.0f}", flush=True)


if __name__ == "__main__":
    main()
