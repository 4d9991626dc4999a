"""What a check needs to know of a client command: how it is started on a server, and how it ended.

The protocols only; what starts processes is in `nbdtest.fixtures`.
"""

from __future__ import annotations

from typing import Protocol

from nbdtest.fakeserver import FakeServer
from nbdtest.net.process import Exit
from nbdtest.net.tls import TLSContext

__all__ = ["NO_KEY", "WRONG_KEY", "ClientRun", "ClientSource"]

WRONG_KEY = "wrong-key"
"""The flaw of a server that has other keys for the identities that clients know."""
NO_KEY = "no-key"
"""The flaw of a server that has a certificate where clients have keys."""


class ClientRun(Protocol):
    """A client at work, or one that has ended."""

    @property
    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""

    @property
    def output(self) -> str:
        """What it printed so far, bounded."""

    def wait(self, within_s: float) -> Exit | None:
        """Wait until it has ended, at most so long, and say how; None when it still runs."""

    def file(self) -> bytes:
        """What is in its {file} now."""

    def stop(self) -> None:
        """End it with everything it started, and remove what was made for it. Any number of times."""


class ClientSource(Protocol):
    """A client command that can be run again and again."""

    @property
    def name(self) -> str:
        """Short name for item ids, such as "nbdinfo"."""

    @property
    def spec(self) -> str:
        """The COMMAND that the user gave."""

    @property
    def version(self) -> str:
        """What the client says of its version, "" if unknown."""

    @property
    def takes_uri(self) -> bool:
        """Whether it is given a whole URI, so that checks can change it."""

    @property
    def tls(self) -> TLSContext | None:
        """What a server needs for TLS with the credentials that the client is given; None if it is given none."""

    def flawed_tls(self, flaw: str) -> TLSContext | None:
        """The same with something wrong about the server's credentials: about its certificate, such as "expired",
        "wrong-ca" or "wrong-host", or about its key, WRONG_KEY or NO_KEY. None if the client is not given that kind."""

    def start(self, server: FakeServer, *, file: bytes, uri: str = "") -> ClientRun:
        """Start it on `server`, with `file` in its {file}; `uri` takes the place of the server's own.

        Raises:
            TransportError: the command cannot be run.
        """
