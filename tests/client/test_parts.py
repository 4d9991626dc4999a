"""The small parts: buffers, intervals, the inbox, URIs, debug messages, pacing, the shell and the drop-in."""

from __future__ import annotations

import copy
import errno
import gc
import io
import pickle
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbdtest
from nbdtest.client import NBD, Buffer, ClosedHandle, Error, nbd
from nbdtest.client.handle.exporting import LIBNBD_VERSION
from nbdtest.client.inbox import CAPACITY, Inbox
from nbdtest.client.intervals import Intervals
from nbdtest.client.pacing import BLOCK, FIRST_REST, NEVER, ROUNDS, TRIALS, Pacing
from nbdtest.client.parity import calls_table
from nbdtest.client.settings import Settings
from nbdtest.client.shell import main as shell
from nbdtest.client.uris import Command, apply_uri, format_uri
from nbdtest.net.addresses import TCPAddress, UnixAddress, VsockAddress
from tests.client.prepared import Prepared, data_chunk


class TestBuffer:
    def test_indexing_and_slicing(self) -> None:
        buffer = Buffer.from_bytearray(b"abcdef")
        buffer[0] = ord("A")
        buffer[2:4] = b"CD"
        assert buffer[0] == ord("A")
        assert buffer[-1] == ord("f")
        assert buffer[1:5] == b"bCDe"
        assert bytes(buffer) == b"AbCDef"
        assert buffer == b"AbCDef"
        assert ord("D") in buffer
        with pytest.raises(IndexError):
            buffer[6]
        with pytest.raises(ValueError, match="different"):
            buffer[0:2] = b"x"

    def test_sharing_keeps_the_object(self) -> None:
        memory = bytearray(4)
        buffer = Buffer.from_buffer(memory)
        buffer[0] = 1
        assert memory[0] == 1
        assert buffer.to_buffer() is memory
        memory.append(2)
        assert len(buffer) == 5
        assert buffer.to_bytearray() is not memory

    def test_a_new_buffer_is_zero_and_says_so_until_it_is_used(self) -> None:
        buffer = Buffer(3)
        assert buffer.is_zero()
        assert not hasattr(buffer, "_init")
        assert buffer.to_bytearray() == bytes(3)
        assert hasattr(buffer, "_init")

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="a Python class can support the buffer protocol since 3.12")
    def test_buffer_protocol(self) -> None:
        buffer = Buffer(4)
        memoryview(buffer)[1] = 7
        assert bytes(memoryview(buffer)) == b"\0\7\0\0"

    @pytest.mark.parametrize(
        ("arguments", "text"), [((5,), "offset"), ((-1,), "offset"), ((0, 5), "size"), ((0, -2), "size")]
    )
    def test_is_zero_refuses_bad_ranges(self, arguments: tuple[int, ...], text: str) -> None:
        with pytest.raises(IndexError, match=text):
            Buffer(4).is_zero(*arguments)


class TestIntervals:
    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=30))
    def test_they_are_a_set_of_integers(self, added: list[tuple[int, int]]) -> None:
        intervals, model = Intervals(), set[int]()
        for start, length in added:
            new = set(range(start, start + length))
            assert intervals.add(start, start + length) == new.isdisjoint(model)
            model |= new
            assert intervals.total == len(model)
        assert {at for start, end in intervals for at in range(start, end)} == model
        missing = [at for start, end in intervals.gaps(5, 55) for at in range(start, end)]
        assert missing == [at for at in range(5, 55) if at not in model]
        ends = [edge for pair in intervals for edge in pair]
        assert ends == sorted(set(ends))


class TestInbox:
    @given(
        st.lists(
            st.tuples(st.sampled_from(["receive", "take", "lend", "skip", "preload"]), st.integers(1, 3000)),
            max_size=40,
        )
    )
    def test_bytes_come_out_in_order(self, steps: list[tuple[str, int]]) -> None:
        inbox = Inbox()
        source = iter(range(1 << 30))
        expected = 0
        lent: bytearray | None = None

        def some(count: int) -> bytes:
            return bytes(next(source) % 251 for _ in range(count))

        def check(data: bytes | bytearray) -> None:
            nonlocal expected
            assert bytes(data) == bytes((expected + at) % 251 for at in range(len(data)))
            expected += len(data)

        for step, size in steps:
            if step == "receive":
                space = inbox.space()
                count = min(size, len(space))
                space[:count] = some(count)
                inbox.received(count)
            elif lent is None and step == "take":
                check(inbox.take(min(size, len(inbox))))
            elif lent is None and step == "skip":
                expected += inbox.skip(size)
            elif lent is None and step == "preload":
                inbox.preload(some(size))
            elif lent is None:
                lent = bytearray(size)
                inbox.lend(memoryview(lent))
            if lent is not None and not inbox.lent_rest:
                check(lent)
                lent = None

    def test_it_grows_when_it_was_filled(self) -> None:
        inbox = Inbox()
        inbox.received(len(inbox.space()))
        inbox.skip(len(inbox))
        assert len(inbox.space()) == CAPACITY


class TestURIs:
    @pytest.mark.parametrize(
        ("uri", "target", "export"),
        [
            ("nbd://host", TCPAddress("host", 10809), ""),
            ("nbd://host:1/a%2Fb", TCPAddress("host", 1), "a/b"),
            ("nbd://[::1]//x", TCPAddress("::1", 10809), "/x"),
            ("NBD+UNIX:///e?socket=%2Ftmp%2Fs", UnixAddress("/tmp/s"), "e"),
            ("nbd+unix:///?socket=/a&socket=/b;c&x=1", UnixAddress("/b;c"), ""),
            ("nbd+unix:///?x=1;socket=/s", UnixAddress("/s"), ""),
            ("nbd+vsock://5:6/", VsockAddress(5, 6), ""),
            ("nbd+vsock:///", VsockAddress(2, 10809), ""),
            ("nbd+ssh://host/", Command(("ssh", "-p", "22", "--", "host", "nc", "localhost", "10809")), ""),
            ("nbd+ssh://host:2/?socket=/s", Command(("ssh", "-p", "2", "--", "host", "nc", "-U", "/s")), ""),
        ],
    )
    def test_where_they_lead(self, uri: str, target: object, export: str) -> None:
        settings = Settings("uris")
        assert apply_uri(settings, uri) == target
        assert settings.export_name == export

    def test_what_they_set(self) -> None:
        settings = Settings("uris", uri_allow_local_file=True, uri_allow_tls_priority=True)
        apply_uri(
            settings,
            "nbds://alice@h/?tls-psk-file=/k&TLS-Hostname=n&tls-verify-peer=off"
            "&tls-certificates=/c&tls-priority=NORMAL",
        )
        assert (settings.tls, settings.tls_username, settings.tls_psk_file) == (2, "alice", "/k")
        assert (settings.tls_hostname, settings.tls_verify_peer, settings.tls_certificates) == ("n", False, "/c")
        assert settings.tls_priority == "NORMAL"
        uri = format_uri(settings, TCPAddress("h", 1), encrypted=True)
        assert uri.startswith("nbds://alice@h:1/?tls-certificates=/c&tls-psk-file=/k&tls-hostname=n&")

    @pytest.mark.parametrize(
        ("uri", "number"),
        [
            ("nbds://h/?tls-psk-file=/k", errno.EPERM),
            ("nbds://h/?tls-priority=NORMAL", errno.EPERM),
            ("nbd+ssh://-x/", errno.EINVAL),
            ("nbd://h/%00", errno.EINVAL),
        ],
    )
    def test_what_they_must_not(self, handle: NBD, uri: str, number: int) -> None:
        with pytest.raises(Error) as caught:
            handle.connect_uri(uri)
        assert caught.value.errnum == number
        assert handle.aio_is_created()


class TestDebugging:
    def test_messages_name_the_call(self, prepared: Prepared) -> None:
        said: list[tuple[str, str]] = []
        h = prepared.connect()
        h.set_debug_callback(lambda *message: said.append(message))
        h.set_debug(True)
        said.clear()
        prepared.answer(data_chunk(1, 0, b"data"))
        h.pread(4, 0)
        h.set_handle_name("mine")
        with pytest.raises(Error):
            h.set_export_name('"é\n')
        assert said == [
            ("nbd_pread", "enter: count=4 offset=0 flags=0x0"),
            ("nbd_pread", "leave: ret=0"),
            ("nbd_set_handle_name", 'enter: handle_name="mine"'),
            ("nbd_set_handle_name", "leave: ret=0"),
            ("nbd_set_export_name", 'enter: export_name=""\\xc3\\xa9\\x0a"'),
            ("nbd_set_export_name", said[-1][1]),
        ]
        assert said[-1][1].startswith('leave: error="nbd_set_export_name: invalid state: READY: ')

    def test_by_default_they_go_to_stderr(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LIBNBD_DEBUG", "1")
        with NBD() as h:
            h.set_handle_name("noisy")
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].endswith(": nbd_create: opening handle")
        assert lines[-1] == "libnbd: debug: noisy: nbd_close: closing handle"

    def test_an_exception_of_the_callback_changes_nothing(
        self, handle: NBD, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(*_: str) -> None:
            raise LookupError("in debug")

        handle.set_debug_callback(broken)
        handle.set_debug(True)
        handle.set_export_name("x")
        assert "LookupError: in debug" in capsys.readouterr().err


class TestPacing:
    @pytest.mark.parametrize(
        ("received_s", "polled_s", "polls"), [(10.0, 9.0, True), (10.0, 9.9, False), (9.0, 10.0, False)]
    )
    def test_the_better_way_wins(self, received_s: float, polled_s: float, polls: bool) -> None:
        pacing = Pacing()
        for number in range(2 * BLOCK * ROUNDS):
            assert number >= pacing.tries_from
            pacing.took(polled_s if pacing.polls else received_s, number)
        assert pacing.tries_from == number + FIRST_REST
        assert pacing.polls is polls

    def test_a_later_trial_can_correct_the_first(self) -> None:
        pacing = Pacing()
        number = trials = 0
        while pacing.tries_from < NEVER:
            number = pacing.tries_from
            trials += 1
            while number >= pacing.tries_from:
                received_s = 10.0 if trials == 1 else 5.0
                pacing.took(9.0 if pacing.polls else received_s, number)
                number += 1
            assert pacing.polls is (trials == 1)
        assert trials == TRIALS


class TestHandle:
    def test_with_closes_also_after_an_exception(self) -> None:
        with pytest.raises(LookupError), nbd() as h:
            raise LookupError
        with pytest.raises(ClosedHandle, match="libnbd: method called on closed handle"):
            h.get_size()

    def test_the_last_reference_closes(self, prepared: Prepared) -> None:
        prepared.connect()
        prepared.handle = NBD()
        gc.collect()
        prepared.far.setblocking(True)
        prepared.far.settimeout(10)
        assert prepared.far.recv(100) == b""

    @pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_it_cannot_be_copied(self, handle: NBD, way: Callable[[NBD], object]) -> None:
        with pytest.raises(TypeError, match="a handle cannot be copied"):
            way(handle)

    def test_it_says_what_it_is(self, handle: NBD) -> None:
        handle.set_handle_name("mine")
        assert repr(handle) == "<NBD handle mine: START>"

    def test_errors_know_their_parts(self) -> None:
        error = Error("nbd_x: no", errno.EINVAL)
        assert (error.string, error.errnum, error.errno, str(error)) == (
            "nbd_x: no",
            22,
            "EINVAL",
            "nbd_x: no (EINVAL)",
        )
        assert str(Error("plain", 0)) == "plain"

    def test_every_call_is_in_the_printed_table(self) -> None:
        table = calls_table()
        assert all(f"`{name}(" in table for name in NBD._calls)
        assert "| `set_tls(tls)` | 1.0 | · |  |  |  |  |  |" in table


class TestShell:
    def test_commands_in_order(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert shell(["-c", "x = 20", "--opt-mode", "-c", "print(x + 1, h.get_opt_mode())"]) == 0
        assert capsys.readouterr().out == "21 True\n"

    def test_an_error_is_short(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LIBNBD_DEBUG", raising=False)
        assert shell(["-u", "nbd+unix:///?socket=/nonexistent"]) == 1
        assert capsys.readouterr().err == "nbdtest shell: nbd_connect_uri: connect: No such file or directory\n"

    def test_a_program_on_standard_input(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("print(nbd.NBD is type(h))"))
        assert shell(["-c", "-"]) == 0
        assert capsys.readouterr().out == "True\n"

    def test_versions(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            shell(["--version"])
        assert capsys.readouterr().out == f"nbdtest {nbdtest.__version__}, with the API of libnbd {LIBNBD_VERSION}\n"

    def test_without_a_handle(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert shell(["-n", "-c", "print('h' in globals())"]) == 0
        assert shell(["-n", "-u", "nbd://x"]) == 1
        assert capsys.readouterr().out == "False\n"

    @pytest.mark.interop
    def test_reading_from_nbdkit(self, capsys: pytest.CaptureFixture[str]) -> None:
        connect = "h.connect_command(['nbdkit', '-s', '--exit-with-parent', 'data', '1 2 3 4', 'size=16'])"
        assert shell(["-c", connect, "--hexdump", "4", "0"]) == 0
        assert capsys.readouterr().out.startswith("0000  01 02 03 04")


def test_installed_as_nbd() -> None:
    program = """if True:
        from nbdtest.client import install_as_nbd
        module = install_as_nbd()
        import nbd
        assert nbd is module
        assert nbd.package_name == "libnbd"
        try:
            nbd.NBD().is_read_only()
        except nbd.Error as error:
            import traceback
            print("".join(traceback.format_exception(error)))
    """
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "in is_read_only\n" in ran.stdout
    assert "\nnbd.Error: nbd_is_read_only: invalid state: START" in ran.stdout
