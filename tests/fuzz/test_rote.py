"""A handshake that is known is repeated without a judge, and judged from the beginning once an answer is another."""

from __future__ import annotations

import pytest

from nbdtest.conformance.peer import Peer
from nbdtest.conformance.session import Session
from nbdtest.conformance.target import ServerTarget
from nbdtest.fixtures.parsing import parse_server
from nbdtest.fixtures.sources import open_source
from nbdtest.fuzz.commands import Command
from nbdtest.fuzz.player import Player
from nbdtest.fuzz.rote import Resumed, Rote
from nbdtest.fuzz.script import Mode, Opening, Script, Send
from nbdtest.net.sockets import stream_pair
from nbdtest.net.stream import SocketStream
from nbdtest.wire import Cmd, Record, Sender, Transcript, TransmissionFlag


def rote_of(*exchanged: tuple[Sender, bytes], stream: SocketStream) -> Rote:
    session = Session(Peer(stream, Transcript()), size=512, flags=TransmissionFlag.HAS_FLAGS)
    return Rote(session, [Record(sender=sender, data=data) for sender, data in exchanged])


TALK = (
    (Sender.SERVER, b"hello"),
    (Sender.CLIENT, b"fl"),
    (Sender.CLIENT, b"ags"),
    (Sender.SERVER, b"ack"),
    (Sender.SERVER, b"!"),
)


def test_the_same_answers_are_passed_over() -> None:
    ours, theirs = stream_pair()
    with ours, theirs:
        theirs.send_all(b"helloack!")
        assert rote_of(*TALK, stream=ours).repeat(ours) is None
        assert theirs.receive_exact(5) == b"flags"


@pytest.mark.parametrize(
    ("answers", "sent"),
    [(b"howdyack!", b""), (b"helloerr", b"flags"), (b"helloerror?", b"flags"), (b"he", b""), (b"", b"")],
    ids=["at once", "shorter", "longer", "ends", "nothing"],
)
def test_another_answer_comes_again_and_nothing_is_sent_twice(answers: bytes, sent: bytes) -> None:
    ours, theirs = stream_pair()
    with theirs:
        theirs.send_all(answers)
        theirs.half_close()
        resumed = rote_of(*TALK, stream=ours).repeat(ours)
        assert isinstance(resumed, Resumed)
        with resumed:
            assert resumed.receive_to_end() == answers
            resumed.send_all(b"fl")
            resumed.send_all(b"ag", b"s and more")
            resumed.half_close()
            assert theirs.receive_to_end() == b"flags and more"


@pytest.mark.parametrize("mode", Mode)
def test_a_player_takes_up_a_handshake_whose_answers_have_changed(mode: Mode) -> None:
    script = Script(
        openings=(Opening(mode=mode, contexts=mode is not Mode.SIMPLE),),
        steps=(Send(commands=(Command(type=Cmd.WRITE, length=512, seed=1), Command(type=Cmd.READ, length=512))),),
    )
    source = open_source(parse_server("builtin"), allow_writes=False)
    try:
        player = Player(ServerTarget(source))
        assert player.play(script) is None
        (rote,) = player._rotes.values()
        assert player.play(script) is None  # as ever
        assert list(player._rotes.values()) == [rote]
        question, answer = rote._turns[-1]
        rote._turns[-1] = question, answer[:-1] + b"?"
        assert player.play(script) is None  # another answer than the one that is remembered, and a good one
        assert rote not in player._rotes.values()
        assert player.coverage.played[Cmd.READ] == 3
    finally:
        source.close()
