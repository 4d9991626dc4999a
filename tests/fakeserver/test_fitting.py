"""Mistakes in rules, scripts and servers: told where they are made, in words that help."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from nbdtest.errors import UsageError
from nbdtest.fakeserver import (
    Export,
    FakeServer,
    Moment,
    RuleBook,
    ack,
    chunk,
    cut,
    data,
    drip,
    error,
    greeting,
    hole,
    mangle,
    no_data,
    opt_error,
    pause,
    raw,
    simple,
    status,
)
from nbdtest.wire import Cmd, Errno, Opt, Rep, ReplyType, SimpleReply


def on(trigger: Any = Cmd.READ, **arguments: Any) -> Any:
    return RuleBook().on(trigger, **arguments)


RULES: dict[str, tuple[Callable[[], object], str]] = {
    "a trigger by name": (lambda: on("READ"), "takes a Cmd, an Opt or a Moment, such as Cmd.READ, not 'READ'"),
    "a trigger by number": (lambda: on(0), "takes a Cmd, an Opt or a Moment"),
    "an option reply as trigger": (lambda: on(Rep.ACK), "not Rep.ACK"),
    "nth as text": (lambda: on(nth="2"), "nth='2': a number is needed"),
    "never": (lambda: on(times=0), "times=0: counting begins at 1"),
    "connection 0": (lambda: on(connection=0), "connection=0: counting begins at 1"),
    "where misspelt": (lambda: on(where={"ofset": 1}), "'ofset': CMD_READ as it is received has .*offset"),
    "where of an option misspelt": (lambda: on(Opt.GO, where={"export": ""}), "OPT_GO .*has data, infos, name, option"),
    "where of a moment misspelt": (lambda: on(Moment.CLIENT_FLAGS, where={"x": 1}), "CLIENT_FLAGS .*has flags"),
    "where as text": (lambda: on(where="x"), "a function or a mapping"),
    "text for an action": (lambda: on().reply("x"), "an action is expected, not 'x'"),
    "bytes for an action": (lambda: on().reply(b"x"), r"not b'x': write raw\(...\)"),
    "a list for its actions": (lambda: on().reply([data()]), "one by one"),
    "a class for an action": (lambda: on().reply(data), r"write data\(\)"),
    "an option reply to a command": (lambda: on().reply(ack()), r"ack\(\) is no part of an answer to CMD_READ: .*data"),
    "a chunk to an option": (lambda: on(Opt.GO).reply(data()), r"no part of an answer to OPT_GO: .*info_export\(\)"),
    "a greeting to a command": (lambda: on().reply(greeting()), "no part"),
    "a chunk at a moment": (lambda: on(Moment.CONNECT).reply(data()), "no part of an answer to Moment.CONNECT"),
    "a mangled chunk to an option": (lambda: on(Opt.GO).reply(mangle(data(), flip=1)), "no part"),
    "afterwards": (lambda: on().then(5), "an action is expected"),
    "no function": (lambda: on().rewrite(5), "takes a function"),
    "mangled time": (lambda: on().reply(mangle(pause(1), flip=1)), r"pause\(1\) sends nothing"),
    "mangled text": (lambda: on().reply(mangle("x", flip=1)), "an action is expected"),
    "a position as text": (lambda: on().reply(data(at="0")), r"data\(\): at takes int or None, not '0'"),  # type: ignore[arg-type] # it is wrong
    "content as text": (lambda: on().reply(data(content="x")), r"content takes bytes or None, not 'x'"),  # type: ignore[arg-type] # it is wrong
    "an errno as text": (lambda: on().reply(error("EIO")), r"error\(\): errno takes Errno, not 'EIO'"),  # type: ignore[arg-type] # it is wrong
    "an errno for a reply type": (lambda: on(Opt.GO).reply(opt_error(Errno.EIO)), "type takes Rep, not Errno.EIO"),  # type: ignore[arg-type] # it is wrong
    "a negative length": (lambda: on().reply(hole(length=-1)), r"hole\(\): length cannot be negative"),
    "a negative cut": (lambda: on().then(cut(after=-1)), "cannot be negative"),
    "a negative pause": (lambda: on().then(pause(-1)), "seconds takes float, not -1"),
    "a negative drip": (lambda: on().then(drip(every_s=-1.0)), "every_s takes float, not -1.0"),
    "text as raw bytes": (lambda: on().reply(raw("x")), r"raw\(\): data takes bytes, not 'x'"),  # type: ignore[arg-type] # it is wrong
    "an extent that is none": (lambda: status("base:allocation", 4096), r"pairs \(length, status\), not 4096"),  # type: ignore[arg-type] # it is wrong
    "a message by name": (lambda: RuleBook().on_send("x"), "a class of messages, such as SimpleReply, not 'x'"),  # type: ignore[arg-type] # it is wrong
    "a message's attribute": (lambda: RuleBook().on_send(SimpleReply, where={"x": 1}), "a SimpleReply has cookie, err"),
    "a message's field": (lambda: RuleBook().on_send(SimpleReply).mangle(x=1), "a SimpleReply has magic, error, cook"),
}


@pytest.mark.parametrize(("make", "told"), RULES.values(), ids=RULES)
def test_a_rule_that_makes_no_sense_is_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make()


def test_what_a_function_makes_up_is_looked_at_too() -> None:
    rule = on().rewrite(lambda asked, correct: [ack()])
    with pytest.raises(UsageError, match="no part of an answer to CMD_READ"):
        rule.answer(None, ())


def test_plain_numbers_and_bytes_become_what_is_wanted() -> None:
    rule = on().reply(error(errno.EIO), chunk(0x99, bytearray(b"x")), simple(1))  # type: ignore[arg-type] # that is it
    assert rule.plan == (error(Errno.EIO), chunk(ReplyType(0x99), b"x"), simple(Errno.EPERM))
    assert repr(rule).startswith("on(Cmd.READ).reply(error(Errno.EIO), chunk(ReplyType(0x99), b'x'), simple(")


def test_what_fits_everywhere() -> None:
    for trigger in (Cmd.READ, Opt.GO, *Moment):
        on(trigger).reply(raw(b"x"), mangle(raw(b"x"), flip=0), pause(0), drip()).then(cut(after=1))
    on(Cmd.FLUSH).reply(mangle(mangle(no_data(), cookie=1), keep=-1))


class _NoDisk:
    size = 1

    def read(self, offset: int, length: int) -> bytes:
        return bytes(length)


SERVERS: dict[str, tuple[Callable[[Any], object], str]] = {
    "a size for an export": (lambda make: make(512), r"takes exports, such as Export\('name', size=512\), not 512"),
    "a size as text": (lambda make: make(size="1M"), "size='1M': a number of bytes"),
    "a fraction": (lambda make: make(size=1e6), "size=1000000.0: a number of bytes"),
    "a negative size": (lambda make: make(size=-1), "size=-1"),
    "a disk beside exports": (lambda make: make(Export(), disk=_NoDisk()), "give each Export its own"),
    "an export's field beside exports": (lambda make: make(Export(), read_only=True), "read_only= are for the default"),
    "a path": (lambda make: make(disk="/etc/passwd"), r"disk=FileDisk\('/etc/passwd'\)"),
    "bytes": (lambda make: make(disk=b"x"), r"disk=MemoryDisk\(size, content\)"),
    "a style that is none": (lambda make: make(style="x"), "style='x': there are 'fixed', 'newstyle', 'oldstyle'"),
    "no truth": (lambda make: make(no_zeroes="yes"), "no_zeroes='yes': True or False"),
    "an unknown setting": (lambda make: make(sizes=5), "there is no setting sizes=; there are exports, style"),
    "an unknown quirk": (lambda make: make(quirks={"x"}), "'x'"),
    "no requirement": (lambda make: make(tolerate="SIZE"), "'SIZE' is no requirement id"),
    "an export's field": (lambda make: make().configure(read_only=True), r"Export\(read_only=...\)"),
    "an unknown field": (lambda make: make().change_exports(x=1), "an Export has no x"),
    "a script that is none": (lambda make: make().script(5), "a function that takes a Peer"),
    "a path to listen at": (lambda make: make().listen("/tmp/x"), "takes a UnixAddress"),
    "a list of requirements": (lambda make: make().tolerate(["SIZE-038"]), "is no requirement id"),
    "a name that is none": (lambda make: make(name=None), "an export's name is a string"),
    "a context by name": (lambda make: make(contexts=("base:allocation",)), "'base:allocation' is no context"),
    "sizes in a tuple": (lambda make: make(block_sizes=(1, 2, 3)), r"block_sizes=BlockSizes\(minimum"),
}


@pytest.mark.parametrize(("use", "told"), SERVERS.values(), ids=SERVERS)
def test_a_server_that_makes_no_sense_is_refused(use: Callable[[Any], object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        use(FakeServer)


def test_the_default_export_takes_its_fields_from_the_server() -> None:
    server = FakeServer(size=512, read_only=True, description="small")
    (export,) = server.settings.exports
    assert (export.disk.size, export.read_only, export.description) == (512, True, "small")


def test_styles_may_be_given_by_their_values() -> None:
    server = FakeServer(style="oldstyle", tls_mode="none", tolerate="SIZE-038")
    assert server.settings == FakeServer(style=server.settings.style, exports=server.settings.exports).settings
    assert server.tolerated == {"SIZE-038"}
