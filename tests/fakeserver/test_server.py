"""FakeServer: where it listens, how it serves many at once, and what it demands when it is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import unittest
from typing import Any

import pytest

from nbdtest.errors import UsageError
from nbdtest.fakeserver import (
    Export,
    FakeServer,
    Moment,
    Quirks,
    TLSMode,
    VerificationFailed,
    close,
    cut,
    error,
    hold,
    mangle,
    no_data,
    pass_through,
    release,
)
from nbdtest.fakeserver.connection import Connection
from nbdtest.fakeserver.lane import Lane
from nbdtest.fakeserver.server import LANE_AFTER
from nbdtest.fakeserver.tls import TLSLayer
from nbdtest.fixtures.pki import PSKMaterial
from nbdtest.model import DiskError, MemoryDisk
from nbdtest.model.disk import SLAB
from nbdtest.net.stream import SocketStream
from nbdtest.net.tls import server_context
from nbdtest.net.uri import NBDURI
from nbdtest.wire import Cmd, Errno, Opt, Request
from tests.fakeserver.wire_client import WireClient

CONTENT = bytes(range(256)) * 4096


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("nbdtest-")}


def connected(server: FakeServer) -> WireClient:
    return WireClient(server.connect())


def unix(path: str) -> WireClient:
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    return WireClient(made)


class TestWhere:
    def test_a_socketpair(self) -> None:
        with FakeServer(size=512) as server, connected(server) as client:
            assert client.open().read(0, 512) == bytes(512)
            client.leave()

    def test_a_unix_socket_that_goes_away(self) -> None:
        with FakeServer(size=512) as server:
            path = server.path
            assert NBDURI.parse(server.uri).socket == path
            unix(path).open().leave()
        assert not os.path.exists(os.path.dirname(path))

    def test_a_tcp_port(self) -> None:
        with FakeServer(size=512) as server:
            assert NBDURI.parse(server.tcp_uri).port == server.port
            WireClient(socket.create_connection(("127.0.0.1", server.port))).open().leave()

    def test_the_uri_of_an_export_is_quoted(self) -> None:
        with FakeServer(Export("a b/c?d", size=512)) as server:
            assert NBDURI.parse(server.uri_of("a b/c?d")).export == "a b/c?d"

    def test_several_exports_and_servers_at_once(self) -> None:
        with (
            FakeServer(Export("one", size=512), Export("two", size=1024)) as first,
            FakeServer(size=2048) as second,
        ):
            for server, name, size in ((first, "two", 1024), (second, "", 2048), (first, "", 512)):
                client = unix(server.path).open(name)
                client.request(Cmd.READ, size, 1)
                assert client.reply()[0].error == Errno.EINVAL
                client.read(size - 1, 1)
                client.leave()
            first.tolerate("SIZE-038")
            second.tolerate("SIZE-038")


class TestLife:
    def test_nothing_is_left(self) -> None:
        before = threads()
        with FakeServer(size=512) as server:
            clients = [connected(server).open() for _ in range(5)]
            assert threads() > before
        assert threads() == before
        for client in clients:
            assert client.rest() == b""
            client.socket.close()

    def test_it_can_be_stopped_twice_and_started_again(self) -> None:
        server = FakeServer(size=512)
        server.start()
        server.stop()
        server.stop()
        connected(server).open().leave()
        server.stop()
        server.verify()

    def test_a_server_that_serves_nobody_is_fine(self) -> None:
        with FakeServer():
            pass

    def test_it_works_in_a_plain_script(self) -> None:
        script = "from nbdtest.fakeserver import FakeServer\nwith FakeServer(size=4096) as server: print(server.uri)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.startswith("nbd+unix:///?socket=/")
        assert done.stderr == ""

    def test_it_works_beside_asyncio(self) -> None:
        async def greeting(path: str) -> bytes:
            reader, writer = await asyncio.open_unix_connection(path)
            data = await reader.readexactly(18)
            writer.close()
            await writer.wait_closed()
            return data

        with FakeServer(size=512) as server:
            assert asyncio.run(greeting(server.path)).startswith(b"NBDMAGICIHAVEOPT")

    def test_it_works_in_unittest(self) -> None:
        class Case(unittest.TestCase):
            def runTest(self) -> None:  # noqa: N802 - unittest's own name
                server = self.enterContext(FakeServer(size=512))
                connected(server).open().leave()

        assert Case().run().wasSuccessful()  # type: ignore[union-attr]  # run() without a result makes one

    def test_settings_are_checked(self) -> None:
        with pytest.raises(UsageError, match="give each Export its own"):
            FakeServer(Export(), size=512)
        with pytest.raises(UsageError, match="no_such"):
            FakeServer().configure(quirks={"no_such"})
        with pytest.raises(UsageError, match="no_such"):
            FakeServer(quirks={"no_such"})
        with pytest.raises(UsageError, match="no_such"):
            FakeServer(no_such=1)
        with pytest.raises(UsageError, match="not the string 'forgets_writes'"):
            FakeServer(quirks="forgets_writes")
        with pytest.raises(UsageError, match="not iterable"):
            FakeServer(quirks=1)
        with pytest.raises(UsageError, match="takes a TLSQuirks"):
            FakeServer(tls_quirks={"ignores_starttls"})

    def test_quirks_are_given_by_name_from_the_start(self) -> None:
        with FakeServer(size=512, quirks={"forgets_writes"}) as server:
            assert server.settings.quirks == Quirks(forgets_writes=True)
            connected(server).open().leave()

    def test_importing_it_loads_the_standard_library_only(self) -> None:
        code = (
            "import sys; before = set(sys.modules); import nbdtest.fakeserver, nbdtest.fakeserver.serve;"
            "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}"
            " - set(sys.stdlib_module_names) - {'nbdtest'}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.strip() == "[]"


class TestVerification:
    def failure(self, server: FakeServer) -> str:
        server.stop()
        with pytest.raises(VerificationFailed) as caught:
            server.verify()
        return str(caught.value)

    def test_an_unused_rule(self) -> None:
        server = FakeServer(size=512)
        server.on(Cmd.READ, nth=3).reply(error(Errno.EIO))
        connected(server).open().leave()
        text = self.failure(server)
        assert "this rule never acted: on(Cmd.READ, nth=3).reply(error(Errno.EIO))" in text
        assert "still expected: on(Cmd.READ, nth=3)" in text
        assert "Request flags=0 type=CMD_DISC" in text

    def test_what_was_received_before_an_exception_is_in_the_journal(self) -> None:
        server = FakeServer(size=512)
        server.on(Cmd.READ, where=lambda asked: bool(asked.ofset)).reply(no_data())
        client = connected(server).open()
        client.request(Cmd.READ, 0, 4)
        assert client.rest() == b""
        client.socket.close()
        server.stop()
        (seen, told) = [line for line in server.story().splitlines() if "CMD_READ cookie" in line or "EXCEPT" in line]
        assert "CMD_READ" in seen
        assert "no attribute 'ofset'" in told
        assert "Traceback" in server.report()

    def test_a_violation_of_the_client(self) -> None:
        server = FakeServer(size=512)
        client = connected(server).open()
        client.request(Cmd.READ, 512, 1)
        client.reply()
        client.leave()
        assert "connection 1: SIZE-038: CMD_READ at 512, length 1 reaches past the end of the export" in self.failure(
            server
        )
        server.tolerate("SIZE-038")
        server.verify()

    def test_what_clients_merely_should_do_is_no_failure(self) -> None:
        with FakeServer(size=512) as server:
            client = connected(server).open()
            client.request(Cmd.READ, 0, 0)
            client.reply()
            client.leave()
            assert [str(each.violation) for each in server.journal.violations] == [
                "CMD-003 (SHOULD): CMD_READ at 0, length 0 is empty"
            ]

    def test_a_client_that_just_leaves(self) -> None:
        server = FakeServer(size=512)
        connected(server).open().socket.close()
        assert "TERM-042" in self.failure(server)

    def test_a_client_that_has_not_left_yet_is_fine(self) -> None:
        with FakeServer(size=512) as server:
            client = connected(server).open()
        client.socket.close()

    def test_an_exception_in_a_rule_ends_that_connection_and_is_told(self) -> None:
        def broken(asked: object) -> bool:
            raise ZeroDivisionError("in a rule")

        server = FakeServer(size=512)
        server.on(Cmd.FLUSH, where=broken).pass_through()
        one, other = connected(server).open(), connected(server).open()
        one.request(Cmd.FLUSH)
        assert one.rest() == b""
        assert other.read(0, 512) == bytes(512)
        one.socket.close()
        other.leave()
        text = self.failure(server)
        assert "ZeroDivisionError: in a rule" in text
        assert "test_server.py" in text

    def test_an_exception_in_a_disk_is_told(self) -> None:
        class Broken:
            size = 512

            def read(self, offset: int, length: int) -> bytes:
                raise KeyError("in a disk")

        server = FakeServer(disk=Broken())
        client = connected(server).open()
        client.request(Cmd.READ, 0, 1)
        assert client.rest() == b""
        client.socket.close()
        assert "KeyError: 'in a disk'" in self.failure(server)

    def test_an_error_of_a_disk_is_the_clients(self) -> None:
        class Bad:
            size = 512

            def read(self, offset: int, length: int) -> bytes:
                raise DiskError(Errno.EIO)

        with FakeServer(disk=Bad()) as server:
            client = connected(server).open()
            client.request(Cmd.READ, 0, 1)
            assert client.reply()[0].error == Errno.EIO
            client.leave()

    def test_the_journal_is_attached_to_a_failing_test(self) -> None:
        def test() -> None:
            with FakeServer(size=512) as server:
                connected(server).open().leave()
                raise ZeroDivisionError("mine")

        with pytest.raises(ZeroDivisionError) as caught:
            test()
        assert "CMD_DISC" in "".join(caught.value.__notes__)


class TestSharing:
    def test_a_write_is_seen_by_everybody(self) -> None:
        with FakeServer(size=1 << 20) as server:
            one, other = connected(server).open(), connected(server).open()
            one.write(4096, b"shared")
            assert other.read(4096, 6) == b"shared"
            assert server.disk.read(4096, 6) == b"shared"
            one.leave()
            other.leave()

    def test_hold_and_release_across_connections(self) -> None:
        with FakeServer(size=512) as server:
            server.on(Cmd.READ, nth=1).reply(hold("gate"), pass_through())
            server.on(Cmd.FLUSH).pass_through().then(release("gate"))
            one, other = connected(server).open(), connected(server).open()
            one.request(Cmd.READ, 0, 4)
            other.request(Cmd.FLUSH)
            other.reply()
            assert one.reply(4)[1] == bytes(4)
            one.leave()
            other.leave()

    def test_the_test_itself_releases(self) -> None:
        with FakeServer(size=512) as server:
            server.on(Cmd.FLUSH).reply(hold("gate"), pass_through())
            client = connected(server).open()
            client.request(Cmd.FLUSH)
            assert client.read(0, 4) == bytes(4)
            server.release("gate")
            assert client.reply()[0].error == Errno.OK
            client.leave()

    def test_rules_for_one_connection(self) -> None:
        with FakeServer(size=512) as server:
            server.on(Moment.CONNECT, connection=2).reply(close())
            one, two, three = connected(server), connected(server), connected(server)
            assert two.rest() == b""
            one.open().leave()
            three.open().leave()
            two.socket.close()

    def test_a_slow_disk_holds_up_nobody_else(self) -> None:
        opened, may_go = threading.Event(), threading.Event()

        class Slow:
            size = 512

            def read(self, offset: int, length: int) -> bytes:
                opened.set()
                may_go.wait(10)
                return bytes(length)

        with FakeServer(Export("slow", disk=Slow()), Export("fast", size=512)) as server:
            slow = connected(server).open("slow")
            slow.request(Cmd.READ, 0, 4)
            assert opened.wait(10)
            fast = connected(server).open("fast")
            assert fast.read(0, 4) == bytes(4)
            may_go.set()
            assert slow.reply(4)[1] == bytes(4)
            fast.leave()
            slow.leave()


class TestFastLane:
    def busy(self, server: FakeServer) -> WireClient:
        """A connection that has made enough requests to be worth a thread of its own."""
        client = connected(server).open()
        for _ in range(50):
            assert client.read(0, 256) == CONTENT[:256]
        assert "nbdtest-fakeserver-lane" in threads()
        return client

    def server(self) -> FakeServer:
        return FakeServer(disk=MemoryDisk(len(CONTENT), CONTENT))

    def test_everything_else_still_works(self) -> None:
        with self.server() as server:
            client = self.busy(server)
            client.request(Cmd.FLUSH)
            assert client.reply()[0].error == Errno.OK
            client.write(256, b"x" * 100_000)
            assert client.read(256, 100_000) == b"x" * 100_000
            client.request(Cmd.READ, len(CONTENT), 1)
            assert client.reply()[0].error == Errno.EINVAL
            assert client.read(0, 256) == CONTENT[:256]
            client.leave()
            server.tolerate("SIZE-038")

    def test_many_requests_in_one_piece(self) -> None:
        with self.server() as server:
            client = self.busy(server)
            requests = [Request(type=Cmd.READ, cookie=at, offset=at * 256, length=256).encode() for at in range(300)]
            write = Request(type=Cmd.WRITE, cookie=999, offset=0, length=4).encode() + b"late"
            client.say(*requests, write)
            for at in range(300):
                reply, data = client.reply(256)
                assert (reply.cookie, data) == (at, CONTENT[:256])
            assert client.reply()[0].cookie == 999
            assert client.read(0, 4) == b"late"
            client.leave()

    def test_requests_byte_by_byte(self) -> None:
        with self.server() as server:
            client = self.busy(server)
            for byte in Request(type=Cmd.WRITE, cookie=5, offset=0, length=3).encode() + b"abc":
                client.say(bytes([byte]))
            assert client.reply()[0].cookie == 5
            assert client.read(0, 3) == b"abc"
            client.leave()

    def test_a_rule_that_comes_later_acts(self) -> None:
        with self.server() as server:
            client = self.busy(server)
            server.on(Cmd.READ, nth=2).reply(error(Errno.EIO))
            assert client.read(0, 4) == CONTENT[:4]
            client.request(Cmd.READ, 0, 4)
            assert client.reply()[0].error == Errno.EIO
            client.leave()

    @pytest.mark.parametrize("where", [None, {"offset": 256}, lambda asked: asked.export == "" and asked.offset == 256])
    def test_rules_for_reads_do_not_end_it(self, where: Any) -> None:
        with self.server() as server:
            late = server.on(Cmd.READ, where=where, nth=100).reply(error(Errno.EIO))
            client = connected(server).open()
            told = []
            for _ in range(120):
                client.request(Cmd.READ, 256, 4)
                reply, _ = client.reply()
                told.append(reply.error)
                if reply.error == Errno.OK:
                    assert client.take(4) == CONTENT[256:260]
            assert "nbdtest-fakeserver-lane" in threads()
            assert [at for at, error in enumerate(told, 1) if error] == [100]
            assert late.fired == 1
            client.leave()

    def test_rules_for_writes_leave_the_reads_to_it(self) -> None:
        with self.server() as server:
            server.on(Cmd.WRITE, where=lambda asked: bytes(asked.payload) == b"bad", nth=2).reply(error(Errno.EIO))
            client = self.busy(server)
            client.write(0, b"bad")
            client.request(Cmd.WRITE, 0, 3, payload=b"bad")
            assert client.reply()[0].error == Errno.EIO
            client.write(0, b"bad")
            assert client.read(0, 3) == b"bad"
            assert "nbdtest-fakeserver-lane" in threads()
            client.leave()

    def test_the_journal_knows_of_it(self) -> None:
        with self.server() as server:
            client = self.busy(server)
            client.read(512, 256)
            client.leave()
        assert "Request flags=0 type=CMD_READ cookie=0x33 offset=512 length=256" in server.journal.format()

    def test_what_was_sent_before_the_end_counts(self) -> None:
        server = self.server()
        self.busy(server).socket.close()
        server.stop()
        assert [each.violation.requirement for each in server.journal.violations] == ["TERM-042"]

    def test_an_end_in_the_middle_of_a_write_stores_nothing(self) -> None:
        server = self.server()
        client = self.busy(server)
        client.request(Cmd.WRITE, 0, 1 << 16, payload=b"x" * 1000)
        client.socket.close()
        server.stop()
        assert server.disk.read(0, 4) == CONTENT[:4]
        assert "type=CMD_WRITE" in server.journal.format()
        assert "error=0 cookie=0x33" not in server.journal.format()

    @pytest.mark.parametrize("length", [512, 4096, 1 << 20], ids=lambda length: f"{length} bytes")
    def test_a_full_disk_is_an_error_and_not_the_end(self, length: int) -> None:
        with FakeServer(disk=MemoryDisk(2 * SLAB, CONTENT, limit=SLAB)) as server:
            client = self.busy(server)
            later = Request(type=Cmd.READ, cookie=999, offset=0, length=256).encode()
            client.request(Cmd.WRITE, SLAB, payload=b"x" * length)
            client.say(later)
            assert client.reply()[0].error == Errno.ENOSPC
            reply, data = client.reply(256)
            assert (reply.cookie, data) == (999, CONTENT[:256])
            client.leave()


class TestEnds:
    def test_cut_after_every_byte_of_a_session(self) -> None:
        total = 18 + (20 + 12) + 20 + (16 + 512)  # greeting, INFO_EXPORT, ACK, the read
        for after in range(0, total, 7):
            with FakeServer(disk=MemoryDisk(512, b"x" * 512)) as server:
                server.on(Moment.CONNECT).reply(cut(after=after))
                client = connected(server)
                with contextlib.suppress(BrokenPipeError):
                    client.say(b"\0\0\0\3")
                    client.say(b"IHAVEOPT", bytes([0, 0, 0, Opt.GO, 0, 0, 0, 6]), bytes(6))
                    client.say(Request(type=Cmd.READ, cookie=1, offset=0, length=512))
                assert len(client.rest()) == after
                client.socket.close()
                server.tolerate("*")

    def test_a_reset_on_tcp(self) -> None:
        with FakeServer(size=512) as server:
            server.on(Cmd.FLUSH).reply(cut(rst=True))
            client = WireClient(socket.create_connection(("127.0.0.1", server.port))).open()
            client.request(Cmd.FLUSH)
            with pytest.raises(ConnectionResetError):
                client.take(1)
            client.socket.close()

    def test_what_was_sent_before_a_fin_arrives(self) -> None:
        with FakeServer(size=512) as server:
            server.on(Cmd.FLUSH).reply(mangle(no_data(), keep=5), close())
            client = WireClient(socket.create_connection(("127.0.0.1", server.port))).open()
            client.request(Cmd.FLUSH)
            assert len(client.rest()) == 5
            client.socket.close()


class TestTrouble:
    """Exceptions in the serving thread end the connection that they belong to, are told, and spare everybody else."""

    def verified(self, server: FakeServer, *told: str) -> None:
        unix(server.path).open().leave()
        server.stop()
        assert len(server.journal.problems) == 1
        assert [text for text in told if text not in server.journal.problems[0]] == []
        with pytest.raises(VerificationFailed, match=told[-1]):
            server.verify()

    def test_in_a_step_of_a_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        correct = Connection.flush

        def flush(connection: Connection) -> None:
            if connection.number == 1:
                raise RuntimeError("no flush")
            correct(connection)

        monkeypatch.setattr(Connection, "flush", flush)
        server = FakeServer(size=512).start()
        with connected(server) as client:
            assert client.rest() == b""
        self.verified(server, "connection 1", "no flush")

    def test_in_tls(self, monkeypatch: pytest.MonkeyPatch, nbd_psk: PSKMaterial) -> None:
        def incoming(layer: TLSLayer, data: bytes) -> None:
            raise RuntimeError("no decryption")

        monkeypatch.setattr(TLSLayer, "incoming", incoming)
        server = FakeServer(size=512, tls=server_context(nbd_psk.server()), tls_mode=TLSMode.SELECTIVE).start()
        with unix(server.path).greet() as client:
            client.option(Opt.STARTTLS)
            client.say(b"hello")
            assert client.rest() == b""
        self.verified(server, "connection 1", "no decryption")

    def test_in_accepting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        server = FakeServer(size=512)
        correct, streams = server._numbered, []

        def numbered(stream: SocketStream) -> int | None:
            streams.append(stream)
            if len(streams) == 1:
                raise RuntimeError("no number")
            return correct(stream)

        monkeypatch.setattr(server, "_numbered", numbered)
        with unix(server.path) as client:
            assert client.rest() == b""
        self.verified(server, "no number")

    def test_in_the_fast_lane(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def serve(lane: Lane, connected: socket.socket, buffer: memoryview) -> None:
            raise RuntimeError("no lane")

        monkeypatch.setattr(Lane, "serve", serve)
        server = FakeServer(size=512).start()
        with connected(server).open() as client:
            for _ in range(LANE_AFTER - 1):
                client.read(0, 512)
            client.request(Cmd.READ, 0, 512)
            client.rest()
        self.verified(server, "connection 1", "no lane")

    def test_in_a_call(self) -> None:
        def step() -> None:
            raise RuntimeError("no call")

        server = FakeServer(size=512)
        server._begin().call(step)
        self.verified(server, "no call")
