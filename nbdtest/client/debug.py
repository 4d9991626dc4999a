"""Debug messages: where they go, and how calls and their results look in them."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from nbdtest.client.buffer import Buffer
from nbdtest.client.commands import DebugCallback
from nbdtest.client.settings import Settings

__all__ = ["Reporter", "print_exception"]

LONGEST = 512


class Reporter:
    """Says messages to the handle's debug callback or, without one, on stderr. `call` is the API call in progress."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.callback: DebugCallback | None = None
        self.call = ""

    def __call__(self, text: str) -> None:
        """Say `text`, if debugging is on."""
        if not self._settings.debug:
            return
        if self.callback is None:
            print(f"libnbd: debug: {self._settings.handle_name}: {self.call}: {text}", file=sys.stderr)
            return
        try:
            self.callback(self.call, text)
        except Exception as error:  # noqa: BLE001 - a message must not change what the call does
            print_exception(error)

    def enter(self, arguments: dict[str, Any]) -> None:
        """Say that a call begins."""
        self("".join(["enter:", *(f" {_argument(name, value)}" for name, value in arguments.items())]))

    def leave(self, value: object) -> None:
        """Say what a call returns."""
        self(f"leave: ret={_result(value)}")

    def fail(self, text: str) -> None:
        """Say that a call fails."""
        self(f"leave: error={_quoted(text)}")


def print_exception(error: BaseException) -> None:
    """Show an exception of a callback that nobody can be told of."""
    traceback.print_exception(error, file=sys.stderr)


def _argument(name: str, value: Any) -> str:
    match value:
        case bool():
            text = "true" if value else "false"
        case int() if name in ("flags", "mask"):
            text = f"0x{value:x}"
        case int():
            text = str(int(value))
        case str():
            text = _quoted(value)
        case list() | tuple():
            text = "[" + ", ".join(_quoted(item) if isinstance(item, str) else repr(item) for item in value) + "]"
        case Buffer() | bytes() | bytearray() | memoryview():
            text = f"<buf> count={len(value)}"
        case None:
            text = "NULL"
        case _:
            text = "<fun>" if callable(value) else _quoted(str(value))
    return f"{name}={text}"


def _result(value: object) -> str:
    match value:
        case None:
            return "0"
        case bool():
            return str(int(value))
        case str():
            return _quoted(value)
        case bytes() | bytearray() | memoryview():
            return "0"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in data[:LONGEST])
    more = f"[... {len(data) - LONGEST} more bytes truncated ...]" if len(data) > LONGEST else ""
    return f'"{shown}{more}"'
