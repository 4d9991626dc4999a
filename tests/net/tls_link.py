"""Two TLS pipes on a wire in memory, for the tests of TLS."""

from nbdtest.net.tls import HandshakeFailed, TLSContext, TLSPipe


class Wire:
    """A client's and a server's pipe; `step` is how many bytes arrive at a time."""

    def __init__(self, client: TLSContext, server: TLSContext, *, step: int = 1 << 20) -> None:
        self.client, self.server = TLSPipe(client), TLSPipe(server)
        self.step = step

    def carry(self, source: TLSPipe, target: TLSPipe) -> int:
        """Deliver everything that `source` has to send; `target` looks at each step as it comes while it shakes
        hands."""
        ciphertext = source.to_send()
        for start in range(0, len(ciphertext), self.step):
            target.feed(ciphertext[start : start + self.step])
            if not target.established and self.step < 1 << 20:
                target.handshake()
        return len(ciphertext)

    def shake_hands(self) -> None:
        """Go on until both are done or a side has failed, whose exception is raised."""
        while not (self.client.handshake() & self.server.handshake()):
            moved = self.carry(self.client, self.server)
            self.server.handshake()
            moved += self.carry(self.server, self.client)
            assert moved, "both wait for the other"
        self.carry(self.client, self.server)
        self.carry(self.server, self.client)

    def failures(self) -> tuple[Exception | None, Exception | None]:
        """Go on until nothing moves any more; what the client and what the server made of it. A side that fails ends
        the connection."""
        failed: dict[TLSPipe, Exception | None] = {self.client: None, self.server: None}
        buffer = bytearray(100)
        moved = True
        while moved:
            moved = False
            for pipe, other in ((self.client, self.server), (self.server, self.client)):
                if failed[pipe] is None:
                    try:
                        if pipe.handshake():
                            pipe.read_into(buffer)
                    except Exception as error:  # noqa: BLE001  # returned for the test to look at
                        failed[pipe] = error
                        moved = True
                moved |= self.carry_if_possible(pipe, other) > 0
                if isinstance(failed[pipe], HandshakeFailed) and failed[other] is None:
                    other.feed_eof()
        return failed[self.client], failed[self.server]

    def carry_if_possible(self, source: TLSPipe, target: TLSPipe) -> int:
        """Deliver to a side that may have given up."""
        ciphertext = source.to_send()
        if ciphertext:
            target.feed(ciphertext)
        return len(ciphertext)


def read(pipe: TLSPipe, limit: int = 1 << 20) -> bytes:
    """What the pipe can give now."""
    buffer = bytearray(limit)
    count = pipe.read_into(buffer)
    return bytes(buffer[:count])
