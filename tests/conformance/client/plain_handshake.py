"""A small client on a plain socket: the handshake. It does right, except where a habit says otherwise.

It shares no code with the package's own client or codecs, so that a mistake there is not made here again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from nbdtest.errors import Disconnected
from nbdtest.net.stream import Arrival, Stream
from nbdtest.net.tls import TLSStream

IHAVEOPT = 0x49484156454F5054
REPLY = 0x0003E889045565A9
EXPORT_NAME, ABORT, LIST, PEEK, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META, EXTENDED = range(1, 12)
ACK, SERVER, REP_INFO, META_CONTEXT = 1, 2, 3, 4
ERROR = 1 << 31
UNSUP, TLS_REQD, SHUTDOWN = ERROR | 1, ERROR | 5, ERROR | 7
KNOWN_FLAGS = 0x1FFF
LONGEST = 1 << 20


class Failure(Exception):
    """The client gives up, in good order."""


class Broken(Exception):
    """The client hangs up at once."""


class Crashed(Exception):
    """The client is ended by a signal."""


class Hung(Exception):
    """The client does nothing any more."""


@dataclass
class Talking:
    """One connection, and the habits of whoever talks on it."""

    stream: Stream
    habits: frozenset[str]
    name: bytes = b""
    start_tls: Callable[[Stream], Stream] | None = None
    insists_on_tls: bool = False
    fixed: bool = False
    oldstyle: bool = False
    no_zeroes: bool = False
    structured: bool = False
    extended: bool = False
    in_tls: bool = False
    accepted: bool = False
    """Whether GO was successful: then there is no ABORT any more."""
    context: int | None = None
    size: int = -1
    flags: int = 0
    minimum: int = 1
    maximum: int = 32 << 20
    problems: list[str] = field(default_factory=list)
    kept: bytes = b""
    """What came in clear and is taken for what comes in TLS."""

    def does(self, habit: str) -> bool:
        """Whether the client has this habit."""
        return habit in self.habits

    def odd(self, what: str) -> None:
        """Something unusual was noticed. The right client goes on."""
        if self.does(f"crashes at {what}") or self.does("crashes at anything odd"):
            raise Crashed(what)
        if self.does(f"fails at {what}") or self.does("fails at anything odd"):
            raise Failure(what)
        if self.does(f"hangs at {what}"):
            raise Hung(what)

    def wrong(self, what: str, *, broken: bool = True) -> None:
        """Something was noticed with which nobody can go on. The wrong client does."""
        self.odd(what)
        if self.does(f"overlooks {what}") or self.does("overlooks everything"):
            return
        if broken:
            raise Broken(what)
        self.problems.append(what)

    def receive(self, count: int) -> bytes:
        if self.does("expects headers in one piece") and 0 < count <= 64:
            data = self.stream.receive_some(count)
            if len(data) < count:
                raise Failure("a header in pieces")
            return data
        if self.does("crashes at a header in several records") and isinstance(self.stream, TLSStream):
            return self._record_by_record(self.stream, count)
        kept, self.kept = self.kept[:count], self.kept[count:]
        data = kept + self.stream.receive_exact(count - len(kept))
        if self.does("crashes at a session ticket") and isinstance(self.stream, TLSStream):
            session = self.stream.pipe.session
            if session is not None and session.has_ticket:
                self.odd("a session ticket")
        return data

    def _record_by_record(self, stream: TLSStream, count: int) -> bytes:
        data = bytearray(count)
        have = records = 0
        while have < count:
            if not (got := stream.pipe.read_into(memoryview(data)[have:])):
                header = stream.lower.receive_exact(5)
                stream.pipe.feed(header + stream.lower.receive_exact(int.from_bytes(header[3:], "big")))
                records += 1
            have += got
        if count <= 64 and records > 1:
            self.odd("a header in several records")
        return bytes(data)

    def send(self, data: bytes) -> None:
        self.stream.send_all(data)


class Handshake(Talking):
    """From the greeting to an open export."""

    def greet(self) -> None:
        start = self.receive(16)
        if start[:8] != b"NBDMAGIC":
            self.wrong("a wrong first magic", broken=not self.does("overlooks a wrong greeting"))
            self.size, self.oldstyle = 0, True
            return
        second = int.from_bytes(start[8:], "big")
        if second == 0x00420281861253:
            self._oldstyle()
            return
        if second != IHAVEOPT:
            self.wrong("a wrong second magic", broken=not self.does("overlooks a wrong greeting"))
            self.size, self.oldstyle = 0, True
            return
        offered = int.from_bytes(self.receive(2), "big")
        if offered & ~3:
            self.odd("unknown handshake flags")
        if not offered & 2:
            self.odd("no NO_ZEROES")
        taken = offered & 3
        if self.does("echoes flags"):
            taken = offered
        if self.does("sets unknown flags"):
            taken |= 4
        if self.does("always takes NO_ZEROES"):
            taken |= 2
        if self.does("never takes fixed newstyle"):
            taken &= ~1
        self.fixed, self.no_zeroes = bool(offered & 1), bool(taken & offered & 2)
        self.send(taken.to_bytes(4, "big"))

    def _oldstyle(self) -> None:
        if self.insists_on_tls and not self.does("goes on in clear"):
            raise Broken("oldstyle")
        if self.does("sends flags to an oldstyle server"):
            self.send(bytes(4) + IHAVEOPT.to_bytes(8, "big") + struct.pack(">II", GO, 6) + bytes(6))
        rest = self.receive(136)
        self.size, self.flags, self.oldstyle = *struct.unpack(">QI", rest[:12]), True

    def open(self) -> None:
        """Go through the options."""
        self.greet()
        if self.oldstyle:
            return
        if not self.fixed:
            self._without_fixed()
            return
        try:
            self._options()
        except Failure:
            if not self.accepted:
                self.abort()
            raise

    def _without_fixed(self) -> None:
        if self.insists_on_tls and not self.does("goes on in clear"):
            raise Broken("no TLS without fixed newstyle")
        if self.does("sends options without fixed newstyle"):
            self.send_option(GO, bytes(6))
            self.receive(1)
        self.export_name()

    def _options(self) -> None:
        if self.start_tls is not None or self.insists_on_tls:
            self._tls()
        if self.does("asks for contexts too early"):
            self.option(SET_META, self.query())
        if self.does("lists contexts too early"):
            self.option(LIST_META, self.query())
        if self.does("pipelines options"):
            self.send(self.header(LIST, 0))
            self.send_option(STRUCTURED)
            while self.reply(LIST)[0] not in (ACK,):
                pass
            self.structured = self.reply(STRUCTURED)[0] == ACK
        for habit, option, data in (
            ("puts data into LIST", LIST, b"data"),
            ("sends a withdrawn option", PEEK, b""),
            ("sends an unknown option", 0x7777, b""),
            ("starts TLS twice", STARTTLS, b""),
            ("puts data into STRUCTURED_REPLY", STRUCTURED, b"1"),
            ("puts data into EXTENDED_HEADERS", EXTENDED, b"1"),
        ):
            if self.does(habit):
                self.option(option, data)
        if not self.does("knows no extended headers"):
            self.extended = self.option(EXTENDED)[0] == ACK
            if not self.extended and self.does("insists on extended headers"):
                raise Broken("no extended headers")
        if not self.extended:
            self.structured = self.option(STRUCTURED)[0] == ACK
            if not self.structured and self.does("insists on structured replies"):
                raise Broken("no structured replies")
            if self.does("asks for structured replies twice"):
                self.option(STRUCTURED)
        self.list_exports()
        self.info(INFO)
        self.contexts()
        if self.does("opens with EXPORT_NAME") or (self.extended and self.does("uses EXPORT_NAME when extended")):
            self.export_name()
            return
        error = self.info(GO)
        if error == UNSUP and not self.extended and not self.does("does not fall back"):
            self.export_name()
        elif error:
            if error == TLS_REQD and self.does("tries EXPORT_NAME without TLS"):
                self.export_name()
            raise Failure(f"GO: error 0x{error:x}")
        elif self.does("sends options after GO"):
            self.send_option(LIST)

    # One option.

    def header(self, option: int, length: int) -> bytes:
        magic = REPLY if self.does("begins options wrongly") else IHAVEOPT
        return struct.pack(">QII", magic, option, length)

    def send_option(self, option: int, data: bytes = b"") -> None:
        self.send(self.header(option, len(data)) + data)

    def option(self, option: int, data: bytes = b"") -> tuple[int, list[tuple[int, bytes]]]:
        """Send it, and give the type of the final reply and the replies before."""
        self.send_option(option, data)
        before: list[tuple[int, bytes]] = []
        while True:
            type_, body = self.reply(option)
            if type_ == SHUTDOWN and not self.does("ignores ERR_SHUTDOWN"):
                raise Failure("the server shuts down")
            if type_ & ERROR:
                if body:
                    self.odd("the text of a refusal")
                if len(body) >= 4096:
                    self.odd("a long refusal")
                if type_ == ERROR | 8:
                    self.odd("a demand for block sizes")
                if not (ERROR < type_ <= ERROR | 10):
                    self.odd("an unknown option error")
                if option == GO and (len(body) > 4096 or any(b"\xff\0"[i : i + 1] in body for i in (0, 1))):
                    self.odd("an unreadable refusal")
                if self.does("takes unknown errors for success") and not (ERROR < type_ <= ERROR | 10):
                    return ACK, before
                return type_, before
            if type_ == ACK:
                if body:
                    self.odd("an ACK with data")
                return type_, before
            before.append((type_, body))

    def reply(self, option: int) -> tuple[int, bytes]:
        magic, echoed, type_, length = struct.unpack(">QIII", self.receive(20))
        if magic != REPLY:
            self.wrong("a wrong option reply magic")
        if echoed != option:
            self.wrong("a reply to another option")
        if length > LONGEST:
            self.wrong("a huge option reply")
            return type_, b""
        if type_ not in (ACK, SERVER, REP_INFO, META_CONTEXT) and not type_ & ERROR:
            self.odd("an unknown option reply")
        wanted = {LIST: SERVER, INFO: REP_INFO, GO: REP_INFO, SET_META: META_CONTEXT, LIST_META: META_CONTEXT}
        if not type_ & ERROR and type_ not in (ACK, wanted.get(option, ACK)):
            self.odd("a misplaced option reply")
        return type_, self.receive(length)

    def abort(self) -> None:
        if self.does("drops the connection"):
            return
        data = b"bye" if self.does("puts data into ABORT") else b""
        more = self.header(LIST, 0) if self.does("goes on after ABORT") else b""
        self.send(self.header(ABORT, len(data)) + data + more)
        try:
            self.reply(ABORT)
        except Disconnected:
            self.odd("no answer to ABORT")

    # The options by themselves.

    def _tls(self) -> None:
        if self.does("negotiates before TLS"):
            self.option(STRUCTURED)
        if self.does("describes the export before TLS") and self.info(INFO):
            raise Failure("no export in clear")
        if self.does("gives up when TLS is demanded") and self.option(LIST)[0] == TLS_REQD:
            raise Failure("TLS is demanded")
        answer = self.option(STARTTLS, b"host" if self.does("puts data into STARTTLS") else b"")[0]
        if answer == ACK and self.start_tls is not None:
            if self.does("keeps what came in clear") and self.stream.arrival(0) is Arrival.BYTES:
                self.kept = self.stream.receive_some()
            self.stream = self.start_tls(self.stream)
            self.in_tls = True
            if self.does("starts TLS in TLS"):
                self.option(STARTTLS)
        elif self.does("starts TLS in spite of a refusal") and self.start_tls is not None:
            self.stream = self.start_tls(self.stream)
        elif self.insists_on_tls and not self.does("goes on in clear"):
            raise Failure("TLS is refused")

    def list_exports(self) -> None:
        """Ask for the list; what comes of it is of no consequence."""
        type_, _ = self.option(LIST)
        if self.does("knows only one error") and type_ & ERROR and type_ != UNSUP:
            raise Failure("LIST was refused")
        if self.does("peeks"):
            raise Broken("it has seen enough")

    def request(self, option: int) -> bytes:
        infos = [] if self.does("does not ask for block sizes") else [3]
        if self.does("asks for an information twice"):
            infos = [3, 3]
        data = struct.pack(">I", len(self.name)) + self.name + struct.pack(f">H{len(infos)}H", len(infos), *infos)
        return data + b"\0" if self.does("sends surplus with GO") else data

    def info(self, option: int) -> int:
        """Send INFO or GO; the error, 0 for none."""
        final, replies = self.option(option, self.request(option))
        if final != ACK:
            return final
        self.accepted = option == GO
        exports = 0
        for number, (type_, body) in enumerate(replies):
            if type_ != REP_INFO:
                continue
            if len(body) < 2:
                self.odd("an information without type")
                continue
            kind = int.from_bytes(body[:2], "big")
            if kind == 0:
                exports += 1
                if number:
                    self.odd("an export that is not described first")
                self._export(body)
            elif kind == 3:
                self._block_sizes(body)
            elif kind in (1, 2):
                self.odd("an unasked information")
                if len(body) > 4098 or b"\0" in body[2:] or b"\xff" in body[2:]:
                    self.odd("an unreadable information")
            else:
                self.odd("an unknown information")
        if exports > 1:
            self.odd("an export that is described twice")
        if not exports:
            if option == INFO:
                self.odd("INFO without an export")
            elif self.size < 0:
                self.wrong("GO without an export", broken=False)
                if self.problems:
                    raise Failure("no export")
                self.size = 0
        return 0

    def _export(self, body: bytes) -> None:
        if len(body) < 12:
            self.wrong("a short export", broken=False)
            if self.problems:
                raise Failure("a short export")
            body = body.ljust(12, b"\0")
        if len(body) > 12:
            self.odd("a long export")
        self.size, self.flags = struct.unpack(">QH", body[2:12])
        if self.flags & ~KNOWN_FLAGS:
            self.odd("unknown transmission flags")
        if not self.flags & 1:
            self.odd("no HAS_FLAGS")
        if self.size < 512:
            self.odd("an export of no size")
        if self.size >= 1 << 62:
            self.odd("an export of huge size")
            raise Failure("the export is too large")

    def _block_sizes(self, body: bytes) -> None:
        if len(body) != 14:
            self.odd("block sizes of wrong length")
            return
        minimum, preferred, maximum = struct.unpack(">III", body[2:])
        if minimum & (minimum - 1) or not minimum:
            self.odd("a minimum that is no power of 2")
        elif minimum > 65536:
            self.odd("a minimum that is too large")
        elif preferred & (preferred - 1) or preferred < max(minimum, 512):
            self.odd("an impossible preferred size")
        elif maximum < preferred:
            self.odd("an impossible maximum")
        else:
            self.minimum, self.maximum = minimum, maximum

    def query(self, *, surplus: bool = False) -> bytes:
        text = b"base:allocation"
        for habit, other in (
            ("asks for contexts without namespace", b"allocation"),
            ("asks for contexts in Latin-1", b"x-\xe9:a"),
            ("asks for contexts with NUL", b"x-a:\0"),
            ("asks for long contexts", b"x-a:" + b"n" * 300),
            ("asks for too long contexts", b"x-a:" + b"n" * 4096),
        ):
            if self.does(habit):
                text = other
        name = b"other" if self.does("asks for contexts of another export") else self.name
        data = struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(text)) + text
        return data + b"\0" if surplus else data

    def contexts(self) -> None:
        if not (self.structured or self.extended):
            return
        listed, names = self.option(LIST_META, self.query(surplus=self.does("sends surplus with LIST_META_CONTEXT")))
        if listed & ERROR and self.does("knows only one error") and listed != UNSUP:
            raise Failure("LIST_META_CONTEXT was refused")
        for _, body in names:
            if len(body) >= 4 and int.from_bytes(body[:4], "big"):
                self.odd("a listed id")
        final, chosen = self.option(SET_META, self.query(surplus=self.does("sends surplus with SET_META_CONTEXT")))
        found: dict[bytes, int] = {}
        for type_, body in chosen:
            if type_ != META_CONTEXT:
                continue
            if len(body) <= 4 or len(body) > 4100 or b"\xff" in body[4:] or b"\0" in body[4:]:
                self.odd("a malformed context")
                continue
            found[body[4:]] = int.from_bytes(body[:4], "big")
        if any(name != b"base:allocation" for name in found):
            self.odd("an unasked context")
        if found.get(b"base:allocation", 1) != 1:
            self.odd("an unusual id")
        if final == ACK or self.does("keeps contexts after an error"):
            self.context = found.get(b"base:allocation")
        if self.does("takes errors for contexts") and final != ACK:
            self.context = 1
        if self.context is None and self.does("does not need contexts"):
            self.context = 1

    def export_name(self) -> None:
        self.send_option(EXPORT_NAME, self.name)
        self.size, self.flags = struct.unpack(">QH", self.receive(10))
        if not self.no_zeroes:
            self.receive(124)
