"""A small client on a plain socket: requests, replies, and what belongs together."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import pairwise

from tests.conformance.client.plain_handshake import Broken, Failure, Handshake

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS, RESIZE = range(9)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))
COMPACT, WIDE, SIMPLE, CHUNK, EXTENDED_CHUNK = 0x25609513, 0x21E41C71, 0x67446698, 0x668E33EF, 0x6E8A278C
NONE, DATA, HOLE, BLOCK_STATUS, BLOCK_STATUS_EXT, IS_ERROR, ERROR_OFFSET = 0, 1, 2, 5, 6, 0x8001, 0x8002
ESHUTDOWN = 108
KNOWN_ERRORS = {1, 5, 12, 22, 28, 75, 95, 108}


@dataclass
class Pending:
    """A request that is under way, and what has come for it."""

    type: int
    offset: int
    length: int
    buffer: bytearray = field(default_factory=bytearray)
    covered: list[tuple[int, int]] = field(default_factory=list)
    extents: list[tuple[int, int]] = field(default_factory=list)
    error: int = 0
    chunks: int = 0


@dataclass
class Replies(Handshake):
    """Sends requests and takes in their replies."""

    pending: dict[int, Pending] = field(default_factory=dict)
    finished: dict[int, Pending] = field(default_factory=dict)
    cookie: int = 0x1000
    last_cookie: int = -1
    """Of the reply that was complete last."""
    last_touched: int = -1
    """Of the chunk that came last."""

    def submit(self, type_: int, offset: int = 0, length: int = 0, flags: int = 0, data: bytes = b"") -> int:
        """Send a request, and give its cookie."""
        self.cookie += 1
        wide = self.extended
        if self.does("sends compact requests always"):
            wide = False
        if self.does("sends extended requests always"):
            wide = True
        if wide and type_ == WRITE and not self.does("omits PAYLOAD_LEN"):
            flags |= PAYLOAD_LEN
        magic = 0x12560953 if self.does("begins requests wrongly") else WIDE if wide else COMPACT
        form = ">IHHQQQ" if wide else ">IHHQQI"
        request = struct.pack(form, magic, flags, type_, self.cookie, offset, length)
        self.send(request + data)
        if self.does("uses a cookie twice") and type_ == READ:
            self.send(request)
        fits = type_ == READ and length <= 64 << 20
        self.pending[self.cookie] = Pending(type_, offset, length, bytearray(length if fits else 0))
        return self.cookie

    def finish(self, cookie: int) -> Pending:
        """Take in replies until this request is answered."""
        while cookie in self.pending:
            self.take()
        done = self.finished.pop(cookie)
        if done.error:
            if done.error not in KNOWN_ERRORS:
                self.odd("an unknown error")
                if self.does("hangs up on unknown errors"):
                    raise Broken("an unknown error")
            if done.error == ESHUTDOWN and not self.does("ignores ESHUTDOWN"):
                raise Failure("the server shuts down")
            if not self.does("overlooks everything"):
                self.problems.append(f"error {done.error}")
        return done

    def take(self) -> None:
        """Take in one reply, or one chunk."""
        magic = int.from_bytes(self.receive(4), "big")
        if self.extended:
            if magic != EXTENDED_CHUNK:
                self.wrong("a wrong magic of a reply")
            self._chunk(*struct.unpack(">HHQQQ", self.receive(28)))
        elif magic == CHUNK and self.structured:
            flags, type_, cookie, length = struct.unpack(">HHQI", self.receive(16))
            self._chunk(flags, type_, cookie, None, length)
        elif magic == SIMPLE:
            self._simple(*struct.unpack(">IQ", self.receive(12)))
        else:
            self.wrong("a wrong magic of a reply")
            if magic == CHUNK:  # who takes it all the same
                flags, type_, cookie, length = struct.unpack(">HHQI", self.receive(16))
                self._chunk(flags, type_, cookie, None, length)
            elif magic == EXTENDED_CHUNK:
                self._chunk(*struct.unpack(">HHQQQ", self.receive(28)))
            else:
                self._lenient()

    def _lenient(self) -> None:
        """Whatever the magic was, read on as if it had been the right one."""
        if self.structured:
            flags, type_, cookie, length = struct.unpack(">HHQI", self.receive(16))
            self._chunk(flags, type_, cookie, None, length)
        else:
            self._simple(*struct.unpack(">IQ", self.receive(12)))

    def _known(self, cookie: int) -> Pending | None:
        found = self.pending.get(cookie)
        if found is None:
            if cookie == self.last_cookie:
                self.odd("a reply that comes twice")
            self.odd("an unknown cookie")
            return None
        if cookie != next(iter(self.pending)):
            self.odd("replies in another order")
        if self.does("assumes the order") and cookie != next(iter(self.pending)):
            found = self.pending[next(iter(self.pending))]
        return found

    def _simple(self, error: int, cookie: int) -> None:
        request = self._known(cookie)
        if request is None:
            return
        if request.type == READ and self.structured:
            self.odd("a simple reply among structured ones")
        if request.type == STATUS and error:
            self.odd("a failed description")
        request.error = error
        if request.type == READ and (not error or self.does("expects data after errors")):
            request.buffer[:] = self.receive(request.length)
            request.covered = [(request.offset, request.length)]
        self._done(cookie)

    def _done(self, cookie: int) -> None:
        request = self.finished[cookie] = self.pending.pop(cookie)
        self.last_cookie = cookie
        whole = sum(length for _, length in request.covered) == request.length
        if request.type == READ and not request.error and not whole:
            self.wrong("a READ that is not whole", broken=False)
        if request.type == STATUS and not request.error and not request.extents:
            self.odd("no description")
            if not self.does("overlooks everything"):
                self.problems.append("no description")

    def _chunk(self, flags: int, type_: int, cookie: int, offset: int | None, length: int) -> None:
        if length > 64 << 20:
            self.wrong("a huge chunk")
        payload = self.receive(length)
        request = self._known(cookie)
        if flags & ~1:
            self.odd("unknown reply flags")
        if request is None:
            return
        request.chunks += 1
        if request.chunks == 3:
            self.odd("many chunks")
        if len(self.pending) > 1 and request.chunks > 1 and self.last_touched != cookie:
            self.odd("interleaved chunks")
        self.last_touched = cookie
        if type_ & 0x8000:
            self._error(request, type_, payload)
        elif type_ == NONE:
            if not flags & 1:
                self.wrong("a NONE without DONE")
            if payload:
                self.wrong("a NONE with payload")
        elif type_ in (DATA, HOLE) and request.type == READ:
            self._content(request, type_, payload)
        elif type_ == (BLOCK_STATUS_EXT if self.extended else BLOCK_STATUS) and request.type == STATUS:
            self._status(request, payload)
        elif type_ in (BLOCK_STATUS, BLOCK_STATUS_EXT) and request.type == STATUS:
            self.odd("a description of the other kind")
            request.error = 22
        elif self.does("hangs at unknown chunks"):
            self.odd("an unknown chunk")
        else:
            self.wrong("an unknown chunk")
        if flags == 1 or (flags & 1 and not self.does("compares reply flags")):
            self._done(cookie)

    def _content(self, request: Pending, type_: int, payload: bytes) -> None:
        if type_ == DATA and len(payload) <= 8:
            self.wrong("data without bytes" if len(payload) == 8 else "data without offset")
            return
        if type_ == HOLE and len(payload) != 12:
            self.wrong("a hole of wrong length")
            return
        at = int.from_bytes(payload[:8], "big")
        content = payload[8:] if type_ == DATA else bytes(min(int.from_bytes(payload[8:], "big"), 64 << 20))
        length = len(payload) - 8 if type_ == DATA else int.from_bytes(payload[8:], "big")
        if not length:
            self.odd("an empty hole")
            return
        if at < request.offset or at + length > request.offset + request.length:
            self.wrong("content outside the request")
            return
        if any(at < start + count and start < at + length for start, count in request.covered):
            self.odd("content that comes twice")
            return
        if request.covered and at < max(start for start, _ in request.covered):
            self.odd("content out of order")
        if type_ == HOLE and request.chunks > 1:
            self.odd("a hole among data")
        place = at - request.offset
        if self.does("puts chunks in the order of arrival"):
            place = sum(count for _, count in request.covered)
        if self.does("forgets holes") and type_ == HOLE:
            content = b"\xff" * length
        request.buffer[place : place + length] = content
        request.covered.append((at, length))

    def _error(self, request: Pending, type_: int, payload: bytes) -> None:
        if len(payload) < 6:
            self.wrong("a short error")
            return
        error, length = struct.unpack(">IH", payload[:6])
        if 6 + length + (8 if type_ == ERROR_OFFSET else 0) > len(payload):
            self.wrong("a message beyond its chunk" if length else "an error without its offset")
            return
        message = payload[6 : 6 + length]
        if len(message) > 4096 or b"\xff" in message or b"\0" in message:
            self.odd("an unreadable message")
        if type_ not in (IS_ERROR, ERROR_OFFSET):
            self.odd("an unknown error chunk")
            if self.does("ignores unknown error chunks"):
                request.covered = request.covered or [(request.offset, request.length)]
                return
        if not error:
            self.wrong("an error of zero", broken=False)
        if request.type == STATUS:
            self.odd("a failed description")
        if type_ == ERROR_OFFSET:
            at = int.from_bytes(payload[6 + length : 14 + length], "big")
            if not request.offset <= at < request.offset + request.length:
                self.wrong("an error outside the request", broken=False)
        if self.does("forgets errors with long messages") and length >= 255:
            request.covered = [(request.offset, request.length)]
            return
        request.error = 0 if self.does("forgets errors") else request.error or error or 22

    def _status(self, request: Pending, payload: bytes) -> None:
        if self.extended:
            width, head = 16, 8
            fits = len(payload) >= 24 and not (len(payload) - 8) % 16
            fits = fits and int.from_bytes(payload[4:8], "big") == (len(payload) - 8) // 16
        else:
            width, head = 8, 4
            fits = len(payload) >= 12 and not (len(payload) - 4) % 8
        if not fits:
            self.wrong("a malformed description")
            return
        if int.from_bytes(payload[:4], "big") != self.context:
            self.odd("a description of an unknown context")
            return
        form = ">QQ" if self.extended else ">II"
        extents = [struct.unpack(form, payload[at : at + width]) for at in range(head, len(payload), width)]
        if any(not length for length, _ in extents):
            self.odd("an empty extent")
        if any(status & ~3 for _, status in extents):
            self.odd("unknown status bits")
        if any(a[1] == b[1] for a, b in pairwise(extents)):
            self.odd("equal neighbours")
        if any(status == 1 for _, status in extents):
            self.odd("a hole that is not zero")
        if all(not status for _, status in extents):
            self.odd("nothing but data")
        total = sum(length for length, _ in extents)
        if total < request.length:
            self.odd("a short description")
        if total > request.length:
            self.odd("a long description")
        if any(length for length, _ in extents) and not request.error:
            request.extents = extents
