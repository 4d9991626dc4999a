"""The conformance suite: the requirements of the specification, checks that prove them, and what runs a check."""

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.catalogue import Coverage, Requirement, coverage, each_requirement, requirement
from nbdtest.conformance.declare import Check, check, each_check, select
from nbdtest.conformance.runner import run_check
from nbdtest.conformance.source import ServerSource, Vitals
from nbdtest.conformance.suite import in_order, run_suite
from nbdtest.conformance.target import ServerTarget
from nbdtest.conformance.verdict import Complaint, Hangup, NoAnswer, NotApplicable

__all__ = [
    "Capability",
    "Check",
    "Complaint",
    "Coverage",
    "Hangup",
    "NoAnswer",
    "NotApplicable",
    "Requirement",
    "ServerSource",
    "ServerTarget",
    "Vitals",
    "check",
    "coverage",
    "each_check",
    "each_requirement",
    "in_order",
    "requirement",
    "run_check",
    "run_suite",
    "select",
]
