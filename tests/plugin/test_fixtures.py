"""The fixtures in somebody else's tests."""

import sys

import pytest

from tests.fixtures.odd_specs import odd

pytest_plugins = ["pytester"]


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test_mine=test)
    return pytester.runpytest_subprocess(*options, "test_mine.py")


def test_nbd_is_connected_to_the_server_that_comes_with_nbdtest(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        from nbdtest.fixtures.scratch_disk import DISK_SIZE, pattern

        def test_reads(nbd):
            assert nbd.get_size() == DISK_SIZE
            assert nbd.pread(4096, 8192) == pattern(8192, 4096)

        def test_several_handles(nbd_server):
            assert nbd_server.name == "builtin"
            first, second = nbd_server.connect(), nbd_server.connect()
            first.pwrite(b"x" * 512, 0)
            assert second.pread(512, 0) == b"x" * 512

        def test_uri(nbd_server):
            from nbdtest.client import NBD
            handle = NBD()
            handle.connect_uri(nbd_server.uri)
            handle.shutdown()
        """,
    )
    result.assert_outcomes(passed=3)


def test_each_server_of_the_option_is_given_to_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_size(nbd, nbd_server):
            assert nbd.get_size() == 64 << 20
        """,
        "--nbd-server=builtin",
        "--nbd-server=builtin",
        "-v",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_size?builtin? PASSED*", "*test_size?builtin-2? PASSED*"])


@pytest.mark.parametrize(
    ("options", "size"), [((), 8 << 20), (("--nbd-server=builtin",), 64 << 20)], ids=["marker", "option"]
)
def test_a_marker_names_the_server_unless_the_option_does(
    pytester: pytest.Pytester, options: tuple[str, ...], size: int
) -> None:
    serve = f"{sys.executable} -m nbdtest serve --unix {{unix}} --size 8M"
    result = run(
        pytester,
        f"""
        import pytest

        @pytest.mark.nbd_server("listen: {serve}")
        def test_size(nbd):
            assert nbd.get_size() == {size}

        def test_another(nbd):
            assert nbd.get_size() == 64 << 20
        """,
        "--strict-markers",
        *options,
    )
    result.assert_outcomes(passed=2)


def test_stdio_server_is_connected_to_without_a_uri(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest
        from nbdtest.errors import UsageError

        def test_size(nbd, nbd_server):
            assert nbd.get_size() == 3 << 20
            with pytest.raises(UsageError, match="has no URI"):
                nbd_server.uri
        """,
        f"--nbd-server=stdio: {sys.executable} -m nbdtest serve --stdio --size 3M",
    )
    result.assert_outcomes(passed=1)


def test_fake_server_answers_as_told(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import errno
        import pytest
        from nbdtest.client import NBD, Error
        from nbdtest.fakeserver import error
        from nbdtest.wire import Cmd, Errno

        def test_error(fake_nbd_server):
            fake_nbd_server.on(Cmd.READ, nth=2).reply(error(Errno.EIO, message="bad sector"))
            handle = NBD()
            handle.connect_uri(fake_nbd_server.uri)
            handle.pread(512, 0)
            with pytest.raises(Error) as caught:
                handle.pread(512, 0)
            assert caught.value.errnum == errno.EIO
            handle.shutdown()
        """,
    )
    result.assert_outcomes(passed=1)


def test_fake_server_verifies_after_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        from nbdtest.fakeserver import error
        from nbdtest.wire import Cmd, Errno

        def test_never_reads(fake_nbd_server):
            fake_nbd_server.on(Cmd.READ).reply(error(Errno.EIO))
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*VerificationFailed*", "*this rule never acted*"])


def test_fake_server_tells_its_story_with_a_failed_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        from nbdtest.client import NBD
        from nbdtest.fakeserver import error
        from nbdtest.wire import Cmd, Errno

        def test_fails(fake_nbd_server):
            fake_nbd_server.on(Cmd.WRITE).reply(error(Errno.EIO))
            handle = NBD()
            handle.connect_uri(fake_nbd_server.uri)
            assert handle.pread(4, 0) == b"data"
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- fake NBD server -*", "*READ*", "*still expected: *WRITE*"])


def test_scratch_image_is_made_for_each_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_first(nbd_disk):
            assert nbd_disk.stat().st_size == 64 << 20
            nbd_disk.write_bytes(b"")

        def test_second(nbd_disk):
            assert nbd_disk.stat().st_size == 64 << 20
        """,
    )
    result.assert_outcomes(passed=2)


def test_credentials_are_made_once(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_certificates(nbd_pki):
            assert (nbd_pki.directory / "ca-cert.pem").exists()

        def test_keys(nbd_psk):
            assert nbd_psk.file.read_text().startswith(nbd_psk.identity)
        """,
    )
    result.assert_outcomes(passed=2)


def test_factories_say_what_is_not_installed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run(pytester, "def test_it(nbdkit): nbdkit()")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*apt install nbdkit*"])


def test_reference_server_takes_any_spec(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""
        import pytest

        def test_any(nbd_reference_server):
            assert nbd_reference_server("builtin").connect().get_size() == 64 << 20
            assert nbd_reference_server({odd("greets")!r}).uri.startswith("nbd+unix:")
        """,
        "-p",
        "no:cacheprovider",
    )
    result.assert_outcomes(passed=1)


def test_server_that_cannot_be_started_fails_the_test_with_its_words(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_it(nbd): pass", "--nbd-server=" + odd("complains"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*odd: no such disk*"])


@pytest.mark.interop
def test_factories_of_real_servers(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_nbdkit(nbdkit):
            server = nbdkit("memory", "1M")
            assert server.connect().get_size() == 1 << 20
            assert nbdkit().connect().get_size() == 64 << 20
            assert server.version.startswith("nbdkit ")

        def test_qemu_nbd(qemu_nbd, nbd_disk):
            server = qemu_nbd("-f", "raw", nbd_disk)
            assert server.connect().get_size() == 64 << 20

        def test_nbd_server(nbd_reference_server):
            server = nbd_reference_server("nbd-server")
            assert server.connect().get_size() == 64 << 20
        """,
    )
    result.assert_outcomes(passed=3)
