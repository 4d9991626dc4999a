"""The fast lane: plain reads and writes of a memory disk, answered straight from the socket's buffer.

Only what the engine would answer without a second thought is served here; the first message that is anything else ends
it, and goes to the engine with all that follows.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from nbdtest.errors import Disconnected
from nbdtest.fakeserver.engine import Engine
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.rendering import Frames
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
_OFFSET_DATA, _NONE = int(ReplyType.OFFSET_DATA), int(ReplyType.NONE)
_COMPACT, _EXTENDED = struct.Struct(">IHHQQI"), struct.Struct(">IHHQQQ")
_SIMPLE = struct.Struct(">IIQ")
_CHUNK, _CHUNK_DATA = struct.Struct(">IHHQI"), struct.Struct(">IHHQIQ")
_WIDE, _WIDE_DATA = struct.Struct(">IHHQQQ"), struct.Struct(">IHHQQQQ")


def open_lane(engine: Engine, journal: Journal) -> Lane | None:
    """Make a lane if the engine has nothing to say about plain reads and writes right now."""
    session = engine.session
    export = session.export
    if session.phase is not Phase.TRANSMISSION or export is None or not engine.idle:
        return None
    if not isinstance(export.disk, MemoryDisk) or export.trackers or engine.settings.quirks.any or journal.echoes:
        return None
    version = engine.rules.version
    if engine.rules.watches(Cmd.READ, Cmd.WRITE):
        return None
    limits = export.limits
    return Lane(
        engine=engine,
        journal=journal,
        disk=export.disk,
        frames=session.frames,
        read_only=export.read_only,
        whole_reads=export.whole_reads,
        minimum=limits.minimum,
        maximum=limits.maximum,
        version=version,
    )


@dataclass(slots=True, kw_only=True)
class Lane:
    """What a stretch of plain requests depends on; valid until a rule is added."""

    engine: Engine
    journal: Journal
    disk: MemoryDisk
    frames: Frames
    read_only: bool
    whole_reads: bool
    minimum: int
    maximum: int
    version: int

    def serve(self, connected: socket.socket, buffer: memoryview) -> bytes | None:
        """Serve until something else comes, and return that: bytes for the engine, None for the end of the connection.

        Raises:
            OSError: the connection broke.
            Disconnected: the client left in the middle of a WRITE, or memory ran out.
        """
        extended = self.frames is Frames.EXTENDED
        parse, size = (_EXTENDED.unpack_from, _EXTENDED.size) if extended else (_COMPACT.unpack_from, _COMPACT.size)
        magic = EXTENDED_REQUEST_MAGIC if extended else REQUEST_MAGIC
        write_flags = int(CmdFlag.PAYLOAD_LEN) if extended else 0
        read_reply, write_reply, reply_kind = self._replies()
        kinds: tuple[type[Message], type[Message]] = (ExtendedRequest if extended else Request, reply_kind)
        disk, minimum, maximum, rules = self.disk, self.minimum, self.maximum, self.engine.rules
        any_status = self.frames is Frames.SIMPLE or self.whole_reads
        session, connection, exchange = self.engine.session, self.engine.connection, self.journal.exchange
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
                if seen != magic or not 0 < length <= maximum or end > disk_size or rules.version != self.version:
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
                    head = read_reply(cookie, offset, length)
                    out.append(head)
                    out += disk.pieces(offset, length)
                    waiting += length
                    exchange(connection, now, bytes(buffer[at : at + size]), head, kinds)
                    at += size
                elif command == _WRITE and flags == write_flags and not self.read_only:
                    head = write_reply(cookie, offset)
                    exchange(connection, now, bytes(buffer[at : at + size]), head, kinds)
                    at += size
                    _send(connected, out)  # what was read before must not show what is written now
                    if have - at >= length:
                        data = buffer[at : at + length]
                        at += length
                    else:
                        if len(payload) < length:
                            payload = bytearray(length)
                        data = memoryview(payload)[:length]
                        data[: have - at] = buffer[at:have]
                        _fill(connected, data[have - at :])
                        at = have = 0
                    try:
                        disk.write(offset, data)
                    except DiskError as error:
                        raise Disconnected(str(error)) from error  # no memory left: an error now would need the engine
                    out, waiting = [head], 0
                else:
                    break
                session.requests += 1
                if waiting > BATCH_BYTES or len(out) > BATCH_PIECES:
                    _send(connected, out)
                    out, waiting = [], 0
            if out:
                _send(connected, out)
            if have - at >= size or rules.version != self.version:
                return bytes(buffer[at:have])
            have -= at
            if at and have:
                buffer[:have] = bytes(buffer[at : at + have])

    def _replies(self) -> tuple[Callable[[int, int, int], bytes], Callable[[int, int], bytes], type[Message]]:
        """Functions that pack the header of a READ's and of a WRITE's reply, and the class of these headers."""
        match self.frames:
            case Frames.SIMPLE:
                pack = _SIMPLE.pack
                return (
                    lambda cookie, offset, length: pack(SIMPLE_REPLY_MAGIC, 0, cookie),
                    lambda cookie, offset: pack(SIMPLE_REPLY_MAGIC, 0, cookie),
                    SimpleReply,
                )
            case Frames.STRUCTURED:
                data, none = _CHUNK_DATA.pack, _CHUNK.pack
                return (
                    lambda cookie, offset, length: data(
                        STRUCTURED_REPLY_MAGIC, _DONE, _OFFSET_DATA, cookie, length + 8, offset
                    ),
                    lambda cookie, offset: none(STRUCTURED_REPLY_MAGIC, _DONE, _NONE, cookie, 0),
                    StructuredReplyHeader,
                )
        wide_data, wide_none = _WIDE_DATA.pack, _WIDE.pack
        return (
            lambda cookie, offset, length: wide_data(
                EXTENDED_REPLY_MAGIC, _DONE, _OFFSET_DATA, cookie, offset, length + 8, offset
            ),
            lambda cookie, offset: wide_none(EXTENDED_REPLY_MAGIC, _DONE, _NONE, cookie, offset, 0),
            ExtendedReplyHeader,
        )


def _send(connected: socket.socket, pieces: list[Readable]) -> None:
    if not pieces:
        return
    sent = connected.sendmsg(pieces)
    rest = unsent(pieces, sent)
    while rest:
        rest = unsent(rest, connected.sendmsg(rest))


def _fill(connected: socket.socket, view: memoryview) -> None:
    while view:
        count = connected.recv_into(view, 0, socket.MSG_WAITALL)
        if not count:
            raise Disconnected("the client left in the middle of a WRITE")
        view = view[count:]
