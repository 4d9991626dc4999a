"""The states of a connection, by the names that `connection_state` prints, and the groups by which calls are
permitted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nbdtest.client.constants import AIO_DIRECTION

__all__ = [
    "ALL_STATES",
    "BOTH",
    "CLOSED",
    "CONNECTING",
    "CONNECTING_TCP",
    "CONNECTING_TO",
    "DEAD",
    "NEGOTIATING",
    "NOT_OVER",
    "OLDSTYLE",
    "OPTION_STATES",
    "READING",
    "READY",
    "RECEIVING_FLAGS",
    "RECEIVING_MAGIC",
    "SENDING_ABORT",
    "SENDING_FIRST",
    "SENDING_FLAGS",
    "SENDING_PAYLOAD",
    "SENDING_REQUEST",
    "START",
    "TLS_READING",
    "TLS_WRITING",
    "WRITING",
    "Group",
    "OptionStates",
    "State",
    "permission_denied",
]


class Group(enum.IntFlag):
    """What a call may demand of the state. The order is the one in which messages enumerate them."""

    CREATED = 1 << 0
    CONNECTING = 1 << 1
    NEGOTIATING = 1 << 2
    CONNECTED = 1 << 3
    CLOSED = 1 << 4
    DEAD = 1 << 5
    ANY = 0x3F


_PHRASES = {
    Group.CREATED: "newly created",
    Group.CONNECTING: "connecting",
    Group.NEGOTIATING: "negotiating",
    Group.CONNECTED: "connected with the server",
    Group.CLOSED: "shut down",
    Group.DEAD: "dead",
}


# Plain integers, like the states' bits: Python's flags are slow, and these are tested often.
CONNECTING = Group.CONNECTING.value
NOT_OVER = (Group.ANY & ~(Group.CLOSED | Group.DEAD)).value
READING = AIO_DIRECTION.READ.value
WRITING = AIO_DIRECTION.WRITE.value
BOTH = AIO_DIRECTION.BOTH.value


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A state in which a handle can rest, its group as one bit, and which readiness of the socket lets it go on."""

    name: str
    comment: str
    bit: int
    direction: int = 0

    def __str__(self) -> str:
        return f"{self.name}: {self.comment}"


START = State("START", "Handle after being initially created", Group.CREATED.value)
NEGOTIATING = State("NEGOTIATING", "Connection is ready to negotiate an NBD option", Group.NEGOTIATING.value)
READY = State("READY", "Connection is ready to process NBD commands", Group.CONNECTED.value, READING)
CLOSED = State("CLOSED", "Connection is closed", Group.CLOSED.value)
DEAD = State("DEAD", "Connection is in an unrecoverable error state, can only be closed", Group.DEAD.value)


def _reading(name: str, comment: str) -> State:
    return State(name, comment, Group.CONNECTING.value, READING)


def _writing(name: str, comment: str) -> State:
    return State(name, comment, Group.CONNECTING.value, WRITING)


def _issuing(name: str, comment: str) -> State:
    return State(name, comment, Group.CONNECTED.value, BOTH)


CONNECTING_TO = _writing("CONNECT.CONNECTING", "Connecting to the remote server")
CONNECTING_TCP = _writing("CONNECT_TCP.CONNECTING", "Connecting to the remote server over a TCP socket")
RECEIVING_MAGIC = _reading("MAGIC.RECV_MAGIC", "Receive initial magic identification from remote")
OLDSTYLE = _reading("OLDSTYLE.RECV_REMAINING", "Receive remainder of oldstyle header")
RECEIVING_FLAGS = _reading("NEWSTYLE.RECV_GFLAGS", "Receive newstyle gflags from remote")
SENDING_FLAGS = _writing("NEWSTYLE.SEND_CFLAGS", "Send newstyle client flags to remote")
SENDING_ABORT = _writing("NEWSTYLE.SEND_OPT_ABORT", "Send NBD_OPT_ABORT to end negotiation")
TLS_READING = _reading("NEWSTYLE.OPT_STARTTLS.TLS_HANDSHAKE_READ", "TLS handshake (reading)")
TLS_WRITING = _writing("NEWSTYLE.OPT_STARTTLS.TLS_HANDSHAKE_WRITE", "TLS handshake (writing)")
SENDING_REQUEST = _issuing("ISSUE_COMMAND.SEND_REQUEST", "Sending a request to the remote server")
SENDING_PAYLOAD = _issuing("ISSUE_COMMAND.SEND_WRITE_PAYLOAD", "Sending the write payload to the remote server")


@dataclass(frozen=True, slots=True)
class OptionStates:
    """The three places where the dialogue about one option can rest."""

    send: State
    receive: State
    receive_payload: State


def _option(group: str, option: str) -> OptionStates:
    name = f"NEWSTYLE.{group}"
    return OptionStates(
        send=_writing(f"{name}.SEND", f"Send newstyle NBD_{option}"),
        receive=_reading(f"{name}.RECV_REPLY", f"Receive newstyle NBD_{option} reply"),
        receive_payload=_reading(f"{name}.RECV_REPLY_PAYLOAD", f"Receive newstyle NBD_{option} reply payload"),
    )


OPTION_STATES: dict[str, OptionStates] = {
    name: _option(name, option)
    for name, option in (
        ("OPT_STARTTLS", "OPT_STARTTLS"),
        ("OPT_EXTENDED_HEADERS", "OPT_EXTENDED_HEADERS"),
        ("OPT_STRUCTURED_REPLY", "OPT_STRUCTURED_REPLY"),
        ("OPT_META_CONTEXT", "OPT_SET_META_CONTEXT"),
        ("OPT_GO", "OPT_GO"),
        ("OPT_EXPORT_NAME", "OPT_EXPORT_NAME"),
        ("OPT_LIST", "OPT_LIST"),
        ("OPT_OTHER", "OPT_OTHER"),
    )
}
"""The states by the name of the state group."""

SENDING_FIRST = {three.receive: three.send for three in OPTION_STATES.values()}
"""What a connection that rests in one of these states shows as long as the option is not gone."""

ALL_STATES: tuple[State, ...] = (
    START,
    CONNECTING_TO,
    CONNECTING_TCP,
    RECEIVING_MAGIC,
    OLDSTYLE,
    RECEIVING_FLAGS,
    SENDING_FLAGS,
    *(state for three in OPTION_STATES.values() for state in (three.send, three.receive, three.receive_payload)),
    TLS_READING,
    TLS_WRITING,
    SENDING_ABORT,
    NEGOTIATING,
    READY,
    SENDING_REQUEST,
    SENDING_PAYLOAD,
    CLOSED,
    DEAD,
)


def permission_denied(state: State, permitted: Group) -> str:
    """Say that a call is not permitted in `state`, and in which it is."""
    phrases = [phrase for group, phrase in _PHRASES.items() if group in permitted]
    return f"invalid state: {state.name}: the handle must be {', or '.join(phrases)}"
