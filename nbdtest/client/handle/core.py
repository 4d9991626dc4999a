"""What every call of a handle stands on: its settings, its connection, its lock, and its end."""

from __future__ import annotations

import itertools
import os
import threading
from typing import Any, ClassVar, NoReturn

from nbdtest.client.constants import STRICT_MASK
from nbdtest.client.debug import Reporter, print_exception
from nbdtest.client.driver import FOREVER, Driver
from nbdtest.client.engine import Engine
from nbdtest.client.errors import ClosedHandle
from nbdtest.client.fastlane import FastLane
from nbdtest.client.handle.call import ANY, Call, Entered, permitted
from nbdtest.client.settings import Settings
from nbdtest.client.subprocesses import Subprocess
from nbdtest.client.tls import Credentials
from nbdtest.net.addresses import Address
from nbdtest.net.clock import Deadline

__all__ = ["HandleCore"]

_STRICT = STRICT_MASK.value
_numbers = itertools.count(1)


class HandleCore:
    """A handle without its calls. One lock is held during each call; callbacks run under it."""

    _calls: ClassVar[dict[str, Call]] = {}
    """The calls of the complete class, by name."""

    def __init__(self) -> None:
        self._closed = True  # until there is something to be closed
        self._lock = threading.RLock()
        self._entered = False
        self._process = os.getpid()
        self._settings = Settings(handle_name=f"nbd{next(_numbers)}", debug=os.environ.get("LIBNBD_DEBUG") == "1")
        self._reporter = Reporter(self._settings)
        self._reporter.call = "nbd_create"
        self._private_data = 0
        self._timeout_s: float | None = None
        self._reset_connection()
        self._closed = False
        self._reporter("opening handle")

    def _reset_connection(self) -> None:
        self._credentials = Credentials(self._settings)
        self._engine = Engine(self._settings, self._reporter, print_exception)
        self._driver = Driver(self._engine, self._credentials)
        self._address: Address | None = None
        self._port_name = ""
        self._subprocess: Subprocess | None = None
        self._lane: FastLane | None = None

    def _enter(self, name: str, /, **arguments: Any) -> Entered:
        """Begin the call `name`; see `Entered.begin`."""
        return Entered(self, self._calls[name]).begin(arguments)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedHandle("libnbd: method called on closed handle")

    def _send_what_is_queued(self) -> None:
        """Commands may wait for company before they are sent; whoever looks at the connection must not see that."""
        if self._engine.tail and not self._engine.running:
            self._driver.flush()

    def _open_lane(self) -> None:
        """Open the fast lane where the settings leave nothing to be checked, said or timed; else close it."""
        settings, channel = self._settings, self._driver.channel
        plain = not settings.debug and settings.strict == _STRICT and self._timeout_s is None
        if plain and channel is not None and self._engine.transmitting:
            self._lane = FastLane(self._engine, channel, self._lock)
        else:
            self._lane = None

    def _deadline(self) -> Deadline:
        return FOREVER if self._timeout_s is None else Deadline(self._timeout_s)

    @permitted(ANY, since="1.16", can_fail=False)
    def close(self) -> None:
        """Close the handle: the connection ends, commands that are not finished fail, a subprocess is waited for.

        A call that waits in another thread is ended by it, unless it waits for a name to be looked up. In a forked
        child the connection and the subprocess stay what they are to the parent.

        Raises:
            ClosedHandle: it is closed already.
        """
        self._take_over()
        with self._enter("close"):
            self._closed = True
            self._lane = None
            self._reporter.call = "nbd_close"
            self._reporter("closing handle")
            self._reporter.callback = None
            try:
                self._driver.close()
            finally:
                if self._subprocess is not None:
                    self._subprocess.close()

    def _take_over(self) -> None:
        """End the call of another thread, if there is one that waits."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        elif os.getpid() == self._process:
            self._check_open()
            self._driver.interrupt()
        else:  # forked while another thread was in a call: that thread, which would let go of the lock, is not here
            self._lock = threading.RLock()
            self._entered = self._engine.running = False

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and not self._entered:
            self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a handle cannot be copied or pickled: it is one connection")

    def __repr__(self) -> str:
        if self._closed:
            return f"<NBD handle {self._settings.handle_name}: closed>"
        return f"<NBD handle {self._settings.handle_name}: {self._driver.state.name}>"
