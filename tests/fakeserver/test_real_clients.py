"""Real clients on the correct server, each doing all it can; none of them may be seen to break a rule.

Every client is run in each release that is there. Where it makes sense, nbdkit serves the same, and both runs have to
say the same.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nbdtest.fakeserver import Allocation, BlockSizes, DirtyBitmap, Export, FakeServer, Journal, Style
from nbdtest.model import MemoryDisk
from nbdtest.net.sockets import unused_tcp_port
from nbdtest.wire import Cmd, Sender
from tests.releases import RELEASES, Release, every_release

pytestmark = pytest.mark.interop

SIZE = 8 << 20


@pytest.fixture
def content() -> bytes:
    """A disk's worth of bytes with data, zeroes and holes."""
    data = os.urandom(1 << 20)
    return (data + bytes(1 << 20)) * (SIZE >> 21)


@contextmanager
def serving(*exports: Export, **settings: Any) -> Iterator[FakeServer]:
    """A server that has to see no violation at all, not even of a SHOULD that it would tolerate."""
    with FakeServer(*exports, **settings) as server:
        yield server
    assert server.journal.problems == []


@contextmanager
def nbdkit(content: bytes, folder: Path) -> Iterator[str]:
    """nbdkit with the same contents on a TCP port; gives its URI."""
    image = folder / "disk.img"
    image.write_bytes(content)
    port = unused_tcp_port()
    command = RELEASES[0].command("nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), "file", str(image))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        uri = f"nbd://127.0.0.1:{port}"
        try:
            script = "import nbd, sys, time\nfor _ in range(500):\n try: nbd.NBD().connect_uri(sys.argv[1]); break\n"
            RELEASES[0].output("python3", "-c", script + " except nbd.Error: time.sleep(0.01)", uri)
            yield uri
        finally:
            process.terminate()


def filled(content: bytes, **fields: Any) -> Export:
    disk = MemoryDisk(len(content))
    block = 64 << 10
    for at in range(0, len(content), block):
        if any(part := content[at : at + block]):
            disk.write(at, part)
    return Export(disk=disk, **fields)


def commands(journal: Journal) -> set[Cmd]:
    """The commands that clients have sent."""
    told = [record.summary for record in journal.transcript() if record.sender is Sender.CLIENT]
    return {Cmd[found[1]] for line in told if (found := re.search(r"type=CMD_(\w+)", line))}


# Seen with QEMU 10.0: extended WRITEs come without CMD_FLAG_PAYLOAD_LEN, but with their data.
QEMU_FORGETS_PAYLOAD_LEN = ["EXT-005"]
# Seen with fio 3.33: its nbd engine drops the connection without CMD_DISC.
FIO_JUST_LEAVES = ["TERM-042"]


def uses_extended_headers(journal: Journal) -> bool:
    return any("ExtendedRequest" in record.summary for record in journal.transcript())


LIBNBD = textwrap.dedent(
    """
    import json, nbd, sys
    uri, told = sys.argv[1], {}
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.set_request_block_size(True) if hasattr(h, "set_request_block_size") else None
    h.connect_uri(uri)
    told["size"] = h.get_size()
    told["structured"] = h.get_structured_replies_negotiated()
    told["read-only"] = h.is_read_only()
    told["can"] = [h.can_flush(), h.can_fua(), h.can_trim(), h.can_zero(), h.can_df(), h.can_multi_conn()]
    told["head"] = h.pread(4096, 0).hex()
    h.pwrite(b"libnbd" * 1000, 1 << 20)
    told["written"] = h.pread(6000, 1 << 20).hex()
    h.pwrite(b"fua", 4096, nbd.CMD_FLAG_FUA)
    h.zero(65536, 2 << 20)
    h.zero(65536, 3 << 20, nbd.CMD_FLAG_NO_HOLE)
    h.trim(65536, 4 << 20)
    h.flush()
    told["zeroed"] = [h.pread(65536, at << 20) == bytes(65536) for at in (2, 3)]
    whole = []
    h.pread_structured(65536, 0, lambda part, offset, status, error: whole.append(len(part)), nbd.CMD_FLAG_DF)
    told["df"] = whole
    extents = []
    h.block_status(h.get_size(), 0, lambda name, offset, entries, error: extents.extend(entries[::2]))
    told["covered"] = 0 < sum(extents) <= h.get_size()
    one = []
    h.block_status(65536, 0, lambda name, offset, entries, error: one.extend(entries), nbd.CMD_FLAG_REQ_ONE)
    told["one"] = len(one)
    chunks = []
    h.pread_structured(1 << 20, 0, lambda part, offset, status, error: chunks.append(len(part)))
    told["chunks"] = sum(chunks)
    if h.can_cache():
        h.cache(65536, 0)
    buffers = [nbd.Buffer(4096) for _ in range(64)]
    cookies = [h.aio_pread(buffer, at * 4096) for at, buffer in enumerate(buffers)]
    while cookies:
        h.poll(-1)
        cookies = [cookie for cookie in cookies if not h.aio_command_completed(cookie)]
    h.shutdown()
    print(json.dumps(told))
    """
)


@every_release
def test_libnbd_gets_the_same_from_us_and_from_nbdkit(release: Release, content: bytes, tmp_path: Path) -> None:
    with serving(filled(content)) as server:
        ours = json.loads(release.output("python3", "-c", LIBNBD, server.tcp_uri))
    with nbdkit(content, tmp_path) as uri:
        theirs = json.loads(release.output("python3", "-c", LIBNBD, uri))
    assert ours == theirs
    assert ours["size"] == SIZE
    assert commands(server.journal) >= set(Cmd) - {Cmd.RESIZE}
    assert uses_extended_headers(server.journal) == (release.name == "trixie")


@every_release
@pytest.mark.parametrize(
    "settings",
    [
        {"style": Style.OLDSTYLE},
        {"style": Style.NEWSTYLE},
        {"style": Style.NEWSTYLE, "no_zeroes": False},
        {"info_and_go": False},
        {"structured_replies": False, "extended_headers": False},
        {"extended_headers": False},
        {"meta_contexts": False},
    ],
    ids=lambda settings: "-".join(settings) + ("" if "style" not in settings else f"-{settings['style']}"),
)
def test_libnbd_understands_every_older_server(release: Release, settings: dict[str, Any], content: bytes) -> None:
    script = "import nbd, sys; h = nbd.NBD(); h.connect_uri(sys.argv[1]); print(h.pread(512, 512).hex()); h.shutdown()"
    with serving(filled(content), **settings) as server:
        assert release.output("python3", "-c", script, server.tcp_uri).strip() == content[512:1024].hex()


@every_release
def test_nbdinfo(release: Release) -> None:
    bitmap = DirtyBitmap("b0")
    contexts = (Allocation(), bitmap)
    first = Export("first", size=SIZE, description="the first", contexts=contexts, block_sizes=BlockSizes(minimum=512))
    with serving(first, Export("second", size=1 << 41, read_only=True, rotational=True)) as server:
        first.disk.write(0, bytes(65536))
        bitmap.written(0, 65536)
        port = server.port
        told = json.loads(release.output("nbdinfo", "--json", f"nbd://127.0.0.1:{port}/first"))["exports"][0]
        assert told["description"] == "the first"
        assert told["contexts"] == ["base:allocation", "qemu:dirty-bitmap:b0"]
        assert told["block_minimum" if "block_minimum" in told else "block_size_minimum"] == 512
        names = [
            each["export-name"]
            for each in json.loads(release.output("nbdinfo", "--list", "--json", server.tcp_uri))["exports"]
        ]
        assert names == ["first", "second"]
        second = f"nbd://127.0.0.1:{port}/second"
        assert release.output("nbdinfo", "--size", second).strip() == str(1 << 41)
        release.output("nbdinfo", "--is", "rotational", second)
        release.output("nbdinfo", "--is", "read-only", second)
        lines = release.output("nbdinfo", "--map", f"nbd://127.0.0.1:{port}/first").splitlines()
        assert [line.split()[:3] for line in lines] == [["0", "65536", "0"], ["65536", str(SIZE - 65536), "3"]]
        dirty = release.output("nbdinfo", "--map=qemu:dirty-bitmap:b0", f"nbd://127.0.0.1:{port}/first").splitlines()
        assert [line.split()[:3] for line in dirty] == [["0", "65536", "1"], ["65536", str(SIZE - 65536), "0"]]


@every_release
def test_nbdcopy_there_and_back(release: Release, content: bytes) -> None:
    folder = Path(release.root or "/", "tmp", f"nbdt-copy-{os.getpid()}")
    folder.mkdir()
    try:
        (folder / "in").write_bytes(content)
        inside = f"/tmp/{folder.name}"
        with serving(Export(size=SIZE)) as server:
            release.output("nbdcopy", "--connections=4", f"{inside}/in", server.tcp_uri)
            assert server.disk.read(0, SIZE) == content
            release.output("nbdcopy", "--requests=16", server.tcp_uri, f"{inside}/out")
            assert (folder / "out").read_bytes() == content
            release.output("nbdcopy", "--synchronous", server.tcp_uri, "null:")
    finally:
        shutil.rmtree(folder)


QEMU_IO = [
    "read -v 0 64",
    "write -P 0x11 1M 128k",
    "read -P 0x11 1M 128k",
    "write -f -P 0x22 2M 4k",
    "read -P 0x22 2M 4k",
    "write -z 1M 64k",
    "read -P 0 1M 64k",
    "write -z -u 1088k 64k",
    "read -P 0 1088k 64k",
    "writev -P 0x33 3M 512 1024 4096",
    "readv -P 0x33 3M 512 1024 4096",
    "aio_write -P 0x44 4M 1M",
    "aio_flush",
    "aio_read -P 0x44 4M 1M",
    "aio_flush",
    "discard 5M 1M",
    "flush",
    "length",
    "read 8M 512",
]


def without_times(told: str) -> list[str]:
    return [line for line in told.splitlines() if "ops/sec" not in line]


@every_release
def test_qemu_io_says_the_same_of_us_and_of_nbdkit(release: Release, content: bytes, tmp_path: Path) -> None:
    words = ["qemu-io", "-f", "raw", *(word for each in QEMU_IO for word in ("-c", each))]
    with serving(filled(content), tolerate=QEMU_FORGETS_PAYLOAD_LEN) as server:
        ours = without_times(release.output(*words, server.tcp_uri, status=1))
    with nbdkit(content, tmp_path) as uri:
        theirs = without_times(release.output(*words, uri, status=1))
    assert ours == theirs
    assert commands(server.journal) >= {Cmd.READ, Cmd.WRITE, Cmd.WRITE_ZEROES, Cmd.TRIM, Cmd.FLUSH, Cmd.DISC}
    assert uses_extended_headers(server.journal) == (release.name == "trixie")


@every_release
def test_qemu_img(release: Release, content: bytes) -> None:
    with serving(filled(content)) as server, serving(Export(size=SIZE), tolerate=QEMU_FORGETS_PAYLOAD_LEN) as copy:
        assert json.loads(release.output("qemu-img", "info", "--output=json", server.tcp_uri))["virtual-size"] == SIZE
        told = json.loads(release.output("qemu-img", "map", "-f", "raw", "--output=json", server.tcp_uri))
        assert [(each["start"], each["length"], each["zero"]) for each in told] == [
            (at << 20, 1 << 20, at % 2 == 1) for at in range(SIZE >> 20)
        ]
        release.output("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", server.tcp_uri, copy.tcp_uri)
        assert copy.disk.read(0, SIZE) == content
        release.output("qemu-img", "compare", "-f", "raw", "-F", "raw", server.tcp_uri, copy.tcp_uri)
        release.output("qemu-img", "bench", "-f", "raw", "-c", "500", "-d", "16", "-s", "4096", server.tcp_uri)


@every_release
def test_qemu_img_reads_a_dirty_bitmap(release: Release) -> None:
    bitmap = DirtyBitmap("b0")
    with serving(Export("disk", size=SIZE, contexts=(Allocation(), bitmap))) as server:
        bitmap.written(1 << 20, 65536)
        options = f"driver=nbd,host=127.0.0.1,port={server.port},export=disk,x-dirty-bitmap=qemu:dirty-bitmap:b0"
        told = json.loads(release.output("qemu-img", "map", "--image-opts", "--output=json", options))
        # What is dirty is shown as not present, by this debugging aid of QEMU.
        assert [(each["start"], each["length"]) for each in told if not each["data"]] == [(1 << 20, 65536)]


def test_fio_verifies_what_it_wrote() -> None:
    with serving(Export(size=SIZE), tolerate=FIO_JUST_LEAVES) as server:
        told = RELEASES[0].output(
            "fio",
            *("--name=job", "--ioengine=nbd", f"--uri={server.uri}", f"--size={SIZE}", "--rw=randrw"),
            *("--bs=4k", "--iodepth=16", "--verify=crc32c", "--verify_state_save=0", "--output-format=json"),
        )
        # Some versions print a line of their own before the report.
        assert json.loads(told[told.index("{") :])["jobs"][0]["error"] == 0


@every_release
def test_nbd_client_lists(release: Release) -> None:
    with serving(Export("one", size=512), Export("two", size=512, description="second")) as server:
        told = release.output("nbd-client", "-l", "127.0.0.1", str(server.port))
        assert re.findall(r"^(?:one|two)", told, re.MULTILINE) == ["one", "two"]
