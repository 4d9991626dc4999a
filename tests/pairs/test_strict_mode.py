"""Strict mode: libnbd's verdict before anything is sent, nothing sent when refused, exactly those bytes when not.

The expected verdicts are written down here once more, from libnbd's documented order of checks, independently of the
client's own table.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdtest.client import NBD, Error
from nbdtest.wire import (
    ClientFlags,
    Cmd,
    CmdFlag,
    ExtendedRequest,
    InfoBlockSize,
    InfoExport,
    MetaContext,
    NewstyleGreeting,
    Opt,
    OptionReply,
    Rep,
    Request,
    TransmissionFlag,
)

COMMANDS, FLAGS, BOUNDS, ZERO_SIZE, ALIGN, PAYLOAD, AUTO_FLAG = (1 << bit for bit in range(7))
FLAG = TransmissionFlag
MINIMUM = 512

ALLOWED = {
    Cmd.READ: CmdFlag.DF,
    Cmd.WRITE: CmdFlag.FUA | CmdFlag.PAYLOAD_LEN,
    Cmd.FLUSH: CmdFlag(0),
    Cmd.TRIM: CmdFlag.FUA,
    Cmd.CACHE: CmdFlag(0),
    Cmd.WRITE_ZEROES: CmdFlag.FUA | CmdFlag.NO_HOLE | CmdFlag.FAST_ZERO,
    Cmd.BLOCK_STATUS: CmdFlag.REQ_ONE,
}
"""Which flags the call for each command takes."""
OFFERED = {
    Cmd.FLUSH: (FLAG.SEND_FLUSH, "flush"),
    Cmd.TRIM: (FLAG.SEND_TRIM, "trim"),
    Cmd.WRITE_ZEROES: (FLAG.SEND_WRITE_ZEROES, "zero"),
    Cmd.CACHE: (FLAG.SEND_CACHE, "cache"),
}
CHANGING = (Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES)


@dataclass(frozen=True)
class Situation:
    """What was negotiated with a server, and what a handle is strict about."""

    size: int
    flags: TransmissionFlag
    strict: int
    minimum: int
    structured: bool
    extended: bool
    contexts: bool

    @property
    def effective_flags(self) -> TransmissionFlag:
        """The advertised flags without those that mean nothing here."""
        flags = self.flags
        if not (self.structured or self.extended):
            flags &= ~FLAG.SEND_DF
        if not flags & FLAG.SEND_WRITE_ZEROES:
            flags &= ~FLAG.SEND_FAST_ZERO
        return flags

    @property
    def has_contexts(self) -> bool:
        return self.contexts and (self.structured or self.extended)


@dataclass(frozen=True)
class Asked:
    """One call."""

    type: Cmd
    flags: int
    offset: int
    count: int


def verdict(at: Situation, asked: Asked) -> tuple[int, str] | None:
    """Say with which errno and words libnbd refuses `asked`; None if it sends it."""
    if asked.flags & ~(int(ALLOWED[asked.type]) if at.strict & FLAGS else 0xFFFF):
        return errno.EINVAL, "flags: invalid value for flag"
    if at.strict & COMMANDS and (refusal := not_offered(at, asked)):
        return refusal
    if asked.type != Cmd.FLUSH:
        if at.strict & ZERO_SIZE and asked.count == 0:
            return errno.EINVAL, "count cannot be 0"
        if at.strict & BOUNDS and asked.offset + asked.count > at.size:
            return errno.ENOSPC if asked.type in CHANGING else errno.EINVAL, "request out of bounds"
        if at.minimum and at.strict & ALIGN and (asked.offset % at.minimum or asked.count % at.minimum):
            return errno.EINVAL, "request is unaligned"
        if asked.type not in (Cmd.READ, Cmd.WRITE) and not at.extended and asked.count > 0xFFFF_FFFF:
            return errno.ERANGE, "request too large: maximum request size is 4294967295"
    return None


def not_offered(at: Situation, asked: Asked) -> tuple[int, str] | None:
    offered, flags = at.effective_flags, asked.flags
    if asked.type in OFFERED and not offered & OFFERED[asked.type][0]:
        return errno.EINVAL, f"server does not support {OFFERED[asked.type][1]} operations"
    if asked.type in CHANGING and offered & FLAG.READ_ONLY:
        return errno.EPERM, "server does not support write operations"
    if asked.type in CHANGING and flags & CmdFlag.FUA and not offered & FLAG.SEND_FUA:
        return errno.EINVAL, "server does not support the FUA flag"
    if asked.type == Cmd.WRITE and not at.strict & AUTO_FLAG and bool(flags & CmdFlag.PAYLOAD_LEN) != at.extended:
        return errno.EINVAL, "incorrect setting for PAYLOAD_LEN flag"
    if asked.type == Cmd.WRITE_ZEROES and flags & CmdFlag.FAST_ZERO and not offered & FLAG.SEND_FAST_ZERO:
        return errno.EINVAL, "server does not support the fast zero flag"
    if asked.type == Cmd.READ and flags & CmdFlag.DF and not offered & FLAG.SEND_DF:
        return errno.EINVAL, "server does not support the DF flag"
    if asked.type == Cmd.BLOCK_STATUS and not (at.structured or at.extended):
        return errno.ENOTSUP, "server does not support structured replies"
    if asked.type == Cmd.BLOCK_STATUS and not at.has_contexts:
        return errno.ENOTSUP, "did not negotiate any metadata contexts"
    return None


def expected_bytes(at: Situation, asked: Asked, cookie: int, data: bytes) -> bytes:
    flags = CmdFlag(asked.flags)
    if asked.type == Cmd.WRITE and at.strict & AUTO_FLAG:
        flags = flags | CmdFlag.PAYLOAD_LEN if at.extended else CmdFlag(flags & 0xFFDF)
    offset, count = (0, 0) if asked.type == Cmd.FLUSH else (asked.offset, asked.count)
    cls = ExtendedRequest if at.extended else Request
    return cls(flags=flags, type=asked.type, cookie=cookie, offset=offset, length=count).encode() + data


def connected(at: Situation) -> tuple[NBD, socket.socket]:
    """Connect a handle to a socket whose other end has already said everything that a server says in a handshake."""
    ours, theirs = socket.socketpair()
    said: list[OptionReply] = []

    def says(option: Opt, kind: Rep, data: bytes = b"") -> None:
        said.append(OptionReply(option=option, type=kind, data=data))

    if at.structured or at.extended:
        says(Opt.EXTENDED_HEADERS, Rep.ACK if at.extended else Rep.ERR_UNSUP)
        if not at.extended:
            says(Opt.STRUCTURED_REPLY, Rep.ACK)
        if at.contexts:
            says(Opt.SET_META_CONTEXT, Rep.META_CONTEXT, MetaContext(id=1, name="base:allocation").encode())
            says(Opt.SET_META_CONTEXT, Rep.ACK)
    says(Opt.GO, Rep.INFO, InfoExport(size=at.size, flags=at.flags).encode())
    if at.minimum:
        sizes = InfoBlockSize(minimum=at.minimum, preferred=4096, maximum=1 << 25)
        says(Opt.GO, Rep.INFO, sizes.encode())
    says(Opt.GO, Rep.ACK)
    theirs.sendall(NewstyleGreeting().encode() + b"".join(reply.encode() for reply in said))
    handle = NBD()
    handle.set_strict_mode(at.strict)
    handle.set_request_structured_replies(at.structured or at.extended)
    if at.contexts:
        handle.add_meta_context("base:allocation")
    handle.connect_socket(ours.detach())
    assert theirs.recv(4) == ClientFlags().encode()
    theirs.recv(1 << 16)
    theirs.setblocking(False)
    return handle, theirs


def call(handle: NBD, asked: Asked) -> tuple[int, bytes]:
    """Make the call; return the cookie and the payload that has to follow the request."""
    calls: dict[Cmd, Callable[[], int]] = {
        Cmd.READ: lambda: handle.aio_pread_structured(
            bytearray(asked.count), asked.offset, lambda *_: 0, flags=asked.flags
        ),
        Cmd.WRITE: lambda: handle.aio_pwrite(b"\x5a" * asked.count, asked.offset, flags=asked.flags),
        Cmd.FLUSH: lambda: handle.aio_flush(flags=asked.flags),
        Cmd.TRIM: lambda: handle.aio_trim(asked.count, asked.offset, flags=asked.flags),
        Cmd.CACHE: lambda: handle.aio_cache(asked.count, asked.offset, flags=asked.flags),
        Cmd.WRITE_ZEROES: lambda: handle.aio_zero(asked.count, asked.offset, flags=asked.flags),
        Cmd.BLOCK_STATUS: lambda: handle.aio_block_status(asked.count, asked.offset, lambda *_: 0, flags=asked.flags),
    }
    return calls[asked.type](), b"\x5a" * asked.count if asked.type == Cmd.WRITE else b""


SIZES = (0, 511, 4096, 1 << 20, 1 << 40, (1 << 63) - 1)

situations = st.builds(
    Situation,
    size=st.sampled_from(SIZES),
    flags=st.integers(0, 0xFFF).map(lambda bits: FLAG(bits | 1)),
    strict=st.one_of(st.sampled_from([0, 0x7F]), st.integers(0, 0x7F)),
    minimum=st.sampled_from([0, 0, 1, MINIMUM]),
    structured=st.booleans(),
    extended=st.booleans(),
    contexts=st.booleans(),
)


@st.composite
def calls_for(draw: st.DrawFn, size: int) -> Asked:
    kind = draw(st.sampled_from(list(ALLOWED)))
    flags = draw(
        st.one_of(st.just(0), st.just(int(ALLOWED[kind])), st.integers(0, 0x3F), st.sampled_from([1 << 15, 1 << 16]))
    )
    small = [0, 1, 511, 512, 4096]
    count = draw(st.sampled_from(small if kind in (Cmd.READ, Cmd.WRITE) else [*small, 0xFFFF_FFFF, 1 << 32]))
    near = [0, 1, 512, max(0, size - count), max(0, size - count) + 1, size, (1 << 63) - 1]
    return Asked(kind, flags, draw(st.sampled_from(near)), count)


@settings(max_examples=300)
@given(at=situations, data=st.data())
def test_a_call_is_refused_as_libnbd_does_or_sent_as_it_stands(at: Situation, data: st.DataObject) -> None:
    asked = data.draw(calls_for(at.size))
    handle, wire = connected(at)
    with handle, wire:
        before = handle.stats_bytes_sent()
        expected = verdict(at, asked)
        if expected is None:
            cookie, payload = call(handle, asked)
            assert wire.recv(1 << 16) == expected_bytes(at, asked, cookie, payload)
            return
        with pytest.raises(Error) as refused:
            call(handle, asked)
        assert (refused.value.errnum, expected[1] in refused.value.string) == (expected[0], True), refused.value
        assert handle.stats_bytes_sent() == before
        with pytest.raises(BlockingIOError):
            wire.recv(1)


@pytest.mark.parametrize("kind", [Cmd.READ, Cmd.WRITE], ids=str)
def test_more_than_64_mebibytes_are_never_sent(kind: Cmd) -> None:
    at = Situation(1 << 40, FLAG(0x0FFF) & ~FLAG.READ_ONLY, 0, 0, True, False, False)
    handle, wire = connected(at)
    with handle, wire, pytest.raises(Error, match="maximum request size is 67108864") as refused:
        call(handle, Asked(kind, 0, 0, (64 << 20) + 1))
    assert refused.value.errnum == errno.ERANGE
