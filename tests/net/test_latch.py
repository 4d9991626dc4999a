"""The one-way signal between threads."""

import threading

from nbdtest.net.latch import Latch


def test_a_closed_latch_is_waited_for_until_the_limit() -> None:
    latch = Latch()
    assert not latch.wait(0)
    assert not latch.wait(0.001)


def test_an_open_latch_lets_everybody_through_at_once_and_again() -> None:
    latch = Latch()
    latch.open()
    assert latch.wait()
    assert latch.wait(0)


def test_opening_wakes_every_waiting_thread() -> None:
    latch = Latch()
    passed: list[bool] = []
    threads = [threading.Thread(target=lambda: passed.append(latch.wait())) for _ in range(5)]
    for thread in threads:
        thread.start()
    latch.open()
    for thread in threads:
        thread.join()
    assert passed == [True] * 5
