"""Hypothesis strategies for the NBD protocol, for tests of any client or server.

Single messages come from the layouts (`messages`, `any_message`); the rest knows what makes sense together:
`legal_commands` and `commands` for an export, `legal_dialogues` and `option_dialogues` for a handshake, `read_replies`
and `faulty_read_replies` for the answer to a READ, `status_replies` for that to a BLOCK_STATUS, `exports`,
`misbehaviours` and `scripts` for the fake server, and `sessions` for what the fuzzer plays.

    from hypothesis import given
    from nbdtest.fuzz.strategies import messages
    from nbdtest.wire import Request

    @given(messages(Request))
    def test_my_parser_survives(request):
        my_parser(request.encode())
"""

from nbdtest.fuzz.strategies.codec import any_message, message_classes, messages, numbers
from nbdtest.fuzz.strategies.commands import Command, commands, legal_commands, pattern
from nbdtest.fuzz.strategies.dialogues import legal_dialogues, option_dialogues, options
from nbdtest.fuzz.strategies.exports import Misbehaviour, actions, block_sizes, exports, misbehaviours, scripts
from nbdtest.fuzz.strategies.replies import (
    Fault,
    Reply,
    error_replies,
    faulty_read_replies,
    interleaved,
    read_replies,
    status_replies,
)
from nbdtest.fuzz.strategies.sessions import sessions

__all__ = [
    "Command",
    "Fault",
    "Misbehaviour",
    "Reply",
    "actions",
    "any_message",
    "block_sizes",
    "commands",
    "error_replies",
    "exports",
    "faulty_read_replies",
    "interleaved",
    "legal_commands",
    "legal_dialogues",
    "message_classes",
    "messages",
    "misbehaviours",
    "numbers",
    "option_dialogues",
    "options",
    "pattern",
    "read_replies",
    "scripts",
    "sessions",
    "status_replies",
]
