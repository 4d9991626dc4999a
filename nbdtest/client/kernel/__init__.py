"""The Linux kernel's NBD client: /dev/nbdN from Python.

`NBDDevice` hands connections to the kernel, over generic netlink or ioctl. How they came about is not known here.
"""

from nbdtest.client.kernel.device import DeviceStatus, Interface, NBDDevice
from nbdtest.client.kernel.failures import (
    DeviceBusy,
    DeviceError,
    NoModule,
    NotPermitted,
    StillInUse,
    UnsuitableConnection,
)
from nbdtest.client.kernel.netlink import ConfigFlag, LinkEvents, NBDNetlink, Parameters

__all__ = [
    "ConfigFlag",
    "DeviceBusy",
    "DeviceError",
    "DeviceStatus",
    "Interface",
    "LinkEvents",
    "NBDDevice",
    "NBDNetlink",
    "NoModule",
    "NotPermitted",
    "Parameters",
    "StillInUse",
    "UnsuitableConnection",
]
