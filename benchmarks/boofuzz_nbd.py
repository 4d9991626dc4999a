"""boofuzz doing what `benchmarks.fuzzing` compares with: a fresh connection, a handshake, one mutated request.

Run by `python -m benchmarks.fuzzing --boofuzz-python PYTHON` with a Python that has boofuzz; it needs nothing else. It
prints how many requests it sent, and how many seconds and seconds of CPU that took. Everything that boofuzz can go
without is switched off: sleeps, the web interface, logs and the database file; and its log does not see the handshake.
"""

import struct
import sys
import time

from boofuzz import (
    Bytes,
    DWord,
    QWord,
    Request,
    Session,
    Target,
    UnixSocketConnection,
    Word,
)

GREETING_BYTES = 18
CLIENT_FLAGS = struct.pack(">I", 3)
GO = struct.pack(">QIIIHHH", 0x49484156454F5054, 7, 10, 0, 2, 0, 3)
REPLY = struct.Struct(">QIII")
ACK = 1


def shake_hands(target, fuzz_data_logger, session, *_, **__):
    connection = target._target_connection
    receive(connection, GREETING_BYTES)
    connection.send(CLIENT_FLAGS)
    connection.send(GO)
    kind = 0
    while kind != ACK:
        _, _, kind, length = REPLY.unpack(receive(connection, REPLY.size))
        receive(connection, length)


def receive(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("the server hung up")
        data += part
    return data


def main(path, count):
    request = Request(
        "request",
        children=(
            DWord("magic", 0x25609513, endian=">"),
            Word("flags", 0, endian=">"),
            Word("type", 0, endian=">"),
            QWord("cookie", 1, endian=">"),
            QWord("offset", 0, endian=">"),
            DWord("length", 512, endian=">"),
            Bytes("rest", b""),
        ),
    )
    session = Session(
        target=Target(connection=UnixSocketConnection(path)),
        sleep_time=0,
        web_port=None,
        keep_web_open=False,
        fuzz_loggers=[],
        fuzz_db_keep_only_n_pass_cases=1,
        db_filename=":memory:",
        pre_send_callbacks=[shake_hands],
        receive_data_after_each_request=False,
        ignore_connection_reset=True,
        ignore_connection_aborted=True,
        index_end=count,
    )
    session.connect(request)
    wall, cpu = time.perf_counter(), time.process_time()
    session.fuzz()
    print(session.num_cases_actually_fuzzed, time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
