"""What `nbdtest attach` and `nbdtest detach` refuse, on any machine; what they do is tested in a guest kernel."""

from __future__ import annotations

import pytest

from nbdtest.cli import main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["attach", "nbd+unix:///?socket=/nonexistent"], "no connection to nbd+unix:///?socket=/nonexistent"),
        (["attach", "nbd://localhost", "/dev/sda"], "'/dev/sda' is no NBD device"),
        (["attach", "nbd://localhost", "--ioctl", "--reconnect", "5"], "--reconnect needs netlink"),
        (["attach", "nbd://localhost", "--connections", "0"], "--connections: at least 1"),
        (["attach", "nbd://localhost", "--timeout", "-1"], "--timeout: 0 to 4294967 seconds"),
        (["attach", "nbd://localhost", "--reconnect", "4294968"], "--reconnect: 0 to 4294967 seconds"),
        (["attach", "nbd://localhost", "--stall", "0"], "--stall: more than 0 seconds"),
        (["attach", "nbd://localhost", "/dev/nbd1048576"], "'/dev/nbd1048576' is no NBD device"),
        (["detach", "/dev/nbd99999"], "there is no /dev/nbd99999"),
        (["detach", "/dev/null"], "'/dev/null' is no NBD device"),
    ],
    ids=lambda value: " ".join(value[1:]).replace("/", "-") if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"nbdtest: {complaint}")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"Example: nbdtest {command} " in capsys.readouterr().out
