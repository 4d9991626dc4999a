"""The pytest plugin as pytest loads it: options and fixtures. Imports pytest and the standard library alone.

Everything else of nbdtest is imported when an option or a fixture of it is used: whoever merely has the package
installed pays for this module only.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from nbdtest.client import NBD
    from nbdtest.fakeserver import FakeServer
    from nbdtest.fixtures.pki import PKIMaterial, PSKMaterial
    from nbdtest.fixtures.server import Server, ServerFactory
    from nbdtest.plugin.suite import Suite

__all__: list[str] = []

SUITE = "nbdtest-suite"
"""The name under which the part that runs the suite is registered."""

SUITE_PACKAGE = "nbdtest.conformance"
HAS_FAILED = pytest.StashKey[bool]()
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
        "'stdio: COMMAND', 'activation: COMMAND', 'listen: COMMAND with {unix}, {port} or {vsock}', or a profile "
        "FILE.toml. Repeatable.",
    )
    group.addoption(
        "--nbd-client",
        action="append",
        default=[],
        metavar="COMMAND",
        help="client to test: a command with {uri} (or {socket}, {port}) where it takes the server's place, and {file} "
        "for a scratch file to copy from or to. Repeatable.",
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
        help="run these checks only: globs on a check's id, its family, a requirement's id or its section "
        "(#option-types); !GLOB leaves out. Repeatable.",
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
        "--nbd-pcap",
        metavar="DIR",
        help="write what each check exchanged to DIR/TARGET/CHECK-ID.pcapng, for Wireshark",
    )
    group.addoption(
        "--nbd-timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for each single answer of a server (default: 5)",
    )
    group.addoption(
        "--nbd-seed",
        type=int,
        default=0,
        metavar="N",
        help="draw the data and offsets of checks from this number; the same one repeats a run (default: 0)",
    )
    group.addoption(
        "--nbd-allow-writes",
        action="store_true",
        help="write also to servers that were not started for the tests: what is on their disks is lost",
    )
    group.addoption(
        "--nbd-fuzz",
        metavar="N|Ns",
        help="play random sessions on each server as well: so many (500) or for so long (30s). "
        "What is found is kept in the directory findings.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set up the part that runs the suite, if an option or an argument asks for it."""
    config.addinivalue_line("markers", "nbd: the checks of the NBD conformance suite")
    config.addinivalue_line("markers", "nbd_server(SPEC): the server of a test when --nbd-server names none")
    arguments = [argument for argument in config.args if _names_suite(config, argument)]
    if not (config.getoption("nbd_server") or config.getoption("nbd_client") or arguments):
        return
    with _as_they_are():
        from nbdtest.errors import UsageError
        from nbdtest.plugin.suite import suite_of

        try:
            suite = suite_of(config, arguments)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from error
    config.args[:] = [argument for argument in config.args if argument not in arguments]
    config.pluginmanager.register(suite, SUITE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that uses `nbd_server` once for each server, when there are several, or on the one of its marker."""
    suite: Suite | None = metafunc.config.pluginmanager.get_plugin(SUITE)
    if "nbd_server" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("nbd_server")
    if suite is not None and len(suite.servers) > 1:
        names = [subject.spec.name for subject in suite.servers]
        metafunc.parametrize("nbd_server", names, indirect=True, scope="session")
    elif marker is not None and (suite is None or not suite.servers):
        metafunc.parametrize("nbd_server", marker.args, indirect=True, scope="session")


@pytest.fixture(scope="session")
def nbd_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server that --nbd-server names, by default the one that comes with nbdtest: `uri`, `connect()`, `name`.

    Without the option, a test with the marker `nbd_server(SPEC)` gets that one.
    """
    from nbdtest.fixtures.parsing import parse_server
    from nbdtest.fixtures.server import Server, server_of

    suite: Suite | None = request.config.pluginmanager.get_plugin(SUITE)
    if suite is not None and suite.servers:
        subject = suite.server(getattr(request, "param", suite.servers[0].spec.name))
        yield Server(subject.source)
        return  # the suite stops it, whose items use it too
    with server_of(parse_server(getattr(request, "param", "builtin"))) as server:
        yield server


@pytest.fixture
def nbd(nbd_server: Server) -> Iterator[NBD]:
    """A handle connected to `nbd_server`, with libnbd's methods; closed after the test."""
    handle = nbd_server.connect()
    yield handle
    handle.close()


@pytest.fixture
def fake_nbd_server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    """A server in this process, of 1 MiB, that answers correctly until the test says otherwise: `uri`, `on()`.

    After the test it verifies: a rule that never acted, an exception in a script or a client that broke the protocol is
    an error. When the test has failed, it shows what happened instead.
    """
    from nbdtest.fakeserver import FakeServer

    server = FakeServer(size=1 << 20).start()
    yield server
    server.stop()
    if not request.node.stash.get(HAS_FAILED, False):
        server.verify()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what its fake server saw."""
    report = yield
    server: FakeServer | None = getattr(item, "funcargs", {}).get("fake_nbd_server")
    if server is not None and report.when == "call" and report.failed:
        item.stash[HAS_FAILED] = True
        report.sections.append(("fake NBD server", server.report()))
    return report


@pytest.fixture
def nbdkit() -> Iterator[ServerFactory]:
    """Starts nbdkit: `nbdkit("memory", "1M").uri`. Stopped after the test."""
    from nbdtest.fixtures.server import nbdkit_factory

    with nbdkit_factory() as factory:
        yield factory


@pytest.fixture
def qemu_nbd() -> Iterator[ServerFactory]:
    """Starts qemu-nbd: `qemu_nbd("-f", "raw", path).uri`. Stopped after the test."""
    from nbdtest.fixtures.server import qemu_nbd_factory

    with qemu_nbd_factory() as factory:
        yield factory


@pytest.fixture
def nbd_reference_server() -> Iterator[ServerFactory]:
    """Starts any server by its SPEC: `nbd_reference_server("nbd-server").uri`. Stopped after the test."""
    from nbdtest.fixtures.server import reference_server_factory

    with reference_server_factory() as factory:
        yield factory


@pytest.fixture
def nbd_disk(tmp_path: Path) -> Path:
    """A raw image of 64 MiB with data and holes, for servers to serve; see `nbdtest.fixtures.scratch_disk`."""
    from nbdtest.fixtures.scratch_disk import make_disk

    path = tmp_path / "nbd-disk.img"
    make_disk(str(path))
    return path


@pytest.fixture(scope="session")
def nbd_pki(tmp_path_factory: pytest.TempPathFactory) -> PKIMaterial:
    """Directories of throw-away certificates, good and bad."""
    from nbdtest.fixtures.pki import make_pki

    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def nbd_psk(tmp_path_factory: pytest.TempPathFactory) -> PSKMaterial:
    """Throw-away pre-shared keys."""
    from nbdtest.fixtures.pki import make_psk

    return make_psk(tmp_path_factory.mktemp("psk"))


def _names_suite(config: pytest.Config, argument: str) -> bool:
    """Whether an argument means items of the suite: "nbd::TARGET::CHECK", or its package with --pyargs."""
    head = argument.partition("::")[0]
    if config.getoption("pyargs") and head == SUITE_PACKAGE:
        return True
    return argument.startswith(f"{SUITE_NODE}::") and not (config.invocation_params.dir / head).is_file()


@contextmanager
def _as_they_are() -> Generator[None]:
    """Import modules of nbdtest without the rewriting of assertions that pytest does to all packages with plugins.

    No assertion in them is for a test's author to read, and where pytest may not keep what it has rewritten, as in an
    image built by somebody else, it would do so again in every run and in every worker of pytest-xdist.
    """
    finder = _Unrewritten()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Unrewritten:
    """Finds the modules of nbdtest before pytest's own finder does."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, path, target) if name.startswith("nbdtest.") else None
