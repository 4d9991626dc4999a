"""When the guard thinks that a device's requests do not get on."""

from __future__ import annotations

from nbdtest.client.kernel.sysfs import Progress
from nbdtest.client.kernel.watchdog import StallDetector


def progress(in_flight: int, completed: int) -> Progress:
    return Progress(in_flight=in_flight, completed=completed)


def test_an_idle_device_never_stalls() -> None:
    detector = StallDetector(10.0)
    assert not any(detector.stalled(progress(0, 5), now) for now in (0.0, 100.0, 10_000.0))


def test_requests_in_flight_without_a_completion_stall_after_the_limit() -> None:
    detector = StallDetector(10.0)
    assert not detector.stalled(progress(1, 5), 100.0)
    assert not detector.stalled(progress(3, 5), 109.9)
    assert detector.stalled(progress(3, 5), 110.0)


def test_every_completion_begins_the_count_anew() -> None:
    detector = StallDetector(10.0)
    assert not any(detector.stalled(progress(1, now), float(now)) for now in range(0, 100, 9))


def test_a_pause_without_requests_begins_the_count_anew() -> None:
    detector = StallDetector(10.0)
    detector.stalled(progress(1, 5), 0.0)
    detector.stalled(progress(0, 5), 9.0)
    assert not detector.stalled(progress(1, 5), 18.0)
    assert detector.stalled(progress(1, 5), 19.0)


def test_what_has_a_reason_to_wait_is_forgiven() -> None:
    detector = StallDetector(10.0)
    detector.stalled(progress(1, 5), 0.0)
    detector.forgive(60.0)
    assert not detector.stalled(progress(1, 5), 69.0)
    assert detector.stalled(progress(1, 5), 70.0)
