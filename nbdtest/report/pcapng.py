"""A transcript as a pcapng capture, which Wireshark opens and decodes as NBD. Pure.

The transcript knows messages, not packets: each record becomes TCP segments of its own between 127.0.0.1 and port 10809
there, with a handshake before and acknowledgements between, and its summary as the packet's comment.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nbdtest.wire import Record, Sender

__all__ = ["pcapng"]

NBD_PORT = 10809
FIRST_CLIENT_PORT = 40000
LOCALHOST = bytes((127, 0, 0, 1))
LONGEST_SEGMENT = 65000
WINDOW = 65535

SECTION_HEADER, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
BYTE_ORDER = 0x1A2B3C4D
RAW_IP = 101  # LINKTYPE_RAW: a packet begins with its IP header
COMMENT = 1
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def pcapng(records: Iterable[Record], *, epoch_s: float = 0.0) -> bytes:
    """Write the capture; `epoch_s` is the time since 1970 at which the records' own times begin."""
    blocks = [
        _block(SECTION_HEADER, struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1)),
        _block(INTERFACE, struct.pack("<HHI", RAW_IP, 0, 0)),
    ]
    conversations: dict[int, _Conversation] = {}
    for record in records:
        conversation = conversations.setdefault(record.connection, _Conversation(FIRST_CLIENT_PORT + record.connection))
        stamp = int((epoch_s + record.time_s) * 1_000_000)
        for packet, comment in conversation.packets(record):
            blocks.append(_packet(stamp, packet, comment))
    return b"".join(blocks)


@dataclass(slots=True)
class _Conversation:
    """The two directions of one connection: what each side's next byte is numbered."""

    client_port: int
    client_next: int = 1
    server_next: int = 1
    begun: bool = False

    def packets(self, record: Record) -> Iterator[tuple[bytes, str]]:
        """Yield the packets of a record, the first with its comment."""
        if not self.begun:
            self.begun = True
            yield self._segment(Sender.CLIENT, SYN, number=0, acknowledges=0), ""
            yield self._segment(Sender.SERVER, SYN | ACK, number=0, acknowledges=1), ""
            yield self._segment(Sender.CLIENT, ACK), ""
        comment = record.summary
        for at in range(0, len(record.data), LONGEST_SEGMENT):
            part = record.data[at : at + LONGEST_SEGMENT]
            yield self._segment(record.sender, PSH | ACK, part), comment
            self._advance(record.sender, len(part))
            yield self._segment(_other(record.sender), ACK), ""
            comment = ""
        if not record.data and record.summary in ("FIN", "RST"):
            yield self._segment(record.sender, ACK | (FIN if record.summary == "FIN" else RST)), comment
            self._advance(record.sender, int(record.summary == "FIN"))

    def _advance(self, sender: Sender, count: int) -> None:
        if sender is Sender.CLIENT:
            self.client_next = (self.client_next + count) % (1 << 32)
        else:
            self.server_next = (self.server_next + count) % (1 << 32)

    def _segment(
        self,
        sender: Sender,
        flags: int,
        data: bytes = b"",
        *,
        number: int | None = None,
        acknowledges: int | None = None,
    ) -> bytes:
        from_client = sender is Sender.CLIENT
        ports = (self.client_port, NBD_PORT) if from_client else (NBD_PORT, self.client_port)
        own, others = (self.client_next, self.server_next) if from_client else (self.server_next, self.client_next)
        own = own if number is None else number
        others = others if acknowledges is None else acknowledges
        header = struct.pack(">HHIIBBHHH", *ports, own, others, 5 << 4, flags, WINDOW, 0, 0)
        pseudo = LOCALHOST + LOCALHOST + struct.pack(">BBH", 0, 6, len(header) + len(data))
        checksum = _checksum(pseudo + header + data)
        return _ip(header[:16] + struct.pack(">H", checksum) + header[18:] + data)


def _other(sender: Sender) -> Sender:
    return Sender.SERVER if sender is Sender.CLIENT else Sender.CLIENT


def _ip(segment: bytes) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0) + LOCALHOST + LOCALHOST
    return header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + segment


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _packet(stamp: int, packet: bytes, comment: str) -> bytes:
    head = struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(packet), len(packet))
    return _block(PACKET, head + _padded(packet) + _options(comment))


def _options(comment: str) -> bytes:
    text = comment.encode("utf-8", "backslashreplace")[:1000]
    return struct.pack("<HH", COMMENT, len(text)) + _padded(text) + bytes(4) if text else b""


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
