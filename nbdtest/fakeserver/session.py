"""What one connection has agreed on so far. State only; who may change it when is the engine's business."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from nbdtest.fakeserver.export import Export
from nbdtest.fakeserver.rendering import Frames
from nbdtest.wire import HandshakeFlag, TransmissionFlag

__all__ = ["Phase", "Session"]


class Phase(enum.Enum):
    """Where a connection stands."""

    GREETING = "greeting"
    GREETED = "greeted"
    """The client's flags come next."""
    HAGGLING = "haggling"
    TRANSMISSION = "transmission"
    CLOSED = "closed"


@dataclass(slots=True)
class Session:
    """The state of one connection."""

    phase: Phase = Phase.GREETING
    offered: HandshakeFlag = HandshakeFlag(0)  # noqa: RUF009 - an immutable flag
    fixed: bool = False
    """Fixed newstyle was offered and taken."""
    no_zeroes: bool = False
    structured: bool = False
    extended: bool = False
    in_tls: bool = False
    contexts: dict[str, int] = field(default_factory=dict)
    """Selected contexts, name -> id, for the export in `contexts_of`."""
    contexts_of: str = ""
    export: Export | None = None
    """The export that is served; None before transmission."""
    flags: TransmissionFlag = TransmissionFlag(0)  # noqa: RUF009 - an immutable flag
    """The transmission flags of that export in this session."""
    promised_sizes: bool = False
    """The client asked for the block sizes in the GO that opened the export, and so has to obey them (SIZE-005)."""
    options: int = 0
    requests: int = 0

    @property
    def frames(self) -> Frames:
        """How replies have to be framed."""
        if self.extended:
            return Frames.EXTENDED
        return Frames.STRUCTURED if self.structured else Frames.SIMPLE

    def forget(self) -> None:
        """Drop everything that was negotiated. OPT-062: nothing survives STARTTLS."""
        self.structured = False
        self.extended = False
        self.contexts = {}
        self.contexts_of = ""
