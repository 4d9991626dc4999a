"""A folder of sessions that showed something new, to start from again: now, in the next run, on another server.

One file holds one session and is written whole or not at all, under a name made of its content: several processes may
share a folder. What somebody puts there is read as well: transcripts (*.jsonl), and what one client sends (*.bin).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nbdtest.errors import UsageError
from nbdtest.fuzz.ground import Ground
from nbdtest.fuzz.script import Script, script_from_json, script_to_json
from nbdtest.fuzz.streams import script_of
from nbdtest.wire import Sender, Transcript

__all__ = ["Corpus"]


class Corpus:
    """The sessions in `folder`, which is made if need be.

    Raises:
        UsageError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scripts: list[Script] = []
        self._names: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"no corpus can be kept in {folder}: {error.strerror}") from error

    def load(self, ground: Ground, export: str) -> None:
        """Read what is there; transcripts become sessions for `export`, which is like `ground`.

        Left out are sessions that could change a disk that is not to be changed: a corpus may come from another server.

        Raises:
            UsageError: a file holds neither; the message names it.
        """
        for path in sorted(self.folder.iterdir()):
            if path.suffix in (".json", ".jsonl", ".bin"):
                try:
                    self.scripts += filter(ground.bears, _scripts_in(path, ground, export))
                except (OSError, ValueError, UsageError) as error:
                    raise UsageError(f"{path} holds no session: {error}") from error
                self._names.add(path.name)

    def refresh(self, ground: Ground, export: str) -> None:
        """Read the sessions that other processes have added meanwhile."""
        for path in sorted(self.folder.glob("*.json")):
            if path.name not in self._names:
                self._names.add(path.name)
                with suppress(OSError, ValueError, UsageError):
                    self.scripts += filter(ground.bears, _scripts_in(path, ground, export))

    def add(self, script: Script) -> None:
        """Keep a session.

        Raises:
            UsageError: it cannot be written.
        """
        text = json.dumps(script_to_json(script)) + "\n"
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if name in self._names:
            return
        self._names.add(name)
        self.scripts.append(script)
        unfinished = self.folder / f".{name}.{os.getpid()}"
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(self.folder / name)
        except OSError as error:
            raise UsageError(f"the corpus cannot be written to {self.folder}: {error.strerror}") from error


def _scripts_in(path: Path, ground: Ground, export: str) -> Iterator[Script]:
    if path.suffix == ".bin":
        streams = [path.read_bytes()]
    elif path.suffix == ".json":
        yield script_from_json(json.loads(path.read_text(encoding="utf-8")))
        return
    else:
        transcript = Transcript.from_json_lines(path.read_text(encoding="utf-8"))
        connections = sorted({record.connection for record in transcript})
        streams = [transcript.sent_by(Sender.CLIENT, connection) for connection in connections]
    for stream in streams:
        if stream and (script := script_of(stream, ground, export)) is not None:
            yield script
