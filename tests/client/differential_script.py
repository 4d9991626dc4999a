"""One script of calls, for libnbd's binding and for this client: prints what each call answered, as JSON.

    python3 differential_script.py MODULE HOW WORD ...

MODULE is `nbd` or `nbdtest.client`; HOW is the name of the call that connects, WORD its arguments, as a list.
It knows neither what is right nor which library it runs on; it has to run on every Python and every libnbd.
"""

import errno
import gc
import importlib
import json
import socket
import sys

MODULE, HOW, WORDS = sys.argv[1], sys.argv[2], sys.argv[3:]
nbd = importlib.import_module(MODULE)
MIB = 1 << 20
answers = []


def note(step, call, *arguments):
    """Carry out a step and note what came of it."""
    try:
        value = call(*arguments)
    except nbd.Error as error:
        answer = ["Error", error.string, error.errnum, str(error)]
    except TypeError as error:
        answer = ["absent"] if call is None else [type(error).__name__]
    except AttributeError as error:
        answer = ["absent"] if "has no attribute" in str(error) else ["AttributeError", str(error)]
    except Exception as error:  # noqa: BLE001 - whatever it is, the other library has to do the same
        answer = [type(error).__name__]
    else:
        answer = ["value", printable(value)]
    answers.append([step, answer])


def printable(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex() if len(value) <= 64 else [len(value), bytes(value[:16]).hex()]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    return type(value).__name__


def connect(h):
    getattr(h, HOW)(WORDS[0] if HOW == "connect_uri" else WORDS)
    return h


def connected(prepare=lambda h: None):
    h = nbd.NBD()
    prepare(h)
    return connect(h)


def told(call):
    """What the callback of a call was told, and what the call returned."""
    seen = []

    def callback(*arguments):
        last = arguments[-1]
        error = [last.value] if hasattr(last, "value") else [last]
        seen.append(printable(arguments[:-1]) + printable(error))
        return 0

    result = call(callback)
    return [seen, printable(result)]


def finish(h, cookie):
    while not h.aio_command_completed(cookie):
        h.poll(-1)


def nothing(*_):
    return 0


# ---- a new handle

h = nbd.NBD()
GETTERS = [
    "get_debug",
    "get_export_name",
    "get_request_block_size",
    "get_full_info",
    "get_tls",
    "get_tls_verify_peer",
    "get_handshake_flags",
    "get_request_structured_replies",
    "get_pread_initialize",
    "get_opt_mode",
    "get_nr_meta_contexts",
    "aio_is_created",
    "aio_is_dead",
    "aio_is_ready",
    "aio_is_closed",
    "aio_is_connecting",
    "aio_is_negotiating",
    "aio_is_processing",
    "aio_get_direction",
    "connection_state",
    "supports_uri",
    "get_package_name",
    "get_private_data",
    "get_request_meta_context",
    "get_request_extended_headers",
    "get_tls_hostname",
    "get_socket_activation_name",
    "stats_bytes_sent",
    "stats_chunks_sent",
    "stats_bytes_received",
    "stats_chunks_received",
]
for name in GETTERS:
    note(f"new.{name}", lambda name=name: getattr(h, name)())

NO_STATE = {
    "aio_get_fd": (),
    "aio_notify_read": (),
    "aio_notify_write": (),
    "aio_in_flight": (),
    "aio_peek_command_completed": (),
    "aio_command_completed": (1,),
    "poll": (0,),
    "get_uri": (),
    "get_size": (),
    "get_protocol": (),
    "is_read_only": (),
    "can_fua": (),
    "can_meta_context": ("base:allocation",),
    "get_block_size": (0,),
    "get_canonical_export_name": (),
    "pread": (1, 0),
    "pwrite": (b"x", 0),
    "flush": (),
    "zero": (1, 0),
    "block_status": (1, 0, nothing),
    "aio_pread": (bytearray(1), 0),
    "aio_flush": (),
    "aio_disconnect": (),
    "shutdown": (),
    "opt_go": (),
    "opt_list": (nothing,),
    "aio_opt_info": (),
    "kill_subprocess": (0,),
    "get_subprocess_pid": (),
    "get_meta_context": (0,),
}


def every_call(label, h):
    for name, arguments in NO_STATE.items():
        note(f"{label}.{name}", lambda name=name, arguments=arguments: getattr(h, name)(*arguments))


every_call("new", h)

BAD_ARGUMENTS = [
    ("set_tls", (3,)),
    ("set_tls", (-1,)),
    ("set_tls", ("x",)),
    ("set_handshake_flags", (4,)),
    ("set_strict_mode", (0x4000,)),
    ("set_uri_allow_transports", (0x100,)),
    ("set_uri_allow_tls", (9,)),
    ("set_export_name", ("x" * 4097,)),
    ("set_export_name", (b"bytes",)),
    ("set_export_name", ("nul\0",)),
    ("set_export_name", (None,)),
    ("add_meta_context", ("x" * 4097,)),
    ("get_meta_context", (7,)),
    ("set_socket_activation_name", ("x" * 33,)),
    ("set_socket_activation_name", ("a-b",)),
    ("connect_command", ("not a list",)),
    ("connect_command", (["x", 1],)),
    ("connect_unix", (12,)),
    ("connect_unix", ("x" * 200,)),
    ("aio_connect", (12,)),
    ("aio_command_completed", (0,)),
    ("aio_command_completed", (-1,)),
    ("opt_list", (12,)),
    ("set_debug_callback", (12,)),
    ("kill_subprocess", (-1,)),
    ("poll", ("x",)),
]
for number, (name, arguments) in enumerate(BAD_ARGUMENTS):
    bad = nbd.NBD()
    note(f"bad.{number}.{name}", getattr(bad, name, None), *arguments)

note("private.first", lambda: h.set_private_data(42))
note("private.second", lambda: h.set_private_data(-1))
note("private.third", lambda: h.get_private_data())
note("names", lambda: (h.set_handle_name("differ"), h.get_handle_name()))
note(
    "contexts",
    lambda: (h.add_meta_context("a"), h.add_meta_context("b"), h.get_nr_meta_contexts(), h.get_meta_context(1)),
)
note("no contexts", lambda: (h.clear_meta_contexts(), h.get_nr_meta_contexts()))
note("closed", lambda: h.close())
note("closed twice", lambda: h.close())
note("closed call", lambda: h.get_size())

# ---- URIs

URIS = [
    "nbd:/",
    "nbd:///path//x",
    "http://localhost/",
    "/tmp/sock",
    "localhost",
    "nbd+unix:///x",
    "nbd://localhost?socket=/x",
    "nbd+unix://",
    "nbds://localhost?tls-certificates=/x",
    "nbds://localhost?tls-psk-file=/x",
    "nbd+ssh:///",
    "nbds:///?tls-verify-peer=maybe",
    "NBD+UNIX:///?SOCKET=/nonexistent",
    "nbd+unix:///exp%2Fort?socket=%2Fnonexistent",
    "nbd+vsock://x:1",
    "foo",
    "bar://x",
]
for uri in [*URIS, "nbd://white space", ""]:
    bad = nbd.NBD()
    note(f"uri.{uri}", bad.connect_uri, uri)
    note(f"uri.{uri}.tls", bad.get_tls)
    note(f"uri.{uri}.name", bad.get_export_name)
    note(f"uri.{uri}.state", bad.connection_state)
    note(f"uri.{uri}.is_uri", lambda bad=bad, uri=uri: bad.is_uri(uri))
for mask in (0, 1, 2):
    bad = nbd.NBD()
    bad.set_uri_allow_transports(mask)
    note(f"uri.transports.{mask}", bad.connect_uri, "nbd+unix:///?socket=/nonexistent")
for tls in (0, 1, 2):
    bad = nbd.NBD()
    bad.set_uri_allow_tls(tls)
    note(f"uri.tls.{tls}", bad.connect_uri, "nbd+unix:///?socket=/nonexistent")

# ---- connecting in vain

bad = nbd.NBD()
note("unix.none", lambda: bad.connect_unix("/nonexistent/socket"))
note("unix.none.state", lambda: bad.connection_state())
every_call("dead", bad)
bad = nbd.NBD()
note("unix.aio", lambda: bad.aio_connect_unix("/nonexistent/socket"))
bad = nbd.NBD()
note("tcp.refused", lambda: bad.connect_tcp("127.0.0.1", "1"))
note("tcp.refused.state", lambda: bad.connection_state())
note("tcp.again", lambda: bad.connect_tcp("127.0.0.1", "1"))
note("tcp.uri", lambda: bad.get_uri())
note("command.empty", lambda: nbd.NBD().connect_command([]))
note("command.false", lambda: nbd.NBD().connect_command(["false"]))

# ---- garbage and endings, on a socketpair


def from_bytes(data):
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    theirs.shutdown(socket.SHUT_WR)
    h = nbd.NBD()
    try:
        h.connect_socket(ours.detach())
    finally:
        answers.append(["  state", ["value", h.connection_state()]])
    return


GREETING = b"NBDMAGICIHAVEOPT"
for number, data in enumerate([b"", b"NBD", b"x" * 200, GREETING, GREETING + b"\0\3", b"NBDMAGIC" + bytes(200)]):
    note(f"garbage.{number}", from_bytes, data)

# ---- connected


def ask_for_contexts(h):
    h.add_meta_context("base:allocation")


h = connected(ask_for_contexts)
FACTS = [
    "get_size",
    "get_protocol",
    "is_read_only",
    "can_flush",
    "can_fua",
    "is_rotational",
    "can_trim",
    "can_zero",
    "can_fast_zero",
    "can_df",
    "can_multi_conn",
    "can_cache",
    "get_structured_replies_negotiated",
    "get_tls_negotiated",
    "connection_state",
    "aio_is_ready",
    "aio_get_direction",
    "get_handshake_flags",
    "get_canonical_export_name",
    "get_export_description",
    "aio_in_flight",
    "aio_peek_command_completed",
]
for name in FACTS:
    note(f"facts.{name}", lambda name=name: getattr(h, name)())
for context in ("base:allocation", "qemu:allocation-depth", ""):
    note(f"facts.context.{context}", lambda context=context: h.can_meta_context(context))
for kind in (0, 1, 2, 4, -1):
    note(f"facts.block.{kind}", lambda kind=kind: h.get_block_size(kind))

size = h.get_size()
note("write", lambda: h.pwrite(b"differential" * 50, 512))
note("read", lambda: h.pread(64, 510))
note("read.type", lambda: type(h.pread(1, 0)).__name__)
note("read.large", lambda: h.pread(MIB // 2, 0))
note("read.structured", lambda: told(lambda callback: h.pread_structured(600, 512, callback)))
note("read.structured.refused", lambda: h.pread_structured(8, 0, lambda *_: -1))
note("flush", lambda: h.flush())
note("zero", lambda: h.zero(4096, 0))
note("zero.no-hole", lambda: h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE))
note("trim", lambda: h.trim(4096, 8192))
note("status.type", lambda: told(lambda callback: h.block_status(size, 0, callback))[1])
note("status.refused", lambda: h.block_status(size, 0, lambda *_: -1))
note("status.one", lambda: len(told(lambda callback: h.block_status(4096, 0, callback, nbd.CMD_FLAG_REQ_ONE))[0]))


def set_error(number):
    def callback(*arguments):
        arguments[-1].value = number
        return -1

    return callback


note("status.number", lambda: h.block_status(size, 0, set_error(errno.EADDRINUSE)))
REFUSED = [
    ("pread", (0, 0)),
    ("pread", (1, size)),
    ("pread", (size + 1, 0)),
    ("pread", (1, -1)),
    ("pread", (1, 0, 1)),
    ("pread", (1, 0, 0x10000)),
    ("pread", ("x", 0)),
    ("pwrite", (b"", 0)),
    ("pwrite", (b"xx", size - 1)),
    ("pwrite", (b"x", 0, 2)),
    ("pwrite", ("text", 0)),
    ("pwrite", (nbd.Buffer(4), size)),
    ("trim", (0, 0)),
    ("trim", (1, size)),
    ("trim", (1, 0, 4)),
    ("zero", (size, 1)),
    ("zero", (1, 0, 8)),
    ("cache", (size, 1)),
    ("cache", (1, 0, 1)),
    ("flush", (1,)),
    ("block_status", (0, 0, nothing)),
    ("block_status", (1, size, nothing)),
    ("block_status", (1, 0, nothing, 1)),
    ("block_status", (1, 0, 12)),
    ("shutdown", (1,)),
    ("aio_pread", (b"readonly", 0)),
    ("aio_pread", (12, 0)),
    ("aio_pread", (bytearray(4), size)),
    ("aio_pread", (bytearray(4), 0, 12)),
    ("aio_pwrite", (bytearray(4), size)),
    ("aio_notify_write", ()),
    ("connect_unix", ("/x",)),
    ("set_tls", (0,)),
    ("set_export_name", ("x",)),
    ("opt_go", ()),
    ("aio_connect_tcp", ("x", "y")),
]
for number, (name, arguments) in enumerate(REFUSED):
    note(f"refused.{number}.{name}", lambda name=name, arguments=arguments: getattr(h, name)(*arguments))
note("refused.huge", lambda: h.trim(1 << 33, 0))


def loosely(mask, call):
    h.set_strict_mode(h.get_strict_mode() & ~mask)
    try:
        return call()
    finally:
        h.set_strict_mode(nbd.STRICT_MASK)


note("loose.bounds", lambda: loosely(nbd.STRICT_BOUNDS, lambda: h.pread(1, size)))
note("loose.flags", lambda: loosely(nbd.STRICT_FLAGS, lambda: h.pread(1, 0, 0x10000)))

# ---- asynchronous commands

buffer = nbd.Buffer(512)
note("aio.buffer.init", lambda: hasattr(buffer, "_init"))
note("aio.cookie", lambda: finish(h, h.aio_pread(buffer, 512)))
note("aio.buffer", lambda: bytes(buffer.to_bytearray()[:16]))
note("aio.unknown", lambda: h.aio_command_completed(999999))
note("aio.write", lambda: finish(h, h.aio_pwrite(nbd.Buffer.from_bytearray(b"written"), 100)))
note("aio.written", lambda: h.pread(9, 99))


def complete(answer, value=None):
    seen = []

    def callback(error):
        seen.append(error.value)
        if value is not None:
            error.value = value
        return answer

    cookie = h.aio_pread(bytearray(1), 0, callback)
    while h.aio_in_flight():
        h.poll(-1)
    try:
        return [seen, h.aio_command_completed(cookie)]
    except nbd.Error as error:
        return [seen, error.string, error.errnum]


for answer, value in (
    (0, None),
    (1, None),
    (-1, None),
    (-1, errno.ERANGE),
    (7, errno.ERANGE),
    (None, None),
    ("x", None),
):
    note(f"aio.completion.{answer}.{value}", lambda answer=answer, value=value: complete(answer, value))


def several():
    cookies = [h.aio_pread(bytearray(512), 512 * at) for at in range(5)]
    while h.aio_in_flight():
        h.poll(-1)
    first = h.aio_peek_command_completed() in cookies
    results = [h.aio_command_completed(cookie) for cookie in cookies]
    again = [h.aio_command_completed(cookie) for cookie in cookies]
    return [first, results, again]


note("aio.several", several)
note("aio.none", lambda: h.aio_peek_command_completed())


def resize_in_flight():
    memory = bytearray(512)
    cookie = h.aio_pread(memory, 0)
    try:
        memory.pop()
        popped = True
    except BufferError:
        popped = False
    finish(h, cookie)
    memory.pop()
    return [popped, len(memory)]


note("aio.resize", resize_in_flight)


def abandon():
    codes = []
    for _ in range(3):
        h.aio_pread(bytearray(1), 0, lambda error: codes.append(error.value) or 1)
    h.shutdown()
    return [len(codes), h.connection_state()]


note("shutdown.pending", abandon)
every_call("closed", h)
note("closed.state", lambda: h.connection_state())
note("closed.flags", lambda: [h.is_read_only(), h.get_size() == size])

h = connected()
note("disconnect", lambda: h.aio_disconnect())
note("disconnect.more", lambda: h.pread(1, 0))
note("disconnect.shutdown", lambda: (h.shutdown(), h.connection_state()))
h = connected(lambda h: h.set_request_structured_replies(False))
note("simple.negotiated", lambda: h.get_structured_replies_negotiated())
note("simple.df", lambda: h.can_df())
note("simple.read", lambda: told(lambda callback: h.pread_structured(64, 500, callback)))
note("simple.status", lambda: h.block_status(1, 0, nothing))
note("simple.shutdown", lambda: h.shutdown())
h = connected()
note("no-context.status", lambda: h.block_status(1, 0, nothing))
note("no-context.can", lambda: h.can_meta_context("base:allocation"))
note("end.1", h.shutdown)
h = connected(lambda h: h.set_handshake_flags(0))
note("newstyle.protocol", lambda: [h.get_protocol(), h.get_handshake_flags(), h.pread(4, 512)])
note("end.2", h.shutdown)

# ---- option mode

h = connected(lambda h: h.set_opt_mode(True))
note("opt.state", lambda: [h.connection_state(), h.aio_get_direction()])
every_name = {
    name: NO_STATE[name] for name in ("get_size", "can_fua", "pread", "flush", "poll", "aio_in_flight", "get_protocol")
}
for name, arguments in every_name.items():
    note(f"opt.{name}", lambda name=name, arguments=arguments: getattr(h, name)(*arguments))
note("opt.list", lambda: told(lambda callback: h.opt_list(lambda *words: callback(*words)))[1])
note("opt.info", lambda: [h.opt_info(), h.get_size(), h.connection_state()])
note("opt.meta", lambda: h.opt_list_meta_context(nothing))
note("opt.meta.queries", lambda: h.opt_list_meta_context_queries(["base:"], nothing))
note("opt.meta.set", lambda: h.opt_set_meta_context_queries(["base:allocation"], nothing))
note("opt.meta.can", lambda: h.can_meta_context("base:allocation"))
note("opt.structured", lambda: h.opt_structured_reply())
name_before = h.get_export_name()
note("opt.name", lambda: [h.set_export_name("other"), h.get_export_name()])
note("opt.name.size", lambda: h.get_size())
note("opt.name.back", h.set_export_name, name_before)
note("opt.go", lambda: [h.opt_go(), h.connection_state()])
note("opt.go.again", lambda: h.opt_go())
note("end.3", h.shutdown)
h = connected(lambda h: h.set_opt_mode(True))
note("opt.abort", lambda: [h.opt_abort(), h.connection_state()])
h = connected(lambda h: h.set_opt_mode(True))
note("opt.shutdown", lambda: [h.shutdown(), h.connection_state()])
h = connected(lambda h: h.set_opt_mode(True))
note("opt.full.set", h.set_full_info, True)
note("opt.full", lambda: [h.opt_info(), h.get_size()])
note("opt.full.name", lambda: h.get_canonical_export_name())
note("opt.full.description", lambda: h.get_export_description())
note("end.4", h.opt_abort)


# ---- buffers

buffer = nbd.Buffer.from_bytearray(bytes(100) + b"x" + bytes(100))
for arguments in ((), (0, 100), (100, 1), (101,), (201,), (202,), (0, 202), (0, -2), (200, 0), (-1, 1)):
    note(f"buffer.zero.{arguments}", lambda arguments=arguments: buffer.is_zero(*arguments))
note("buffer.negative", lambda: nbd.Buffer(-1))
note("buffer.list", lambda: nbd.Buffer.from_bytearray([1, 2, 3]).to_bytearray())

note(
    "error.type",
    lambda: [nbd.Error("x", 22).errno, str(nbd.Error("x", 22)), str(nbd.Error("x", 0)), nbd.Error("x", 0).errno],
)
json.dump(answers, sys.stdout)
h = bad = None
gc.collect()
