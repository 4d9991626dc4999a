"""GnuTLS priority strings, as far as OpenSSL can honour them: the range of protocol versions.

libnbd's `set_tls_priority` takes such a string. Versions can be chosen here, cipher suites cannot (Python has no call
for those of TLS 1.3), so a string that asks for one is refused rather than half obeyed.
"""

import re
from dataclasses import dataclass
from ssl import TLSVersion

from nbdtest.errors import UsageError

__all__ = ["VersionRange", "parse_priority"]

_LEVELS = frozenset(
    {"NORMAL", "PERFORMANCE", "PFS", "SECURE128"}
)  # OpenSSL's security level 2 and our suites are within all of these
_PSK_EXCHANGES = frozenset({"ECDHE-PSK", "DHE-PSK", "PSK"})
_VERSIONS = {"VERS-TLS1.2": TLSVersion.TLSv1_2, "VERS-TLS1.3": TLSVersion.TLSv1_3}
_OLD_VERSION = re.compile(r"VERS-(SSL3\.0|TLS1\.[01]|DTLS.*)")
_ALL_VERSIONS = frozenset({"VERS-ALL", "VERS-TLS-ALL"})


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The oldest and newest version of TLS to accept. Nothing older than 1.2 can be asked for."""

    minimum: TLSVersion = TLSVersion.TLSv1_2
    maximum: TLSVersion = TLSVersion.TLSv1_3

    def __post_init__(self) -> None:
        if not TLSVersion.TLSv1_2 <= self.minimum <= self.maximum <= TLSVersion.TLSv1_3:
            raise UsageError(
                f"TLS versions from {self.minimum.name} to {self.maximum.name}: possible are TLSv1_2 and TLSv1_3"
            )


def parse_priority(text: str) -> VersionRange:
    """The versions that a priority string such as "NORMAL:-VERS-TLS1.3" or "NORMAL:-VERS-ALL:+VERS-TLS1.2" allows.

    A level (NORMAL, PERFORMANCE, PFS, SECURE128) and additional PSK key exchanges say what is done here anyway.

    Raises:
        UsageError: the string asks for what OpenSSL cannot be told, or leaves no version.
    """
    first, *rest = text.split(":")
    allowed = set(_VERSIONS.values())
    if first not in _LEVELS:
        raise _cannot(text, first)
    for token in rest:
        sign, name = token[:1], token[1:]
        if sign not in ("+", "-", "!"):
            raise _cannot(text, token)
        add = sign == "+"
        if name in _VERSIONS:
            allowed = allowed | {_VERSIONS[name]} if add else allowed - {_VERSIONS[name]}
        elif name in _ALL_VERSIONS:
            allowed = set(_VERSIONS.values()) if add else set()
        elif not (add and name in _PSK_EXCHANGES) and not (not add and _OLD_VERSION.fullmatch(name)):
            raise _cannot(text, token)
    if not allowed:
        raise UsageError(f"TLS priority {text!r} leaves no version of TLS")
    return VersionRange(min(allowed), max(allowed))


def _cannot(text: str, token: str) -> UsageError:
    return UsageError(
        f"TLS priority {text!r}: {token!r} cannot be honoured with OpenSSL; what can: one of "
        f"{', '.join(sorted(_LEVELS))}, then any of -VERS-ALL, +VERS-TLS1.2, +VERS-TLS1.3, -VERS-TLS1.2, -VERS-TLS1.3"
    )
