"""What a server should hold and answer: disks, and which replies are legal for a request on them. Pure."""

from nbdtest.model.custom_disk import CustomDisk
from nbdtest.model.disk import DATA, HOLE, ZERO, Disk, DiskError, MemoryDisk
from nbdtest.model.intervals import IntervalMap, Run

__all__ = ["DATA", "HOLE", "ZERO", "CustomDisk", "Disk", "DiskError", "IntervalMap", "MemoryDisk", "Run"]
