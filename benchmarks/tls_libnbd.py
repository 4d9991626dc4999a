"""The client over TLS against libnbd's own Python binding: same interpreter, same server, one run.

    /usr/bin/python3 benchmarks/tls_libnbd.py [--rounds 9] [CASE ...]

Both libraries do each case in turn, round after round; what counts is the median of the rounds' ratios (above 1: this
client is faster). OpenSSL and GnuTLS may settle on different suites, which says more than anything that either
library does; the suite of each is told. The PSK cases need the `ssl` of Python 3.13, or the compatibility layer of
3.11 and 3.12.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import nbd as libnbd

from nbdtest import client
from nbdtest.client.channel import TLSChannel
from nbdtest.net.addresses import UnixAddress
from nbdtest.net.process import start_listening
from nbdtest.net.tls import psk_support

SIZE = 64 << 20
KIB, MIB = 1 << 10, 1 << 20
KEY = "nbdtest:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
TARGET = 0.9


@dataclass(frozen=True)
class Case:
    """Something to be done `count` times a round, by `work(handle, count)`, with keys or certificates."""

    name: str
    auth: str
    count: int
    work: Callable[[Any, int], None]


def read(size: int) -> Callable[[Any, int], None]:
    def work(h: Any, count: int) -> None:
        for at in range(count):
            h.pread(size, at % 32 * MIB)

    return work


def write(size: int) -> Callable[[Any, int], None]:
    data = bytearray(size)

    def work(h: Any, count: int) -> None:
        for at in range(count):
            h.pwrite(data, at % 32 * MIB)

    return work


def in_flight(depth: int, size: int) -> Callable[[Any, int], None]:
    def work(h: Any, count: int) -> None:
        module = client if isinstance(h, client.NBD) else libnbd
        buffers = [module.Buffer(size) for _ in range(depth)]

        def completed(buffer: Any, error: Any) -> int:
            assert error.value == 0
            buffers.append(buffer)
            return 1

        started = 0
        while started < count or len(buffers) < depth:
            while buffers and started < count:
                buffer = buffers.pop()
                h.aio_pread(buffer, started % 32 * MIB, lambda error, buffer=buffer: completed(buffer, error))
                started += 1
            h.poll(-1)

    return work


CASES = [
    Case(f"{name}, {auth}", auth, count, work)
    for auth in ("x509", "psk")
    for name, count, work in (
        ("pread 4 KiB", 1000, read(4 * KIB)),
        ("pread 64 KiB", 500, read(64 * KIB)),
        ("pread 1 MiB", 60, read(MIB)),
        ("pwrite 1 MiB", 60, write(MIB)),
        ("16 in flight, aio_pread 64 KiB", 500, in_flight(16, 64 * KIB)),
        ("16 in flight, aio_pread 4 KiB", 2000, in_flight(16, 4 * KIB)),
    )
]


@contextmanager
def running(auth: str) -> Iterator[tuple[str, str]]:
    """Start nbdkit and give the path of its socket and that of the credentials."""
    with tempfile.TemporaryDirectory() as directory:
        socket = f"{directory}/sock"
        if auth == "psk":
            credentials = f"{directory}/keys.psk"
            Path(credentials).write_text(KEY)
            how = f"--tls-psk={credentials}"
        else:
            credentials = make_certificates(Path(directory))
            how = f"--tls-certificates={credentials}"
        argv = ["nbdkit", "-f", "-U", socket, "--tls=require", how, "memory", str(SIZE)]
        with start_listening(argv, UnixAddress(socket)):
            yield socket, credentials


def make_certificates(directory: Path) -> str:
    """Certificates by GnuTLS's certtool: this interpreter need not have the cryptography package."""

    def certtool(*words: str) -> None:
        subprocess.run(["certtool", "--outfile", *words], cwd=directory, check=True, capture_output=True)

    (directory / "ca.info").write_text("cn = benchmark\nca\ncert_signing_key\n")
    (directory / "server.info").write_text("cn = localhost\ndns_name = localhost\nsigning_key\ntls_www_server\n")
    for name in ("ca", "server"):
        certtool(f"{name}-key.pem", "--generate-privkey", "--key-type=ecdsa")
    certtool("ca-cert.pem", "--generate-self-signed", "--load-privkey=ca-key.pem", "--template=ca.info")
    signer = ["--load-ca-certificate=ca-cert.pem", "--load-ca-privkey=ca-key.pem"]
    leaf = ["--generate-certificate", "--load-privkey=server-key.pem", "--template=server.info"]
    certtool("server-cert.pem", *leaf, *signer)
    return str(directory)


def connected(module: ModuleType, auth: str, socket: str, credentials: str) -> Any:
    """A handle on the server."""
    h = module.NBD()
    h.set_tls(2)
    if auth == "psk":
        h.set_tls_psk_file(credentials)
        h.set_tls_username("nbdtest")
    else:
        h.set_tls_certificates(credentials)
    h.connect_unix(socket)
    return h


def measure(case: Case, rounds: int) -> tuple[float, float, float, str]:
    """Median ratio of times, median ratio of CPU times, operations a second of this client, and its suite."""
    with running(case.auth) as (socket, credentials):
        handles = {module: connected(module, case.auth, socket, credentials) for module in (libnbd, client)}
        for h in handles.values():
            case.work(h, max(1, case.count // 10))
        times, cpus, rates = [], [], []
        for number in range(rounds):
            spent = {}
            for module in (libnbd, client) if number % 2 else (client, libnbd):
                cpu, start = time.process_time(), time.perf_counter()
                case.work(handles[module], case.count)
                spent[module] = time.perf_counter() - start, time.process_time() - cpu
            times.append(spent[libnbd][0] / spent[client][0])
            cpus.append(spent[client][1] / spent[libnbd][1])
            rates.append(case.count / spent[client][0])
        channel = handles[client]._driver.channel
        suite = channel.pipe.cipher if isinstance(channel, TLSChannel) else "?"
        for h in handles.values():
            h.shutdown()
        return statistics.median(times), statistics.median(cpus), statistics.median(rates), suite


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", help="parts of names; all cases if none is given")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(f"libnbd {libnbd.NBD().get_version()}, Python {sys.version.split()[0]}, PSK: {psk_support().kind or 'none'}")
    missed = 0
    for case in CASES:
        if arguments.cases and not any(part in case.name for part in arguments.cases):
            continue
        if case.auth == "psk" and not psk_support():
            print(f"{case.name:40} skipped: {psk_support().reason}")
            continue
        ratio, cpu, rate, suite = measure(case, arguments.rounds)
        missed += ratio < TARGET
        mark = "" if ratio >= TARGET else f"  below {TARGET}"
        print(f"{case.name:40} {ratio:5.2f} of libnbd's speed, {cpu:5.2f} of its CPU, {rate:9.0f}/s, {suite}{mark}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
