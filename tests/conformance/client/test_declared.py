"""The checks for clients as declarations: found once, about rules that exist, and about what a client can do."""

from __future__ import annotations

from nbdtest.conformance import coverage, each_check
from nbdtest.conformance.ability import Ability
from nbdtest.report.results import Level

CHECKS = each_check("client")

ELSEWHERE = {
    "TRN-003": "a request before the end of the handshake is no option: client-option.begins-with-magic sees it",
    "ORD-004": "which writes a FLUSH is meant to cover is not visible",
    "TLS-001": "a rule about what servers wait for",
    "TLS-002": "the client's half is TLS-052",
    "TLS-028": "the client's half is TLS-053",
    "TLS-073": "needs a server that speaks TLS 1.1, which today's OpenSSL does not",
    "SIZE-029": "needs a command that reads 32 MiB at once",
    "SIZE-037": "a hint for bulk copies, without a verdict",
    "META-005": "needs a command that asks for two contexts",
    "META-012": "a rule about the names that servers have",
    "META-014": "a rule about the names that servers have",
    "OPT-117": "what a client expects is not visible; contexts without it are META-073",
    "EXT-049": "what a client expects is not visible; wrong requests are EXT-001",
    "COMPAT-002": "a rule about what servers serve",
    "COMPAT-004": "a rule about what servers support",
    "COMPAT-008": "a rule about what servers support",
    "COMPAT-014": "advice to authors",
    "COMPAT-020": "a rule about what servers offer",
    "URI-005": "every run with a plain URI",
    "URI-009": "client-uri.unix-without-socket, for TLS as well",
    "URI-015": "needs an address beside 127.0.0.1",
    "URI-016": "needs a fixed port",
    "URI-017": "needs a command with a user name in its URI",
    "URI-018": "needs a command with a user name in its URI",
    "URI-029": "needs a command that gives a host name",
    "URI-030": "needs a command with tls-verify-peer",
    "RSZ-008": "no client resizes by itself",
    "RSZ-009": "no client resizes by itself",
    "RSZ-010": "no client resizes by itself",
    "RSZ-011": "no client resizes by itself",
}
"""Rules for clients that could be seen and have no check, and why."""
COMMANDS = {"CMD-001", "CMD-056", "CMD-070", "CMD-077", "CMD-080", "CMD-090", "CMD-100", "CMD-140"}
"""The numbers of commands: whatever is sent under another number, is another command."""


def test_every_check_is_found_once_and_proves_known_requirements() -> None:
    assert len(CHECKS) > 200
    for item in CHECKS:
        assert item.role == "client", item.id
        assert item.family.startswith("client-"), item.id
        assert item.requirements, item.id
        assert item.title.endswith("."), item.id
        assert all(isinstance(need, Ability) for need in item.needs), item.id


def test_no_id_is_a_servers() -> None:
    assert not {item.id for item in CHECKS} & {item.id for item in each_check("server")}


def test_every_rule_for_clients_that_can_be_seen_is_proved_or_explained() -> None:
    unproved = {
        row.requirement.id
        for row in coverage(CHECKS)
        if row.requirement.role in ("client", "both")
        and row.requirement.binds
        and row.requirement.visible == "yes"
        and not row.checks
    }
    assert unproved == ELSEWHERE.keys() | COMMANDS


def test_no_check_is_a_mere_permission() -> None:
    assert not [item.id for item in CHECKS if item.level is Level.MAY]


def test_a_sentence_for_everything_that_a_client_may_not_do() -> None:
    assert len({ability.value for ability in Ability}) == len(Ability)
    assert Ability.TELLS_READ_ERROR.label == "tells-read-error"
