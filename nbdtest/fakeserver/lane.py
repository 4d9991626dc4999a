"""The fast lane: plain reads and writes of a memory disk, answered straight from the socket's buffer.

Only what the engine would answer without a second thought is served here; the first message that is anything else ends
it, and goes to the engine with all that follows. Rules that wait for a READ are asked about each; rules that wait for a
WRITE leave all of them to the engine.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from nbdtest.fakeserver.engine import Engine
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.rendering import Asked, Frames
from nbdtest.fakeserver.session import Phase
from nbdtest.model import DATA, DiskError, MemoryDisk
from nbdtest.net.clock import monotonic_s
from nbdtest.net.stream import unsent
from nbdtest.wire import (
    EXTENDED_REPLY_MAGIC,
    EXTENDED_REQUEST_MAGIC,
    REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Cmd,
    CmdFlag,
    ExtendedReplyHeader,
    ExtendedRequest,
    Message,
    ReplyFlag,
    ReplyType,
    Request,
    SimpleReply,
    StructuredReplyHeader,
)
from nbdtest.wire.layout import Readable

__all__ = ["Lane", "open_lane"]

BUFFER = 256 << 10
BATCH_BYTES = 1 << 20
BATCH_PIECES = 512

_READ, _WRITE = int(Cmd.READ), int(Cmd.WRITE)
_DATA = int(DATA)
_DONE = int(ReplyFlag.DONE)
_CONTENT, _NOTHING = int(ReplyType.OFFSET_DATA), int(ReplyType.NONE)
_COMPACT, _EXTENDED = struct.Struct(">IHHQQI"), struct.Struct(">IHHQQQ")
_SIMPLE = struct.Struct(">IIQ").pack
_CHUNK, _CHUNK_DATA = struct.Struct(">IHHQI").pack, struct.Struct(">IHHQIQ").pack
_WIDE, _WIDE_DATA = struct.Struct(">IHHQQQ").pack, struct.Struct(">IHHQQQQ").pack
_KINDS: dict[Frames, tuple[type[Message], type[Message]]] = {
    Frames.SIMPLE: (Request, SimpleReply),
    Frames.STRUCTURED: (Request, StructuredReplyHeader),
    Frames.EXTENDED: (ExtendedRequest, ExtendedReplyHeader),
}


def open_lane(engine: Engine, journal: Journal) -> Lane | None:
    """Make a lane if the engine has nothing to say about plain reads and writes right now."""
    session = engine.session
    export = session.export
    if session.phase is not Phase.TRANSMISSION or export is None or not engine.idle:
        return None
    if not isinstance(export.disk, MemoryDisk) or export.trackers or engine.settings.quirks.any or journal.echoes:
        return None
    version = engine.rules.version
    if engine.rules.send_rules and engine.rules.watches_messages():
        return None
    limits = export.limits
    return Lane(
        engine=engine,
        journal=journal,
        disk=export.disk,
        frames=session.frames,
        whole_reads=export.whole_reads,
        minimum=limits.minimum,
        maximum=limits.maximum,
        version=version,
        looks_at_reads=engine.rules.watches(Cmd.READ),
        has_conditions=any(rule.where for rule in engine.rules.rules),
        serves_writes=not export.read_only and not engine.rules.watches(Cmd.WRITE),
    )


@dataclass(slots=True, kw_only=True)
class Lane:
    """What a stretch of plain requests depends on; valid until a rule is added."""

    engine: Engine
    journal: Journal
    disk: MemoryDisk
    frames: Frames
    whole_reads: bool
    minimum: int
    maximum: int
    version: int
    looks_at_reads: bool
    """A rule could act on one: each is shown to the rules, and the engine gets the one on which a rule acts."""
    has_conditions: bool
    """Rules look at what is read, not only at how often."""
    serves_writes: bool

    def serve(self, connected: socket.socket, buffer: memoryview) -> bytes | None:
        """Serve until something else comes, and return that: bytes for the engine, None for the end of the connection.

        A WRITE that cannot be served, or in the middle of which the client left, is such a thing, too.

        Raises:
            OSError: the connection broke.
        """
        extended = self.frames is Frames.EXTENDED
        simple = self.frames is Frames.SIMPLE
        parse, size = (_EXTENDED.unpack_from, _EXTENDED.size) if extended else (_COMPACT.unpack_from, _COMPACT.size)
        magic = EXTENDED_REQUEST_MAGIC if extended else REQUEST_MAGIC
        write_flags = int(CmdFlag.PAYLOAD_LEN) if extended else 0
        kinds = _KINDS[self.frames]
        disk, minimum, maximum, rules, version = self.disk, self.minimum, self.maximum, self.engine.rules, self.version
        any_status, looks_at_reads = simple or self.whole_reads, self.looks_at_reads
        session, connection, note = self.engine.session, self.engine.connection, self.journal.exchanges
        disk_version, disk_size, run_start, run_end = -1, 0, 0, -1
        payload = bytearray()
        have = 0
        while True:
            count = connected.recv_into(buffer[have:] if have else buffer)
            if not count:
                return bytes(buffer[:have]) if have else None
            have += count
            at = waiting = 0
            out: list[Readable] = []
            now = monotonic_s()
            while have - at >= size:
                seen, flags, command, cookie, offset, length = parse(buffer, at)
                if disk_version != disk.version:
                    disk_version, disk_size, run_end = disk.version, disk.size, -1
                end = offset + length
                if seen != magic or not 0 < length <= maximum or end > disk_size or rules.version != version:
                    break
                if minimum > 1 and (offset % minimum or length % minimum):
                    break
                if command == _READ and not flags:
                    if not any_status and (offset < run_start or end > run_end):
                        run_start, run_end, value = disk.run_at(offset)
                        if value != _DATA:
                            run_end = -1
                        if end > run_end:
                            break
                    if looks_at_reads:
                        asked = self._asked(cookie, offset, length) if self.has_conditions else None
                        if not rules.overlooks(Cmd.READ, asked, connection):
                            break
                    if simple:
                        head = _SIMPLE(SIMPLE_REPLY_MAGIC, 0, cookie)
                    elif extended:
                        head = _WIDE_DATA(EXTENDED_REPLY_MAGIC, _DONE, _CONTENT, cookie, offset, length + 8, offset)
                    else:
                        head = _CHUNK_DATA(STRUCTURED_REPLY_MAGIC, _DONE, _CONTENT, cookie, length + 8, offset)
                    out.append(head)
                    out += disk.pieces(offset, length)
                    waiting += len(head) + length
                    note((connection, now, bytes(buffer[at : at + size]), head, kinds))
                    at += size
                elif command == _WRITE and flags == write_flags and self.serves_writes:
                    if simple:
                        head = _SIMPLE(SIMPLE_REPLY_MAGIC, 0, cookie)
                    elif extended:
                        head = _WIDE(EXTENDED_REPLY_MAGIC, _DONE, _NOTHING, cookie, offset, 0)
                    else:
                        head = _CHUNK(STRUCTURED_REPLY_MAGIC, _DONE, _NOTHING, cookie, 0)
                    request = bytes(buffer[at : at + size])
                    at += size
                    if out:
                        _send(connected, out, waiting)  # what was read before must not show what is written now
                    if have - at >= length:
                        data = buffer[at : at + length]
                        at += length
                    else:
                        if len(payload) < length:
                            payload = bytearray(length)
                        data = memoryview(payload)[:length]
                        data[: have - at] = buffer[at:have]
                        missing = _fill(connected, data[have - at :])
                        at = have = 0
                        if missing:
                            return request + bytes(data[:-missing])
                    try:
                        disk.write(offset, data)
                    except DiskError:  # no memory left: the engine knows how to say so
                        return request + bytes(data) + bytes(buffer[at:have])
                    note((connection, now, request, head, kinds))
                    out, waiting = [head], len(head)
                else:
                    break
                session.requests += 1
                if waiting > BATCH_BYTES or len(out) > BATCH_PIECES:
                    _send(connected, out, waiting)
                    out, waiting = [], 0
            if out:
                _send(connected, out, waiting)
            if have - at >= size or rules.version != version:
                return bytes(buffer[at:have])
            have -= at
            if at and have:
                buffer[:have] = bytes(buffer[at : at + have])

    def _asked(self, cookie: int, offset: int, length: int) -> Asked:
        """A READ as rules see it."""
        session = self.engine.session
        return Asked(
            type=Cmd.READ,
            cookie=cookie,
            offset=offset,
            length=length,
            frames=self.frames,
            contexts=session.contexts,
            export=session.export.name if session.export is not None else "",
        )


def _send(connected: socket.socket, pieces: list[Readable], size: int) -> None:
    sent = connected.sendmsg(pieces)
    if sent == size:
        return
    rest = unsent(pieces, sent)
    while rest:
        rest = unsent(rest, connected.sendmsg(rest))


def _fill(connected: socket.socket, view: memoryview) -> int:
    """Receive a view full, and return how many bytes are missing because the client left."""
    while view:
        count = connected.recv_into(view, 0, socket.MSG_WAITALL)
        if not count:
            break
        view = view[count:]
    return len(view)
