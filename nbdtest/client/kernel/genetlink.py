"""Generic netlink messages as bytes: headers, attributes, the controller's family description. Pure.

Everything is in the byte order of the machine. What the NBD family's commands and attributes mean is in `netlink`.
Format: the kernel's Documentation/userspace-api/netlink/intro.rst.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = [
    "ACK",
    "CONTROLLER",
    "GET_FAMILY",
    "REQUEST",
    "Family",
    "Message",
    "attribute",
    "attributes",
    "decode",
    "encode",
    "family_query",
    "nest",
    "number",
    "parse_family",
    "string",
    "u32",
    "u64",
]

REQUEST = 1
ACK = 4

MESSAGE_ERROR = 2
CONTROLLER = 0x10
"""The message type of the family that knows the others."""
GET_FAMILY = 3

FAMILY_ID = 1
FAMILY_NAME = 2
MULTICAST_GROUPS = 7
GROUP_NAME = 1
GROUP_ID = 2

NESTED = 0x8000
TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_GENERIC = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message from the kernel. `error` is its answer to a request (0: done), None if it is no answer but data."""

    family: int
    sequence: int
    error: int | None = None
    command: int = 0
    payload: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What the controller says about a family: the message type to use, and the ids of its multicast groups."""

    id: int
    groups: dict[str, int]


def encode(family: int, command: int, payload: bytes, *, sequence: int, version: int = 1) -> bytes:
    """Write a request that the kernel acknowledges."""
    body = _GENERIC.pack(command, version, 0) + payload
    return _HEADER.pack(_HEADER.size + len(body), family, REQUEST | ACK, sequence, 0) + body


def decode(datagram: bytes) -> Iterator[Message]:
    """Read the messages of one datagram; an incomplete one at the end is left out."""
    while len(datagram) >= _HEADER.size:
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(datagram)
        if not _HEADER.size <= length <= len(datagram):
            return
        body, datagram = datagram[_HEADER.size : length], datagram[_aligned(length) :]
        if kind == MESSAGE_ERROR:
            yield Message(family=kind, sequence=sequence, error=-struct.unpack_from("=i", body)[0])
        elif len(body) >= _GENERIC.size:
            yield Message(family=kind, sequence=sequence, command=body[0], payload=body[_GENERIC.size :])


def attribute(kind: int, value: bytes) -> bytes:
    """Write one attribute, padded to where the next one begins."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def u64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=Q", value))


def string(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nest(kind: int, *inner: bytes) -> bytes:
    """Write an attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(inner))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Read attributes as pairs of type and value; an incomplete one at the end is left out."""
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            return
        yield kind & TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def family_query(name: str, *, sequence: int) -> bytes:
    """Ask the controller for the family called `name`."""
    return encode(CONTROLLER, GET_FAMILY, string(FAMILY_NAME, name), sequence=sequence, version=2)


def parse_family(payload: bytes) -> Family:
    """Read the controller's answer."""
    found = dict(attributes(payload))
    groups = {}
    for _, entry in attributes(found.get(MULTICAST_GROUPS, b"")):
        group = dict(attributes(entry))
        groups[group[GROUP_NAME].rstrip(b"\0").decode()] = number(group[GROUP_ID])
    return Family(id=number(found[FAMILY_ID]), groups=groups)


def number(value: bytes) -> int:
    """Read an unsigned integer of any width."""
    return int.from_bytes(value, sys.byteorder)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
