"""Actions as values: they print as the code that makes them, and go to JSON and back."""

from __future__ import annotations

import json

import pytest

from nbdtest import fakeserver
from nbdtest.errors import UsageError
from nbdtest.fakeserver import actions as a
from nbdtest.fakeserver.actions import ACTIONS, Action, action_from_json, action_to_json
from nbdtest.fakeserver.damage import mangle
from nbdtest.wire import Errno, HandshakeFlag, Info, Opt, Rep, ReplyFlag, ReplyType, TransmissionFlag, numbers

EXAMPLES: list[Action] = [
    a.data(),
    a.data(at=8192, length=4096),
    a.data(content=b"abc", done=False),
    a.hole(at=0, length=512, done=True),
    a.error(Errno.EIO),
    a.error(Errno(1234), at=4096, message="bad sector"),
    a.status("base:allocation", (4096, 0), (4096, 3)),
    a.status(7, (1, 1), done=False),
    a.no_data(),
    a.chunk(ReplyType(0x99), b"\x00\x01", flags=ReplyFlag.DONE),
    a.simple(),
    a.simple(Errno.EPERM, content=b"x", cookie=5),
    a.raw(b"\xff\x00"),
    a.ack(),
    a.opt_error(Rep.ERR_POLICY, "no"),
    a.opt_reply(Rep(0x7777), b"data", option=Opt.LIST),
    a.info_export(size=4096, flags=TransmissionFlag.HAS_FLAGS | TransmissionFlag.READ_ONLY),
    a.info_name("x"),
    a.info_description(),
    a.info_block_size(minimum=1, preferred=4096, maximum=65536),
    a.info_other(Info(9), b"\0"),
    a.server_export("name", "words"),
    a.meta_context("base:allocation", id=3),
    a.export_reply(size=1, flags=TransmissionFlag(1 << 14), padded=True),
    a.greeting(flags=HandshakeFlag.FIXED_NEWSTYLE),
    a.oldstyle_greeting(size=512),
    a.pass_through(),
    a.pause(0.5),
    a.stall(),
    a.drip(every_s=0.01),
    a.hold("first"),
    a.release("first"),
    a.cut(after=7, rst=True),
    a.close(),
    mangle(a.ack(), magic=0x12345678),
    mangle(mangle(a.data(at=0), payload=b"zz"), flip=3, keep=-1, append=b"more", insert=(4, b"i"), overwrite=(0, b"o")),
]

every_example = pytest.mark.parametrize("action", EXAMPLES, ids=repr)


@every_example
def test_it_prints_as_the_code_that_makes_it(action: Action) -> None:
    names = {**vars(numbers), **vars(fakeserver), "mangle": mangle}
    assert eval(repr(action), names) == action


@every_example
def test_it_goes_to_json_and_back(action: Action) -> None:
    saved = json.dumps(action_to_json(action))
    assert action_from_json(json.loads(saved)) == action


@every_example
def test_it_is_a_value(action: Action) -> None:
    assert hash(action) == hash(action_from_json(action_to_json(action)))


def test_every_action_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(ACTIONS.values())


@pytest.mark.parametrize(
    "row",
    [{}, {"action": "explode"}, {"action": "pause"}, {"action": "ack", "size": 1}, {"action": "raw", "data": {"x": 1}}],
)
def test_what_is_no_action_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="no action"):
        action_from_json(row)
