"""Every refusal of the kernel becomes an exception that says what to do."""

from __future__ import annotations

import errno
import os

import pytest

from nbdtest.client.kernel.failures import (
    DeviceBusy,
    DeviceError,
    NoModule,
    NotPermitted,
    UnsuitableConnection,
    explain,
)

CASES = [
    (errno.ENXIO, NoModule, "modprobe nbd"),
    (errno.ENODEV, NoModule, "modprobe nbd"),
    (errno.EPERM, NotPermitted, "root"),
    (errno.EACCES, NotPermitted, "root"),
    (errno.EBUSY, DeviceBusy, "take another device"),
    (errno.EBADF, UnsuitableConnection, "closed"),
    (errno.ENOTSOCK, UnsuitableConnection, "no socket"),
    (errno.ENOTTY, DeviceError, "no NBD device"),
    (errno.EINVAL, DeviceError, "EINVAL"),
    (4095, DeviceError, "4095"),
]


@pytest.mark.parametrize(("number", "kind", "advice"), CASES, ids=[str(case[0]) for case in CASES])
def test_an_error_number_becomes_a_kind_and_an_advice(number: int, kind: type[DeviceError], advice: str) -> None:
    failure = explain(OSError(number, os.strerror(number)), "connecting /dev/nbd3")
    assert type(failure) is kind
    assert failure.errno == number
    assert str(failure).startswith("connecting /dev/nbd3: ")
    assert advice in str(failure)


def test_what_the_kernel_logged_is_quoted() -> None:
    failure = explain(
        OSError(errno.EINVAL, "Invalid argument"), "SET_SOCK on /dev/nbd0", log="nbd0: Unsupported socket"
    )
    expected = "SET_SOCK on /dev/nbd0: Invalid argument (EINVAL): the kernel says 'nbd0: Unsupported socket'"
    assert str(failure) == expected
