"""`nbdtest serve`: the fake server as a program of its own.

The command line hands its subparser to `add_arguments` and the result to `run`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nbdtest.errors import NBDTestError, TransportError, UsageError
from nbdtest.fakeserver.contexts import Allocation, Context, DirtyBitmap
from nbdtest.fakeserver.export import BlockSizes, Export, Style, TLSMode
from nbdtest.fakeserver.file_disk import FileDisk
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.mutants import MUTANTS
from nbdtest.fakeserver.server import FakeServer
from nbdtest.model import MemoryDisk
from nbdtest.net.addresses import CID_ANY, Address, TCPAddress, UnixAddress, VsockAddress
from nbdtest.net.clock import monotonic_s
from nbdtest.net.inherited import activated_listeners, stdio_stream
from nbdtest.net.sockets import listen, stream_pair
from nbdtest.net.stream import SocketStream, Stream
from nbdtest.net.tls import ServerPSK, ServerX509, TLSContext, server_context

__all__ = ["EPILOG", "add_arguments", "run"]

EPILOG = """More examples:
  nbdtest serve --unix /tmp/nbd.sock --size 64M
  nbdtest serve --tcp 10809 --file disk.img --read-only --log
  nbdtest serve --tcp 0 --export a=1M --export b=disk.img
  nbdtest serve --vsock 10809     nbd+vsock://1 here, nbd+vsock://2 in a guest
  nbdtest serve --unix /tmp/nbd.sock --mutant chunk.done-forgotten
  nbdtest serve --unix /tmp/nbd.sock --rules finding.json
Started by systemd socket activation, it serves the sockets that it inherits."""

GRACE_S = 3.0
"""For clients that are owed answers when a signal comes."""
LARGEST_VSOCK_PORT = 0xFFFF_FFFE
"""The next one stands for any port."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `nbdtest serve`."""
    parser.epilog = f"{parser.epilog or ''}\n\n{EPILOG}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    where = parser.add_argument_group("where to serve")
    place = where.add_mutually_exclusive_group()
    place.add_argument("--unix", metavar="PATH", help="listen on a Unix socket")
    place.add_argument("--tcp", metavar="PORT", type=int, help="listen on a TCP port, 0 for a free one")
    place.add_argument(
        "--vsock",
        metavar="PORT",
        type=parse_vsock_port,
        help="listen on a vsock port, at every context id of this machine",
    )
    place.add_argument("--stdio", action="store_true", help="serve one connection on stdin and stdout")
    where.add_argument("--host", default="127.0.0.1", help="the address for --tcp (default %(default)s)")
    what = parser.add_argument_group("what to serve")
    what.add_argument("--size", type=parse_size, default=None, help="bytes of memory, with K, M, G, T (default 1M)")
    what.add_argument("--file", metavar="PATH", help="a raw image to serve instead of memory")
    what.add_argument(
        "--export", metavar="NAME=SIZE|FILE", action="append", default=[], help="a named export (repeatable)"
    )
    what.add_argument("--description", default="", help="the text that describes every export")
    what.add_argument("--read-only", action="store_true", help="refuse writes")
    what.add_argument("--rotational", action="store_true", help="say that the disk rotates")
    what.add_argument("--no-multi-conn", action="store_true", help="do not offer CAN_MULTI_CONN")
    what.add_argument("--resize", action="store_true", help="offer the experimental RESIZE")
    what.add_argument(
        "--block-size",
        metavar="MIN[:PREFERRED[:MAX]]",
        type=parse_block_sizes,
        help="size constraints to advertise and enforce",
    )
    what.add_argument("--insist-on-block-size", action="store_true", help="refuse clients that do not ask for them")
    what.add_argument("--bitmap", metavar="NAME", action="append", default=[], help="offer qemu:dirty-bitmap:NAME")
    how = parser.add_argument_group("how to serve")
    how.add_argument("--oldstyle", action="store_true", help="speak the oldstyle handshake")
    how.add_argument("--newstyle", action="store_true", help="speak newstyle without FIXED_NEWSTYLE")
    how.add_argument("--no-structured", action="store_true", help="refuse structured replies and extended headers")
    how.add_argument("--no-extended", action="store_true", help="refuse extended headers")
    how.add_argument("--no-meta-contexts", action="store_true", help="refuse metadata contexts")
    how.add_argument("--no-go", action="store_true", help="refuse INFO and GO, as very old servers do")
    how.add_argument("--no-list", action="store_true", help="refuse to list the exports")
    how.add_argument("--tls", choices=[mode.value for mode in TLSMode], default=None, help="when TLS is offered")
    how.add_argument("--tls-certificates", metavar="DIR", help="ca-cert.pem, server-cert.pem, server-key.pem")
    how.add_argument("--tls-psk", metavar="FILE", help="identity:hexkey lines")
    how.add_argument("--mutant", metavar="NAME", help="one deliberate bug; `nbdtest list mutants` shows all")
    how.add_argument("--rules", metavar="FILE", help="misbehave by the rules in a JSON file (RuleBook.to_json)")
    how.add_argument("--log", action="store_true", help="tell on stderr what is received and sent")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes, or the connection on stdin and stdout ends; give the exit status.

    Raises:
        UsageError: the options make no sense together, or something they name cannot be had.
    """
    began = monotonic_s()
    journal = Journal(records=1000, began=began, echo=_say if arguments.log else None)
    server = _server(arguments, journal)
    with _ended_by_signals() as ended:
        listeners = activated_listeners()
        if arguments.stdio and not listeners:
            _serve_stdio(server, ended)
            return 0
        if not listeners:
            listeners = [listen(_address(arguments))]
        for listener in listeners:
            server.listen(listener)
            if arguments.log:
                _say(f"listening at {listener.address}")
        if arguments.tcp == 0:
            print(getattr(listeners[0].address, "port", ""), flush=True)
        ended.wait()
        server.stop(grace_s=GRACE_S)
    for problem in journal.problems:
        _say(problem)
    return 1 if journal.problems else 0


def parse_size(text: str) -> int:
    """Read a number of bytes with an optional unit, such as 64K or 1T."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in set(_UNITS) - {""} else (text, "")
    if not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no size: a number with K, M, G or T is expected")
    size = int(number) * _UNITS[unit]
    if size >= 1 << 63:
        raise argparse.ArgumentTypeError(f"{text!r} is too large: an export has less than 8E")
    return size


def parse_vsock_port(text: str) -> int:
    """Read a vsock port, which has 32 bits.

    No number stands for a free one: those that the kernel chooses are often too large for libnbd's URIs.
    """
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= LARGEST_VSOCK_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no vsock port: it must lie between 1 and {LARGEST_VSOCK_PORT}")
    return int(text)


def parse_block_sizes(text: str) -> BlockSizes:
    """Read MIN[:PREFERRED[:MAX]]."""
    numbers = [parse_size(part) for part in text.split(":")]
    if len(numbers) > 3:
        raise argparse.ArgumentTypeError(f"{text!r}: MIN:PREFERRED:MAX are at most three sizes")
    minimum = numbers[0]
    preferred = numbers[1] if len(numbers) > 1 else max(minimum, 4096)
    sizes = BlockSizes(minimum=minimum, preferred=preferred, maximum=numbers[2] if len(numbers) > 2 else 32 << 20)
    if problem := sizes.problem():
        raise argparse.ArgumentTypeError(f"{text!r}: {problem}")
    return sizes


def _server(arguments: argparse.Namespace, journal: Journal) -> FakeServer:
    structured = not arguments.no_structured
    style = Style.OLDSTYLE if arguments.oldstyle else Style.NEWSTYLE if arguments.newstyle else Style.FIXED
    tls, mode = _tls(arguments)
    server = FakeServer(
        *_exports(arguments),
        journal=journal,
        tolerate=["*"],
        style=style,
        structured_replies=structured,
        extended_headers=structured and not arguments.no_extended,
        meta_contexts=not arguments.no_meta_contexts,
        info_and_go=not arguments.no_go,
        list_exports=not arguments.no_list,
        tls=tls,
        tls_mode=mode,
    )
    if arguments.mutant is not None:
        if arguments.mutant not in MUTANTS:
            raise UsageError(f"there is no mutant {arguments.mutant!r}; `nbdtest list mutants` shows all")
        MUTANTS[arguments.mutant].apply(server)
    if arguments.rules is not None:
        server.rules.add_json(_rows(arguments.rules))
    return server


def _rows(path: str) -> Any:
    """The rules in a file: a list, or the finding of a fuzzer that holds one."""
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    rows = found.get("rules") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise UsageError(f"{path} holds no list of rules")
    return rows


def _exports(arguments: argparse.Namespace) -> list[Export]:
    offers: list[tuple[str, str | int]] = []
    if arguments.file is not None and arguments.size is not None:
        raise UsageError("--file has a size of its own: leave --size out")
    if arguments.file is not None:
        offers.append(("", arguments.file))
    elif arguments.size is not None or not arguments.export:
        offers.append(("", 1 << 20 if arguments.size is None else arguments.size))
    for text in arguments.export:
        name, found, backing = text.partition("=")
        if not found:
            raise UsageError(f"--export {text!r}: NAME=SIZE or NAME=FILE is expected")
        try:
            offers.append((name, parse_size(backing)))
        except argparse.ArgumentTypeError:
            offers.append((name, backing))
    names = [name for name, _ in offers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"there are two exports named {min(twice)!r}")
    return [_export(name, backing, arguments) for name, backing in offers]


def _export(name: str, backing: str | int, arguments: argparse.Namespace) -> Export:
    contexts: list[Context] = [Allocation(), *(DirtyBitmap(bitmap) for bitmap in arguments.bitmap)]
    disk = MemoryDisk(backing) if isinstance(backing, int) else FileDisk(backing, read_only=arguments.read_only)
    return Export(
        name,
        disk=disk,
        description=arguments.description,
        read_only=arguments.read_only,
        rotational=arguments.rotational,
        multi_conn=not arguments.no_multi_conn,
        can_resize=arguments.resize,
        block_sizes=arguments.block_size,
        insist_on_block_sizes=arguments.insist_on_block_size,
        contexts=tuple(contexts),
    )


def _tls(arguments: argparse.Namespace) -> tuple[TLSContext | None, TLSMode]:
    if arguments.tls_certificates is not None and arguments.tls_psk is not None:
        raise UsageError("--tls-certificates and --tls-psk exclude each other")
    context = None
    if arguments.tls_certificates is not None:
        context = server_context(ServerX509(directory=arguments.tls_certificates))
    elif arguments.tls_psk is not None:
        context = server_context(ServerPSK.from_file(arguments.tls_psk))
    mode = TLSMode(arguments.tls) if arguments.tls else TLSMode.SELECTIVE if context else TLSMode.NONE
    if mode is not TLSMode.NONE and context is None:
        raise UsageError(f"--tls {mode.value} needs --tls-certificates or --tls-psk")
    return context, mode


def _address(arguments: argparse.Namespace) -> Address:
    if arguments.unix is not None:
        return UnixAddress(arguments.unix)
    if arguments.tcp is not None:
        return TCPAddress(arguments.host, arguments.tcp)
    if arguments.vsock is not None:
        return VsockAddress(CID_ANY, arguments.vsock)
    raise UsageError(
        "where to serve? Give --unix PATH, --tcp PORT, --vsock PORT or --stdio, or start it by socket activation"
    )


def _serve_stdio(server: FakeServer, ended: threading.Event) -> None:
    stream = stdio_stream()
    if not isinstance(stream, SocketStream):
        ours, theirs = stream_pair(timeout_s=None)
        for source, target in ((stream, theirs), (theirs, stream)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()
        stream = ours
    connection = server.serve(stream)
    while connection is not None and not connection.closed and not ended.wait(0.05):
        pass
    server.stop()


def _pump(source: Stream, target: Stream) -> None:
    """Copy what arrives until either side ends."""
    try:
        while True:
            target.send_all(source.receive_some())
    except TransportError:
        with contextlib.suppress(NBDTestError, OSError):
            target.half_close()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[threading.Event]:
    ended = threading.Event()
    previous: dict[int, Callable[..., object] | int | None] = {}
    for number in map(int, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        previous[number] = signal.signal(number, lambda *_: ended.set())
    try:
        yield ended
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    try:
        os.write(2, f"nbdtest serve: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        sys.exit(1)  # nobody can read what is said
