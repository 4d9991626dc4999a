"""A dirty bitmap, for a backup program

Contexts are part of an export: `Allocation` is base:allocation as the disk has it, `DirtyBitmap` tells what was
written, as QEMU's does, and `UserContext` is anything you like.
"""

from nbdtest.client import NBD
from nbdtest.fakeserver import Allocation, DirtyBitmap, Export, FakeServer

NAME = "qemu:dirty-bitmap:backup"


def changed_parts(uri: str) -> list[tuple[int, int]]:
    """What a backup program does: offset and length of what changed since the last backup."""
    found: list[tuple[int, int]] = []

    def note(context: str, offset: int, entries: list[int], error: object) -> int:
        for length, status in zip(entries[::2], entries[1::2], strict=True):
            if status & 1:
                found.append((offset, length))
            offset += length
        return 0

    with NBD() as client:
        client.add_meta_context(NAME)
        client.connect_uri(uri)
        client.block_status(client.get_size(), 0, note)
        client.shutdown()
    return found


def test_only_what_changed_is_saved() -> None:
    bitmap = DirtyBitmap("backup", granularity=65536)
    with FakeServer(Export(size=1 << 20, contexts=(Allocation(), bitmap))) as server:
        assert changed_parts(server.uri) == []
        with NBD() as writer:
            writer.connect_uri(server.uri)
            writer.pwrite(b"changed", 200_000)
            writer.shutdown()
        assert changed_parts(server.uri) == [(196_608, 65_536)]
        bitmap.clear()
        assert changed_parts(server.uri) == []
