"""What a check needs to know of the process or address behind a target: where connections come from.

The protocol only; what starts servers is in `nbdtest.fixtures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nbdtest.net.stream import Stream
from nbdtest.net.tls import ClientCredentials

__all__ = ["ServerSource", "Vitals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What the processes of a server use at one moment, in sum.

    `cpu_s` counts since their start; `runnable` is how many threads have a processor or wait for one.
    """

    processes: int
    threads: int
    runnable: int
    descriptors: int
    resident_bytes: int
    cpu_s: float


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

    @property
    def per_connection(self) -> bool:
        """Whether every connection is a server process of its own (stdin/stdout), so that none shares memory."""

    @property
    def keeps_data(self) -> bool:
        """Whether the disk outlives the server's process: then `revive` brings back what was flushed."""

    @property
    def can_tls(self) -> bool:
        """Whether `start_tls` works: credentials for this server are known."""

    @property
    def credentials(self) -> ClientCredentials | None:
        """The credentials for this server, for checks that change something about them; None if none are known."""

    def connect(self, timeout_s: float) -> Stream:
        """Open a new connection; nothing of the protocol has been exchanged on it.

        Raises:
            TransportError: the server cannot be reached; the message says what was tried and what the server printed.
        """

    def start_tls(self, stream: Stream, timeout_s: float) -> Stream:
        """Perform the client's TLS handshake on `stream`, after the server's ACK, and return the protected stream.

        Raises:
            TransportError: the handshake failed.
        """

    def obituary(self) -> str:
        """Say how the server died (exit status or signal, its last words), or "" while it lives or cannot be known."""

    def output(self) -> str:
        """Return what the server printed so far, bounded."""

    def vitals(self) -> Vitals | None:
        """Measure the server's processes; None when they were not started here or have died."""

    def signal(self, number: int) -> bool:
        """Send a signal to the server's main process; False, and nothing sent, when it was not started here."""

    def revive(self) -> None:
        """Start the server again after its death or a hang; does nothing for one that was not started here."""

    def close(self) -> None:
        """Stop the server and remove everything made for it; harmless when repeated."""
