"""The pytest plugin as pytest loads it: options and fixtures. Imports pytest and the standard library alone.

Everything else of nbdtest is imported when an option or a fixture of it is used: whoever merely has the package
installed pays for this module only.
"""

from __future__ import annotations

import pytest

__all__: list[str] = []

SUITE = "nbdtest-suite"
"""The name under which the part that runs the suite is registered."""

SUITE_PACKAGE = "nbdtest.conformance"
SUITE_NODE = "nbd"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options; docs/usage.md describes each at length."""
    group = parser.getgroup("nbd", "conformance of NBD servers (nbdtest)")
    group.addoption(
        "--nbd-server",
        action="append",
        default=[],
        metavar="SPEC",
        help="server to test: builtin, nbdkit, qemu-nbd, nbd-server, qemu-storage-daemon, an NBD URI, "
        "'stdio: COMMAND', 'activation: COMMAND', 'listen: COMMAND with {unix} or {port}', or a profile FILE.toml. "
        "Repeatable.",
    )
    group.addoption(
        "--nbd-level",
        choices=("must", "should", "may"),
        default="may",
        help="leave out the checks whose requirements are weaker than this (default: run all)",
    )
    group.addoption("--nbd-strict", action="store_true", help="a broken SHOULD fails instead of warning")
    group.addoption(
        "--nbd-checks",
        action="append",
        default=[],
        metavar="GLOB,...",
        help="run these checks only: globs on a check's id, its family or a requirement's id; !GLOB leaves out. "
        "Repeatable.",
    )
    group.addoption(
        "--nbd-expect",
        action="append",
        default=[],
        metavar="FILE",
        help="known deviations: they do not fail the run, but their absence does. Repeatable. "
        "'packaged' means what nbdtest knows of released servers.",
    )
    group.addoption(
        "--nbd-report",
        action="append",
        default=[],
        metavar="PATH",
        help="write a report, by the name's end: .json, .md, .xml (JUnit) or .html. Repeatable.",
    )
    group.addoption(
        "--nbd-timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for each single answer of a server (default: 5)",
    )
    group.addoption(
        "--nbd-allow-writes",
        action="store_true",
        help="write also to servers that were not started for the tests: what is on their disks is lost",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set up the part that runs the suite, if an option or an argument asks for it."""
    config.addinivalue_line("markers", "nbd: the checks of the NBD conformance suite")
    arguments = [argument for argument in config.args if _names_suite(config, argument)]
    if not (config.getoption("nbd_server") or arguments):
        return
    from nbdtest.errors import UsageError
    from nbdtest.plugin.suite import suite_of

    try:
        suite = suite_of(config, arguments)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
    config.args[:] = [argument for argument in config.args if argument not in arguments]
    config.pluginmanager.register(suite, SUITE)


def _names_suite(config: pytest.Config, argument: str) -> bool:
    """Whether an argument means items of the suite: "nbd::TARGET::CHECK", or its package with --pyargs."""
    head = argument.partition("::")[0]
    if config.getoption("pyargs") and head == SUITE_PACKAGE:
        return True
    return argument.startswith(f"{SUITE_NODE}::") and not (config.invocation_params.dir / head).is_file()
