"""Exports to decode sessions for, without a server."""

from nbdtest.fuzz.ground import Ground
from nbdtest.fuzz.script import Mode
from nbdtest.wire import TransmissionFlag

__all__ = ["ALIGNED", "EVERYTHING", "READ_ONLY", "SMALL", "UNTOUCHABLE"]

ALL = TransmissionFlag(0x0FFF) & ~TransmissionFlag.READ_ONLY
MODES = (Mode.SIMPLE, Mode.STRUCTURED, Mode.EXTENDED)

EVERYTHING = Ground(size=64 << 20, flags=ALL, modes=MODES, contexts=True, by_export_name=True, writable=True)
ALIGNED = Ground(size=64 << 20, flags=ALL, unit=4096, maximum=1 << 20, modes=MODES, contexts=True, writable=True)
READ_ONLY = Ground(size=1 << 20, flags=ALL | TransmissionFlag.READ_ONLY, modes=MODES, contexts=True)
UNTOUCHABLE = Ground(size=1 << 20, flags=ALL, modes=MODES, contexts=True)
"""Writable, but not by us."""
SMALL = Ground(size=512, flags=ALL, writable=True)
