"""A client under test: a command that is run on a fresh fake server for every probe, and what was seen of it.

A client is judged by what it sent, by whether it ended in time, and by how it ended. What the command is for is not
known; what it does by itself is found out on correct servers first (`client_gallery`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from nbdtest.conformance.ability import Ability
from nbdtest.conformance.client_gallery import MODES, ClientGallery
from nbdtest.conformance.client_source import ClientSource
from nbdtest.conformance.talk import Talk, talks_in
from nbdtest.conformance.verdict import Complaint, NoAnswer, NotApplicable
from nbdtest.fakeserver import Export, FakeServer, Rule, SendRule, TLSMode
from nbdtest.fakeserver.journal import Noted
from nbdtest.model import MemoryDisk
from nbdtest.net.clock import monotonic_s
from nbdtest.net.process import Exit
from nbdtest.report.results import TargetInfo
from nbdtest.wire import Opt, Transcript

__all__ = ["SIZE", "ClientTarget", "Crash", "HarnessFault", "Seen"]

DEFAULT_TIMEOUT_S: Final = 5.0
SIZE: Final = 2 << 20
"""The size of the export, and of {file}."""
_DATA: Final = ((0, 512 << 10), (1 << 20, 256 << 10), (SIZE - (64 << 10), 64 << 10))
"""Where the export has data: position and length. The rest are holes."""
_SETTLE_S: Final = 2.0
_RETRIES: Final = 4
_PATIENCE: Final = 6.0
"""A probe may take so many times as long as the correct server did, beside the time limit."""


class Crash(Complaint):
    """The client was ended by a signal that nobody sent. That is a failure, whatever the rule is."""


class HarnessFault(Exception):
    """The fake server or a rule of a check raised an exception. Nothing is said about the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One run of the client on one server."""

    exit: Exit | None
    """How it ended; None when it had to be ended."""
    output: str
    seconds: float
    talks: tuple[Talk, ...]
    violations: tuple[Noted, ...]
    transcript: Transcript
    file: bytes
    disk: bytes
    missed: str
    """The rules of the server, if none of them came into play: nothing special has happened then."""

    @property
    def succeeded(self) -> bool:
        """Whether the client says that all went well."""
        return self.exit is not None and self.exit.status == 0

    @property
    def opened(self) -> bool:
        """Whether an export was asked for on some connection."""
        return any(talk.sent(Opt.GO) or talk.sent(Opt.EXPORT_NAME) or talk.requests for talk in self.talks)

    @property
    def ending(self) -> str:
        """How it ended, in words, with what it printed last."""
        how = "it still runs" if self.exit is None else f"it {self.exit}"
        said = self.output.strip()[-400:]
        return f"{how}, after printing {said!r}" if said else how


Change = Callable[[FakeServer], None]


class ClientTarget:
    """One client, as checks see it. `timeout_s` is how long it may take to end, beyond what it needs anyway."""

    def __init__(self, source: ClientSource, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.source = source
        self.timeout_s = timeout_s
        self.gallery = ClientGallery(self)
        self.transcript = Transcript()
        self.remarks: list[str] = []
        self._usual_s = 0.0

    @cached_property
    def disk_contents(self) -> bytes:
        """What the export holds before each run."""
        contents = bytearray(SIZE)
        some = random.Random("disk")
        for at, length in _DATA:
            contents[at : at + length] = some.randbytes(length)
        return bytes(contents)

    @cached_property
    def file_contents(self) -> bytes:
        """What {file} holds before each run."""
        some = random.Random("file")
        return some.randbytes(256 << 10) + bytes(SIZE - (512 << 10)) + some.randbytes(256 << 10)

    def has(self, ability: Ability) -> bool:
        """Whether the client does this."""
        return ability in self.gallery.abilities

    def modes(self, *wanted: str) -> tuple[str, ...]:
        """Those forms of replies (all by default) that the client agrees on when it is offered no better one."""
        agrees = {
            "simple": self.has(Ability.WORKS_SIMPLE),
            "structured": self.has(Ability.STRUCTURED),
            "extended": self.has(Ability.EXTENDED),
        }
        return tuple(mode for mode in MODES if agrees[mode] and (not wanted or mode in wanted))

    def begin(self) -> None:
        """Forget what the last check has left."""
        self.transcript = Transcript()
        self.remarks = []

    def remark(self, text: str) -> None:
        """Say something about a check that passes."""
        if text not in self.remarks:
            self.remarks.append(text)

    def observe(
        self,
        change: Change,
        *,
        export: Mapping[str, Any] | None = None,
        exports: tuple[Export, ...] = (),
        uri: Callable[[FakeServer], str] | None = None,
        flaw: str = "",
        **settings: Any,
    ) -> Seen:
        """Run the client once on a server that `change` has made special, and judge nothing.

        Args:
            export: fields of the only export that differ from the usual.
            exports: what is served in its place.
            uri: gives the URI that the client gets; by default that of the default export.
            flaw: what is wrong with the server's certificate, as `ClientSource.flawed_tls` takes it.
            settings: of the server.
        """
        fields = dict(export or {})
        disk = MemoryDisk(size := fields.pop("size", SIZE))
        for at, length in _DATA:
            if at < size:
                disk.write(at, self.disk_contents[at : min(at + length, size)])
        served = exports or (Export("", disk=disk, **fields),)
        tls = self.source.flawed_tls(flaw) if flaw else self.source.tls
        settings.setdefault("tls_mode", TLSMode.NONE if tls is None else TLSMode.SELECTIVE)
        server = FakeServer(*served, tolerate=["*"], tls=tls, **settings)
        change(server)
        started = monotonic_s()
        server.start()
        try:
            run = self.source.start(server, file=self.file_contents, uri="" if uri is None else uri(server))
            try:
                ended = run.wait(self.timeout_s + _PATIENCE * self._usual_s)
                file = run.file()
            finally:
                run.stop()
        finally:
            server.stop()
        if server.journal.problems:
            raise HarnessFault("\n".join(server.journal.problems))
        transcript = server.journal.transcript()
        if ended is not None and not self._usual_s:
            self._usual_s = monotonic_s() - started
        return Seen(
            exit=ended,
            output=run.output,
            seconds=monotonic_s() - started,
            talks=talks_in(transcript),
            violations=tuple(server.journal.violations),
            transcript=transcript,
            file=file,
            disk=bytes(served[0].disk.read(0, served[0].disk.size)),
            missed=_missed(server),
        )

    def probe(self, change: Change, *, legal: bool, proves: tuple[str, ...] = (), **settings: Any) -> Seen:
        """Run the client once, and complain of what no client may do on any server: to crash, not to end, and to break
        rules that it keeps on correct servers.

        Args:
            legal: whether the server is correct: then every rule binds the client, else those that are in `proves`.
            settings: what else `observe` takes.

        Raises:
            Complaint: it did.
            NotApplicable: the server's deed did not come about, because the client never gave occasion.
        """
        usual = len(self.gallery.seen("full").talks)
        seen = self.observe(change, **settings)
        self.transcript = seen.transcript
        if seen.exit is not None and seen.exit.signal is not None:
            raise Crash(f"the client {seen.exit}", "an orderly end")
        if seen.exit is None:
            if len(seen.talks) >= usual + _RETRIES:
                raise NotApplicable(f"the client connects again and again: {len(seen.talks)} times so far")
            raise NoAnswer(f"after {seen.seconds:.1f} s the client has not ended", "an end, well or badly")
        known = self.gallery.known_violations()
        for noted in seen.violations:
            broken = noted.violation.requirement
            if broken not in known and (legal or broken in proves):
                raise Complaint(noted.violation.text, "nothing of the kind", requirement=broken)
        if seen.missed:
            raise NotApplicable(f"the client gave no occasion for {seen.missed}")
        return seen

    def info(self) -> TargetInfo:
        """Describe the target for reports."""
        return TargetInfo(
            name=self.source.name,
            spec=self.source.spec,
            version=self.source.version,
            capabilities=tuple(sorted(ability.label for ability in self.gallery.abilities)),
        )


def _missed(server: FakeServer) -> str:
    rules: list[Rule | SendRule] = [*server.rules.rules, *server.rules.send_rules]
    return "" if any(rule.fired for rule in rules) else " or ".join(map(repr, rules))
