"""The guard that frees a device whose server, or whose owner, is no longer there."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from nbdtest.client.kernel import DeviceError, NBDDevice
from nbdtest.client.kernel.sysfs import Sysfs
from nbdtest.client.kernel.watchdog import Guard
from nbdtest.wire.numbers import Cmd
from nbdtest.wire.transmission import Request, SimpleReply
from tests.kernel.guest.device_io import Worker
from tests.kernel.guest.transmission import ALL_FLAGS, Peer, TransmissionServer
from tests.kernel.waiting import until

MIB = 1 << 20
STALL_S = 0.6


def half_a_payload(peer: Peer, request: Request) -> bool:
    if request.type is not Cmd.READ:
        return False
    peer.send(SimpleReply(cookie=request.cookie).encode(), bytes(request.length // 2))
    peer.hold()
    return True


def test_a_reader_that_no_timeout_would_free_is_freed(index: int, server: TransmissionServer, io: Worker) -> None:
    with NBDDevice(server.unix(), index, size=MIB, flags=ALL_FLAGS) as device:
        device.run_async()
        path = f"/dev/nbd{index}"
        io("sizes", path)
        with Guard(device, stall_s=STALL_S):
            server.answer = half_a_payload
            with pytest.raises(OSError, match="Input/output error"):
                io("read", path, 65536, 4096)
            assert device.wait(5.0)


def test_a_device_that_works_or_idles_is_left_alone(index: int, server: TransmissionServer, io: Worker) -> None:
    with NBDDevice(server.unix(), index, size=MIB, flags=ALL_FLAGS) as device:
        device.run_async()
        with Guard(device, stall_s=STALL_S):
            assert not device.wait(2 * STALL_S)
            assert io("read", f"/dev/nbd{index}", 0, 4096) == bytes(4096)
        assert device.status().live_connections == 1


def test_a_device_whose_last_connection_died_is_detached(index: int, server: TransmissionServer) -> None:
    with NBDDevice(server.unix(), index, size=MIB, dead_connection_timeout_s=60) as device:
        device.run_async()
        with Guard(device, stall_s=30):
            server.close()
            assert device.wait(10.0)
            assert not device.attached


def test_the_guard_outlives_a_killed_owner_and_detaches_the_device(index: int) -> None:
    owner = textwrap.dedent(
        f"""
        import signal, socket
        from nbdtest.client.kernel import NBDDevice
        from nbdtest.client.kernel.watchdog import Guard
        ours, theirs = socket.socketpair()
        device = NBDDevice(ours, {index}, size=4096)
        device.run_async()
        Guard(device, stall_s=30)
        print("ready", flush=True)
        signal.pause()
        """
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert Sysfs().pid(index) is not None
        process.send_signal(signal.SIGKILL)
    until(lambda: Sysfs().pid(index) is None, "the device is free")


def test_only_an_attached_device_is_guarded(index: int, server: TransmissionServer) -> None:
    with NBDDevice(server.unix(), index, size=MIB) as device, pytest.raises(DeviceError, match="attached"):
        Guard(device, stall_s=1)
