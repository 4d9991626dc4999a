"""`nbdtest attach`: make a server's export a block device of this machine, guarded so that nothing can hang on it."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import FrameType

from nbdtest.client.kernel.device import DEFAULT_TIMEOUT_S, Interface, NBDDevice
from nbdtest.client.kernel.handles import connected
from nbdtest.client.kernel.netlink import SECONDS_MAXIMUM
from nbdtest.client.kernel.sysfs import device_index
from nbdtest.client.kernel.watchdog import start
from nbdtest.errors import UsageError

__all__ = ["add_arguments", "run"]

STALL_FACTOR = 3  # of the timeout: a request may be sent again over another connection before
STALL_WITHOUT_TIMEOUT_S = 90.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "uri", metavar="URI", help="the export, such as nbd://localhost/disk or nbd+unix:///?socket=PATH"
    )
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="/dev/nbdN; without it the kernel takes a free one")
    parser.add_argument("--connections", type=int, default=1, metavar="N", help="connections to open (default 1)")
    parser.add_argument("--block-size", type=int, metavar="BYTES", help="512 to 4096 (default: the server's minimum)")
    parser.add_argument(
        "--timeout",
        type=int,
        default=DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="give a connection up after so long without an answer (default %(default)s, 0: never)",
    )
    parser.add_argument(
        "--reconnect",
        type=int,
        default=0,
        metavar="SECONDS",
        help="when the last connection dies, try for so long to connect again; requests wait meanwhile",
    )
    parser.add_argument(
        "--stall",
        type=float,
        metavar="SECONDS",
        help=f"detach the device when no request completes for so long (default: {STALL_FACTOR} times the timeout)",
    )
    parser.add_argument(
        "--no-watchdog", action="store_true", help="leave the device alone, even when its server stalls"
    )
    parser.add_argument("--foreground", action="store_true", help="stay, and detach the device when interrupted")
    parser.add_argument("--ioctl", action="store_true", help="use the old interface; implies --foreground")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Attach the export, print the device's name, and return 0; with --foreground, when it is detached.

    Raises:
        DeviceError, TransportError: it cannot be attached, or connected.
    """
    if arguments.ioctl and arguments.reconnect:
        raise UsageError("--reconnect needs netlink: leave --ioctl away")
    if arguments.connections < 1:
        raise UsageError("--connections: at least 1")
    if arguments.stall is not None and not arguments.stall > 0:
        raise UsageError("--stall: more than 0 seconds")
    for option in ("timeout", "reconnect"):
        if not 0 <= getattr(arguments, option) <= SECONDS_MAXIMUM:
            raise UsageError(f"--{option}: 0 to {SECONDS_MAXIMUM} seconds")
    wanted = None if arguments.device is None else device_index(arguments.device)
    foreground = arguments.foreground or arguments.ioctl
    with _interrupted_by_sigterm() if foreground else nullcontext(), _attached(arguments, wanted) as device:
        name = device.device
        assert name is not None, "an attached device has a node"
        if not arguments.no_watchdog:
            _guard(name, arguments, owned=foreground)
        if foreground:
            _stay(device, name)
        else:
            print(name, flush=True)
            device.release()
    return 0


def _attached(arguments: argparse.Namespace, index: int | None) -> NBDDevice:
    with ExitStack() as unattached:
        handles = []
        for _ in range(arguments.connections):
            handles.append(connected(arguments.uri))
            unattached.callback(handles[-1].close)
        device = NBDDevice.attach(
            *handles,
            device=index,
            interface=Interface.IOCTL if arguments.ioctl else Interface.NETLINK,
            timeout_s=arguments.timeout,
            block_size=arguments.block_size,
            dead_connection_timeout_s=arguments.reconnect,
        )
        unattached.pop_all()
    return device


def _guard(name: str, arguments: argparse.Namespace, *, owned: bool) -> None:
    stall_s = arguments.stall
    if stall_s is None:
        stall_s = STALL_FACTOR * arguments.timeout if arguments.timeout else STALL_WITHOUT_TIMEOUT_S
    start(
        name,
        stall_s=stall_s,
        connections=arguments.connections,
        owned=owned,
        uri=arguments.uri if arguments.reconnect else None,
        reconnect_s=arguments.reconnect,
    )


def _stay(device: NBDDevice, name: str) -> None:
    try:
        print(name, flush=True)
        device.wait()
    except KeyboardInterrupt:
        print(f"detaching {name}", file=sys.stderr)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM do what ^C does, so that the device is detached."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
