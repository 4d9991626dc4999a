"""The attendant: one thread, as long-lived as the program, that starts processes and watches descriptors.

There has to be one such thread: nbdkit asks the kernel to be killed when the *thread* that started it ends
(PR_SET_PDEATHSIG). That it also watches spares a thread per process. What it starts and watches is not known here.
"""

import os
import queue
import select
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from nbdtest.net.latch import Latch

__all__ = ["Attendant", "attendant", "has_attendant"]

T = TypeVar("T")


class _Job(Generic[T]):
    """A call to be made by the attendant, and what came of it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._done = Latch()
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            self._error = error
        self._done.open()

    def result(self) -> T:
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result[0]


class Attendant:
    """The thread and its list of descriptors."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job[object]] = queue.SimpleQueue()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="nbdtest-attendant", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the attendant's thread and return or raise what it does. It must not block.

        Calls are run in the order in which they were asked for, also those whose caller was interrupted while it
        waited.
        """
        job = _Job(function)
        self._jobs.put(job)  # type: ignore[arg-type]  # the queue holds jobs of every result type
        os.eventfd_write(self._wake, 1)
        return job.result()

    def post(self, function: Callable[[], None]) -> None:
        """Have `function` run without waiting for it; it must not raise. A finalizer may do this, in any thread."""
        self._jobs.put(_Job(function))
        os.eventfd_write(self._wake, 1)

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call `callback` in the attendant's thread whenever `descriptor` is readable or ended. Only in that thread."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        """Stop watching, if it was watched; before the descriptor is closed. Only in the attendant's thread."""
        if self._callbacks.pop(descriptor, None):
            self._epoll.unregister(descriptor)

    def abandon(self) -> None:
        """In a forked child, where the thread does not exist: release the descriptors."""
        self._epoll.close()
        os.close(self._wake)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._wake:
                    self._run_jobs()
                elif callback := self._callbacks.get(
                    descriptor
                ):  # an earlier callback of this round may have removed it
                    self._run_callback(callback)

    def _run_jobs(self) -> None:
        os.eventfd_read(self._wake)
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            job.run()

    def _run_callback(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - the edge of the thread: the others' processes still have to be watched
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self._thread)))


_lock = threading.Lock()
_current: Attendant | None = None  # one per process, by its nature
_fork_is_watched = False


def attendant() -> Attendant:
    """The attendant of this process, started at the first call."""
    global _current, _fork_is_watched
    if (current := _current) is not None:  # without the lock, which a finalizer could find held by its own thread
        return current
    with _lock:
        if _current is None:
            if not _fork_is_watched:
                os.register_at_fork(after_in_child=_after_fork)
                _fork_is_watched = True
            _current = Attendant()
        return _current


def has_attendant() -> bool:
    """Whether this process, rather than one that it was forked from, has asked for its attendant."""
    return _current is not None


def _after_fork() -> None:
    global _current, _lock
    _lock = threading.Lock()  # another thread of the parent may have held it
    if _current is not None:
        _current.abandon()
        _current = None
