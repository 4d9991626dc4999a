"""Checks for clients, one module per theme."""

THEMES: tuple[str, ...] = (
    "sessions",
    "handshake_rules",
    "request_rules",
    "greeting",
    "options",
    "framing",
    "infos",
    "contexts",
    "replies",
    "chunks",
    "reading",
    "status",
    "disconnect",
    "delivery",
    "cuts",
    "uris",
    "tls",
)
"""The modules in the order of the suite."""
