"""Targets for the suite's own tests: fake servers in this process, and everything they can be made to offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nbdtest.conformance import ServerTarget, Vitals
from nbdtest.errors import TransportError
from nbdtest.fakeserver import BlockSizes, DirtyBitmap, Export, FakeServer, Style, actions
from nbdtest.fakeserver.contexts import Allocation, UserContext
from nbdtest.model import DiskError, MemoryDisk
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.sockets import connect
from nbdtest.net.stream import Stream
from nbdtest.wire import Errno, Opt

__all__ = ["CONFIGURATIONS", "Configuration", "InProcess", "target_of"]

MIB = 1 << 20
BAD_RANGE = (MIB, 512)
QUIET_S = 0.04


@dataclass
class InProcess:
    """A fake server in this process, as a source of connections."""

    server: FakeServer
    again: Callable[[], FakeServer]
    name: str = "fake"
    spec: str = "fake"
    version: str = ""
    writable: bool = True
    export_name: str = ""
    per_connection: bool = False
    keeps_data: bool = True
    can_tls: bool = False
    credentials: Any = None

    def connect(self, timeout_s: float) -> Stream:
        return connect(UnixAddress(self.server.path), timeout_s=timeout_s)

    def start_tls(self, stream: Stream, timeout_s: float) -> Stream:
        raise TransportError("no credentials")

    def obituary(self) -> str:
        return ""

    def output(self) -> str:
        return ""

    def vitals(self) -> Vitals | None:
        return None

    def signal(self, number: int) -> bool:
        return False

    def revive(self) -> None:
        self.server.stop()
        self.server = self.again()

    def close(self) -> None:
        self.server.stop()


class BadDisk:
    """A disk with one range that cannot be read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._good = MemoryDisk(size)

    def read(self, offset: int, length: int) -> bytes:
        first, count = BAD_RANGE
        if offset < first + count and offset + length > first:
            raise DiskError(Errno.EIO, "this range is broken", offset=max(offset, first))
        return bytes(self._good.read(offset, length))

    def write(self, offset: int, data: bytes) -> None:
        self._good.write(offset, data)


@dataclass(frozen=True)
class Configuration:
    """How a fake server is set up, and what its target is told."""

    make: Callable[[], FakeServer]
    export_name: str = ""
    bad_range: tuple[int, int] | None = None
    only: tuple[str, ...] = ()
    """The families of checks that this configuration is for; none for all."""


def _full(**changes: Any) -> Callable[[], FakeServer]:
    def make() -> FakeServer:
        export: dict[str, Any] = {
            "size": 64 * MIB,
            "description": "the first export",
            "block_sizes": BlockSizes(),
            "contexts": (Allocation(), DirtyBitmap("bitmap")),
        }
        settings: dict[str, Any] = {}
        for name, value in changes.items():
            (export if name in Export.__dataclass_fields__ or name == "size" else settings)[name] = value
        second = Export("second", size=4 * MIB, description="the second export")
        return FakeServer(Export("", **export), second, tolerate=["*"], **settings)

    return make


def _without_block_sizes() -> FakeServer:
    server = _full(block_sizes=None)()
    for option in (Opt.INFO, Opt.GO):
        server.on(option).rewrite(
            lambda asked, plan: [each for each in plan if not isinstance(each, actions.InfoBlockSize)]
        )
    return server


CONFIGURATIONS: dict[str, Configuration] = {
    "full": Configuration(_full()),
    "named": Configuration(
        lambda: FakeServer(Export("data", size=64 * MIB), Export("second", size=MIB), tolerate=["*"]),
        export_name="data",
    ),
    "oldstyle": Configuration(_full(style=Style.OLDSTYLE)),
    "read-only": Configuration(_full(read_only=True)),
    "blocks-of-4096": Configuration(_full(block_sizes=BlockSizes(minimum=4096))),
    "no-block-sizes": Configuration(_without_block_sizes),
    "without-no-zeroes": Configuration(_full(no_zeroes=False)),
    "without-fast-zero": Configuration(_full(can_fast_zero=False)),
    "wide-context": Configuration(
        _full(contexts=(Allocation(), UserContext("x-test:wide", [(1 << 62, 1 << 40)], wide=True))),
        only=("extended", "meta"),
    ),
    "resizable": Configuration(_full(can_resize=True)),
    "larger-than-4-gib": Configuration(_full(size=(4 << 30) + MIB)),
    "with-bad-range": Configuration(
        lambda: FakeServer(Export("", disk=BadDisk(4 * MIB)), tolerate=["*"]),
        bad_range=BAD_RANGE,
        only=("fault", "chunk", "fast-zero"),
    ),
}
"""Between them every check is run, but those that need a process or credentials."""


@contextmanager
def target_of(
    configuration: Configuration, *, change: Callable[[FakeServer], None] | None = None, seed: int = 0
) -> Iterator[ServerTarget]:
    """A target on a fresh fake server; `change` makes it wrong first."""

    def begin() -> FakeServer:
        server = configuration.make()
        if change is not None:
            change(server)
        return server.start()

    source = InProcess(begin(), begin, export_name=configuration.export_name)
    try:
        yield ServerTarget(source, timeout_s=2.0, quiet_s=QUIET_S, seed=seed, bad_range=configuration.bad_range)
    finally:
        source.close()
