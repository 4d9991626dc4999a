"""What an API call is: the states that permit it, kept as data on the function, and what surrounds its body."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from nbdtest.client.errors import Error, Failure
from nbdtest.client.states import START, Group, State, permission_denied

if TYPE_CHECKING:
    from nbdtest.client.handle.core import HandleCore

__all__ = [
    "ANY",
    "CONNECTED",
    "CREATED",
    "EXPORT_KNOWN",
    "HAGGLING",
    "SETUP",
    "Call",
    "Entered",
    "call_of",
    "calls_of",
    "permitted",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

ANY = Group.ANY
CREATED = Group.CREATED
CONNECTED = Group.CONNECTED
SETUP = Group.CREATED | Group.NEGOTIATING
HAGGLING = Group.NEGOTIATING
EXPORT_KNOWN = Group.NEGOTIATING | Group.CONNECTED | Group.CLOSED


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call besides its signature.

    `since` is the release of libnbd that introduced it, "" for one that libnbd does not have. A call that cannot fail
    is not mentioned in debug messages.
    """

    name: str
    permitted: Group
    mask: int
    since: str
    can_fail: bool
    locked: bool

    def refusal(self, state: State) -> Failure | None:
        """Why the call is not permitted in `state`; None when it is."""
        if state.bit & self.mask:
            return None
        number = errno.ENOTCONN if state is START else errno.EINVAL
        return Failure(permission_denied(state, self.permitted), number)


def permitted(
    states: Group = ANY, *, since: str = "1.0", can_fail: bool = True, locked: bool = True
) -> Callable[[F], F]:
    """Mark a method as an API call."""

    def mark(function: F) -> F:
        call = Call(function.__name__, states, states.value, since, can_fail, locked)
        function.call = call  # type: ignore[attr-defined]  # data on the call, read by call_of
        return function

    return mark


def call_of(function: Callable[..., Any]) -> Call | None:
    """What `permitted` noted, or None for a function that is no API call."""
    return getattr(function, "call", None)


def calls_of(handle: type) -> dict[str, Call]:
    """All API calls of a class, by name."""
    found = {name: call_of(getattr(handle, name)) for name in dir(handle) if not name.startswith("_")}
    return {name: call for name, call in found.items() if call is not None}


class Entered:
    """The body of a call: it holds the handle's lock, and failures leave it as the `Error` that the caller gets."""

    __slots__ = ("_call", "_handle", "_silent")

    def __init__(self, handle: HandleCore, call: Call) -> None:
        self._handle = handle
        self._call = call
        self._silent = True  # nothing is to be said of the call's return, or it has been said

    def begin(self, arguments: dict[str, Any]) -> Entered:
        """Take the lock, and check that the call is permitted.

        Raises:
            ClosedHandle: the handle has been closed.
            Error: the state does not permit the call, or it comes from a callback of this handle.
        """
        handle, call = self._handle, self._call
        handle._lock.acquire()
        try:
            handle._check_open()
            if handle._entered or handle._engine.running:
                reason = "called from a callback of the same handle"
                raise Failure(reason, errno.EDEADLK).in_call(call.name)
            handle._entered = True
        except BaseException:
            handle._lock.release()
            raise
        try:
            handle._reporter.call = f"nbd_{call.name}"
            if call.can_fail and handle._settings.debug:
                handle._reporter.enter(arguments)
                self._silent = False
            if not handle._engine.resting.bit & call.mask:
                handle._send_what_is_queued()
                if (refusal := call.refusal(handle._driver.state)) is not None:
                    raise self._error(refusal)
        except BaseException:
            self._leave()
            raise
        return self

    def resume(self) -> Entered:
        """Go on with a call that began outside: take the lock."""
        handle = self._handle
        handle._lock.acquire()
        handle._entered = True
        handle._reporter.call = f"nbd_{self._call.name}"
        return self

    def returns(self, value: T) -> T:
        """Return `value`, and say so to whoever debugs."""
        if not self._silent and self._handle._settings.debug:
            self._handle._reporter.leave(value)
            self._silent = True
        return value

    def __enter__(self) -> Entered:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        escaped = self._handle._engine.escaped
        if isinstance(value, Failure):
            error = self._error(value)
            self._leave()
            try:
                raise (escaped or error) from value.__cause__
            finally:
                del error, escaped, value, trace  # else a circle of references would hold the caller's buffers
        if value is None and escaped is None:
            self.returns(None)
        self._leave()
        if escaped is not None and value is None:
            raise escaped

    def _error(self, failure: Failure) -> Error:
        error = failure.in_call(self._call.name)
        if self._handle._settings.debug:
            self._handle._reporter.fail(error.string)
        return error

    def _leave(self) -> None:
        handle = self._handle
        handle._engine.escaped = None
        handle._entered = False
        handle._lock.release()
