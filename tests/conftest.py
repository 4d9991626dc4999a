"""How Hypothesis runs here: without time limits for single examples, and the same examples every time in CI.

`--hypothesis-profile=nightly` looks for what the short runs miss.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("quick", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("quick"), derandomize=True, database=None)
settings.register_profile("nightly", settings.get_profile("quick"), max_examples=3000, print_blob=True)
settings.load_profile("repeatable" if os.environ.get("CI") else "quick")
