"""The ioctl interface as far as it can be seen without an NBD device."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from nbdtest.client.kernel import ioctl
from nbdtest.client.kernel.failures import DeviceError
from nbdtest.client.kernel.ioctl import NBDIoctl, Request

DEVICE_TYPE = 0xAB  # of include/uapi/linux/nbd.h, where every request is _IO(0xab, n)
NUMBERS = {
    "SET_SOCK": 0,
    "SET_BLKSIZE": 1,
    "SET_SIZE": 2,
    "DO_IT": 3,
    "CLEAR_SOCK": 4,
    "CLEAR_QUE": 5,
    "PRINT_DEBUG": 6,
    "SET_SIZE_BLOCKS": 7,
    "DISCONNECT": 8,
    "SET_TIMEOUT": 9,
    "SET_FLAGS": 10,
}


def test_the_requests_have_the_kernel_s_numbers() -> None:
    assert {request.name: request.value for request in Request} == {
        name: DEVICE_TYPE << 8 | number for name, number in NUMBERS.items()
    }


def test_arguments_beyond_a_signed_int_are_passed_on() -> None:
    with Path("/dev/null").open() as file, pytest.raises(OSError, match="ioctl") as caught:
        ioctl.call(file.fileno(), Request.SET_SIZE, 1 << 63)
    assert caught.value.errno == errno.ENOTTY


@pytest.mark.parametrize("request_name", ["set_socket", "set_block_size", "set_size", "set_size_blocks", "set_timeout"])
def test_a_file_that_is_no_device_says_so(request_name: str) -> None:
    with NBDIoctl("/dev/null") as node, pytest.raises(DeviceError, match=r"on /dev/null: .*no NBD device"):
        getattr(node, request_name)(0)


def test_a_missing_node_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=f"there is no {tmp_path}/nbd0"):
        NBDIoctl(f"{tmp_path}/nbd0")


def test_the_node_is_not_inherited_and_closes_once() -> None:
    before = _null_descriptors()
    node = NBDIoctl("/dev/null")
    (descriptor,) = _null_descriptors() - before
    assert not os.get_inheritable(descriptor)
    node.close()
    node.close()
    assert _null_descriptors() == before


def _null_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/null":
                found.add(int(name))
    return found
