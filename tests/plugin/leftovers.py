"""What a run leaves behind: processes that inherited its environment, and entries of its temporary directory."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from nbdtest.net.clock import Deadline, pause

PATIENCE_S = 20.0


class Watch:
    """An environment for a run, by which everything that comes of it is recognised."""

    def __init__(self, folder: Path) -> None:
        self._mark = f"NBDTEST_WATCHED_RUN={secrets.token_hex(8)}"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()

    def environment(self) -> Mapping[str, str]:
        """What the run has to be started with."""
        name, _, value = self._mark.partition("=")
        return {**os.environ, name: value, "TMPDIR": str(self._temporary)}

    def left(self) -> list[str]:
        """What is still there once everything has had time to go."""
        deadline = Deadline(PATIENCE_S)
        while (found := self._processes() + self._files()) and not deadline.expired:
            pause(0.02)
        return found

    def _processes(self) -> list[str]:
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and self._marked(entry):
                command = Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"process {entry}: {command}")
        return found

    def _marked(self, pid: str) -> bool:
        try:
            return self._mark.encode() in Path("/proc", pid, "environ").read_bytes()
        except OSError:
            return False

    def _files(self) -> list[str]:
        return [f"file {path.name}" for path in self._temporary.iterdir() if path.name.startswith("nbdt-")]
