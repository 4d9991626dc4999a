"""`nbdtest detach`: free block devices that `nbdtest attach`, nbd-client or anything else attached."""

from __future__ import annotations

import argparse
import sys

from nbdtest.client.kernel.device import CLOSE_S
from nbdtest.client.kernel.failures import DeviceError
from nbdtest.client.kernel.netlink import NBDNetlink
from nbdtest.client.kernel.release import wait_until_free
from nbdtest.client.kernel.sysfs import Sysfs, device_index, device_path

__all__ = ["add_arguments", "detach", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("devices", metavar="DEVICE", nargs="+", help="/dev/nbdN")
    parser.add_argument(
        "--timeout",
        type=float,
        default=CLOSE_S,
        metavar="SECONDS",
        help="how long to wait until nobody uses the device any more (default %(default)g)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Detach the devices and return 0.

    Raises:
        DeviceError: one is not attached, cannot be detached, or is still in use afterwards.
    """
    refusals = []
    for index in [device_index(device) for device in arguments.devices]:
        try:
            detach(index, timeout_s=arguments.timeout)
        except DeviceError as error:  # the others are detached all the same
            refusals.append(error)
    for refusal in refusals[:-1]:
        print(f"nbdtest: {refusal}", file=sys.stderr)
    if refusals:
        raise refusals[-1]
    return 0


def detach(index: int, *, timeout_s: float = CLOSE_S) -> None:
    """Detach a device, whoever attached it, and wait until it is free.

    Raises:
        DeviceError: it is not attached, or the kernel refused.
        StillInUse: somebody keeps it open; what they do with it fails.
    """
    sysfs = Sysfs()
    if index not in sysfs.indexes():
        raise sysfs.no_such_device(device_path(index))
    if sysfs.pid(index) is None:
        raise DeviceError(f"{device_path(index)} is not attached")
    with NBDNetlink() as netlink:
        netlink.disconnect(index)
    wait_until_free(index, sysfs, timeout_s, lambda: sysfs.pid(index) is not None)
