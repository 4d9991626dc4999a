"""`NBD`: a handle, which is one connection to one export, with libnbd's calls and a few more."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from nbdtest.client.handle.asynchronous import AsynchronousCalls
from nbdtest.client.handle.call import Call, calls_of
from nbdtest.client.handle.configuring import ConfiguringCalls
from nbdtest.client.handle.connecting import ConnectingCalls
from nbdtest.client.handle.extras import ExtraCalls, StatusExtent
from nbdtest.client.handle.polling import PollingCalls

__all__ = ["NBD", "Call", "StatusExtent"]


class NBD(ConfiguringCalls, ConnectingCalls, ExtraCalls, AsynchronousCalls, PollingCalls):
    """An NBD handle. It connects once; `with NBD() as h:` closes it.

    Calls of one handle can come from several threads: each runs to its end before the next begins, also one that waits,
    such as `poll`. Whoever must not wait for that asks `aio_in_flight`, or polls with a limit; only `close` ends a call
    that waits. Callbacks and signal handlers run inside a call, and cannot call the same handle, except for the calls
    that only say in which state it is.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._closed:
            self.close()


NBD._calls = calls_of(NBD)
