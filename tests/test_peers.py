"""The interop tests mean nothing without a peer: a missing one is a fault of the installation, not a skip."""

import shutil

import pytest

SERVERS = ("nbdkit", "qemu-nbd", "nbd-server")


@pytest.mark.interop
def test_a_real_server_is_installed() -> None:
    found = [server for server in SERVERS if shutil.which(server)]
    assert found, f"none of {', '.join(SERVERS)} is on PATH: tests/run says which packages are missing"
