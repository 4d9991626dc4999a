"""The link of two engines with TLS between them from STARTTLS on: it splits, delays and cuts the ciphertext."""

from __future__ import annotations

from nbdtest.client.constants import TLS
from nbdtest.net.tls import PSK, ServerPSK, TLSContext, TLSPipe, client_context, server_context
from tests.pairs.link import Link

__all__ = ["TLSLink", "psk_contexts"]

_KEY = bytes(range(32))


def psk_contexts() -> tuple[TLSContext, TLSContext]:
    """A client and a server that share a key."""
    return client_context(PSK(identity="tester", key=_KEY)), server_context(ServerPSK(keys={"tester": _KEY}))


class TLSLink(Link):
    """A link whose client insists on TLS; `to_server` and `to_client` hold ciphertext once that is up."""

    def __init__(self, contexts: tuple[TLSContext, TLSContext], **arguments: object) -> None:
        super().__init__(tls=TLS.REQUIRE.value, **arguments)  # type: ignore[arg-type]  # the tests name the fields
        self._contexts = contexts
        self._pipes: tuple[TLSPipe, TLSPipe] | None = None
        self._plain = bytearray(1 << 16)

    @property
    def established(self) -> bool:
        """Whether both sides have shaken hands."""
        return self._pipes is not None and all(pipe.established for pipe in self._pipes)

    def _step(self) -> bool:
        if self._pipes is None and self.client.tls_wanted and self.server.wants_tls and not self.to_client:
            client, server = self._contexts
            self._pipes = TLSPipe(client), TLSPipe(server)
            self.server.wants_tls = False
            self._pipes[0].handshake()
            return True
        if self._pipes is None:
            return super()._step()
        moved = self._from_client()
        moved |= self._to_server()
        moved |= self._from_server(self._pipes[1])
        moved |= self._to_client()
        return moved | self._ended()

    def _from_client(self) -> bool:
        if self._pipes is None:
            return super()._from_client()
        pipe = self._pipes[0]
        if pipe.established and self.client.has_output and not self.client.over:
            count = next(self._sending)
            sent = b"".join(bytes(piece) for piece in self.client.output())[:count]
            if sent:
                pipe.write(sent)
                self.client.sent(len(sent))
                self.sent_by_client += sent
        ciphertext = pipe.to_send()
        self.to_server += ciphertext
        return bool(ciphertext)

    def _to_server(self) -> bool:
        if self._pipes is None:
            return super()._to_server()
        count = min(next(self._arriving), len(self.to_server))
        if not count or not self.server.wants_bytes:
            return False
        pipe = self._pipes[1]
        pipe.feed(bytes(self.to_server[:count]))
        del self.to_server[:count]
        if pipe.handshake():
            while (got := pipe.read_into(self._plain)) > 0:
                self.server.receive(bytes(self._plain[:got]), 0.0)
        return True

    def _from_server(self, pipe: TLSPipe) -> bool:
        if pipe.established:
            for piece in self.server.data_to_send(0.0):
                pipe.write(piece)
        ciphertext = pipe.to_send()
        self.to_client += ciphertext
        return bool(ciphertext)

    def _to_client(self) -> bool:
        if self._pipes is None:
            return super()._to_client()
        count = min(next(self._answering), len(self.to_client))
        if not count or self.client.over:
            return False
        pipe = self._pipes[0]
        pipe.feed(bytes(self.to_client[:count]))
        del self.to_client[:count]
        if pipe.handshake():
            if self.client.tls_wanted:
                self.client.tls_established()
            while not self.client.over and (got := pipe.read_into(self.client.receive_space())) > 0:
                self.reached_client += got
                self.client.received(got)
        return True

    def _ended(self) -> bool:
        """Tell a side that the other has ended the connection."""
        if self.server.end is not None and not self.to_client and not self.client.over:
            self.client.received_end()
            return True
        if self.client.over and not self.to_server and not self._server_told:
            self._server_told = True
            self.server.receive_end(0.0)
            return True
        return False
