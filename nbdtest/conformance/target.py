"""A server under test: how checks open connections to it, what it can do, and whether it still lives.

Everything a check exchanges goes into the target's transcript, which begins anew with each check.
"""

from __future__ import annotations

import random

from nbdtest.conformance.capability import Capability
from nbdtest.conformance.facts import Facts, probe
from nbdtest.conformance.gallery import Gallery
from nbdtest.conformance.openings import Openings
from nbdtest.conformance.source import ServerSource
from nbdtest.conformance.verdict import NotApplicable
from nbdtest.errors import NBDTestError, PeerViolation
from nbdtest.net.clock import monotonic_s, pause
from nbdtest.report.results import TargetInfo
from nbdtest.wire import Transcript

__all__ = ["ServerTarget"]

DEFAULT_TIMEOUT_S = 5.0
DEFAULT_QUIET_S = 0.05


class ServerTarget:
    """One server, as checks see it.

    `timeout_s` limits every single wait for an answer; `quiet_s` is how long nothing has to arrive to count as silence.
    """

    def __init__(
        self,
        source: ServerSource,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        quiet_s: float = DEFAULT_QUIET_S,
        seed: int = 0,
        unknown_export: str = "nbdtest-no-such-export",
        bad_range: tuple[int, int] | None = None,
    ) -> None:
        """Test what `source` connects to.

        Args:
            unknown_export: a name that the server does not know.
            bad_range: offset and length of a stretch of the export that fails when it is read, if there is one.
        """
        self.source = source
        self.timeout_s = timeout_s
        self.quiet_s = quiet_s
        self.seed = seed
        self.export = source.export_name
        self.unknown_export = unknown_export
        self.bad_range = bad_range
        self.peer = Openings(self)
        self.transcript = Transcript()
        self.remarks: list[str] = []
        self.random = random.Random(seed)
        self._facts: Facts | None = None
        self._gallery: Gallery | None = None

    @property
    def facts(self) -> Facts:
        """What the server can do; asked once.

        Raises:
            TransportError: the server cannot be reached.
        """
        if self._facts is None:
            # In place before it is filled: what is asked after TLS was found to be insisted on, is asked under TLS.
            self._facts = Facts()
            kept, self.transcript = self.transcript, Transcript()
            try:
                probe(self, self._facts)
            except BaseException:
                self._facts = None
                raise
            finally:
                self.transcript = kept
        return self._facts

    def has(self, capability: Capability) -> bool:
        """Whether the server can do this."""
        return capability in self.facts.capabilities

    @property
    def gallery(self) -> Gallery:
        """A spread of answers for rules about form, gathered when first looked at."""
        if self._gallery is None:
            self._gallery = Gallery(self)
        return self._gallery

    @property
    def size(self) -> int:
        """The export's size in bytes."""
        return self.facts.size

    @property
    def unit(self) -> int:
        """A length that every legal request may have: 512 bytes, or the minimum block size if that is larger."""
        return max(512, self.facts.minimum_block)

    @property
    def past_end(self) -> int:
        """An offset from which a request of one unit reaches past the end; the end itself where sizes allow."""
        return self.size // self.unit * self.unit

    def place(self, length: int) -> int:
        """Choose where in the export a check works: a multiple of the unit, with one more unit on either side.

        Raises:
            NotApplicable: the export is too small.
        """
        last = (self.size - length) // self.unit - 1
        if last < 1:
            raise NotApplicable(f"the export is smaller than {length + 2 * self.unit} bytes")
        return self.random.randint(1, min(last, max((8 << 20) // self.unit, 1))) * self.unit

    @property
    def modes(self) -> tuple[str, ...]:
        """The kinds of replies that a session can have here; a rule of the transmission phase holds in each."""
        return (
            "simple",
            *(["structured"] if self.has(Capability.STRUCTURED) else []),
            *(["extended"] if self.has(Capability.EXTENDED) else []),
        )

    def begin(self, name: str) -> None:
        """Start a new transcript, and randomness that depends on the seed and on `name` alone."""
        self.peer.close_all()
        self.transcript = Transcript()
        self.remarks = []
        self.random = random.Random(f"{self.seed} {name}")
        self.peer.started_s = monotonic_s()

    def end(self) -> None:
        """Close what the check left open."""
        self.peer.close_all()

    def wait(self, seconds: float) -> None:
        """Let time pass: for the server to notice that somebody left, never to make an answer come."""
        pause(seconds)

    def remark(self, text: str) -> None:
        """Say something about a check that passes."""
        self.remarks.append(text)

    def trouble(self) -> str:
        """Ask for a plain read on a new connection, and say what was wrong with the answer, "" if nothing."""
        kept, self.transcript = self.transcript, Transcript()
        try:
            if Capability.EXPORT not in self.facts.capabilities:
                with self.peer.greeted():
                    return ""
            with self.peer.transmitting() as session:
                session.read(0, min(session.unit, session.size))
                # Who took a WRITE past the end may have grown by it: that is complained about once, not ever after.
                self.facts.size = max(self.facts.size, session.size)
        except (NBDTestError, PeerViolation) as problem:
            return str(problem) or type(problem).__name__
        finally:
            self.transcript = kept
        return ""

    def info(self) -> TargetInfo:
        """Describe the target for reports."""
        return TargetInfo(
            name=self.source.name,
            spec=self.source.spec,
            version=self.source.version,
            capabilities=tuple(sorted(capability.label for capability in self.facts.capabilities)),
        )
