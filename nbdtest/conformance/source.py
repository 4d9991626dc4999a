"""What a check needs to know of the process or address behind a target: where connections come from.

The protocol only; what starts servers is in `nbdtest.fixtures`.
"""

from __future__ import annotations

from typing import Protocol

from nbdtest.net.stream import Stream

__all__ = ["ServerSource"]


class ServerSource(Protocol):
    """A server that can be connected to, again and again."""

    @property
    def name(self) -> str:
        """Short name for item ids, such as "nbdkit"."""

    @property
    def spec(self) -> str:
        """The SPEC that the user gave."""

    @property
    def version(self) -> str:
        """What the server says of its version, "" if unknown."""

    @property
    def writable(self) -> bool:
        """Whether checks may write: the harness made the disk, or the user allowed it."""

    @property
    def export_name(self) -> str:
        """The export to test, "" for the default one."""

    def connect(self, timeout_s: float) -> Stream:
        """Open a new connection; nothing of the protocol has been exchanged on it.

        Raises:
            TransportError: the server cannot be reached; the message says what was tried and what the server printed.
        """

    def obituary(self) -> str:
        """Say how the server died (exit status or signal, its last words), or "" while it lives or cannot be known."""

    def output(self) -> str:
        """Return what the server printed so far, bounded."""

    def revive(self) -> None:
        """Start the server again after its death or a hang; does nothing for one that was not started here."""

    def close(self) -> None:
        """Stop the server and remove everything made for it; harmless when repeated."""
