"""How fast the fake server is, with libnbd's C binding as client, beside nbdkit's memory plugin in the same run.

    python benchmarks/fakeserver_speed.py [--rounds 15] [--cpu 0]

Four servers hold the same random disk: `nbdkit memory` with its default threads, the same with `-t 1`, `nbdtest serve`,
and the same with a rule that waits for a READ that never comes. One client process visits them in turn, in short
rounds; what counts is the median of the rounds' ratios, because single figures on a shared machine say nothing. Clients
and servers share one CPU: a wake-up across CPUs costs more than a whole request.

Needs nbdkit and /usr/bin/python3 with python3-libnbd.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DISK = 64 << 20
RULES = [{"on": {"Cmd": 0}, "nth": 1 << 40, "reply": [{"action": "close"}]}]
OURS = {"nbdtest": "", "nbdtest-rules": " with a rule"}
CLIENT = r"""
import json, nbd, sys, time

def connected(path):
    h = nbd.NBD()
    h.connect_unix(path)
    return h

def read(h, size, count):
    for at in range(count):
        h.pread(size, at % 16 * size)

def write(h, size, count):
    data = bytearray(b"w" * size)
    for at in range(count):
        h.pwrite(data, at % 16 * size)

def read_64_in_flight(h, size, count):
    free = [nbd.Buffer(size) for _ in range(64)]
    flying, sent = {}, 0
    while sent < count or flying:
        while free and sent < count:
            buffer = free.pop()
            flying[h.aio_pread(buffer, sent % 16 * size)] = buffer
            sent += 1
        h.poll(-1)
        while flying:
            cookie = h.aio_peek_command_completed()
            if not cookie:
                break
            h.aio_command_completed(cookie)
            free.append(flying.pop(cookie))

def connect(path, count):
    for _ in range(count):
        connected(path).shutdown()

paths, rounds = json.loads(sys.argv[1]), int(sys.argv[2])
handles = {name: connected(path) for name, path in paths.items()}
kinds = {
    "read 4 KiB": (lambda n, k: read(handles[n], 4096, k), 1000),
    "read 1 MiB": (lambda n, k: read(handles[n], 1 << 20, k), 40),
    "write 4 KiB": (lambda n, k: write(handles[n], 4096, k), 1000),
    "write 1 MiB": (lambda n, k: write(handles[n], 1 << 20, k), 40),
    "read 4 KiB, 64 in flight": (lambda n, k: read_64_in_flight(handles[n], 4096, k), 2000),
    "connections": (lambda n, k: connect(paths[n], k), 40),
}
for kind, (work, count) in kinds.items():
    for name in paths:
        work(name, count)
    for _ in range(rounds):
        row = {}
        for name in paths:
            start = time.perf_counter()
            work(name, count)
            row[name] = count / (time.perf_counter() - start)
        print(json.dumps([kind, row]), flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cpu", type=int, default=0, help="the CPU that all share; -1 for no binding")
    arguments = parser.parse_args()
    if arguments.cpu >= 0:
        os.sched_setaffinity(0, {arguments.cpu})
    with tempfile.TemporaryDirectory(prefix="nbdt-") as folder:
        image = Path(folder, "disk")
        image.write_bytes(os.urandom(DISK))
        paths = {name: f"{folder}/{name}.sock" for name in ("nbdkit", "nbdkit-t1", *OURS)}
        rules = Path(folder, "rules.json")
        rules.write_text(json.dumps(RULES))
        serve = [sys.executable, "-m", "nbdtest", "serve", "--size", str(DISK)]
        servers = [
            subprocess.Popen(["nbdkit", "-f", "-U", paths["nbdkit"], "memory", str(DISK)]),
            subprocess.Popen(["nbdkit", "-f", "-t", "1", "-U", paths["nbdkit-t1"], "memory", str(DISK)]),
            subprocess.Popen([*serve, "--unix", paths["nbdtest"]]),
            subprocess.Popen([*serve, "--unix", paths["nbdtest-rules"], "--rules", str(rules)]),
        ]
        try:
            for path in paths.values():
                wait_for(path)
                subprocess.run(["nbdcopy", str(image), f"nbd+unix:///?socket={path}"], check=True)
            report(paths, arguments.rounds)
        finally:
            for server in servers:
                server.terminate()
                server.wait()
    return 0


def wait_for(path: str) -> None:
    for _ in range(500):
        if Path(path).exists():
            return
        time.sleep(0.01)
    raise SystemExit(f"nobody listens on {path}")


def report(paths: dict[str, str], rounds: int) -> None:
    command = ["/usr/bin/python3", "-c", CLIENT, json.dumps(paths), str(rounds)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows: dict[str, list[dict[str, float]]] = {}
    for line in told.splitlines():
        kind, row = json.loads(line)
        rows.setdefault(kind, []).append(row)
    print(f"{'':38}{'a second':>10}{'/ nbdkit':>10}{'/ -t 1':>10}")
    for kind, each in rows.items():
        for ours, addition in OURS.items():
            rate = statistics.median(row[ours] for row in each)
            default = statistics.median(row[ours] / row["nbdkit"] for row in each)
            single = statistics.median(row[ours] / row["nbdkit-t1"] for row in each)
            print(f"{kind + addition:38}{rate:10.0f}{default:10.2f}{single:10.2f}")


if __name__ == "__main__":
    sys.exit(main())
