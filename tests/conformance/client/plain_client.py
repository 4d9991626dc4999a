"""A small client that does everything that a client can do, right, except where a habit says otherwise.

It copies the export to its file, writes back what it has read, and takes its leave.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGSEGV
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from nbdtest.errors import Disconnected, NBDTestError
from nbdtest.fakeserver import FakeServer
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.clock import Deadline
from nbdtest.net.process import Exit
from nbdtest.net.sockets import connect
from nbdtest.net.stream import Stream
from nbdtest.net.tls import TLSContext, start_tls
from tests.conformance.client.plain_handshake import Broken, Crashed, Failure, Hung
from tests.conformance.client.plain_replies import (
    CACHE,
    DF,
    DISC,
    FAST_ZERO,
    FLUSH,
    FUA,
    NO_HOLE,
    PAYLOAD_LEN,
    READ,
    REQ_ONE,
    RESIZE,
    STATUS,
    TRIM,
    WRITE,
    ZEROES,
    Replies,
)

__all__ = ["InThread", "PlainClient", "PlainSource"]

PIECE = 128 << 10
HOLE_AT = 768 << 10
"""Here the export has a hole, also when it is only 1 MiB large."""


class PlainClient(Replies):
    """One connection from the first byte to the last."""

    def offers(self, bit: int) -> bool:
        """Whether a transmission flag is set."""
        return bool(self.flags & 1 << bit)

    def session(self, file: bytearray) -> None:
        """Open the export, copy it and leave."""
        self.open()
        try:
            self._work(file)
        except Failure:
            self.leave(failed=True)
            raise
        self.leave(failed=bool(self.problems))
        if self.problems:
            raise Failure(self.problems[0])

    def leave(self, *, failed: bool) -> None:
        """Say DISC."""
        if self.does("leaves without DISC") or (failed and self.does("leaves without DISC after failures")):
            return
        if self.does("leaves too early"):
            self.submit(READ, 0, 512)
            self.submit(FLUSH)
        self.submit(DISC, offset=1 if self.does("gives DISC a range") else 0)
        if self.does("goes on after DISC"):
            self.submit(READ, 0, 512)

    def _work(self, file: bytearray) -> None:
        self._bad_manners()
        unit = max(512, self.minimum)
        piece = min(PIECE, self.maximum)
        whole = self.size if self.does("reads beyond the end") else self.size // unit * unit
        if self.does("reads beyond the end"):
            whole += 4096
        if self.context is not None:
            self._describe(whole)
        cookies = []
        for at in range(0, min(whole, 2 << 20), piece):
            cookies.append(self.submit(READ, at, min(piece, whole - at)))
            if self.does("has one request under way"):
                self.finish_read(cookies.pop(), file)
            elif len(cookies) == 3:
                self.finish_read(cookies.pop(0), file)
        for cookie in cookies:
            self.finish_read(cookie, file)
        if self.size >= 1 << 20:
            self._write(unit, file)

    def finish_read(self, cookie: int, file: bytearray) -> None:
        """Take in a READ, and put it where it belongs."""
        done = self.finish(cookie)
        file[done.offset : done.offset + done.length] = done.buffer
        simple = not (self.structured or self.extended)
        if simple and not done.offset and self.does("makes copying errors with simple replies"):
            file[7] ^= 1

    def _describe(self, whole: int) -> None:
        flags = REQ_ONE if self.does("asks for one extent") else 0
        at = 0
        while at < whole:
            length = min(whole - at, 1 << 20)
            done = self.finish(self.submit(STATUS, at, length, flags))
            headway = sum(length for length, _ in done.extents)
            if self.does("trusts descriptions to fit"):
                headway = length
            if not headway:
                if self.does("tries descriptions for ever"):
                    continue
                return
            at += headway

    def _write(self, unit: int, file: bytearray) -> None:
        """Write back what has been read, so that nothing changes."""
        writable = not self.offers(1) or self.does("writes what is read-only")
        if writable:
            fua = FUA if self.offers(3) or self.does("sets FUA always") else 0
            extra = NO_HOLE if self.does("sets flags that are not documented") else 0
            data = bytes(file[:unit]) or bytes(unit)
            self.finish(self.submit(WRITE, 0, unit, fua | extra, data=data[:unit].ljust(unit, b"\0")))
            if self.does("ignores the maximum payload"):
                self.finish(self.submit(WRITE, 0, 256 << 10, data=bytes(file[: 256 << 10])))
            if self.offers(5) or self.does("trims always"):
                self.finish(self.submit(TRIM, HOLE_AT, unit))
            if self.offers(6) or self.does("writes zeroes always"):
                fast = FAST_ZERO if self.does("sets FAST_ZERO always") else 0
                self.finish(self.submit(ZEROES, HOLE_AT, unit, fast))
        if self.offers(10) or self.does("gives CACHE flags"):
            self.finish(self.submit(CACHE, 0, unit, FUA if self.does("gives CACHE flags") else 0))
        if self.offers(2) or self.does("flushes always"):
            self.finish(self.submit(FLUSH, offset=512 if self.does("gives FLUSH a range") else 0))

    def _bad_manners(self) -> None:
        """Requests that a right client does not send."""
        for habit, type_, offset, length, flags in (
            ("sends unknown commands", 77, 0, 0, 0),
            ("resizes", RESIZE, 1 << 20, 0, 0),
            ("sets DF always", READ, 0, 512, DF),
            ("reads with FUA", READ, 0, 512, FUA),
            ("sets PAYLOAD_LEN in compact requests", READ, 0, 512, PAYLOAD_LEN),
            ("ignores the minimum block size", READ, 512, 512, 0),
            ("reads nothing", READ, 0, 0, 0),
            ("trims nothing", TRIM, 0, 0, 0),
            ("zeroes nothing", ZEROES, 0, 0, 0),
            ("describes nothing", STATUS, 0, 0, 0),
            ("reads at odd offsets", READ, 100, 100, 0),
            ("reads too much at once", READ, 0, 64 << 20, 0),
            ("asks for status without contexts", STATUS, 0, 512, 0),
        ):
            if self.does(habit):
                self.finish(self.submit(type_, offset, length, flags))
        if self.does("writes nothing"):
            self.finish(self.submit(WRITE, 0, 0))
        if self.extended:
            if self.does("reads more than 32 bits"):
                self.finish(self.submit(READ, 0, 5 << 30))
            if self.does("sets PAYLOAD_LEN without payload"):
                self.finish(self.submit(WRITE, 0, 0))
            if self.does("filters contexts uninvited"):
                filtered = (512).to_bytes(8, "big") + (1).to_bytes(4, "big")
                self.finish(self.submit(STATUS, 0, 12, PAYLOAD_LEN, data=filtered))
            if self.does("filters contexts wrongly"):
                self.finish(self.submit(STATUS, 0, 10, PAYLOAD_LEN, data=bytes(10)))


class InThread:
    """A run of the client in a thread of its own."""

    def __init__(self, work: Callable[[InThread], Exit | None], file: bytes) -> None:
        self.exit: Exit | None = None
        self.output = ""
        self.contents = bytearray(file)
        self._streams: list[Stream] = []
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[InThread], Exit | None]) -> None:
        ended = work(self)
        if ended is None:
            self._stopped.wait(60)
        for stream in reversed(self._streams):
            stream.close()
        if ended is not None:
            self.exit = ended
        self._ended.set()

    def opened(self, stream: Stream) -> Stream:
        """Remember a connection, so that it can be ended."""
        self._streams.append(stream)
        return stream

    def wait(self, within_s: float) -> Exit | None:
        self._ended.wait(within_s)
        return self.exit

    def file(self) -> bytes:
        return bytes(self.contents)

    def stop(self) -> None:
        self._stopped.set()
        for stream in self._streams:
            stream.interrupt()
        self._thread.join(10)


@dataclass
class PlainSource:
    """The client in this process, as something that checks are run on."""

    habits: frozenset[str] = frozenset()
    tls: TLSContext | None = None
    flawed: Callable[[str], TLSContext | None] | None = None
    credentials: TLSContext | None = None
    """Of the client."""
    name: str = "plain"
    spec: str = "plain {uri}"
    version: str = ""
    takes_uri: bool = True

    def flawed_tls(self, flaw: str) -> TLSContext | None:
        return None if self.flawed is None else self.flawed(flaw)

    def start(self, server: FakeServer, *, file: bytes, uri: str = "") -> InThread:
        if "guesses the socket" in self.habits and "socket=" not in (uri or server.uri):
            uri += f"?socket={server.path}"
        return InThread(lambda run: self._main(uri or server.uri, run), file)

    def _main(self, uri: str, run: InThread) -> Exit | None:
        try:
            self._run(uri, run)
        except Crashed:
            return Exit(signal=SIGSEGV)
        except Hung:
            return None
        except (Failure, Broken, NBDTestError, ValueError) as problem:
            run.output = f"{type(problem).__name__}: {problem}"
            habits = self.habits
            if "hangs when it fails" in habits:
                return None
            if "crashes at the end of the connection" in habits and isinstance(problem, Disconnected):
                return Exit(signal=SIGSEGV)
            return Exit(status=0 if "always reports success" in habits else 1)
        except Exception:  # noqa: BLE001 - the edge of a thread: a mistake of the client's own is told as its output
            run.output = traceback.format_exc()
            return Exit(status=99)
        return Exit(status=1 if "always reports failure" in self.habits else 0)

    def _run(self, uri: str, run: InThread) -> None:
        scheme, path, name = self._parse(uri)
        client = self._connect(path, name, run, tls=scheme.startswith("nbds"))
        try:
            client.session(run.contents)
        except NBDTestError:
            if "tries again without TLS" not in self.habits:
                raise
            client = PlainClient(stream=run.opened(connect(UnixAddress(path), timeout_s=None)), habits=self.habits)
            client.session(run.contents)
        two = "uses two connections" in self.habits and client.offers(8)
        if two or "always uses two connections" in self.habits:
            second = self._connect(path, name, run, tls=False)
            second.open()
            second.finish(second.submit(READ, 0, max(512, second.minimum)))
            second.leave(failed=False)

    def _parse(self, uri: str) -> tuple[str, str, bytes]:
        habits = self.habits
        parts = urlsplit(uri)
        if parts.scheme not in ("nbd+unix", "nbds+unix") or (
            "minds capitals" in habits and not uri.startswith(parts.scheme)
        ):
            raise ValueError(f"scheme {parts.scheme}")
        raw = parts.path
        name = raw[1:]
        if "needs a path" in habits and not raw:
            raise ValueError("no path")
        if "keeps the slash" in habits and name:
            name = raw
        if "strips all slashes" in habits:
            name = raw.lstrip("/")
        if "resolves dots" in habits:
            name = name.replace("a/../", "").replace("./", "")
        decoded = name.encode() if "does not decode" in habits else unquote_to_bytes(name)
        if "%zz" in name and "takes anything for a URI" not in habits:
            raise ValueError("a bad escape")
        if "decodes as Latin-1" in habits:
            decoded = decoded.decode("latin-1").encode()
        if b"\0" in decoded:
            if "cuts names at NUL" not in habits:
                raise ValueError("a NUL")
            decoded = decoded.partition(b"\0")[0]
        sockets = parse_qs(parts.query).get("socket")
        if not sockets:
            raise ValueError("no socket")
        return parts.scheme, sockets[0], decoded

    def _connect(self, path: str, name: bytes, run: InThread, *, tls: bool) -> PlainClient:
        stream = run.opened(connect(UnixAddress(path), timeout_s=None))
        begin = None
        if self.credentials is not None:
            credentials = self.credentials

            def begin(lower: Stream) -> Stream:
                protected = start_tls(lower, credentials, Deadline(10))
                return protected if "does not close TLS" in self.habits else run.opened(protected)

        return PlainClient(
            stream=stream,
            habits=self.habits,
            name=name,
            start_tls=begin,
            insists_on_tls=tls,
        )
