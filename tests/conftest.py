"""How Hypothesis runs here: without time limits for single examples, and the same examples every time in CI.

`--hypothesis-profile=nightly` looks for what the short runs miss.
"""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("quick", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("quick"), derandomize=True, database=None)
settings.register_profile("nightly", settings.get_profile("quick"), max_examples=3000, print_blob=True)
settings.load_profile("repeatable" if os.environ.get("CI") else "quick")


def pytest_configure() -> None:
    """Let programs that tests start be interrupted: a shell starts what is in the background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest, and leave out what takes longer still, unless `-m` asks for it by name."""
    items.sort(key=lambda item: "real_servers" not in item.path.parts)
    if "nightly" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]
