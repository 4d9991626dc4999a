"""Whose a device is: what we must not touch, what others may do to ours, and when a device vanishes by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from nbdtest.client.kernel import Interface, NBDDevice, NBDNetlink
from nbdtest.client.kernel.sysfs import Sysfs
from nbdtest.wire.numbers import Cmd
from tests.kernel.guest.device_io import Worker
from tests.kernel.guest.transmission import ALL_FLAGS, TransmissionServer
from tests.kernel.waiting import until

MIB = 1 << 20


def test_a_device_that_somebody_detached_and_another_took_is_not_ours_any_more(
    index: int, server: TransmissionServer, netlink: NBDNetlink, io: Worker
) -> None:
    first = NBDDevice(server.unix(), index, size=MIB)
    first.run_async()
    netlink.disconnect(index)
    until(lambda: not first.attached, "the device is free")
    with NBDDevice(server.unix(), index, size=MIB, flags=ALL_FLAGS) as second:
        second.run_async()
        first.close()
        assert second.attached
        assert io("read", f"/dev/nbd{index}", 0, 512) == bytes(512)


@pytest.mark.parametrize("interface", list(Interface), ids=lambda interface: str(interface.value))
def test_a_device_that_somebody_detached_closes_quietly(
    interface: Interface, node: str, server: TransmissionServer, netlink: NBDNetlink
) -> None:
    with NBDDevice(server.unix(), node, interface=interface, size=MIB) as device:
        device.run_async()
        netlink.disconnect(int(node[len("/dev/nbd") :]))
        assert device.wait(5.0)
        assert not device.attached


@pytest.mark.parametrize("interface", list(Interface), ids=lambda interface: str(interface.value))
def test_a_forked_process_that_ends_leaves_the_device_to_its_parent(
    interface: Interface, node: str, server: TransmissionServer, io: Worker
) -> None:
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from nbdtest.client.kernel import NBDDevice
        from nbdtest.errors import UsageError
        with NBDDevice(int(sys.argv[1]), {node!r}, interface={interface.value!r}, size={MIB}) as device:
            device.run_async()
            for leave in ("with", "exit"):
                child = os.fork()
                if child == 0:
                    signal.alarm(10)
                    for detach in (device.disconnect, device.kill_async):
                        try:
                            detach()
                        except UsageError:
                            pass
                        else:
                            os._exit(3)
                    if leave == "exit":
                        device.close = lambda: None
                    sys.exit(7)  # leaves `with`, and runs what is to be done at the end
                print(leave, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), device.attached, flush=True)
            input()
        """
    )
    connection = server.unix()
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, str(connection.fileno())],
        pass_fds=[connection.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["with 7 True\n", "exit 7 True\n"]
        assert io("read", node, 0, 512) == bytes(512)
        process.communicate("\n", timeout=30)
    assert process.returncode == 0
    assert len(server.of(Cmd.DISC)) == 1


def test_a_signal_does_not_end_the_service_loop(node: str, server: TransmissionServer, io: Worker) -> None:
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with NBDDevice(server.unix(), node, interface=Interface.IOCTL, size=MIB) as device:
            device.run_async()
            (loop,) = (thread for thread in threading.enumerate() if thread.name == f"{node} service loop")
            assert loop.ident is not None
            signal.pthread_kill(loop.ident, signal.SIGUSR1)
            assert io("read", node, 0, 512) == bytes(512)
            assert device.attached
        assert server.of(Cmd.DISC)
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_device_to_be_destroyed_vanishes_with_its_last_user(
    index: int, server: TransmissionServer, io: Worker
) -> None:
    with NBDDevice(server.unix(), index, size=MIB, destroy_on_disconnect=True) as device:
        device.run_async()
        assert index in Sysfs().indexes()
    until(lambda: index not in Sysfs().indexes(), "the device has vanished")


def test_a_device_to_be_disconnected_on_close_ends_with_its_last_opener(
    index: int, server: TransmissionServer, io: Worker
) -> None:
    path = f"/dev/nbd{index}"
    with NBDDevice(server.unix(), index, size=MIB, disconnect_on_close=True) as device:
        device.run_async()
        assert device.attached
        io("hold", path)
        io("let_go", path)
        assert device.wait(5.0)
    server.wait_for(Cmd.DISC)


def test_the_backend_identifier_is_shown(index: int, server: TransmissionServer) -> None:
    shown = Path(f"/sys/block/nbd{index}/backend")
    with NBDDevice(server.unix(), index, size=MIB, backend_identifier="disk of the tests") as device:
        device.run_async()
        assert shown.read_text().strip() == "disk of the tests"


@pytest.mark.parametrize("interface", list(Interface), ids=lambda interface: str(interface.value))
def test_attaching_and_detaching_again_and_again_leaves_nothing_behind(
    interface: Interface, node: str, server: TransmissionServer, io: Worker
) -> None:
    for round_number in range(30):
        with NBDDevice(server.unix(), node, interface=interface, size=MIB, flags=ALL_FLAGS) as device:
            device.run_async()
            if round_number % 3 == 0:
                io("read", node, 0, 4096)
            if round_number % 3 == 1:
                device.kill_async()
