"""What an export holds and which answers about it are legal. Pure: no I/O, no clock."""

from nbdtest.model.custom_disk import CustomDisk
from nbdtest.model.disk import DATA, HOLE, ZERO, Disk, DiskError, MemoryDisk
from nbdtest.model.intervals import IntervalMap, Run
from nbdtest.model.oracle import Verdict, judge
from nbdtest.model.situation import Objection, Situation, objection

__all__ = [
    "DATA",
    "HOLE",
    "ZERO",
    "CustomDisk",
    "Disk",
    "DiskError",
    "IntervalMap",
    "MemoryDisk",
    "Objection",
    "Run",
    "Situation",
    "Verdict",
    "judge",
    "objection",
]
