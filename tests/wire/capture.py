"""Records real peers talking to each other and prints their messages as rows for `golden.py`.

    python -m tests.wire.capture                 every scenario
    python -m tests.wire.capture nbdkit-read     only this one

A tap stands between client and server, hands bytes on untouched and keeps them. No test runs this: it is how the rows
were made and can be made again with other versions. Scenarios named `trixie-…` run in a Debian 13 root folder named by
NBDTEST_TRIXIE, which takes root; the others run what is on PATH, and libnbd's binding of /usr/bin/python3.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nbdtest import wire
from nbdtest.wire.layout import Items, Layout

READY_WITHIN_S = 10


@dataclass(frozen=True)
class Scenario:
    """A server, which `{socket}` tells where to listen, and a client, run against the tap at `{socket}`.

    A `client` is Python to be run with a libnbd handle `h`, or a shell command when it starts with "$ ".
    `{disk}` is a raw image of 1 MiB whose first 64 KiB are data, the rest a hole; `{dir}` is a scratch folder.
    """

    name: str
    server: str
    client: str


LIBNBD_ALL = """
h.set_full_info(True); h.add_meta_context('base:allocation'); h.connect_unix('{socket}')
h.pread(16, 0); h.flush(); h.block_status(1048576, 0, lambda *a: 0)
h.pwrite(b'nbdtest!', 512, nbd.CMD_FLAG_FUA) if not h.is_read_only() else None
h.trim(4096, 65536); h.zero(4096, 131072, nbd.CMD_FLAG_NO_HOLE); h.cache(4096, 0)
"""
LIBNBD_OPTIONS = """
h.set_opt_mode(True); h.set_full_info(True); h.connect_unix('{socket}')
with contextlib.suppress(nbd.Error): h.opt_list(lambda name, description: 0)
h.add_meta_context('base:')
with contextlib.suppress(nbd.Error): h.opt_list_meta_context(lambda name: 0)
h.set_export_name('nowhere')
with contextlib.suppress(nbd.Error): h.opt_info()
h.opt_abort()
"""
SCENARIOS = (
    Scenario(
        "nbdkit-read",
        "nbdkit -f -U {socket} --filter=exportname --filter=blocksize-policy memory 1M"
        " blocksize-minimum=1 blocksize-preferred=4096 blocksize-maximum=32M"
        " exportdesc=fixed:'scratch disk' exportname=disk",
        LIBNBD_ALL + "h.shutdown()",
    ),
    Scenario(
        "nbdkit-options",
        "nbdkit -f -U {socket} --filter=exportname memory 1M exportdesc=fixed:'scratch disk' exportname=disk"
        " exportname-strict=true",
        LIBNBD_OPTIONS,
    ),
    Scenario(
        "nbdkit-errors",
        "nbdkit -f -U {socket} --filter=error memory 1M error=EIO error-rate=1",
        "h.connect_unix('{socket}')\n"
        "with contextlib.suppress(nbd.Error): h.pread(512, 1024)\n"
        "with contextlib.suppress(nbd.Error): h.pwrite(b'x', 0)",
    ),
    Scenario("nbdkit-tls", "nbdkit -f -U {socket} --tls=require --tls-psk={dir}/psk null 1M", LIBNBD_OPTIONS),
    Scenario("nbdkit-padded", "nbdkit -f -U {socket} --mask-handshake=0 memory 1M", "h.connect_unix('{socket}')"),
    Scenario("nbdkit-bare", "nbdkit -f -U {socket} --mask-handshake=2 memory 1M", "h.connect_unix('{socket}')"),
    Scenario("nbdkit-simple", "nbdkit -f --no-sr -U {socket} memory 1M", "h.connect_unix('{socket}'); h.pread(16, 0)"),
    Scenario("nbdkit-oldstyle", "nbdkit -f -o -U {socket} memory 1M", "h.connect_unix('{socket}')"),
    Scenario("qemu-nbd-all", "qemu-nbd -t -A -f raw -D 'scratch disk' -k {socket} {disk}",
             LIBNBD_ALL.replace("h.pread(16, 0)", "h.pread(16, 0); h.pread(16, 65528)")
             .replace("h.connect", "h.add_meta_context('qemu:allocation-depth'); h.connect")),
    Scenario("qemu-nbd-options", "qemu-nbd -t -f raw -x disk -k {socket} {disk}", LIBNBD_OPTIONS),
    Scenario("qemu-nbd-errors", "qemu-nbd -t -r -f raw -k {socket} {disk}",
             "h.set_strict_mode(0); h.connect_unix('{socket}')\n"
             "with contextlib.suppress(nbd.Error): h.pread(512, 1048576)\n"
             "with contextlib.suppress(nbd.Error): h.pwrite(b'x', 0)"),
    Scenario("nbd-server-all", "nbd-server -C {dir}/nbd-server.conf -p {dir}/pid",
             "h.set_export_name('disk'); h.connect_unix('{socket}'); h.pread(16, 0); h.pwrite(b'nbdtest!', 512)\n"
             "h.set_strict_mode(0)\n"
             "with contextlib.suppress(nbd.Error): h.pread(512, 1048576)\n"
             "h.shutdown()"),
    Scenario("nbd-server-options", "nbd-server -C {dir}/nbd-server.conf -p {dir}/pid", LIBNBD_OPTIONS),
    Scenario("nbd-server-padded", "nbd-server -C {dir}/nbd-server.conf -p {dir}/pid",
             "h.set_handshake_flags(0); h.set_export_name('disk'); h.connect_unix('{socket}')"),
    Scenario("qemu-io", "nbdkit -f -U {socket} memory 1M",
             "$ qemu-io -f raw -c 'write -f -P 0x61 0 16' -c 'write -z 4096 4096' -c 'discard 8192 4096' -c 'read 0 16'"
             " nbd+unix:///?socket={socket}"),
    Scenario("trixie-extended", "qemu-nbd -t -A -f raw -k {socket} {disk}",
             LIBNBD_ALL.replace("h.pread(16, 0)", "h.pread(16, 0); h.pread(16, 65528)")
             .replace("h.connect", "h.add_meta_context('qemu:allocation-depth'); h.connect")
             + "h.block_status_filter(4096, 0, ['base:allocation'], lambda *a: 0); h.shutdown()"),
    Scenario("trixie-errors", "qemu-nbd -t -r -f raw -k {socket} {disk}",
             "h.set_strict_mode(0); h.connect_unix('{socket}')\n"
             "with contextlib.suppress(nbd.Error): h.pread(512, 1048576)"),
    Scenario("trixie-nbd-server", "nbd-server -C {dir}/nbd-server.conf -p {dir}/pid",
             "h.set_export_name('disk'); h.connect_unix('{socket}'); h.pread(16, 0); h.pwrite(b'nbdtest!', 512)\n"
             "h.set_strict_mode(0)\n"
             "with contextlib.suppress(nbd.Error): h.pread(512, 1048576)\n"
             "h.shutdown()"),
    Scenario("trixie-nbdkit", "nbdkit -f -U {socket} memory 1M",
             "h.connect_unix('{socket}'); h.pread(16, 0)"),
)  # fmt: skip


class Tap:
    """Hands on what goes through and keeps it: per connection, what the client sent and what the server sent."""

    def __init__(self, listen_at: Path, server_at: Path) -> None:
        self.connections: list[tuple[bytearray, bytearray]] = []
        self._server_at = server_at
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen_at))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server_at))
            to_server, to_client = bytearray(), bytearray()
            self.connections.append((to_server, to_client))
            threading.Thread(target=_pump, args=(client, server, to_server), daemon=True).start()
            threading.Thread(target=_pump, args=(server, client, to_client), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 20):
            seen += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


M = TypeVar("M", bound=wire.Message)


def _taken(cls: type[M], queue: wire.ByteQueue) -> M:
    message = cls.take(queue)
    if message is None:
        raise SystemExit(f"the stream ends inside a {cls.__name__}: {queue.take_all().hex(' ')}")
    return message


def client_messages(stream: bytes) -> Iterator[wire.Message]:
    """Split what a newstyle client sent: its flags, options and requests, with their data."""
    queue = wire.ByteQueue(stream)
    yield _taken(wire.ClientFlags, queue)
    while queue:
        magic = queue.peek(4)
        if magic == b"IHAV":
            option = _taken(wire.Option, queue)
            yield option
            continue
        extended = magic == wire.EXTENDED_REQUEST_MAGIC.to_bytes(4, "big")
        request = _taken(wire.ExtendedRequest, queue) if extended else _taken(wire.Request, queue)
        yield request
        if request.type == wire.Cmd.WRITE:
            queue.take(request.length)
        elif request.flags & wire.CmdFlag.PAYLOAD_LEN:
            yield wire.StatusFilter.decode(queue.take(request.length))


def server_messages(stream: bytes, sent: list[wire.Message]) -> Iterator[wire.Message]:
    """Split what a server sent in answer to `sent`: greeting, option replies and replies, with their data."""
    queue = wire.ByteQueue(stream)
    if queue.peek(16).endswith(wire.CLISERV_MAGIC.to_bytes(8, "big")):
        yield _taken(wire.OldstyleGreeting, queue)
    else:
        yield _taken(wire.NewstyleGreeting, queue)
    padded = any(isinstance(m, wire.ClientFlags) and not m.flags & wire.ClientFlag.NO_ZEROES for m in sent)
    reads = {m.cookie: m.length for m in sent if isinstance(m, wire.Request) and m.type == wire.Cmd.READ}
    while queue:
        match int.from_bytes(queue.peek(4), "big"):
            case wire.SIMPLE_REPLY_MAGIC:
                reply = _taken(wire.SimpleReply, queue)
                yield reply
                if reply.error == wire.Errno.OK:
                    queue.take(reads.get(reply.cookie, 0))
            case wire.STRUCTURED_REPLY_MAGIC | wire.EXTENDED_REPLY_MAGIC as magic:
                yield _taken(
                    wire.StructuredReply if magic == wire.STRUCTURED_REPLY_MAGIC else wire.ExtendedReply, queue
                )
            case high if high == wire.OPTION_REPLY_MAGIC >> 32:
                answer = _taken(wire.OptionReply, queue)
                yield answer
                if answer.option == wire.Opt.STRUCTURED_REPLY and answer.type == wire.Rep.ACK:
                    reads.clear()  # no simple reply carries data from here on
            case _:
                yield _taken(wire.ExportNameReplyPadded if padded else wire.ExportNameReply, queue)


def run(scenario: Scenario) -> Tap:
    """Let client and server of `scenario` talk through a tap, to the end."""
    root = Path(os.environ["NBDTEST_TRIXIE"]) if scenario.name.startswith("trixie-") else Path("/")
    inside = ["chroot", str(root)] if root != Path("/") else []
    place = Path(tempfile.mkdtemp(prefix="nbdtap", dir=root / "tmp"))
    names = Path("/") / place.relative_to(root)
    (place / "psk").write_text("alice:00112233445566778899aabbccddeeff\n")
    (place / "psk").chmod(0o600)
    with (place / "disk").open("wb") as disk:
        disk.write(bytes(range(256)) * 256)
        disk.truncate(1 << 20)
    (place / "nbd-server.conf").write_text(
        f"[generic]\nunixsock = {names}/server\nlistenaddr = 127.0.0.1\nport = {_free_port()}\nallowlist = true\n"
        f"[disk]\nexportname = {names}/disk\n"
    )
    command = scenario.server.format(socket=names / "server", disk=names / "disk", dir=names)
    server = subprocess.Popen(inside + shlex.split(command), stdout=sys.stderr)
    try:
        until = time.monotonic() + READY_WITHIN_S
        while not (place / "server").exists():
            if server.poll() or time.monotonic() > until:
                raise SystemExit(f"{scenario.name}: the server does not listen")
            time.sleep(0.02)
        tap = Tap(place / "tap", place / "server")
        client = scenario.client.format(socket=names / "tap")
        if client.startswith("$ "):
            argv = shlex.split(client[2:])
        else:
            argv = ["/usr/bin/python3", "-c", f"import contextlib, nbd\nh = nbd.NBD()\n{client}"]
        done = subprocess.run(inside + argv, stdout=sys.stderr, check=False)
        if done.returncode:
            print(f"{scenario.name}: the client ended with status {done.returncode}", file=sys.stderr)
        return tap
    finally:
        if (place / "pid").exists():  # nbd-server put itself into the background
            os.kill(int((place / "pid").read_text()), signal.SIGTERM)
        server.terminate()
        server.wait()
        shutil.rmtree(place)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def row(source: str, message: wire.Message) -> str:
    """Write `message` as a row of the golden table, its bytes broken by slot."""
    lines = [f"    Golden({source!r},", f"        {message!r},"]
    lines += [f"        {literal(chunk)}  # {slot}" for slot, chunk in slots_of(message) if chunk] or ["        b''"]
    return "\n".join([*lines, "    ),"])


def literal(data: bytes) -> str:
    """Write `data` as text where it is text, else wholly in hexadecimal."""
    if len(data) >= 4 and data.isascii() and data.decode().isprintable():
        return repr(data)
    if len(data) > 16 and not any(data):
        return f"+ bytes({len(data)})"
    return "b'" + "".join(f"\\x{byte:02x}" for byte in data) + "'"


def slots_of(message: wire.Message) -> Iterator[tuple[str, bytes]]:
    """Cut the encoded `message` at its slots, and the data of a frame at theirs."""
    for slot in message.LAYOUT.slots:
        if slot.name in ("data", "payload") and (inside := inner(message)):
            yield from slots_of(inside)
        elif isinstance(slot, Items):
            for number, item in enumerate(getattr(message, slot.name)):
                values = {name: getattr(item, name, item) for name in slot.layout.field_names}
                for part in slot.layout.slots:
                    yield f"{slot.name}[{number}].{part.name}", _alone(slot.layout, values, part.name)
        else:
            values = {name: getattr(message, name) for name in message.LAYOUT.field_names}
            yield slot.name, _alone(message.LAYOUT, values, slot.name)


def _alone(layout: Layout, values: dict[str, object], name: str) -> bytes:
    """Encode one slot: what is left when all others are written as nothing."""
    return layout.encode(values, {slot.name: b"" for slot in layout.slots if slot.name != name})


def inner(message: wire.Message) -> wire.Message | None:
    match message:
        case wire.Option():
            return wire.decode_option_data(message)
        case wire.OptionReply():
            return wire.decode_option_reply_data(message)
        case wire.StructuredReply() | wire.ExtendedReply():
            return wire.decode_chunk_payload(message.type, message.payload)
    return None


def main(wanted: list[str]) -> None:
    for scenario in SCENARIOS:
        if wanted and scenario.name not in wanted:
            continue
        for to_server, to_client in run(scenario).connections:
            sent = list(client_messages(bytes(to_server))) if to_server else []
            for message in [*sent, *server_messages(bytes(to_client), sent)]:
                print(row(scenario.name, message))
                if inside := inner(message):
                    print(row(scenario.name, inside))


if __name__ == "__main__":
    main(sys.argv[1:])
