"""What every test in the guest gets, and what is checked after each.

It gets a fresh device index, a server and a process for input and output; it leaves nothing attached, nothing in the
kernel's log and no taint.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbdtest.client.kernel.kernel_log import KernelLog
from nbdtest.client.kernel.netlink import NBDNetlink, Parameters
from nbdtest.client.kernel.sysfs import Sysfs
from tests.kernel.guest.device_io import Worker
from tests.kernel.guest.transmission import TransmissionServer

TROUBLE = re.compile(
    r"BUG|WARNING|Oops|Call Trace|refcount|hung|blocked for more|general protection|KASAN|use-after-free"
)
FIRST_INDEX = 100  # beyond the devices that the module makes


@pytest.fixture(scope="session")
def netlink() -> Iterator[NBDNetlink]:
    with NBDNetlink() as opened:
        yield opened


@pytest.fixture(scope="session")
def indexes() -> Iterator[int]:
    return itertools.count(FIRST_INDEX)


@pytest.fixture
def index(indexes: Iterator[int]) -> int:
    """A device that nobody has used before: limits of Linux 6.12 stay with the index."""
    return next(indexes)


@pytest.fixture
def make_node(indexes: Iterator[int], netlink: NBDNetlink) -> Callable[[], str]:
    """Make the nodes of fresh devices, as ioctl needs them."""

    def make() -> str:
        index = next(indexes)
        with TransmissionServer(512) as server, server.unix() as connection:
            netlink.connect(Parameters(size=512, sockets=[connection.fileno()]), index)
            netlink.disconnect(index)
        return f"/dev/nbd{index}"

    return make


@pytest.fixture
def node(make_node: Callable[[], str]) -> str:
    return make_node()


@pytest.fixture
def server() -> Iterator[TransmissionServer]:
    with TransmissionServer() as running:
        yield running


@pytest.fixture(scope="session")
def workers() -> Iterator[list[Worker]]:
    """One process is enough for all tests, unless one leaves it with an operation under way."""
    workers = [Worker()]
    yield workers
    workers[-1].close()


@pytest.fixture
def io(workers: list[Worker], netlink: NBDNetlink) -> Iterator[Worker]:
    yield workers[-1]
    if workers[-1].busy:
        _free_all(netlink)  # the process cannot even be killed before
        workers.append(Worker())
        workers[-2].close()


@pytest.fixture(autouse=True)
def kernel_is_well(netlink: NBDNetlink) -> Iterator[None]:
    """Fail a test that leaves a device attached, or after which the kernel complains; free what is stuck."""
    with KernelLog() as log:
        yield
        left = _free_all(netlink)
        lines = log.new_lines()
    trouble = [line for line in lines if TROUBLE.search(line)]
    assert not trouble, "the kernel complains:\n" + "\n".join(lines)
    assert Path("/proc/sys/kernel/tainted").read_text().strip() == "0", "the kernel is tainted"
    users = {index: Sysfs().users(index) for index in left}
    assert not left, f"devices were left attached: {users}"


def _free_all(netlink: NBDNetlink) -> list[int]:
    left = [index for index, connected in netlink.status().items() if connected]
    for index in left:
        netlink.disconnect(index)
    return left
