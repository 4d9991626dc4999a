"""Scripts: a function plays the server on one connection, on negotiated or on raw messages."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from nbdtest.errors import Disconnected, UsageError
from nbdtest.fakeserver import (
    FakeServer,
    Peer,
    Phase,
    VerificationFailed,
    ack,
    cut,
    data,
    drip,
    error,
    greeting,
    hold,
    hole,
    info_export,
    mangle,
    no_data,
    pass_through,
    raw,
    release,
    simple,
)
from nbdtest.fakeserver.script import ReceivedRequest
from nbdtest.model import MemoryDisk
from nbdtest.wire import (
    ClientFlags,
    Cmd,
    Errno,
    HandshakeFlag,
    InfoRequest,
    NewstyleGreeting,
    Opt,
    Option,
    OptionReply,
    Rep,
    Request,
    SimpleReply,
)
from tests.fakeserver.wire_client import WireClient

CONTENT = bytes(range(256)) * 64


def server() -> FakeServer:
    return FakeServer(disk=MemoryDisk(len(CONTENT), CONTENT))


def connected(to: FakeServer) -> WireClient:
    return WireClient(to.connect())


def test_answers_in_another_order_and_one_that_nobody_asked_for() -> None:
    with server() as fake:

        @fake.script
        def answers_a_cookie_nobody_sent(peer: Peer) -> None:
            peer.negotiate()
            first, second = peer.requests(2)
            peer.send(second.ok(), SimpleReply(cookie=0xDEAD), first.error(Errno.EPERM))
            peer.cut(rst=True)

        client = connected(fake).open()
        first, second = client.request(Cmd.READ, 0, 4), client.request(Cmd.READ, 256, 4)
        assert client.reply(4) == (SimpleReply(cookie=second), CONTENT[256:260])
        assert client.reply()[0].cookie == 0xDEAD
        assert client.reply()[0] == SimpleReply(cookie=first, error=Errno.EPERM)
        assert client.rest() == b""
        client.socket.close()


def test_requests_are_what_was_asked() -> None:
    seen: list[tuple[Cmd, int, int, bytes]] = []
    with server() as fake:

        @fake.script
        def looks(peer: Peer) -> None:
            request = peer.request()
            seen.append((request.type, request.offset, request.length, request.payload))
            peer.send(request.ok())
            assert peer.request().type == Cmd.DISC

        client = connected(fake).open()
        client.write(512, b"hello")
        client.leave()
    assert seen == [(Cmd.WRITE, 512, 5, b"hello")]
    assert fake.disk.read(512, 5) == CONTENT[512:517]


def test_parts_of_replies_interleave() -> None:
    with server() as fake:

        @fake.script
        def interleaves(peer: Peer) -> None:
            one, two = peer.requests(2)
            peer.send(one.chunks(data(length=2)), two.chunks(data(length=2)))
            peer.send(two.reply(hole(at=258, length=2)), one.reply(error(Errno.EIO, at=3)))

        client = connected(fake).greet()
        assert client.option(Opt.STRUCTURED_REPLY)[-1].type == Rep.ACK
        client.option(Opt.GO, InfoRequest().encode())
        client.request(Cmd.READ, 0, 4)
        client.request(Cmd.READ, 256, 4)
        flags_and_cookies = []
        for _ in range(4):
            head = client.take(20)
            client.take(int.from_bytes(head[16:20], "big"))
            flags_and_cookies.append((head[5], head[15]))
        assert flags_and_cookies == [(0, 1), (0, 2), (1, 2), (1, 1)]
        client.socket.close()


def test_options_one_by_one() -> None:
    with server() as fake:

        @fake.script
        def haggles(peer: Peer) -> None:
            option = peer.option()
            assert option.option.option == Opt.LIST
            peer.send(option.reply(mangle(ack(), option=77)))
            peer.option().answer_correctly()
            go = peer.option()
            peer.send(go.reply(info_export(size=1)))
            go.answer_correctly()
            peer.serve()

        client = connected(fake).greet()
        client.say(b"IHAVEOPT", (3).to_bytes(4, "big"), bytes(4))
        assert OptionReply.decode(client.take(20)).option == 77
        assert client.option(Opt.STRUCTURED_REPLY)[-1].type == Rep.ACK
        assert [reply.type for reply in client.option(Opt.GO, InfoRequest().encode())] == [Rep.INFO, Rep.INFO, Rep.ACK]
        client.leave()


def test_raw_bytes_and_messages() -> None:
    with server() as fake:

        @fake.script
        def speaks_itself(peer: Peer) -> None:
            peer.send(NewstyleGreeting(), b"?")
            assert peer.receive_message(ClientFlags) == ClientFlags()
            assert peer.receive(3) == b"abc"
            assert peer.wait_for_end() == b"rest"

        client = connected(fake)
        assert client.take(19).endswith(b"?")
        client.say(ClientFlags(), b"abc", b"rest")
        client.socket.close()


def test_a_handshake_by_hand_and_understanding_from_then_on() -> None:
    with server() as fake:

        @fake.script
        def greets_itself(peer: Peer) -> None:
            peer.send(NewstyleGreeting(flags=HandshakeFlag.FIXED_NEWSTYLE))
            peer.receive_message(ClientFlags)
            peer.resume(Phase.HAGGLING)
            assert peer.option().option.option == Opt.GO
            peer.send(OptionReply(option=Opt.GO, type=Rep.ACK))
            peer.resume(Phase.TRANSMISSION, structured=True, contexts={"base:allocation": 5})
            request = peer.request()
            assert (request.type, request.asked.contexts) == (Cmd.READ, {"base:allocation": 5})
            peer.send(request.reply(simple()))
            peer.serve()

        client = connected(fake)
        client.take(18)
        client.say(ClientFlags(), Option(option=Opt.GO, data=InfoRequest().encode()))
        assert OptionReply.decode(client.take(20)).type == Rep.ACK
        client.request(Cmd.READ, 0, 4)
        assert client.reply()[0].error == Errno.OK
        client.leave()
        assert all(record.time_s >= 0 for record in fake.journal.transcript())


def test_only_what_a_client_says_can_be_resumed() -> None:
    with server() as fake:
        ended = threading.Event()

        @fake.script
        def tries(peer: Peer) -> None:
            with pytest.raises(UsageError, match=r"takes Phase\.GREETED, HAGGLING or TRANSMISSION"):
                peer.resume(Phase.CLOSED)
            ended.set()

        client = connected(fake)
        assert client.rest() == b""
        assert ended.wait(10)
        client.socket.close()


def test_after_a_script_the_next_connection_is_served() -> None:
    with server() as fake:
        fake.script(lambda peer: peer.cut())
        with connected(fake) as client:
            assert client.rest() == b""
        connected(fake).open().leave()


def test_serving_correctly_after_one_lie() -> None:
    with server() as fake:

        @fake.script
        def lies_once(peer: Peer) -> None:
            peer.send(peer.request().error(Errno.EIO))
            peer.serve()

        client = connected(fake).open()
        client.request(Cmd.READ, 0, 4)
        assert client.reply()[0].error == Errno.EIO
        assert client.read(0, 4) == CONTENT[:4]
        client.leave()


def test_actions_about_time_and_ends() -> None:
    with server() as fake:

        @fake.script
        def drips_and_cuts(peer: Peer) -> None:
            request = peer.request()
            peer.send(request.reply(drip(every_s=0.0001), no_data()))
            peer.send(cut(after=9), request.ok())

        client = connected(fake).open()
        client.request(Cmd.FLUSH)
        assert len(client.rest()) == 25
        client.socket.close()


def test_requests_may_be_answered_correctly() -> None:
    with server() as fake:

        @fake.script
        def lies_about_the_second(peer: Peer) -> None:
            peer.request().answer_correctly()
            peer.send(peer.request().error(Errno.EIO))
            peer.request().answer_correctly()
            last = peer.request()
            assert last.type == Cmd.DISC
            last.answer_correctly()

        client = connected(fake).open()
        client.write(0, b"kept")
        client.request(Cmd.READ, 0, 4)
        assert client.reply()[0].error == Errno.EIO
        assert client.read(0, 4) == b"kept"
        client.leave()
        assert fake.disk.read(0, 4) == b"kept"


class TestReleases:
    def test_what_a_script_releases_is_held_elsewhere(self) -> None:
        with server() as fake:
            fake.script(lambda peer: peer.send(release("gate")))
            fake.on(Cmd.READ).reply(hold("gate"), pass_through())
            script = connected(fake)
            client = connected(fake).open()
            client.request(Cmd.READ, 0, 4)
            assert client.reply(4)[1] == CONTENT[:4]
            client.leave()
            script.socket.close()

    def test_what_a_script_holds_is_released_elsewhere(self) -> None:
        with server() as fake:
            held = threading.Event()

            @fake.script
            def holds(peer: Peer) -> None:
                peer.send(peer.request().reply(hold("gate"), data()))
                held.set()
                assert peer.request().type == Cmd.DISC

            fake.on(Cmd.FLUSH).pass_through().then(release("gate"))
            script = connected(fake).open()
            script.request(Cmd.READ, 0, 4)
            assert held.wait(10)
            client = connected(fake).open()
            client.request(Cmd.FLUSH)
            assert client.reply()[0].error == Errno.OK
            assert script.reply(4)[1] == CONTENT[:4]
            client.leave()
            script.leave()

    def test_the_test_itself_releases(self) -> None:
        with server() as fake:

            @fake.script
            def holds(peer: Peer) -> None:
                peer.send(peer.request().reply(hold("gate"), data()))
                assert peer.request().type == Cmd.DISC

            fake.release("gate")
            script = connected(fake).open()
            script.request(Cmd.READ, 0, 4)
            assert script.reply(4)[1] == CONTENT[:4]
            script.leave()
        fake.release("gate")  # nobody is left to hear of it


def test_raw_bytes_and_greetings_are_sent_by_themselves() -> None:
    with server() as fake:

        @fake.script
        def greets_oddly(peer: Peer) -> None:
            peer.send(raw(b"220 "), greeting(), bytearray(b"!"), mangle(raw(b"abc"), keep=1))

        client = connected(fake)
        greeted = NewstyleGreeting(flags=HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES).encode()
        assert client.rest() == b"220 " + greeted + b"!a"
        client.socket.close()


@pytest.mark.parametrize(
    ("send", "told"),
    [
        (lambda peer, asked: peer.send(data()), "no part of what is sent by itself"),
        (
            lambda peer, asked: peer.send("text"),
            "send.. takes prepared replies, .*, not .text.",
        ),
        (lambda peer, asked: asked.reply(ack()), "no part of a reply to CMD_READ"),
        (lambda peer, asked: asked.chunks(info_export()), "no part of a reply to CMD_READ"),
        (lambda peer, asked: asked.reply(pass_through()), "a script calls answer_correctly"),
        (lambda peer, asked: asked.error("EIO"), "errno takes Errno, not 'EIO'"),
    ],
)
def test_what_cannot_be_sent_is_refused(send: Callable[[Peer, ReceivedRequest], object], told: str) -> None:
    with server() as fake:
        ended = threading.Event()

        @fake.script
        def tries(peer: Peer) -> None:
            with pytest.raises(UsageError, match=told):
                send(peer, peer.request())
            ended.set()

        client = connected(fake).open()
        client.request(Cmd.READ, 0, 4)
        assert client.rest() == b""
        assert ended.wait(10)
        client.socket.close()


class TestVerification:
    def test_an_exception(self) -> None:
        fake = server()

        @fake.script
        def breaks(peer: Peer) -> None:
            raise ZeroDivisionError("in a script")

        with connected(fake) as client:
            assert client.rest() == b""
        fake.stop()
        with pytest.raises(VerificationFailed, match=r"script breaks, connection 1:\n(.*\n)*.*ZeroDivisionError"):
            fake.verify()

    def test_no_connection(self) -> None:
        fake = server()
        fake.script(breaks_nothing)
        fake.stop()
        with pytest.raises(VerificationFailed, match="no connection came for the script breaks_nothing"):
            fake.verify()

    def test_a_client_that_leaves_early_is_an_exception(self) -> None:
        fake = server()
        waiting = threading.Event()

        @fake.script
        def waits(peer: Peer) -> None:
            peer.negotiate()
            waiting.set()
            peer.requests(2)

        client = connected(fake).open()
        client.request(Cmd.READ, 0, 4)
        assert waiting.wait(10)
        client.socket.close()
        for thread, _ in list(fake._running):
            thread.join(10)
        fake.stop()
        with pytest.raises(VerificationFailed, match="while request 2 of 2 was expected"):
            fake.verify()

    def test_a_waiting_script_ends_with_the_server(self) -> None:
        with server() as fake:

            @fake.script
            def waits(peer: Peer) -> None:
                peer.pause(1000)

            client = connected(fake)
        assert client.rest() == b""
        client.socket.close()

    def test_violations_are_recognised_as_usual(self) -> None:
        fake = server()

        @fake.script
        def looks(peer: Peer) -> None:
            peer.send(peer.request().error(Errno.EINVAL))

        client = connected(fake).open()
        client.say(Request(type=Cmd.READ, cookie=1, offset=1 << 40, length=1))
        client.rest()
        client.socket.close()
        fake.stop()
        assert [each.violation.requirement for each in fake.journal.violations] == ["SIZE-038"]


def breaks_nothing(peer: Peer) -> None:
    raise Disconnected("never called")
