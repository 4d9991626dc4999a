"""The exceptions of nbdtest, by who is at fault. This module knows no other part of the package.

`nbdtest.client` raises libnbd's `Error` instead of these: that is the API it promises.
"""

__all__ = [
    "Disconnected",
    "NBDTestError",
    "PeerViolation",
    "TimedOut",
    "TransportError",
    "UsageError",
]


class NBDTestError(Exception):
    """Base of every exception that nbdtest raises on purpose."""


class UsageError(NBDTestError):
    """Our caller asked for something that makes no sense; the message says what to do instead."""


class PeerViolation(NBDTestError):
    """The other side sent what the protocol does not allow.

    `requirement` is the id of the broken rule in the catalogue (such as "RPL-060"), or "" when no single rule is meant.
    """

    def __init__(self, message: str, *, requirement: str = "") -> None:
        super().__init__(message)
        self.requirement = requirement


class TransportError(NBDTestError):
    """The connection or process that carries the protocol failed."""


class Disconnected(TransportError):
    """The other side closed (FIN) or reset (RST) the connection.

    `received` holds what had arrived of the message that was being read.
    """

    def __init__(self, message: str, *, received: bytes = b"", reset: bool = False) -> None:
        super().__init__(message)
        self.received = received
        self.reset = reset


class TimedOut(TransportError):
    """Nothing arrived, or nothing could be sent, within the time limit.

    `received` holds what had arrived of the message that was being read.
    """

    def __init__(self, message: str, *, received: bytes = b"") -> None:
        super().__init__(message)
        self.received = received
