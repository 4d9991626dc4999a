"""`FakeServer`: a whole server in this process, for tests. It puts engines, loops, lanes and scripts together.

    with FakeServer(size=1 << 20) as server:
        server.on(Cmd.READ, nth=2).reply(error(Errno.EIO, message="bad sector"))
        ... a client connects to server.uri ...

Leaving the `with` verifies: rules that never acted, exceptions in scripts, violations of clients and threads that do
not end make it raise `VerificationFailed`, with the journal in its text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from nbdtest.errors import NBDTestError, TransportError, UsageError
from nbdtest.fakeserver.connection import Connection
from nbdtest.fakeserver.engine import Engine
from nbdtest.fakeserver.export import Export, Settings, Style, TLSMode
from nbdtest.fakeserver.guest import Guest, Handshakes
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.lane import BUFFER, open_lane
from nbdtest.fakeserver.loop import Loop, Served
from nbdtest.fakeserver.quirks import Quirks
from nbdtest.fakeserver.rules import Rule, RuleBook, SendRule, Trigger, Where
from nbdtest.fakeserver.script import Peer, Script
from nbdtest.fakeserver.session import Session
from nbdtest.fakeserver.tls import TLSQuirks
from nbdtest.model import CustomDisk, Disk, MemoryDisk
from nbdtest.net.addresses import Address, TCPAddress, UnixAddress
from nbdtest.net.clock import monotonic_s
from nbdtest.net.scratch import ScratchDirectory
from nbdtest.net.sockets import Listener, listen
from nbdtest.net.stream import Arrival, SocketStream
from nbdtest.net.tls import ServerCredentials, ServerPSK, ServerX509, TLSContext, server_context
from nbdtest.wire import Message

__all__ = ["FakeServer", "VerificationFailed"]

LANE_AFTER = 32
"""So many requests make a connection worth a thread of its own."""
SEND_BUFFER = 1 << 20
"""Asked of the kernel for such a connection, so that a long reply leaves in few turns."""
LAST_RECORDS = 60
_EXPORT_FIELDS = {each.name for each in dataclasses.fields(Export)} - {"disk"}
_CHOICES: Mapping[str, type[enum.StrEnum]] = {"style": Style, "tls_mode": TLSMode}


class VerificationFailed(NBDTestError, AssertionError):
    """Something about the session was not as the test promised."""


class FakeServer:
    """An NBD server that is correct by default, and wrong exactly where rules, scripts or quirks say so."""

    def __init__(
        self,
        *exports: Export,
        size: int | None = None,
        disk: Any = None,
        tolerate: Iterable[str] = (),
        tls: TLSContext | None = None,
        journal: Journal | None = None,
        **settings: Any,
    ) -> None:
        """Set up, serve nothing yet.

        Args:
            exports: what is served; without any, one export named "" with `size` bytes of memory or with `disk`.
            tolerate: requirement ids (or "*") whose violation by a client does not fail the verification.
            tls: what STARTTLS needs; the setting `tls_mode` says when it is offered.
            settings: fields of `Settings`, as `configure` takes them; without `exports` also fields of `Export`.

        Raises:
            UsageError: there is no such setting or quirk, or it cannot be that.
        """
        given: tuple[Any, ...] = exports
        if foreign := [each for each in given if not isinstance(each, Export)]:
            raise UsageError(f"FakeServer takes exports, such as Export('name', size=512), not {foreign[0]!r}")
        own = {name: settings.pop(name) for name in _EXPORT_FIELDS & settings.keys()}
        if size is not None or disk is not None:
            own |= {"size": size, "disk": disk}
        if exports and own:
            names = "=, ".join(own)
            raise UsageError(f"{names}= are for the default export: give each Export its own")
        self.settings = _changed(Settings(exports=exports or (Export(**own),)), settings)
        self.journal = Journal(began=monotonic_s()) if journal is None else journal
        self.rules = RuleBook()
        self.tolerated: set[str] = set()
        self.tolerate(*([tolerate] if isinstance(tolerate, str) else tolerate))
        self._tls = tls
        self._loop: Loop | None = None
        self._own_loops: list[Loop] = []
        self._lanes: dict[threading.Thread, Connection] = {}
        self._abandoned: set[Connection] = set()
        """Connections whose end is our doing."""
        self._scripts: list[Script] = []
        self._running: list[tuple[threading.Thread, Peer]] = []
        self._released: set[str] = set()
        self._handshakes: Handshakes | None = None
        self._lock = threading.Lock()
        self._count = 0
        self._scratch: ScratchDirectory | None = None
        self._unix: Listener | None = None
        self._tcp: Listener | None = None
        self._stuck: list[str] = []

    # What it serves, and where.

    @property
    def disk(self) -> Disk:
        """The disk of the first export."""
        disk: Disk = self.settings.exports[0].disk
        return disk

    @property
    def uri(self) -> str:
        """The URI of the default export on a Unix socket, which listens from now on."""
        return self.uri_of("")

    def uri_of(self, export: str) -> str:
        """The URI of an export on the Unix socket."""
        return f"nbd+unix:///{quote(export, safe='')}?socket={quote(self.path)}"

    @property
    def path(self) -> str:
        """The path of the Unix socket, which listens from now on."""
        with self._lock:
            if self._unix is None:
                self._scratch = ScratchDirectory()
                self._unix = listen(UnixAddress(self._scratch.file("nbd.sock")))
                self._begin().listen(self._unix)
            address = self._unix.address
        assert isinstance(address, UnixAddress)
        return address.path

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1, which listens from now on."""
        with self._lock:
            if self._tcp is None:
                self._tcp = listen(TCPAddress("127.0.0.1", 0))
                self._begin().listen(self._tcp)
            address = self._tcp.address
        assert isinstance(address, TCPAddress)
        return address.port

    @property
    def tcp_uri(self) -> str:
        """The URI of the default export on TCP."""
        return f"nbd://127.0.0.1:{self.port}/"

    def listen(self, where: Address | Listener) -> Address:
        """Listen at an address, or on a listener that exists already; give the address with the real port.

        Raises:
            UsageError: this is no address.
        """
        if not isinstance(where, Address | Listener):
            raise UsageError(f"listen() takes a UnixAddress, TCPAddress, VsockAddress or Listener, not {where!r}")
        listener = where if isinstance(where, Listener) else listen(where)
        with self._lock:
            self._begin().listen(listener)
        return listener.address

    def connect(self) -> socket.socket:
        """Make a connected socket, without any listener."""
        ours, theirs = socket.socketpair()
        self.serve(SocketStream(ours, timeout_s=None))
        return theirs

    def serve(self, stream: SocketStream | socket.socket) -> Connection | None:
        """Serve a connection that exists already; None if a script takes it."""
        if isinstance(stream, socket.socket):
            stream = SocketStream(stream, timeout_s=None)
        with self._lock:
            loop = self._begin()
        number = self._numbered(stream)
        if number is None:
            return None
        connection = self._connection(stream, self._engine(number))
        loop.adopt(connection, begin=True)
        return connection

    # What it does wrong.

    def on(
        self,
        trigger: Trigger,
        *,
        nth: int | None = None,
        where: Where = None,
        times: int | None = None,
        connection: int | None = None,
        per_connection: bool = False,
    ) -> Rule:
        """Begin a rule; see `RuleBook.on`."""
        return self.rules.on(
            trigger, nth=nth, where=where, times=times, connection=connection, per_connection=per_connection
        )

    def on_send(
        self,
        kind: type[Message],
        *,
        nth: int | None = None,
        where: Where = None,
        times: int | None = None,
        connection: int | None = None,
        per_connection: bool = False,
    ) -> SendRule:
        """Begin a rule for outgoing messages; see `RuleBook.on_send`."""
        return self.rules.on_send(
            kind, nth=nth, where=where, times=times, connection=connection, per_connection=per_connection
        )

    def configure(self, **changes: Any) -> None:
        """Change settings, for connections from now on; `quirks` may be a set of names.

        Raises:
            UsageError: there is no such setting or quirk, or it cannot be that.
        """
        self.settings = _changed(self.settings, changes)

    def change_exports(self, **changes: Any) -> None:
        """Change fields of all exports, for connections from now on; the disks stay unless they are changed."""
        if unknown := changes.keys() - _EXPORT_FIELDS - {"size", "disk"}:
            raise UsageError(f"an Export has no {', '.join(sorted(unknown))}")
        changed = tuple(dataclasses.replace(e, **{"size": None, **changes}) for e in self.settings.exports)
        self.configure(exports=changed)

    def change_credentials(self, change: Callable[[ServerCredentials], ServerCredentials]) -> None:
        """Change what the server has for TLS, for connections from now on; nothing if it has no TLS."""
        known = self._tls
        if known is not None and isinstance(known.credentials, ServerX509 | ServerPSK):
            self._tls = server_context(change(known.credentials), known.versions, tickets=known.tickets)

    def script(self, function: Callable[[Peer], None]) -> Callable[[Peer], None]:
        """Let `function(peer)` play the next connection that has no script yet. A decorator.

        Raises:
            UsageError: it cannot be called.
        """
        if not callable(function):
            raise UsageError(f"a script is a function that takes a Peer, not {function!r}")
        self._scripts.append(Script(function))
        return function

    def release(self, name: str) -> None:
        """Let go what rules hold under `name`, now and later."""
        with self._lock:
            self._released.add(name)
            holders = self._holders()
        for holder in holders:
            holder.release(name)

    def tolerate(self, *requirements: str) -> None:
        """Let clients break these rules of the specification; "*" for all.

        Raises:
            UsageError: something is no requirement id.
        """
        given: tuple[Any, ...] = requirements
        for each in given:
            if not isinstance(each, str) or not re.fullmatch(r"\*|[A-Z]+-[0-9]+", each):
                raise UsageError(f"{each!r} is no requirement id, such as 'SIZE-038'; '*' stands for all")
        self.tolerated.update(requirements)

    # Its life.

    def start(self) -> Self:
        """Begin to serve."""
        with self._lock:
            self._begin()
        return self

    def stop(self, *, grace_s: float = 0.0) -> None:
        """End every connection and thread, after at most `grace_s` for clients that are owed answers. Any number of
        times."""
        if self.settings.quirks.hangs_up_at_shutdown:
            grace_s = 0.0
        with self._lock:
            loop, self._loop = self._loop, None
            own, self._own_loops = self._own_loops, []
            running, self._running = self._running, []
        for thread, peer in running:
            peer.interrupt()
            self._join(thread, "script")
        for each in [loop, *own]:
            if each is not None and not each.stop(grace_s=grace_s):
                self._stuck.append("the serving thread does not end")
        for thread, connection in list(self._lanes.items()):
            self._end_lane(thread, connection, grace_s)
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None
        self._unix = self._tcp = None

    def verify(self) -> None:
        """Raise what the test has to know. Best after `stop`, when all is said.

        Raises:
            VerificationFailed: the message lists everything, and ends with the journal.
        """
        complaints = self.complaints()
        if complaints:
            told = "\n".join(f"- {line}" for line in complaints)
            raise VerificationFailed(f"the fake server was not used as promised:\n{told}\n{self.story()}")

    def complaints(self) -> list[str]:
        """What `verify` would raise, one text each."""
        found = [f"this rule never acted: {rule!r}" for rule in self.rules.unused()]
        found += [f"no connection came for the script {each.name}" for each in self._scripts if not each.used]
        found += self.journal.problems
        found += self._stuck
        if "*" not in self.tolerated:
            found += [
                f"the client broke {noted}"
                for noted in self.journal.binding_violations
                if noted.violation.requirement not in self.tolerated
            ]
        return found

    def report(self) -> str:
        """What a failed test shows: the story, and all complaints."""
        complaints = [f"- {line}" for line in self.complaints()]
        return "\n".join([self.story(), *(["the fake server complains:", *complaints] if complaints else [])])

    def story(self) -> str:
        """The last part of the journal, and what was expected next."""
        waiting = self.rules.unused()
        expected = f"\nstill expected: {', '.join(map(repr, waiting))}" if waiting else ""
        return f"what happened:\n{self.journal.format(last=LAST_RECORDS)}{expected}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if value is None:
            self.verify()
        else:
            value.add_note(f"fake server: {self.report()}")

    # Inside.

    def _begin(self) -> Loop:
        if self._loop is None:
            self._loop = Loop(self._note_problem, accepted=self._accepted, settled=self._moves_away)
            self._loop.start()
        return self._loop

    def _note_problem(self, connection: int, error: Exception) -> None:
        self.journal.problem(connection, monotonic_s(), error, "serving")

    def _accepted(self, stream: SocketStream) -> Served | None:
        """Make a guest or a connection of a new stream, unless a script takes it. In the loop's thread."""
        number = self._numbered(stream)
        if number is None:
            return None
        known = self._known_handshakes()
        if known is None:
            return self._connection(stream, self._engine(number))
        return Guest(
            stream,
            number,
            self.journal,
            known,
            engine=partial(self._engine, number),
            connection=partial(self._connection, stream),
        )

    def _numbered(self, stream: SocketStream) -> int | None:
        """Count a new stream; None if the next script has taken it."""
        with self._lock:
            self._count += 1
            number = self._count
            script = next((each for each in self._scripts if not each.used), None)
            if script is None:
                return number
            script.used = True
            peer = Peer(stream, self._engine(number), self.journal, tls=self._tls, released=self.release)
            thread = threading.Thread(
                target=self._play, args=(script, peer), name=f"nbdtest-script-{script.name}", daemon=True
            )
            self._running.append((thread, peer))
            thread.start()
            return None

    def _engine(self, number: int, session: Session | None = None) -> Engine:
        engine = Engine(self.settings, self.rules, self.journal, connection=number, session=session)
        engine.released |= self._released
        return engine

    def _connection(self, stream: SocketStream, engine: Engine) -> Connection:
        return Connection(stream, engine, self.journal, tls=self._tls, released=self._hand_on)

    def _known_handshakes(self) -> Handshakes | None:
        """The memory of handshakes that holds for the settings, rules and sizes of now, if there can be one."""
        known = self._handshakes
        if known is not None and known.settings is self.settings and known.valid and known.sizes == self._sizes():
            return known
        memory_only = all(isinstance(export.disk, MemoryDisk) for export in self.settings.exports)
        if self.journal.echoes or not memory_only or self.rules.acts_on_handshakes():
            return None
        self._handshakes = Handshakes(self.settings, self.rules, self._sizes())
        return self._handshakes

    def _sizes(self) -> tuple[int, ...]:
        return tuple([export.disk.size for export in self.settings.exports])

    def _play(self, script: Script, peer: Peer) -> None:
        try:
            script.function(peer)
        except Exception as error:  # noqa: BLE001 - the edge of a thread: verify() raises it again
            if not peer.interrupted:
                self.journal.problem(peer.number, monotonic_s(), error, f"script {script.name}")
        finally:
            peer.close()

    def _hand_on(self, name: str, by: Connection) -> None:
        with self._lock:
            self._released.add(name)
            holders = self._holders()
        for holder in holders:
            holder.release(name)

    def _holders(self) -> list[Loop | Peer]:
        """Everybody who may hold replies back."""
        loops = [each for each in [self._loop, *self._own_loops] if each is not None]
        return [*loops, *(peer for _, peer in self._running)]

    def _moves_away(self, connection: Served) -> bool:
        """Take a connection out of the common loop if it would hold up the others there, or deserves a fast lane."""
        if not isinstance(connection, Connection):
            return False
        engine = connection.engine
        export = engine.session.export
        if export is None or connection.wants_write:
            return False
        if isinstance(export.disk, CustomDisk):
            loop = Loop(self._note_problem, name="nbdtest-fakeserver-disk", ends_when_empty=True)
            with self._lock:
                if self._loop is None:
                    return False
                self._own_loops = [each for each in self._own_loops if each.running] + [loop]
            loop.start()
            loop.adopt(connection, begin=False)
            return True
        if connection.tls_layer is not None or engine.session.requests < LANE_AFTER:
            return False
        if open_lane(engine, self.journal) is None:
            return False
        thread = threading.Thread(
            target=self._drive_lane, args=(connection,), name="nbdtest-fakeserver-lane", daemon=True
        )
        self._lanes[thread] = connection
        thread.start()
        return True

    def _drive_lane(self, connection: Connection) -> None:
        """Serve plain requests until something comes that waits, and then go back to the loop."""
        buffer = memoryview(bytearray(BUFFER))
        connection.stream.raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            while not connection.closed:
                lane = open_lane(connection.engine, self.journal)
                if lane is None:
                    break
                rest = lane.serve(connection.stream.raw_socket, buffer)
                if rest is not None:
                    connection.take_in(rest)
                elif connection in self._abandoned:
                    connection.close()
                else:
                    connection.end()
        except (OSError, TransportError):
            connection.end(gone=True)
        except Exception as error:  # noqa: BLE001 - the edge of a thread: verify() raises it again
            self._note_problem(connection.number, error)
            connection.close()
        finally:
            self._lanes.pop(threading.current_thread(), None)
            loop = self._loop
            if not connection.closed:
                if loop is not None:
                    loop.adopt(connection, begin=False)
                else:
                    connection.close()

    def _end_lane(self, thread: threading.Thread, connection: Connection, grace_s: float) -> None:
        """Let the lane take in what its client has sent already, then end it."""
        try:
            while thread.is_alive() and connection.stream.arrival(0) is not Arrival.NOTHING:
                thread.join(0.001)
        except TransportError:
            pass  # the lane has closed the connection
        self._abandoned.add(connection)
        if grace_s:
            with contextlib.suppress(OSError):
                connection.stream.raw_socket.shutdown(socket.SHUT_RD)  # the reply that is on its way may arrive
            thread.join(grace_s)
        connection.stream.interrupt()
        self._join(thread, "fast lane")

    def _join(self, thread: threading.Thread, what: str) -> None:
        thread.join(5.0)
        if thread.is_alive():
            self._stuck.append(f"the {what} thread {thread.name} does not end")


def _changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with these changes; quirks may be given by their names, styles and modes by their values."""
    changes = dict(changes)
    known = {each.name: each for each in dataclasses.fields(Settings)}
    for name, value in changes.items():
        if name in _EXPORT_FIELDS | {"size", "disk"}:
            raise UsageError(f"{name}= belongs to an export: Export({name}=...), or change_exports({name}=...)")
        if name not in known:
            raise UsageError(f"there is no setting {name}=; there are {', '.join(known)}")
        if known[name].type == "bool" and not isinstance(value, bool):
            raise UsageError(f"{name}={value!r}: True or False is needed")
    for name, kind in _CHOICES.items():
        if name in changes:
            try:
                changes[name] = kind(changes[name])
            except ValueError:
                choices = ", ".join(repr(each.value) for each in kind)
                raise UsageError(f"{name}={changes[name]!r}: there are {choices}") from None
    tls_quirks = changes.get("tls_quirks", settings.tls_quirks)
    if not isinstance(tls_quirks, TLSQuirks):
        raise UsageError(f"tls_quirks= takes a TLSQuirks, not {tls_quirks!r}")
    quirks = changes.get("quirks", settings.quirks)
    if isinstance(quirks, str):
        raise UsageError(f"quirks= takes a Quirks or a set of names, not the string {quirks!r}")
    try:
        if not isinstance(quirks, Quirks):
            quirks = Quirks(**dict.fromkeys(quirks, True))
        return dataclasses.replace(settings, **{**changes, "quirks": quirks})
    except TypeError as error:
        raise UsageError(str(error)) from error
