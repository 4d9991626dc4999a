"""Other people's projects for tests of the plugin: suites with checks of every outcome, and servers to run them on."""

from tests.fixtures.odd_specs import odd

SERVER = odd("greets")
SERVER_NAME = "listen-python"

EVERY_OUTCOME = '''
import nbdtest.plugin.suite
from nbdtest.conformance import Capability, Complaint, NotApplicable, check


@check("demo.passes", proves=["HS-007"], legal=True)
def passes(t):
    """A check that passes."""
    with t.peer.greeted():
        pass


@check("demo.fails", proves=["COMPAT-005"], legal=True)
def fails(t):
    """A check whose MUST is broken."""
    with t.peer.greeted():
        raise Complaint("an apple", "a pear")


@check("demo.warns", proves=["CONV-005"], legal=True)
def warns(t):
    """A check whose SHOULD is broken."""
    raise Complaint("a long string", "256 bytes")


@check("demo.skips", proves=["HS-007"], legal=True)
def skips(t):
    """A check that does not apply."""
    raise NotApplicable("the server has no tail")


@check("demo.lacks", proves=["HS-007"], legal=True, needs=[Capability.TRIM])
def lacks(t):
    """A check that needs what the server has not."""


@check("demo.errs", proves=["HS-007"], legal=True)
def errs(t):
    """A check that is itself wrong."""
    raise RuntimeError("a bug in the check")


CHECKS = (passes, fails, warns, skips, lacks, errs)
nbdtest.plugin.suite.each_check = lambda role="server": CHECKS
'''
"""A conftest.py that puts these checks in place of the suite's own."""
