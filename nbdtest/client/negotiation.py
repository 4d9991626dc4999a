"""The handshake as dialogues: one generator per option, which sends, waits for replies and changes what the engine
knows.

A dialogue yields whenever it needs more bytes or wants its own to be gone. It returns None when the server agreed, the
server's refusal as a `Failure` when it did not, and raises `Failure` when the connection cannot go on. Spec: proto.md
"Handshake".
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from nbdtest.client import states
from nbdtest.client.constants import HANDSHAKE_FLAG, TLS
from nbdtest.client.errors import Failure
from nbdtest.client.headers import GREETING, INFO_BLOCK_SIZE, INFO_EXPORT, OLDSTYLE, OPTION, OPTION_REPLY
from nbdtest.client.replies import Program, skip, take
from nbdtest.client.settings import MAX_REQUEST_SIZE
from nbdtest.client.states import OPTION_STATES, OptionStates
from nbdtest.wire import (
    CLISERV_MAGIC,
    NBD_MAGIC,
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    ExportNameReply,
    ExportNameReplyPadded,
    Info,
    InfoRequest,
    MetaContextRequest,
    Opt,
    Rep,
)
from nbdtest.wire.limits import MAXIMUM_STRING

if TYPE_CHECKING:
    from nbdtest.client.engine import Engine

__all__ = [
    "Dialogue",
    "abort",
    "extended_headers",
    "go",
    "handshake",
    "info",
    "list_exports",
    "list_meta_contexts",
    "raw_option",
    "set_meta_contexts",
    "starttls",
    "structured_reply",
]

T = TypeVar("T")
Dialogue: TypeAlias = Generator[None, None, Failure | None]

FIXED_NEWSTYLE = HANDSHAKE_FLAG.FIXED_NEWSTYLE.value
NO_ZEROES = HANDSHAKE_FLAG.NO_ZEROES.value
KEPT_PAYLOAD = 4 + 2 * MAXIMUM_STRING  # the longest reply that means anything; longer ones are skipped

# Plain integers: they are compared often, and an enumeration's members are slow to look up.
_ACK = Rep.ACK.value
_SERVER = Rep.SERVER.value
_INFO = Rep.INFO.value
_META_CONTEXT = Rep.META_CONTEXT.value
_INFO_EXPORT = Info.EXPORT.value
_INFO_BLOCK_SIZE = Info.BLOCK_SIZE.value

_REFUSALS = {
    Rep.ERR_UNSUP: (errno.ENOTSUP, "the operation is not supported by the server"),
    Rep.ERR_POLICY: (0, "server policy prevents the operation"),
    Rep.ERR_PLATFORM: (0, "the operation is not supported by the server platform"),
    Rep.ERR_INVALID: (errno.EINVAL, "the server rejected this operation as invalid"),
    Rep.ERR_TOO_BIG: (errno.EINVAL, "the operation is too large to process"),
    Rep.ERR_TLS_REQD: (errno.ENOTSUP, "the server requires TLS encryption first"),
    Rep.ERR_UNKNOWN: (errno.ENOENT, "the server has no export named '{export}'"),
    Rep.ERR_SHUTDOWN: (errno.ESHUTDOWN, "the server is shutting down"),
    Rep.ERR_BLOCK_SIZE_REQD: (errno.EINVAL, "the server requires specific block sizes"),
}


class Reply(NamedTuple):
    """One option reply. `data` is None when it was too long to be kept."""

    type: int
    length: int
    data: bytes | None


def handshake(engine: Engine) -> Program:
    """Take a fresh connection to READY, or in option mode to NEGOTIATING.

    Raises:
        Failure: that cannot be done; an option that was refused has been followed by OPT_ABORT.
    """
    settings = engine.settings
    engine.resting = states.RECEIVING_MAGIC
    start = yield from take(engine.inbox, GREETING.size)
    magic, style = GREETING.unpack(start)
    if magic != NBD_MAGIC:
        raise Failure("handshake: server did not send expected NBD magic")
    if style == CLISERV_MAGIC:
        engine.chunks_received += 1
        yield from _oldstyle(engine, start)
        return
    if style != OPTION_MAGIC:
        raise Failure("handshake: server is not either an oldstyle or fixed newstyle NBD server")
    engine.chunks_received += 1
    engine.resting = states.RECEIVING_FLAGS
    offered = int.from_bytes((yield from take(engine.inbox, 2)), "big")
    settings.handshake_flags &= offered
    fixed = bool(settings.handshake_flags & FIXED_NEWSTYLE)
    if not fixed and settings.tls == TLS.REQUIRE:
        raise Failure(
            "handshake: server is not using fixed newstyle, but handle TLS setting is 'require' (2)", errno.ENOTSUP
        )
    engine.protocol = "newstyle-fixed" if fixed else "newstyle"
    engine.resting = states.SENDING_FLAGS
    engine.send(settings.handshake_flags.to_bytes(4, "big"))  # nothing answers it: it goes out with the first option
    if fixed:
        yield from _haggle(engine)
    if settings.opt_mode:
        yield from _gone(engine)
        engine.resting = states.NEGOTIATING
        return
    refusal = yield from (go(engine) if fixed else _export_name(engine))
    if refusal is not None:
        yield from abort(engine)
        raise refusal
    engine.resting = states.READY


def _haggle(engine: Engine) -> Program:
    """The options that make up the connection, in their fixed order."""
    settings = engine.settings
    if settings.tls != TLS.DISABLE:
        refusal = yield from starttls(engine)
        if refusal is not None and settings.tls == TLS.REQUIRE:
            yield from abort(engine)
            raise refusal
        if refusal is not None:
            engine.debug("continuing with unencrypted connection")
    if settings.request_extended_headers and settings.request_structured_replies:
        yield from extended_headers(engine)
    if settings.request_structured_replies and not engine.structured:
        yield from structured_reply(engine)


def _oldstyle(engine: Engine, start: bytes) -> Program:
    engine.resting = states.OLDSTYLE
    rest = yield from take(engine.inbox, OLDSTYLE.size - len(start))
    _, _, size, handshake_flags, flags, _ = OLDSTYLE.unpack(start + rest)
    if engine.settings.tls == TLS.REQUIRE:
        raise Failure("handshake: server is oldstyle, but handle TLS setting is 'require' (2)", errno.ENOTSUP)
    engine.settings.handshake_flags = handshake_flags
    if handshake_flags:
        raise Failure("handshake: oldstyle server should not set gflags")
    engine.set_size_and_flags(size, flags)
    engine.export.settle_payload()
    engine.protocol = "oldstyle"
    engine.resting = states.READY


def starttls(engine: Engine) -> Dialogue:
    """Ask for TLS and, when the server agrees, wait until the driver has it running."""
    at = OPTION_STATES["OPT_STARTTLS"]
    _ask(engine, Opt.STARTTLS, b"", at)
    reply = yield from _reply(engine, Opt.STARTTLS, at)
    if reply.type == _ACK:
        if engine.tls_negotiated:
            raise Failure("handshake: unable to support server accepting TLS twice", errno.EPROTO)
        engine.forget_export()
        engine.structured = engine.extended = engine.meta_valid = False
        engine.contexts.clear()
        engine.tls_wanted = True
        engine.resting = states.TLS_WRITING
        while engine.tls_wanted:
            if len(engine.inbox):
                # TLS-041: what came in clear after the agreement must not be taken for something that came encrypted.
                raise Failure(
                    "handshake: the server sent unencrypted bytes after it had accepted STARTTLS", errno.EPROTO
                )
            yield
        return None
    refusal = _refusal(engine, reply)
    if engine.settings.tls == TLS.REQUIRE:
        text = "handshake: server refused TLS, but handle TLS setting is 'require' (2)"
        engine.debug(refusal.text)
        return Failure(text, errno.ENOTSUP)
    reason = {Rep.ERR_POLICY: "policy", Rep.ERR_INVALID: "invalid request"}.get(Rep(reply.type), "not supported")
    engine.debug(f"server refused TLS ({reason})")
    return refusal


def extended_headers(engine: Engine) -> Dialogue:
    """Ask for extended headers, which include structured replies. Spec: branch extension-ext-header."""
    at = OPTION_STATES["OPT_EXTENDED_HEADERS"]
    _ask(engine, Opt.EXTENDED_HEADERS, b"", at)
    reply = yield from _reply(engine, Opt.EXTENDED_HEADERS, at)
    if reply.type == _ACK:
        engine.debug("negotiated extended headers on this connection")
        engine.extended = engine.structured = True
        return None
    refusal = _refusal(engine, reply)
    known = "already negotiated" if engine.extended else "are not supported by this server"
    engine.debug(f"extended headers {known}")
    return refusal


def structured_reply(engine: Engine) -> Dialogue:
    """Ask for structured replies."""
    at = OPTION_STATES["OPT_STRUCTURED_REPLY"]
    _ask(engine, Opt.STRUCTURED_REPLY, b"", at)
    reply = yield from _reply(engine, Opt.STRUCTURED_REPLY, at)
    if reply.type == _ACK:
        engine.debug("negotiated structured replies on this connection")
        engine.structured = True
        return None
    refusal = _refusal(engine, reply)
    known = "already negotiated" if engine.structured else "are not supported by this server"
    engine.debug(f"structured replies {known}")
    return refusal


def list_exports(engine: Engine, tell: Callable[[str, str], None]) -> Dialogue:
    """Ask which exports there are; `tell` gets name and description of each as it comes."""
    at = OPTION_STATES["OPT_LIST"]
    _ask(engine, Opt.LIST, b"", at)
    while True:
        reply = yield from _reply(engine, Opt.LIST, at)
        if reply.type == _ACK:
            return None
        if reply.type != _SERVER:
            return _refusal(engine, reply)
        if reply.data is None:
            engine.debug("skipping too large export name reply")
            continue
        size = int.from_bytes(reply.data[:4], "big")
        rest = reply.length - 4 - size
        if reply.length < 4 or not 0 <= rest <= MAXIMUM_STRING or size > MAXIMUM_STRING:
            raise Failure("invalid export length")
        tell(_text(reply.data[4 : 4 + size]), _text(reply.data[4 + size :]))


def list_meta_contexts(engine: Engine, queries: Sequence[str], tell: Callable[[str], None]) -> Dialogue:
    """Ask which metadata contexts match; nothing is selected."""
    return (yield from _meta_contexts(engine, Opt.LIST_META_CONTEXT, queries, tell))


def set_meta_contexts(engine: Engine, queries: Sequence[str], tell: Callable[[str], None] | None = None) -> Dialogue:
    """Select metadata contexts; they replace all selected before, also when the server refuses (META-024)."""
    engine.contexts.clear()
    engine.meta_valid = False
    refusal = yield from _meta_contexts(engine, Opt.SET_META_CONTEXT, queries, tell)
    if refusal is None:
        engine.meta_valid = True
    return refusal


def _meta_contexts(engine: Engine, option: Opt, queries: Sequence[str], tell: Callable[[str], None] | None) -> Dialogue:
    at = OPTION_STATES["OPT_META_CONTEXT"]
    _ask(engine, option, _meta_context_request(engine.settings.export_name, tuple(queries)), at)
    while True:
        reply = yield from _reply(engine, option, at)
        if reply.type == _ACK:
            return None
        if reply.type != _META_CONTEXT:
            refusal = _refusal(engine, reply)
            engine.debug("unexpected response, possibly the server does not support meta contexts")
            return refusal
        assert reply.data is not None, "the length was checked"
        number, name = int.from_bytes(reply.data[:4], "big"), _text(reply.data[4:])
        engine.debug(f"negotiated {name} with context ID {number}")
        if option == Opt.SET_META_CONTEXT:
            engine.add_context(number, name)
        if tell is not None:
            tell(name)


def go(engine: Engine) -> Dialogue:
    """Enter transmission on the export, falling back to OPT_EXPORT_NAME where the server does not know OPT_GO."""
    if not engine.settings.handshake_flags & FIXED_NEWSTYLE:
        return (yield from _export_name(engine))
    yield from _preselect_contexts(engine)
    if engine.settings.force_export_name:
        return (yield from _export_name(engine))
    return (yield from _go_or_info(engine, Opt.GO))


def info(engine: Engine) -> Dialogue:
    """Ask about the export without entering transmission."""
    yield from _preselect_contexts(engine)
    return (yield from _go_or_info(engine, Opt.INFO))


def _preselect_contexts(engine: Engine) -> Program:
    settings = engine.settings
    if not settings.request_meta_context:
        return
    engine.contexts.clear()
    engine.meta_valid = False
    if not engine.structured or not settings.meta_contexts:
        return
    refusal = yield from set_meta_contexts(engine, settings.meta_contexts)
    if refusal is not None:
        engine.meta_valid = not engine.contexts
        engine.debug(f"handshake: ignoring unexpected error from NBD_OPT_SET_META_CONTEXT ({refusal.text})")


def _go_or_info(engine: Engine, option: Opt) -> Dialogue:
    at = OPTION_STATES["OPT_GO"]
    settings = engine.settings
    engine.forget_export()
    _ask(engine, option, _info_request(settings.export_name, settings.request_block_size, settings.full_info), at)
    while True:
        reply = yield from _reply(engine, option, at)
        if reply.type == _INFO:
            _take_info(engine, reply)
        elif reply.type == _ACK:
            engine.export.settle_payload()
            return None
        # EXT-042: after extended headers OPT_EXPORT_NAME is forbidden.
        elif reply.type == Rep.ERR_UNSUP and option == Opt.GO and not engine.extended:
            engine.debug("server is confused by NBD_OPT_GO, continuing anyway")
            return (yield from _export_name(engine))
        else:
            refusal = _refusal(engine, reply)
            engine.forget_export()
            engine.meta_valid = False
            return refusal


@lru_cache(maxsize=64)
def _info_request(name: str, block_size: bool, full: bool) -> bytes:
    infos = (Info.BLOCK_SIZE,) * block_size + (Info.NAME, Info.DESCRIPTION) * full
    return InfoRequest(name=name, infos=infos).encode()


@lru_cache(maxsize=64)
def _meta_context_request(name: str, queries: tuple[str, ...]) -> bytes:
    return MetaContextRequest(name=name, queries=queries).encode()


def _take_info(engine: Engine, reply: Reply) -> None:
    data = reply.data
    if data is None:
        engine.debug("skipping large NBD_REP_INFO")
        return
    kind, value = int.from_bytes(data[:2], "big"), data[2:]
    if kind == _INFO_EXPORT:
        _check_info_length(len(data) == INFO_EXPORT.size, "EXPORT")
        _, size, flags = INFO_EXPORT.unpack(data)
        engine.set_size_and_flags(size, flags)
    elif kind == _INFO_BLOCK_SIZE:
        _check_info_length(len(data) == INFO_BLOCK_SIZE.size, "BLOCK_SIZE")
        _, minimum, preferred, maximum = INFO_BLOCK_SIZE.unpack(data)
        engine.debug("server block size constraints: min: {} preferred: {} max: {}", minimum, preferred, maximum)
        if not engine.export.set_block_sizes(minimum, preferred, maximum):
            engine.debug("ignoring improper server size constraints")
    elif kind == Info.NAME:
        _check_info_length(len(value) <= MAXIMUM_STRING, "NAME")
        engine.export.canonical_name = _text(value)
    elif kind == Info.DESCRIPTION:
        _check_info_length(len(value) <= MAXIMUM_STRING, "DESCRIPTION")
        engine.export.description = _text(value)
    else:
        engine.debug(f"skipping unknown NBD_REP_INFO type {kind}")


def _check_info_length(right: bool, name: str) -> None:
    if not right:
        raise Failure(f"handshake: incorrect NBD_INFO_{name} option reply length")


def _export_name(engine: Engine) -> Dialogue:
    at = OPTION_STATES["OPT_EXPORT_NAME"]
    name = engine.settings.export_name.encode("utf-8", "surrogateescape")
    _ask(engine, Opt.EXPORT_NAME, name, at)
    short = engine.settings.handshake_flags & NO_ZEROES
    layout = ExportNameReply if short else ExportNameReplyPadded
    while engine.has_output:
        yield
    answer = yield from take(engine.inbox, layout.wire_size())
    engine.set_size_and_flags(int.from_bytes(answer[:8], "big"), int.from_bytes(answer[8:10], "big"))
    engine.export.settle_payload()
    return None


def abort(engine: Engine) -> Dialogue:
    """End the negotiation. The server's answer is not waited for."""
    engine.chunks_sent += 1
    engine.resting = states.SENDING_ABORT
    engine.send(OPTION.pack(OPTION_MAGIC, Opt.ABORT, 0))
    yield from _gone(engine)
    engine.end_output()
    return None


def raw_option(engine: Engine, option: int, data: bytes, tell: Callable[[int, bytes], None]) -> Dialogue:
    """Send any option; `tell` gets type and data of each reply, up to the final one (ACK or an error)."""
    at = OPTION_STATES["OPT_OTHER"]
    _ask(engine, option, data, at)
    while True:
        reply = yield from _reply(engine, option, at)
        tell(reply.type, reply.data or b"")
        if reply.type == _ACK:
            return None
        if Rep(reply.type).is_error:
            return _refusal(engine, reply)


def _ask(engine: Engine, option: int, data: bytes, at: OptionStates) -> None:
    """Queue an option. As long as it is not gone, the engine shows `at.send`."""
    engine.chunks_sent += 1
    engine.resting = at.receive
    engine.send(OPTION.pack(OPTION_MAGIC, option, len(data)) + data)


def _gone(engine: Engine) -> Program:
    """Wait until what was queued is gone."""
    while engine.has_output:
        yield


def _reply(engine: Engine, option: int, at: OptionStates) -> Generator[None, None, Reply]:
    """Wait for one reply to `option`, which is gone before that.

    Raises:
        Failure: it is no reply to that option, or its length makes no sense.
    """
    inbox = engine.inbox
    engine.resting = at.receive
    while inbox.tail - inbox.head < OPTION_REPLY.size or engine.has_output:
        yield
    magic, echoed, kind, length = OPTION_REPLY.unpack_from(inbox.buffer, inbox.head)
    inbox.skip(OPTION_REPLY.size)
    if magic != OPTION_REPLY_MAGIC or echoed != option:
        raise Failure("handshake: invalid option reply magic or option")
    if not length and kind != _INFO and kind != _META_CONTEXT:
        return Reply(kind, 0, b"")
    if kind == _ACK:
        raise Failure("handshake: invalid NBD_REP_ACK option reply length")
    if kind == _INFO and length < 2:
        raise Failure("handshake: NBD_REP_INFO reply length too small")
    if kind == _META_CONTEXT and not 4 < length <= 4 + MAXIMUM_STRING:
        raise Failure("handshake: invalid NBD_REP_META_CONTEXT reply length")
    if length > MAX_REQUEST_SIZE:
        raise Failure("handshake: invalid option reply length")
    engine.resting = at.receive_payload
    if length > KEPT_PAYLOAD:
        yield from skip(inbox, length)
        return Reply(kind, length, None)
    while len(inbox) < length:
        yield
    return Reply(kind, length, inbox.take(length))


def _refusal(engine: Engine, reply: Reply) -> Failure:
    """What an error reply says.

    Raises:
        Failure: it is no error reply, or its text is too long.
    """
    kind = Rep(reply.type)
    if not kind.is_error:
        raise Failure(f"handshake: unexpected option reply type {reply.type}")
    if reply.length > MAXIMUM_STRING or reply.data is None:
        raise Failure("handshake: option error string too long")
    number, text = _REFUSALS.get(kind, (0, f"handshake: unknown reply from the server: 0x{reply.type:x}"))
    text = text.replace("{export}", engine.settings.export_name)
    if reply.data:
        # The server's words, with everything but printable ASCII escaped.
        said = reply.data.decode("latin-1")
        if not (said.isascii() and said.isprintable()):
            said = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in reply.data)
        text = f"{text}: {said}"
    return Failure(text, number)


def _text(data: bytes) -> str:
    # CONV-004: strings hold no NUL; where one does, it ends the string, as it does in libnbd.
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
