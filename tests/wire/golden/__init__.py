"""Messages with their bytes as captured from real peers, and their line in a dump."""

from tests.wire.golden import chunks, handshake, options, transmission
from tests.wire.golden.row import Golden

__all__ = ["TABLE", "Golden"]

TABLE = (*handshake.ROWS, *options.ROWS, *transmission.ROWS, *chunks.ROWS)
