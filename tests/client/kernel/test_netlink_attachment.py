"""When a device is still ours, as told from what /sys shows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbdtest.client.kernel import Parameters
from nbdtest.client.kernel.netlink_attachment import NetlinkAttachment
from nbdtest.client.kernel.sysfs import Sysfs
from tests.client.kernel.test_netlink import FakeChannel, over


@pytest.mark.parametrize(
    ("pid", "backend", "attached"),
    [
        ("40", "ours", True),
        ("40", "", True),  # a kernel before 5.14, which does not show it
        ("40", "theirs", False),
        ("41", "ours", False),
        ("41", "", False),
        ("", "", False),
    ],
    ids=["same", "old-kernel", "other-backend", "other-pid", "old-kernel-other-pid", "free"],
)
def test_a_device_is_ours_while_thread_and_backend_are_the_same(
    pid: str, backend: str, attached: bool, tmp_path: Path
) -> None:
    directory = tmp_path / "block/nbd3"
    directory.mkdir(parents=True)
    (directory / "pid").write_text("40\n")
    with over(FakeChannel()) as netlink, netlink.events() as events:
        parameters = Parameters(backend_identifier="ours")
        attachment = NetlinkAttachment(3, netlink, events, Sysfs(str(tmp_path)), parameters)
        for name, text in (("pid", pid), ("backend", backend)):
            (directory / name).unlink(missing_ok=True)
            if text:
                (directory / name).write_text(f"{text}\n")
        assert attachment.attached is attached
