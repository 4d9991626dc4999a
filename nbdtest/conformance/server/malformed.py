"""Option data that contradict themselves. No checks: `info`, `meta` and `abuse` send them.

What comes after the name is about the target's own export: a server may look at the name first, and rightly refuses
names that it does not know.
"""

from __future__ import annotations

from nbdtest.conformance.target import ServerTarget

__all__ = ["info_requests", "meta_requests", "named"]

_NAMES = {
    "no data": b"",
    "half a name length": b"\0\0",
    "a name length beyond the data": b"\0\0\1\0" + b"x" * 16,
    "a name length of 2^32-1": b"\xff\xff\xff\xff" + b"x" * 16,
}
_INFOS = {
    "no count of infos": b"",
    "a count above the infos": b"\0\2" + b"\0\0",
    "surplus after the infos": b"\0\0" + b"surplus!",
}
_QUERIES = {
    "no count of queries": b"\0\0",
    "a count above the queries": b"\0\0\0\2" + b"\0\0\0\5base:",
    "a query length beyond the data": b"\0\0\0\1" + b"\0\0\0\xffbase:",
    "a query length of 2^32-1": b"\0\0\0\1" + b"\xff\xff\xff\xffbase:",
}


def named(t: ServerTarget, rest: bytes) -> bytes:
    """The name of the target's export as options carry it, and `rest`."""
    name = t.export.encode()
    return len(name).to_bytes(4, "big") + name + rest


def info_requests(t: ServerTarget) -> dict[str, bytes]:
    """Data of INFO and GO, by what is wrong with them."""
    return _NAMES | {what: named(t, infos) for what, infos in _INFOS.items()}


def meta_requests(t: ServerTarget) -> dict[str, bytes]:
    """Data of LIST_META_CONTEXT and SET_META_CONTEXT, by what is wrong with them."""
    return _NAMES | {what: named(t, queries) for what, queries in _QUERIES.items()}
