"""Calls by which a program's own loop drives a handle, or waits for it."""

from __future__ import annotations

import errno

from nbdtest.client import arguments
from nbdtest.client.driver import FOREVER
from nbdtest.client.errors import Failure
from nbdtest.client.handle.call import ANY, permitted
from nbdtest.client.handle.core import HandleCore
from nbdtest.client.states import READY, Group, State
from nbdtest.net.clock import Deadline

__all__ = ["PollingCalls"]


class PollingCalls(HandleCore):
    """What to wait for, what has happened, and in which state that leaves the handle."""

    @permitted(ANY)
    def poll(self, timeout: int) -> int:
        """Wait at most `timeout` milliseconds, -1: for ever, and go on. 1 if anything happened, else 0."""
        timeout = arguments.integer("timeout", timeout)
        with self._enter("poll", timeout=timeout) as call:
            return call.returns(int(self._driver.wait(_deadline(timeout))))

    @permitted(ANY, since="1.16")
    def poll2(self, fd: int, timeout: int) -> int:
        """The same, waiting also for `fd` to become readable."""
        fd, timeout = arguments.integer("fd", fd), arguments.integer("timeout", timeout)
        with self._enter("poll2", fd=fd, timeout=timeout) as call:
            return call.returns(int(self._driver.wait(_deadline(timeout), fd)))

    @permitted(ANY)
    def aio_get_fd(self) -> int:
        """The descriptor to poll; it may change while connecting."""
        with self._enter("aio_get_fd") as call:
            self._send_what_is_queued()
            descriptor = self._driver.descriptor()
            if descriptor < 0:
                raise Failure("connection is not in a connected state", errno.EINVAL)
            return call.returns(descriptor)

    @permitted(ANY, can_fail=False, locked=False)
    def aio_get_direction(self) -> int:
        """What to wait for: AIO_DIRECTION_READ, AIO_DIRECTION_WRITE, both, or 0 when there is nothing to wait for."""
        self._check_open()
        with self._lock:
            self._send_what_is_queued()
            return self._driver.direction()

    @permitted(ANY)
    def aio_notify_read(self) -> None:
        """The descriptor is readable."""
        with self._enter("aio_notify_read"):
            self._send_what_is_queued()
            self._driver.notify_read()

    @permitted(ANY)
    def aio_notify_write(self) -> None:
        """The descriptor is writable."""
        with self._enter("aio_notify_write"):
            self._send_what_is_queued()
            self._driver.notify_write()

    @permitted(ANY, can_fail=False, locked=False)
    def aio_is_created(self) -> bool:
        """Whether the handle has not begun to connect."""
        return bool(self._public_state().bit & Group.CREATED.value)

    @permitted(ANY, can_fail=False, locked=False)
    def aio_is_connecting(self) -> bool:
        """Whether the handle is connecting, or waits for the answer to an option."""
        return bool(self._public_state().bit & Group.CONNECTING.value)

    @permitted(ANY, since="1.4", can_fail=False, locked=False)
    def aio_is_negotiating(self) -> bool:
        """Whether options can be sent."""
        return bool(self._public_state().bit & Group.NEGOTIATING.value)

    @permitted(ANY, can_fail=False, locked=False)
    def aio_is_ready(self) -> bool:
        """Whether commands can be sent, and none is being sent."""
        return self._public_state() is READY

    @permitted(ANY, can_fail=False, locked=False)
    def aio_is_processing(self) -> bool:
        """Whether a command is being sent."""
        state = self._public_state()
        return bool(state.bit & Group.CONNECTED.value) and state is not READY

    @permitted(ANY, can_fail=False, locked=False)
    def aio_is_dead(self) -> bool:
        """Whether the connection was lost."""
        return bool(self._public_state().bit & Group.DEAD.value)

    @permitted(ANY, can_fail=False, locked=False)
    def aio_is_closed(self) -> bool:
        """Whether the connection has ended in order."""
        return bool(self._public_state().bit & Group.CLOSED.value)

    def _public_state(self) -> State:
        self._check_open()
        with self._lock:
            self._send_what_is_queued()
            return self._driver.state


def _deadline(timeout_ms: int) -> Deadline:
    return FOREVER if timeout_ms < 0 else Deadline(timeout_ms / 1000)
