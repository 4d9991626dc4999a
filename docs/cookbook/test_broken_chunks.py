"""Chunks that overlap, leave gaps, lie outside, or never end

A table of replies that no correct server sends. What a client makes of each is its own business, as long as it does not
call any of them a success.
"""

import pytest

from nbdtest.client import NBD, Error
from nbdtest.fakeserver import Action, FakeServer, chunk, close, data, error, hole, mangle, no_data, simple
from nbdtest.wire import Cmd, Errno, ReplyFlag, ReplyType

BROKEN: dict[str, list[Action]] = {
    "gap": [data(at=0, length=100), data(at=200, length=312)],
    "overlap": [data(at=0, length=300), data(at=200, length=312)],
    "outside": [data(at=512, length=512)],
    "nothing": [no_data()],
    "hole outside": [hole(at=512, length=512), data(at=0, length=512)],
    "unknown type": [chunk(ReplyType(0x99), b"?", flags=ReplyFlag.DONE)],
    "missing DONE": [data(done=False), close()],
    "error without error": [mangle(error(Errno.EIO), error=0)],
    "message longer than its chunk": [mangle(error(Errno.EIO, message="short"), message_length=4000)],
    "simple reply": [simple(content=bytes(512))],
    "cookie that nobody sent": [mangle(data(), cookie=0xDEAD), close()],
    "wrong magic": [mangle(data(), magic=0x12345678)],
}


@pytest.mark.parametrize("plan", BROKEN.values(), ids=BROKEN)
def test_a_broken_reply_is_no_success(fake_nbd_server: FakeServer, plan: list[Action]) -> None:
    fake_nbd_server.on(Cmd.READ).reply(*plan)
    with NBD() as client:
        client.connect_uri(fake_nbd_server.uri)
        with pytest.raises(Error):
            client.pread(512, 0)
