"""Our client engine and our fake server's engine, joined by two pipes in memory that split, delay and cut.

No sockets, no threads and no clock: what happens depends on nothing but the engines and the paces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from nbdtest.client.commands import Command
from nbdtest.client.engine import Engine as Client
from nbdtest.client.settings import Settings as ClientSettings
from nbdtest.fakeserver.engine import Engine as Server
from nbdtest.fakeserver.export import Export, Settings
from nbdtest.fakeserver.journal import Journal
from nbdtest.fakeserver.rules import RuleBook

__all__ = ["Link", "paces"]

WHOLE = 1 << 30


def paces() -> st.SearchStrategy[list[int]]:
    """Generate how many bytes go on at each turn, for ever again; 0 is a turn in which that pipe rests."""
    ragged = st.lists(st.sampled_from([0, 1, 2, 3, 7, 15, 16, 27, 28, 100, 4096, WHOLE]), min_size=1, max_size=9)
    return st.one_of(st.just([WHOLE]), st.just([1]), ragged.filter(any))


class Link:
    """The two engines and the bytes between them. `cut_after` bytes to the client, the connection ends."""

    def __init__(
        self,
        *exports: Export,
        pace: Sequence[int] = (WHOLE,),
        cut_after: int | None = None,
        server: Settings | None = None,
        rules: RuleBook | None = None,
        **client: object,
    ) -> None:
        self.log: list[str] = []
        self.journal = Journal()
        settings = ClientSettings("pair", debug=True, **client)  # type: ignore[arg-type]  # the tests name the fields
        self.client = Client(settings, self.log.append)
        self.server = Server(server or Settings(exports=exports), rules or RuleBook(), self.journal)
        self.to_server = bytearray()
        self.to_client = bytearray()
        self.sent_by_client = bytearray()
        self.reached_client = 0
        # Each pipe has its own turns, or two of them could take all the resting ones for ever.
        self._sending, self._arriving, self._answering = (itertools.cycle(pace) for _ in range(3))
        self._cut_after = cut_after
        self._server_told = False

    def connect(self) -> Link:
        """Hold the handshake."""
        self.server.start(0.0)
        self.client.start()
        return self.run()

    def do(self, *commands: Command) -> Link:
        """Let the client send `commands` and wait for what comes of them."""
        for command in commands:
            self.client.submit(command)
        return self.run()

    def option(self, make: Callable[[Client], object]) -> Link:
        """Hold one option's dialogue in option mode."""
        self.client.begin_option(make(self.client), None)  # type: ignore[arg-type]  # a dialogue of the client
        return self.run()

    def run(self) -> Link:
        """Move bytes until none are left to be moved."""
        resting = 0
        while resting < 64:
            moved = self._step()
            resting = 0 if moved else resting + 1
        return self

    def feed(self, data: bytes) -> None:
        """Give the client bytes as if they came from the server."""
        self.to_client += data
        while self.to_client and not self.client.over:
            self._to_client()

    def _step(self) -> bool:
        moved = self._from_client()
        moved |= self._to_server()
        for piece in self.server.data_to_send(0.0):
            self.to_client += piece
            moved = True
        moved |= self._to_client()
        if self.server.end is not None and not self.to_client and not self.client.over:
            self.client.received_end()
            moved = True
        client_ended = self.client.over or (self.client.half_close_wanted and not self.client.has_output)
        if client_ended and not self.to_server and not self._server_told:
            self._server_told = True
            self.server.receive_end(0.0)
            moved = True
        return moved

    def _from_client(self) -> bool:
        if self.client.over or not self.client.has_output:
            return False
        wanted = next(self._sending)
        sent = bytearray()
        for piece in self.client.output():
            sent += memoryview(piece)[: wanted - len(sent)]
            if len(sent) == wanted:
                break
        if not sent:
            return False
        self.client.sent(len(sent))
        self.to_server += sent
        self.sent_by_client += sent
        return True

    def _to_server(self) -> bool:
        count = min(next(self._arriving), len(self.to_server))
        if not count or not self.server.wants_bytes:
            return False
        self.server.receive(bytes(self.to_server[:count]), 0.0)
        del self.to_server[:count]
        return True

    def _to_client(self) -> bool:
        if self.client.over or not self.to_client:
            return False
        space = self.client.receive_space()
        count = min(next(self._answering), len(self.to_client), len(space))
        if self._cut_after is not None:
            count = min(count, self._cut_after - self.reached_client)
        if count:
            space[:count] = self.to_client[:count]
            del self.to_client[:count]
            self.reached_client += count
            self.client.received(count)
        if self._cut_after == self.reached_client and not self.client.over:
            self.client.received_end()
            return True
        return bool(count)
